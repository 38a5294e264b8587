"""Writes a run's spans to Phoenix, until Phoenix shows them.

Phoenix takes spans into a queue in its memory and answers before it keeps them, so they are written
again until it shows them. Ids come from the run's id; Phoenix ignores a span that it has.
"""

import time
from datetime import datetime

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

from daemon.publishing.span_attributes import EvaluationSpan, ExperimentSpan, RunSpan, flatten_attributes
from extractors.phoenix.http import to_storable
from extractors.phoenix.span_client import SpanClient
from extractors.values import content_id

SHOWN_AFTER = 5.0
"""Seconds in which an idle Phoenix shows what it was sent; it needs about 0.2."""
LOOK_EVERY = 0.1


def publish_spans(
    client: SpanClient,
    project: str,
    experiment: ExperimentSpan,
    evaluation: EvaluationSpan | None = None,
    *,
    seconds: float = SHOWN_AFTER,
) -> bool:
    """Send the spans to `project`; return whether Phoenix stored them. If it did not, call again.

    Waits at most `seconds` for them to be shown. Raises PhoenixError.
    """
    run_id = experiment.experiment.run_id
    spans = [_to_otel(run_id, project, span) for span in (experiment, evaluation) if span]
    client.send(encode_spans(spans).SerializeToString())
    ids = [f"{span.context.span_id:016x}" for span in spans]
    deadline = time.monotonic() + seconds
    while not (stored := client.are_stored(ids)) and time.monotonic() < deadline:
        time.sleep(LOOK_EVERY)
    return stored


def _to_otel(run_id: str, project: str, span: RunSpan) -> ReadableSpan:
    is_root = isinstance(span, ExperimentSpan)
    return ReadableSpan(
        name=span.operation,
        context=_build_context(run_id, span.operation),
        parent=None if is_root else _build_context(run_id, ExperimentSpan.operation),
        resource=Resource({"service.name": "learnd", "openinference.project.name": project}),
        attributes=flatten_attributes(span),
        start_time=_to_nanoseconds(span.started_at),
        end_time=_to_nanoseconds(span.ended_at),
        status=Status(StatusCode.ERROR, to_storable(span.error)) if span.error else Status(StatusCode.OK),
    )


def _build_context(run_id: str, operation: str) -> SpanContext:
    return SpanContext(
        trace_id=int(content_id(["run", run_id]), 16),
        span_id=int(content_id(["run", run_id, operation])[:16], 16),
        is_remote=False,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
    )


def _to_nanoseconds(at: datetime) -> int:
    # As a float, nanoseconds since 1970 are 100 ns apart: whole microseconds first.
    return int(at.timestamp() * 1_000_000) * 1000
