"""Annotations: who is annotated, what the annotations say, and annotations of our own.

Nothing in Phoenix filters annotations by time, so `poll.py` sweeps.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from typing import Any
from urllib.parse import quote, urlencode

from pydantic import ValidationError

from extractors.phoenix.http import PhoenixAnswer, PhoenixHttp
from extractors.phoenix.project import Project, query_project
from extractors.phoenix.span_client import SUBJECT_COLUMNS, SpanClient, Subject, parse_time
from extractors.phoenix.spans import Annotation, Level, build_document_id

ANNOTATIONS_A_PAGE = 10_000
WRITES_A_CALL = 100
CURSOR_ROOM = 80
"""Bytes kept free in a URL for the cursor of a following page."""
DOCUMENTS_QUERY = (
    "query($id:ID!,$first:Int!,$c:String!){node(id:$id){... on Project{"
    "spans(first:$first,filterCondition:$c){edges{node{spanId documentEvaluations{"
    "documentPosition name identifier annotatorKind label score explanation metadata updatedAt}}}}}}}"
)


class AnnotationClient:
    """The annotations of one Phoenix. Every method raises PhoenixError; times are aware UTC."""

    def __init__(self, http: PhoenixHttp, spans: SpanClient, longest_url: int) -> None:
        """`longest_url`, in bytes, stays below what proxies between here and Phoenix accept."""
        self._http = http
        self._spans = spans
        self._longest_url = longest_url

    def find_subjects(
        self, project: Project, level: Level, names: Collection[str], now: datetime
    ) -> Iterator[Subject]:
        """Yield every subject of `level` that has an annotation with one of `names`; the ids only."""
        if not names:
            return iter(())
        if level == "session":
            return self._find_sessions(project, names)
        if level == "trace":
            return self._find_traces(project, names)
        return self._spans.find(project, _has_one_of("annotations", names), now)

    def read(
        self, project: Project, level: Level, subject_ids: Collection[str], names: Collection[str]
    ) -> list[Annotation]:
        """Read all annotations of these subjects with one of `names`."""
        path = f"/v1/projects/{project.id}/{level}_annotations"
        fixed = [("include_annotation_names", name) for name in sorted(names)] + [
            ("limit", str(ANNOTATIONS_A_PAGE))
        ]
        room = self._longest_url - len(self._http.url) - len(path) - len(urlencode(fixed)) - CURSOR_ROOM
        found: list[Annotation] = []
        for batch in _batch_by_length(
            [(f"{level}_ids", subject_id) for subject_id in sorted(subject_ids)], room
        ):
            found.extend(_to_annotation(level, data) for data in self._read_entries(path, fixed + batch))
        return found

    def read_of_documents(
        self, project: Project, span_ids: Collection[str], names: Collection[str]
    ) -> list[Annotation]:
        """Read all annotations with one of `names` on documents of these spans: GraphQL alone knows them.

        Takes about half a millisecond a span, whether its documents are annotated or not.
        """
        if not span_ids:
            return []
        these = f"span_id in {sorted(span_ids)!r}"
        node = query_project(self._http, project, DOCUMENTS_QUERY, first=len(span_ids), c=these)
        return [
            _to_document_annotation(edge["node"]["spanId"], data)
            for edge in node["spans"]["edges"]
            for data in edge["node"]["documentEvaluations"]
            if data["name"] in names
        ]

    def write(self, annotations: Sequence[Annotation]) -> None:
        """Write span annotations; each replaces what its key held. Phoenix sets `updated_at`.

        Raises PhoenixAnswer (404) when a span does not exist (yet).
        """
        for start in range(0, len(annotations), WRITES_A_CALL):
            data = [_to_body(annotation) for annotation in annotations[start : start + WRITES_A_CALL]]
            self._http.json("POST", "/v1/span_annotations", params={"sync": "true"}, json={"data": data})

    def offer(self, project: Project, name: str, labels: Sequence[str] = ()) -> None:
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

    def _find_traces(self, project: Project, names: Collection[str]) -> Iterator[Subject]:
        days: dict[str, date] = {}
        for row in self._spans.query(project, _has_one_of("trace_annotations", names), SUBJECT_COLUMNS):
            day = parse_time(row["start_time"]).date()
            days[row["context.trace_id"]] = min(day, days.get(row["context.trace_id"], day))
        return (Subject(trace_id, day, (trace_id,)) for trace_id, day in days.items())

    def _find_sessions(self, project: Project, names: Collection[str]) -> Iterator[Subject]:
        path = f"/v1/projects/{project.id}/sessions"
        parameters = [("filter", _has_one_of("session_annotations", names)), ("limit", "500")]
        for session in self._read_entries(path, parameters):
            traces = tuple(trace["trace_id"] for trace in session["traces"])
            yield Subject(session["session_id"], parse_time(session["start_time"]).date(), traces)

    def _read_entries(self, path: str, parameters: Sequence[tuple[str, str]]) -> Iterator[dict[str, Any]]:
        try:
            for page in self._http.read_pages(path, parameters):
                yield from page
        except PhoenixAnswer as error:
            # Phoenix says 404 when none of the subjects exists any more.
            if error.status != 404:
                raise


def _has_one_of(accessor: str, names: Collection[str]) -> str:
    # The bare subscript asks whether there is one; `is not None` would be true of every span.
    return " or ".join(f"{accessor}[{name!r}]" for name in sorted(names))


def _batch_by_length(parameters: list[tuple[str, str]], room: int) -> Iterator[list[tuple[str, str]]]:
    """Split `parameters` into runs whose encoded length stays within `room` bytes (one at least)."""
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


def _to_annotation(level: Level, data: Mapping[str, Any]) -> Annotation:
    result = data["result"] or {}
    with _reading_errors():
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
            updated_at=parse_time(data["updated_at"]),
        )


def _to_document_annotation(span_id: str, data: Mapping[str, Any]) -> Annotation:
    with _reading_errors():
        return Annotation(
            level="document",
            subject_id=build_document_id(span_id, data["documentPosition"]),
            name=data["name"],
            identifier=data["identifier"] or "",
            annotator_kind=data["annotatorKind"],
            label=data["label"],
            score=data["score"],
            explanation=data["explanation"],
            metadata=data["metadata"] or {},
            updated_at=parse_time(data["updatedAt"]),
        )


@contextmanager
def _reading_errors() -> Iterator[None]:
    """Turn errors of reading an annotation into PhoenixAnswer."""
    try:
        yield
    except (KeyError, ValidationError) as error:
        raise PhoenixAnswer(
            f"an annotation that learnd cannot read ({error}); is this Phoenix newer?"
        ) from error


def _to_body(annotation: Annotation) -> dict[str, Any]:
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
