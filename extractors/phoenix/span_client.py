"""Spans: found, read, counted and sent.

Measured with Phoenix 20.26: spans come cheapest by `POST /v1/spans` (its span-query language)
selecting whole attribute roots. That query knows no events: only the page of whole spans shows them, which
takes as long again, so it is asked for the few spans whose attributes hold no messages.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple
from urllib.parse import quote

from extractors.phoenix.http import PhoenixAnswer, PhoenixError, PhoenixHttp
from extractors.phoenix.project import Project, query_project
from extractors.phoenix.spans import (
    ATTRIBUTE_ROOTS,
    LLM_PATHS,
    LLM_ROOTS,
    Span,
    SpanFilter,
    add_events,
    lacks_messages,
    matches,
)

LIGHT_COLUMNS = ("name", "span_kind", "status_code", "parent_id", "start_time", "context.trace_id")
SUBJECT_COLUMNS = {"context.trace_id": "context.trace_id", "start_time": "start_time"}
SPANS_A_CALL = 500
EVENTS_A_CALL = 100
"""Spans whose events are read in one call: more ids would not fit the 8 KB of a proxy's longest URL."""
PAGE = 500
"""Spans of one page of the tail; Phoenix takes about half a second to write it."""
EVERYTHING = 10_000_000
"""A limit above any project: without one Phoenix silently stops at 1000 rows."""
WIDEST_SLICES = 12
NARROWEST_SLICE = timedelta(days=30)


class WrongCondition(PhoenixError):
    """A condition that Phoenix's span-query language does not accept."""


class Arrival(NamedTuple):
    """A span in the order in which Phoenix committed it."""

    cursor: str
    span_id: str
    trace_id: str


class Subject(NamedTuple):
    """A span, trace or session that was found: those with feedback, or those that fulfil a condition."""

    id: str
    day: date
    """UTC day on which it began."""
    trace_ids: tuple[str, ...]


def build_condition(spans: SpanFilter) -> str:
    """Return `spans` as a condition in Phoenix's span-query language, as far as that can express it."""
    kind = f"span_kind == {spans.kind.upper()!r}"
    if spans.kind.upper() == "LLM":
        # Tracers that drop attributes drop the kind first.
        signs = [*sorted(LLM_ROOTS), *LLM_PATHS]
        traced = " or ".join(f"attributes{_build_key(sign)} is not None" for sign in signs)
        kind = f"({kind} or (span_kind == 'UNKNOWN' and ({traced})))"
    name = f" and name == {spans.name!r}" if spans.name else ""
    condition = f" and ({spans.condition})" if spans.condition else ""
    return f"{kind}{name}{condition}"


def _build_key(path: str) -> str:
    return "".join(f"[{key!r}]" for key in path.split("."))


def build_span_url(phoenix_url: str, span_id: str) -> str:
    """Return the address of Phoenix's page of a span."""
    return f"{phoenix_url}/redirects/spans/{quote(span_id, safe='')}"


class SpanClient:
    """The spans of one Phoenix. Every method raises PhoenixError; times are aware UTC."""

    def __init__(self, http: PhoenixHttp) -> None:
        self._http = http

    def count(
        self,
        project: Project,
        condition: str | None = None,
        window: tuple[datetime, datetime] | None = None,
    ) -> int:
        """Count the project's spans: all, those that fulfil `condition`, or begin in `window` [start, end).

        Raises WrongCondition.
        """
        if condition:
            self.check_condition(project, condition)
        query = (
            "query($id:ID!,$c:String,$t:TimeRange){node(id:$id){... on Project{"
            "recordCount(filterCondition:$c,timeRange:$t)}}}"
        )
        times = {"start": window[0].isoformat(), "end": window[1].isoformat()} if window else None
        return int(query_project(self._http, project, query, c=condition, t=times)["recordCount"])

    def check_condition(self, project: Project, condition: str) -> None:
        """Let Phoenix parse `condition`. Raises WrongCondition where it does not parse.

        An unknown name in it is no error to Phoenix: it is an attribute that no span has.
        """
        query = (
            "query($id:ID!,$c:String!){node(id:$id){... on Project{"
            "validateSpanFilterCondition(condition:$c){isValid errorMessage}}}}"
        )
        verdict = query_project(self._http, project, query, c=condition)["validateSpanFilterCondition"]
        if not verdict["isValid"]:
            raise WrongCondition(f"Phoenix refuses the condition {condition!r}: {verdict['errorMessage']}")

    def find_newest(self, project: Project) -> Arrival | None:
        """Return the span that was committed last; None in an empty project."""
        page = self._read_page(project, {"sort": "id", "order": "desc", "limit": 1})
        return page[0] if page else None

    def list_arrivals(self, project: Project, cursor: str) -> list[Arrival]:
        """List at most `PAGE` spans in the order of their commits, from `cursor` on, inclusive."""
        return self._read_page(project, {"sort": "id", "order": "asc", "limit": PAGE, "cursor": cursor})

    def read_traces(self, project: Project, trace_ids: Collection[str]) -> list[Span]:
        """Read all spans of these traces, without attributes and not yet `selected`.

        A span without a session of its own has that of its trace.
        """
        if not trace_ids:
            return []
        columns = {column: column for column in LIGHT_COLUMNS} | {"session": "attributes['session']"}
        rows = self.query(project, f"trace_id in {sorted(trace_ids)!r}", columns)
        sessions = {row["context.trace_id"]: found for row in rows if (found := _session_id(row)) is not None}
        return [_to_span(row, _session_id(row) or sessions.get(row["context.trace_id"])) for row in rows]

    def read_attributes(
        self,
        project: Project,
        spans: Collection[Span],
        roots: Collection[str],
        condition: str | None = None,
    ) -> dict[str, dict[str, Any]]:
        """Read nested attributes, under `roots` only, of those of `spans` that fulfil `condition`.

        Returns them by span id. Phoenix rounds floats to 9 places. Raises WrongCondition.
        """
        if not spans:
            return {}
        # By span ids alone, SQLite would go through all spans of the project.
        traces, ids = ({span.trace_id for span in spans}, {span.span_id for span in spans})
        these = f"trace_id in {sorted(traces)!r} and span_id in {sorted(ids)!r}"
        columns = {root: f"attributes[{root!r}]" for root in sorted(roots)}
        rows = self.query(project, f"({condition}) and {these}" if condition else these, columns)
        return {
            row.pop("context.span_id"): {root: value for root, value in row.items() if value is not None}
            for row in rows
        }

    def read_events(self, project: Project, spans: Collection[Span]) -> dict[str, list[dict[str, Any]]]:
        """Read the events of these spans, each with its `name` and flat `attributes`, in the tracer's order.

        Returns them by span id.
        """
        if not spans:
            return {}
        parameters = {
            "trace_id": sorted({span.trace_id for span in spans}),
            "span_id": sorted(span.span_id for span in spans),
            "limit": len(spans),
        }
        page = self._http.json("GET", f"/v1/projects/{project.id}/spans", params=parameters)
        return {span["context"]["span_id"]: span["events"] for span in page["data"]}

    def select(self, project: Project, spans: Sequence[Span], wanted: SpanFilter) -> list[Span]:
        """Return `spans`; those that `wanted` names are marked as selected and carry their attributes.

        Where the attributes lack the messages, the span's GenAI events stand beside them as `events`.
        Raises WrongCondition.
        """
        light = wanted.model_copy(update={"attributes": {}})
        roots = {*ATTRIBUTE_ROOTS, *(path.partition(".")[0] for path in wanted.attributes)}
        candidates = [span for span in spans if matches(span, light)]
        attributes: dict[str, dict[str, Any]] = {}
        for start in range(0, len(candidates), SPANS_A_CALL):
            batch = candidates[start : start + SPANS_A_CALL]
            attributes |= self.read_attributes(project, batch, roots, wanted.condition)
        selected = [_select(span, attributes.get(span.span_id), wanted) for span in spans]
        events: dict[str, list[dict[str, Any]]] = {}
        silent = [span for span in selected if span.selected and lacks_messages(span.attributes)]
        for start in range(0, len(silent), EVENTS_A_CALL):
            events |= self.read_events(project, silent[start : start + EVENTS_A_CALL])
        return [add_events(span, events.get(span.span_id, [])) for span in selected]

    def find_trace_ids(
        self, project: Project, condition: str, window: tuple[datetime, datetime], most: int
    ) -> set[str]:
        """Find traces with spans that fulfil `condition` and begin in `window` [start, end).

        Looks at no more than `most` such spans, whichever Phoenix finds first. Raises WrongCondition.
        """
        rows = self.query(project, condition, {"trace": "context.trace_id"}, window, limit=most)
        return {row["trace"] for row in rows}

    def find(self, project: Project, condition: str, now: datetime) -> Iterator[Subject]:
        """Yield every span that fulfils `condition`, oldest first; the ids only. Raises WrongCondition."""
        for window in _slice_time(self._find_start(project), now):
            rows = self.query(project, condition, SUBJECT_COLUMNS, window)
            for row in sorted(rows, key=lambda row: parse_time(row["start_time"])):
                day = parse_time(row["start_time"]).date()
                yield Subject(row["context.span_id"], day, (row["context.trace_id"],))

    def query(
        self,
        project: Project,
        condition: str,
        columns: Mapping[str, str],
        window: tuple[datetime | None, datetime | None] = (None, None),
        *,
        limit: int = EVERYTHING,
    ) -> list[dict[str, Any]]:
        """Return the rows of a span query, keyed by the labels of `columns` and `context.span_id`.

        `columns` maps each label to a key of the span-query language. Raises WrongCondition.
        """
        query = {
            "filter": {"condition": condition},
            "select": {label: {"key": key} for label, key in columns.items()},
        }
        times = {
            key: at.isoformat() for key, at in zip(("start_time", "end_time"), window, strict=True) if at
        }
        body = {"queries": [query], "limit": limit, **times}
        try:
            table = self._http.post_for_part("/v1/spans", params={"project_name": project.name}, json=body)
        except PhoenixAnswer as error:
            if error.status == 422:
                raise WrongCondition(f"Phoenix refuses the condition {condition[:500]!r}: {error}") from error
            raise
        # Phoenix puts the column's number before its label.
        return [{label.partition("_")[2]: value for label, value in row.items()} for row in table["data"]]

    def send(self, spans: bytes) -> None:
        """Send spans, serialised as an OTLP request. Phoenix answers before it stores them."""
        headers = {"content-type": "application/x-protobuf"}
        self._http.send("POST", "/v1/traces", content=spans, headers=headers)

    def are_stored(self, span_ids: Sequence[str]) -> bool:
        """Return whether Phoenix has all of these spans, in whichever project."""
        # By their ids alone: Phoenix has one span of an id, whatever project it came to stand in.
        looks = (f'span{n}:getSpanByOtelId(spanId:"{span_id}"){{id}}' for n, span_id in enumerate(span_ids))
        return all(self._http.graphql(f"{{{' '.join(looks)}}}", {}).values())

    def _read_page(self, project: Project, parameters: Mapping[str, str | int]) -> list[Arrival]:
        page = self._http.json("GET", f"/v1/projects/{project.id}/spans", params=dict(parameters))
        return [
            Arrival(span["id"], span["context"]["span_id"], span["context"]["trace_id"])
            for span in page["data"]
        ]

    def _find_start(self, project: Project) -> datetime | None:
        query = "query($id:ID!){node(id:$id){... on Project{startTime}}}"
        start = query_project(self._http, project, query)["startTime"]
        return parse_time(start) if start else None


def parse_time(text: str) -> datetime:
    """Return a time that Phoenix wrote as aware UTC."""
    return datetime.fromisoformat(text).astimezone(UTC)


def _slice_time(first: datetime | None, now: datetime) -> list[tuple[datetime | None, datetime | None]]:
    """Windows [start, end) over all time, open at both ends: no answer holds a whole history."""
    if first is None or first >= now:
        return [(None, None)]
    width = max(NARROWEST_SLICE, (now - first) / WIDEST_SLICES)
    cuts: list[datetime | None] = [
        first + width * n for n in range(1, WIDEST_SLICES) if first + width * n < now
    ]
    return list(zip([None, *cuts], [*cuts, None], strict=True))


def _select(span: Span, attributes: dict[str, Any] | None, wanted: SpanFilter) -> Span:
    if attributes is None:
        return span
    full = span.model_copy(update={"attributes": attributes, "selected": True})
    return full if matches(full, wanted) else span


def _session_id(row: Mapping[str, Any]) -> str | None:
    session = row["session"]
    session_id = session.get("id") if isinstance(session, dict) else None
    return None if session_id is None else str(session_id)


def _to_span(row: Mapping[str, Any], session_id: str | None) -> Span:
    return Span(
        span_id=row["context.span_id"],
        trace_id=row["context.trace_id"],
        parent_id=row["parent_id"],
        session_id=session_id,
        name=row["name"],
        kind=str(row["span_kind"] or "UNKNOWN").upper(),
        started_at=parse_time(row["start_time"]),
        selected=False,
        status=row["status_code"] if row["status_code"] in ("OK", "ERROR") else "UNSET",
    )
