"""Acts on a real Phoenix as agents and reviewers do: sends spans, annotates, waits."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.trace import SpanContext, TraceFlags

from extractors.phoenix.mirror import MirrorChange

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
"""When the spans of a test begin, unless it says otherwise."""


def new_trace_id() -> str:
    return uuid4().hex


def new_span_id() -> str:
    return uuid4().hex[:16]


def new_project(prefix: str = "project") -> str:
    """A project name that no other test uses; Phoenix makes the project with its first span."""
    return f"{prefix}-{uuid4().hex[:12]}"


@dataclass(frozen=True)
class SentSpan:
    """A span as an instrumented agent would send it."""

    trace_id: str = field(default_factory=new_trace_id)
    span_id: str = field(default_factory=new_span_id)
    parent_id: str | None = None
    name: str = "ChatCompletion"
    kind: str | None = "LLM"
    started_at: datetime = NOON
    seconds: float = 1.0
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """Flat OpenTelemetry attributes."""
    events: Sequence[tuple[str, Mapping[str, Any]]] = ()
    """Names and flat attributes of the events, in order."""

    def child(self, **changes: Any) -> "SentSpan":
        """A span of the same trace, below this one, a second later."""
        later = self.started_at + timedelta(seconds=1)
        return SentSpan(
            **{"trace_id": self.trace_id, "parent_id": self.span_id, "started_at": later, **changes}
        )


def chat_span(text: str = "Where is my parcel?", answer: str = "shipping", **changes: Any) -> SentSpan:
    """An LLM span with one question and one answer, in OpenInference's attributes."""
    extra = dict(changes.pop("attributes", {}))
    attributes = {
        "input.value": text,
        "output.value": answer,
        "llm.model_name": "acme/routing",
        "llm.input_messages.0.message.role": "user",
        "llm.input_messages.0.message.content": text,
        "llm.output_messages.0.message.role": "assistant",
        "llm.output_messages.0.message.content": answer,
    }
    return SentSpan(attributes={**attributes, **extra}, **changes)


def send_spans(url: str, project: str, spans: Sequence[SentSpan], api_key: str | None = None) -> None:
    """Export `spans` over OTLP/HTTP; they become readable a little later (`wait_for_spans`)."""
    resource = Resource({"openinference.project.name": project})
    exporter = OTLPSpanExporter(endpoint=f"{url}/v1/traces", headers=_build_headers(api_key))
    result = exporter.export([_to_otel(span, resource) for span in spans])
    exporter.shutdown()  # type: ignore[no-untyped-call]
    assert result is SpanExportResult.SUCCESS, f"{url} did not take {len(spans)} spans"


def send_and_wait(url: str, project: str, *spans: SentSpan) -> None:
    """Send `spans` and return when Phoenix shows all of them."""
    send_spans(url, project, spans)
    wait_for_ids(url, project, [span.span_id for span in spans])


def wait_for_spans(
    url: str, project: str, count: int, seconds: float = 120, api_key: str | None = None
) -> None:
    """Wait until `project` has at least `count` committed spans."""
    wait_until(lambda: count_spans(url, project, api_key) >= count, seconds, f"{count} spans in {project}")


def wait_for_ids(url: str, project: str, wanted: Sequence[str], seconds: float = 120) -> None:
    """Wait until all the spans `wanted` are committed, and until Phoenix's gate shows it."""
    wait_until(lambda: set(wanted) <= read_span_ids(url, project), seconds, f"spans {wanted} in {project}")
    wait_until(lambda: read_gate(url, project) is not None, seconds, f"the gate of {project}")
    time.sleep(GATE_SECONDS)


def count_spans(url: str, project: str, api_key: str | None = None) -> int:
    """Count the committed spans of `project`; far cheaper than `read_span_ids` while many come in."""
    query = "query($name:String!){getProjectByName(name:$name){recordCount}}"
    body = {"query": query, "variables": {"name": project}}
    answer = httpx.post(f"{url}/graphql", json=body, headers=_build_headers(api_key), timeout=60)
    found: dict[str, int] | None = answer.raise_for_status().json()["data"]["getProjectByName"]
    return found["recordCount"] if found else 0


def read_span_ids(url: str, project: str, api_key: str | None = None) -> set[str]:
    """Ids of all committed spans of `project`; empty when there is no such project yet."""
    found: set[str] = set()
    parameters: dict[str, str | int] = {"limit": 1000}
    while True:
        answer = httpx.get(
            f"{url}/v1/projects/{project}/spans",
            params=parameters,
            headers=_build_headers(api_key),
            timeout=60,
        )
        if answer.status_code == 404:
            return found
        page = answer.raise_for_status().json()
        found.update(span["context"]["span_id"] for span in page["data"])
        if page["next_cursor"] is None:
            return found
        parameters["cursor"] = page["next_cursor"]


GATE_SECONDS = 0.3
"""Phoenix moves the gate up to 0.1 s after it has committed a write."""


def annotate(
    url: str,
    span_id: str,
    label: str | None = "approved",
    *,
    name: str = "approval",
    identifier: str = "",
    score: float | None = None,
    explanation: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    annotator_kind: str = "HUMAN",
    level: str = "span",
    api_key: str | None = None,
) -> None:
    """Leave one annotation on a span (or a trace, a session), as a reviewer does, and wait for it."""
    annotation = {
        f"{level}_id": span_id,
        "name": name,
        "identifier": identifier,
        "annotator_kind": annotator_kind,
        "result": {"label": label, "score": score, "explanation": explanation},
        "metadata": dict(metadata or {}),
    }
    answer = httpx.post(
        f"{url}/v1/{level}_annotations?sync=true",
        json={"data": [annotation]},
        headers=_build_headers(api_key),
        timeout=60,
    )
    assert answer.status_code == 200, answer.text
    time.sleep(GATE_SECONDS)


def delete_annotations(
    url: str, project: str, *, name: str, identifier: str | None = None, level: str = "span"
) -> None:
    """Delete the annotations of this name (and of this reviewer) in `project`."""
    filters = {"name": name, "delete_all": "true", **({"identifier": identifier} if identifier else {})}
    answer = httpx.delete(f"{url}/v1/projects/{project}/{level}_annotations", params=filters, timeout=60)
    assert answer.status_code == 204, answer.text


def delete_span(url: str, span_id: str) -> None:
    assert httpx.delete(f"{url}/v1/spans/{span_id}", timeout=60).status_code == 204


def delete_trace(url: str, trace_id: str) -> None:
    assert httpx.delete(f"{url}/v1/traces/{trace_id}", timeout=60).status_code == 204


def delete_project(url: str, project: str) -> None:
    assert httpx.delete(f"{url}/v1/projects/{project}", timeout=60).status_code == 204


def read_gate(url: str, project: str) -> str | None:
    """Return when Phoenix last wrote to `project`; None before its first write since its start."""
    query = "query($name:String!){getProjectByName(name:$name){streamingLastUpdatedAt}}"
    answer = httpx.post(f"{url}/graphql", json={"query": query, "variables": {"name": project}}, timeout=60)
    found: dict[str, str | None] | None = answer.raise_for_status().json()["data"]["getProjectByName"]
    return found["streamingLastUpdatedAt"] if found else None


def is_empty(change: MirrorChange) -> bool:
    """Return whether a poll found nothing that the mirror must follow."""
    return not (change.spans or change.annotations or change.removed_annotations or change.removed_span_ids)


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain for {what}"
        time.sleep(0.1)


def _build_headers(api_key: str | None) -> dict[str, str]:
    return {"authorization": f"Bearer {api_key}"} if api_key else {}


def _to_otel(span: SentSpan, resource: Resource) -> ReadableSpan:
    kind = {} if span.kind is None else {"openinference.span.kind": span.kind}
    start = int(span.started_at.timestamp() * 1_000_000) * 1000
    return ReadableSpan(
        name=span.name,
        context=_build_context(span.trace_id, span.span_id),
        parent=_build_context(span.trace_id, span.parent_id) if span.parent_id else None,
        resource=resource,
        attributes={**kind, **span.attributes},
        start_time=start,
        end_time=start + int(span.seconds * 1e9),
        events=[Event(name, attributes, timestamp=start) for name, attributes in span.events],
    )


def _build_context(trace_id: str, span_id: str) -> SpanContext:
    return SpanContext(
        int(trace_id, 16), int(span_id, 16), is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED)
    )
