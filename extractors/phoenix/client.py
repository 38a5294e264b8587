"""What learnd asks of Phoenix and tells it; the one owner of that conversation.

Measured with Phoenix 20.26: spans come cheapest by `POST /v1/spans` (its span-query language)
selecting whole attribute roots, and nothing filters annotations by time, so `poll.py` sweeps.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple, Self
from urllib.parse import quote, urlencode

from pydantic import ValidationError

from extractors.phoenix.http import PhoenixAnswer, PhoenixError, PhoenixHttp
from extractors.phoenix.spans import LLM_ROOTS, Annotation, Level, Span, SpanFilter, document_subject, matches
from extractors.values import Value

ATTRIBUTE_ROOTS = (
    "input",
    "output",
    "llm",
    "metadata",
    "session",
    "user",
    "tag",
    "retrieval",
    "gen_ai",
    "learnd",
)
"""Attribute roots that extraction reads; a target's filter may name more."""

LIGHT_COLUMNS = ("name", "span_kind", "status_code", "parent_id", "start_time", "context.trace_id")
SPANS_A_CALL = 500
PAGE = 500
"""Spans of one page of the tail; Phoenix takes about half a second to write it."""
EVERYTHING = 10_000_000
"""A limit above any project: without one Phoenix silently stops at 1000 rows."""
ANNOTATIONS_A_PAGE = 10_000
WRITES_A_CALL = 100
WIDEST_SLICES = 12
NARROWEST_SLICE = timedelta(days=30)


class ProjectNotFound(PhoenixError):
    """Phoenix has no project of this name (yet: it makes one with the first span)."""


class WrongCondition(PhoenixError):
    """A condition that Phoenix's span-query language does not accept."""


class Project(Value):
    """A project of Phoenix, as it is now."""

    id: str
    name: str
    gate: str | None
    """When Phoenix last wrote spans or annotations of it; None until it does after its start.
    Deleted annotations do not move it."""


class Arrival(NamedTuple):
    """A span in the order in which Phoenix committed it."""

    cursor: str
    span_id: str
    trace_id: str


class Subject(NamedTuple):
    """A span, trace or session that somebody annotated."""

    id: str
    day: date
    """UTC day on which it began."""
    trace_ids: tuple[str, ...]


def own_spans(wanted: SpanFilter) -> str:
    """The condition that the spans which `wanted` names fulfil, as far as Phoenix can tell."""
    kind = f"span_kind == {wanted.kind.upper()!r}"
    if wanted.kind.upper() == "LLM":
        # Tracers that drop attributes drop the kind first.
        traced = " or ".join(f"attributes[{root!r}] is not None" for root in sorted(LLM_ROOTS))
        kind = f"({kind} or (span_kind == 'UNKNOWN' and ({traced})))"
    name = f" and name == {wanted.name!r}" if wanted.name else ""
    condition = f" and ({wanted.condition})" if wanted.condition else ""
    return f"{kind}{name}{condition}"


def span_page(url: str, span_id: str) -> str:
    """Phoenix's page of a span, where Phoenix is at `url`."""
    return f"{url}/redirects/spans/{quote(span_id, safe='')}"


class PhoenixClient:
    """One Phoenix, seen through one API key.

    Every method raises PhoenixUnreachable, PhoenixRefused or PhoenixAnswer; what else it
    raises is said there. Times are aware UTC.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        timeout: float = 60.0,
        patience: float = 20.0,
        longest_url: int = 8000,
    ) -> None:
        """`timeout` (one request) and `patience` (all its tries together) are in seconds;
        `longest_url`, in bytes, keeps below what proxies between here and Phoenix accept."""
        self._http = PhoenixHttp(url, api_key, timeout, patience)
        self._longest_url = longest_url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    @property
    def http(self) -> PhoenixHttp:
        """The connection, for what `experiments.py` and `experiment_spans.py` tell Phoenix."""
        return self._http

    # ---- the project

    def version(self) -> str:
        """Phoenix's version; needs no key, so it says only that Phoenix is up."""
        return self._http.send("GET", "/arize_phoenix_version").text.strip()

    def project(self, name: str) -> Project:
        """The project called `name`. Raises ProjectNotFound."""
        query = "query($name:String!){getProjectByName(name:$name){id streamingLastUpdatedAt}}"
        found = self._http.graphql(query, {"name": name})["getProjectByName"]
        if found is None:
            raise ProjectNotFound(
                f"Phoenix at {self._http.url} has no project {name!r}; check the name, "
                "or send a first span to it"
            )
        return Project(id=found["id"], name=name, gate=found["streamingLastUpdatedAt"])

    def count(
        self,
        project: Project,
        condition: str | None = None,
        window: tuple[datetime, datetime] | None = None,
    ) -> int:
        """How many spans the project has; or how many fulfil `condition`, or begin in `window` [start, end).

        Raises WrongCondition.
        """
        if condition:
            self.check_condition(project, condition)
        query = (
            "query($id:ID!,$c:String,$t:TimeRange){node(id:$id){... on Project{"
            "recordCount(filterCondition:$c,timeRange:$t)}}}"
        )
        times = {"start": window[0].isoformat(), "end": window[1].isoformat()} if window else None
        return int(self._node(query, project, c=condition, t=times)["recordCount"])

    def check_condition(self, project: Project, condition: str) -> None:
        """Raises WrongCondition where `condition` does not parse.

        An unknown name in it is no error to Phoenix: it is an attribute that no span has.
        """
        query = (
            "query($id:ID!,$c:String!){node(id:$id){... on Project{"
            "validateSpanFilterCondition(condition:$c){isValid errorMessage}}}}"
        )
        verdict = self._node(query, project, c=condition)["validateSpanFilterCondition"]
        if not verdict["isValid"]:
            raise WrongCondition(f"Phoenix refuses the condition {condition!r}: {verdict['errorMessage']}")

    def project_url(self, name: str) -> str:
        """Phoenix's page of a project."""
        return f"{self._http.url}/redirects/projects/{quote(name, safe='')}"

    # ---- spans

    def newest(self, project: Project) -> Arrival | None:
        """The span that was committed last; None in an empty project."""
        page = self._spans_page(project, {"sort": "id", "order": "desc", "limit": 1})
        return page[0] if page else None

    def arrivals(self, project: Project, cursor: str) -> list[Arrival]:
        """At most 500 spans in the order in which they were committed, from `cursor` on, inclusive."""
        return self._spans_page(project, {"sort": "id", "order": "asc", "limit": PAGE, "cursor": cursor})

    def spans_of_traces(self, project: Project, trace_ids: Collection[str]) -> list[Span]:
        """All spans of these traces, without attributes and not yet `selected`.

        A span without a session of its own has that of its trace.
        """
        condition = f"trace_id in {sorted(trace_ids)!r}"
        selected = {column: column for column in LIGHT_COLUMNS} | {"session": "attributes['session']"}
        rows = self._rows(project, condition, selected) if trace_ids else []
        sessions = {row["context.trace_id"]: found for row in rows if (found := _session_id(row)) is not None}
        return [_light_span(row, _session_id(row) or sessions.get(row["context.trace_id"])) for row in rows]

    def attributes_of_spans(
        self,
        project: Project,
        spans: Collection[Span],
        roots: Collection[str],
        condition: str | None = None,
    ) -> dict[str, dict[str, Any]]:
        """Nested attributes by span id, under `roots` only, of those of `spans` that fulfil `condition`.

        Floats are rounded to 9 places by Phoenix. Raises WrongCondition.
        """
        if not spans:
            return {}
        # By span ids alone, SQLite would go through all spans of the project.
        traces, ids = ({span.trace_id for span in spans}, {span.span_id for span in spans})
        wanted = f"trace_id in {sorted(traces)!r} and span_id in {sorted(ids)!r}"
        selected = {root: f"attributes[{root!r}]" for root in sorted(roots)}
        rows = self._rows(project, f"({condition}) and {wanted}" if condition else wanted, selected)
        return {
            row.pop("context.span_id"): {root: value for root, value in row.items() if value is not None}
            for row in rows
        }

    def selected(self, project: Project, spans: Sequence[Span], wanted: SpanFilter) -> list[Span]:
        """`spans`, of which those that `wanted` names are selected and carry their attributes.

        Raises WrongCondition.
        """
        light = wanted.model_copy(update={"attributes": {}})
        roots = {*ATTRIBUTE_ROOTS, *(path.partition(".")[0] for path in wanted.attributes)}
        candidates = [span for span in spans if matches(span, light)]
        attributes: dict[str, dict[str, Any]] = {}
        for start in range(0, len(candidates), SPANS_A_CALL):
            batch = candidates[start : start + SPANS_A_CALL]
            attributes |= self.attributes_of_spans(project, batch, roots, wanted.condition)
        return [_selected(span, attributes.get(span.span_id), wanted) for span in spans]

    def traces_between(
        self, project: Project, condition: str, window: tuple[datetime, datetime], most: int
    ) -> set[str]:
        """Ids of traces with spans that fulfil `condition` and begin in `window` [start, end).

        Looks at no more than `most` such spans, whichever Phoenix finds first. Raises WrongCondition.
        """
        rows = self._rows(project, condition, {"trace": "context.trace_id"}, window, limit=most)
        return {row["trace"] for row in rows}

    def spans_that(self, project: Project, condition: str, now: datetime) -> Iterator[Subject]:
        """Every span that fulfils `condition`, oldest first; the ids only. Raises WrongCondition."""
        for window in _slices(self._first_start(project), now):
            rows = self._rows(project, condition, _SUBJECT_COLUMNS, window)
            for row in sorted(rows, key=lambda row: _time(row["start_time"])):
                yield Subject(
                    row["context.span_id"], _time(row["start_time"]).date(), (row["context.trace_id"],)
                )

    # ---- annotations

    def annotated(
        self, project: Project, level: Level, names: Collection[str], now: datetime
    ) -> Iterator[Subject]:
        """Every subject of `level` that has an annotation with one of `names`; the ids only."""
        if not names:
            return iter(())
        if level == "session":
            return self._annotated_sessions(project, names)
        if level == "trace":
            return self._annotated_traces(project, names)
        return self.spans_that(project, _any_of("annotations", names), now)

    def annotations(
        self, project: Project, level: Level, subject_ids: Collection[str], names: Collection[str]
    ) -> list[Annotation]:
        """All annotations of these subjects with one of `names`."""
        path = f"/v1/projects/{project.id}/{level}_annotations"
        fixed = [("include_annotation_names", name) for name in sorted(names)] + [
            ("limit", str(ANNOTATIONS_A_PAGE))
        ]
        room = self._longest_url - len(self._http.url) - len(path) - len(urlencode(fixed)) - CURSOR_ROOM
        found: list[Annotation] = []
        for batch in _url_batches([(f"{level}_ids", subject_id) for subject_id in sorted(subject_ids)], room):
            found.extend(_annotation(level, data) for data in self._pages(path, fixed + batch))
        return found

    def document_annotations(
        self, project: Project, span_ids: Collection[str], names: Collection[str]
    ) -> list[Annotation]:
        """All annotations with one of `names` on documents of these spans: GraphQL alone knows them.

        Takes about half a millisecond a span, whether its documents are annotated or not.
        """
        if not span_ids:
            return []
        wanted = f"span_id in {sorted(span_ids)!r}"
        spans = self._node(_DOCUMENTS_QUERY, project, first=len(span_ids), c=wanted)["spans"]["edges"]
        return [
            _document_annotation(edge["node"]["spanId"], data)
            for edge in spans
            for data in edge["node"]["documentEvaluations"]
            if data["name"] in names
        ]

    def annotate_spans(self, annotations: Sequence[Annotation]) -> None:
        """Write span annotations; each replaces what its key held. Phoenix sets `updated_at` itself.

        Raises PhoenixAnswer (404) when a span does not exist (yet).
        """
        for start in range(0, len(annotations), WRITES_A_CALL):
            data = [_written(annotation) for annotation in annotations[start : start + WRITES_A_CALL]]
            self._http.json("POST", "/v1/span_annotations", params={"sync": "true"}, json={"data": data})

    def offer_annotation(self, project: Project, name: str, labels: Sequence[str] = ()) -> None:
        """Let reviewers choose one of `labels` under `name` on Phoenix's page, or write free text."""
        config: dict[str, Any] = {"name": name, "type": "FREEFORM"}
        if labels:
            values = [{"label": label} for label in labels]
            config = {"name": name, "type": "CATEGORICAL", "optimization_direction": "NONE", "values": values}
        try:
            self._http.json("POST", "/v1/annotation_configs", json=config)
        except PhoenixAnswer as error:
            if error.status != 409:  # it exists already, and may be in use elsewhere
                raise
        self._http.json("PUT", f"/v1/projects/{project.id}/annotation_configs/{quote(name, safe='')}")

    # ---- how

    def _node(self, query: str, project: Project, **variables: Any) -> dict[str, Any]:
        node = self._http.graphql(query, {"id": project.id, **variables}).get("node")
        if not node:
            raise ProjectNotFound(f"project {project.name!r} is gone from Phoenix at {self._http.url}")
        return dict(node)

    def _spans_page(self, project: Project, parameters: Mapping[str, str | int]) -> list[Arrival]:
        page = self._http.json("GET", f"/v1/projects/{project.id}/spans", params=dict(parameters))
        return [
            Arrival(span["id"], span["context"]["span_id"], span["context"]["trace_id"])
            for span in page["data"]
        ]

    def _rows(
        self,
        project: Project,
        condition: str,
        selected: Mapping[str, str],
        window: tuple[datetime | None, datetime | None] = (None, None),
        *,
        limit: int = EVERYTHING,
    ) -> list[dict[str, Any]]:
        """Rows of a span query, keyed by the labels of `selected` and `context.span_id`."""
        query = {
            "filter": {"condition": condition},
            "select": {label: {"key": key} for label, key in selected.items()},
        }
        times = {
            key: at.isoformat() for key, at in zip(("start_time", "end_time"), window, strict=True) if at
        }
        body = {"queries": [query], "limit": limit, **times}
        try:
            table = self._http.part("/v1/spans", params={"project_name": project.name}, json=body)
        except PhoenixAnswer as error:
            if error.status == 422:
                raise WrongCondition(f"Phoenix refuses the condition {condition[:500]!r}: {error}") from error
            raise
        # Phoenix puts the column's number before its label.
        return [{label.partition("_")[2]: value for label, value in row.items()} for row in table["data"]]

    def _annotated_traces(self, project: Project, names: Collection[str]) -> Iterator[Subject]:
        days: dict[str, date] = {}
        for row in self._rows(project, _any_of("trace_annotations", names), _SUBJECT_COLUMNS):
            day = _time(row["start_time"]).date()
            days[row["context.trace_id"]] = min(day, days.get(row["context.trace_id"], day))
        return (Subject(trace_id, day, (trace_id,)) for trace_id, day in days.items())

    def _annotated_sessions(self, project: Project, names: Collection[str]) -> Iterator[Subject]:
        path = f"/v1/projects/{project.id}/sessions"
        for session in self._pages(
            path, [("filter", _any_of("session_annotations", names)), ("limit", "500")]
        ):
            traces = tuple(trace["trace_id"] for trace in session["traces"])
            yield Subject(session["session_id"], _time(session["start_time"]).date(), traces)

    def _first_start(self, project: Project) -> datetime | None:
        query = "query($id:ID!){node(id:$id){... on Project{startTime}}}"
        start = self._node(query, project)["startTime"]
        return _time(start) if start else None

    def _pages(self, path: str, parameters: list[tuple[str, str]]) -> Iterator[dict[str, Any]]:
        cursor: list[tuple[str, str]] = []
        while True:
            try:
                page = self._http.json("GET", path, params=parameters + cursor)
            except PhoenixAnswer as error:
                # Phoenix says 404 when none of the subjects exists any more.
                if error.status == 404:
                    return
                raise
            yield from page["data"]
            if page["next_cursor"] is None:
                return
            cursor = [("cursor", page["next_cursor"])]


CURSOR_ROOM = 80
"""Bytes kept free in a URL for the cursor of a following page."""
_DOCUMENTS_QUERY = (
    "query($id:ID!,$first:Int!,$c:String!){node(id:$id){... on Project{"
    "spans(first:$first,filterCondition:$c){edges{node{spanId documentEvaluations{"
    "documentPosition name identifier annotatorKind label score explanation metadata updatedAt}}}}}}}"
)
_SUBJECT_COLUMNS = {"context.trace_id": "context.trace_id", "start_time": "start_time"}


def _any_of(accessor: str, names: Collection[str]) -> str:
    # The bare subscript asks whether there is one; `is not None` would be true of every span.
    return " or ".join(f"{accessor}[{name!r}]" for name in sorted(names))


def _slices(first: datetime | None, now: datetime) -> list[tuple[datetime | None, datetime | None]]:
    """Windows [start, end) over all time, open at both ends: no answer holds a whole history."""
    if first is None or first >= now:
        return [(None, None)]
    width = max(NARROWEST_SLICE, (now - first) / WIDEST_SLICES)
    cuts: list[datetime | None] = [
        first + width * n for n in range(1, WIDEST_SLICES) if first + width * n < now
    ]
    return list(zip([None, *cuts], [*cuts, None], strict=True))


def _url_batches(parameters: list[tuple[str, str]], room: int) -> Iterator[list[tuple[str, str]]]:
    """`parameters` in runs whose encoded length stays within `room` bytes (one at least)."""
    batch: list[tuple[str, str]] = []
    used = 0
    for parameter in parameters:
        length = len(urlencode([parameter])) + 1
        if batch and used + length > room:
            yield batch
            batch, used = [], 0
        batch.append(parameter)
        used += length
    if batch:
        yield batch


def _selected(span: Span, attributes: dict[str, Any] | None, wanted: SpanFilter) -> Span:
    if attributes is None:
        return span
    full = span.model_copy(update={"attributes": attributes, "selected": True})
    return full if matches(full, wanted) else span


def _session_id(row: Mapping[str, Any]) -> str | None:
    session = row["session"]
    session_id = session.get("id") if isinstance(session, dict) else None
    return None if session_id is None else str(session_id)


def _light_span(row: Mapping[str, Any], session_id: str | None) -> Span:
    return Span(
        span_id=row["context.span_id"],
        trace_id=row["context.trace_id"],
        parent_id=row["parent_id"],
        session_id=session_id,
        name=row["name"],
        kind=str(row["span_kind"] or "UNKNOWN").upper(),
        started_at=_time(row["start_time"]),
        selected=False,
        status=row["status_code"] if row["status_code"] in ("OK", "ERROR") else "UNSET",
    )


def _annotation(level: Level, data: Mapping[str, Any]) -> Annotation:
    result = data["result"] or {}
    with _readable():
        return Annotation(
            level=level,
            subject_id=data[f"{level}_id"],
            name=data["name"],
            identifier=data["identifier"] or "",
            annotator_kind=data["annotator_kind"],
            label=result.get("label"),
            score=result.get("score"),
            explanation=result.get("explanation"),
            metadata=data["metadata"] or {},
            updated_at=_time(data["updated_at"]),
        )


def _document_annotation(span_id: str, data: Mapping[str, Any]) -> Annotation:
    with _readable():
        return Annotation(
            level="document",
            subject_id=document_subject(span_id, data["documentPosition"]),
            name=data["name"],
            identifier=data["identifier"] or "",
            annotator_kind=data["annotatorKind"],
            label=data["label"],
            score=data["score"],
            explanation=data["explanation"],
            metadata=data["metadata"] or {},
            updated_at=_time(data["updatedAt"]),
        )


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except (KeyError, ValidationError) as error:
        raise PhoenixAnswer(
            f"an annotation that learnd cannot read ({error}); is this Phoenix newer?"
        ) from error


def _written(annotation: Annotation) -> dict[str, Any]:
    return {
        "span_id": annotation.subject_id,
        "name": annotation.name,
        "identifier": annotation.identifier,
        "annotator_kind": annotation.annotator_kind,
        "result": {
            "label": annotation.label,
            "score": annotation.score,
            "explanation": annotation.explanation,
        },
        "metadata": annotation.metadata,
    }


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)
