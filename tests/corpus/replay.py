"""A recording as the spans that Phoenix would hold, beside the calls that the stand-in served."""

import json
from pathlib import Path
from typing import NamedTuple

from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from extractors.phoenix.spans import Span, SpanFilter, matches
from tests.corpus.said import ServedCall
from tests.support.otlp import to_mirrored_span

RECORDINGS = Path(__file__).resolve().parent / "recordings"
TRACERS = tuple(sorted(path.name.removesuffix(".otlp.json") for path in RECORDINGS.glob("*.otlp.json")))


class Traced(NamedTuple):
    """A span of a model's call, and the call that was served within it."""

    span: Span
    call: ServedCall


def read_truth(tracer: str) -> list[ServedCall]:
    """Return what the stand-in served while `tracer` was recorded."""
    written = json.loads((RECORDINGS / f"{tracer}.truth.json").read_text("utf-8"))
    return [ServedCall.from_json(each) for each in written]


def replay(tracer: str) -> list[Traced]:
    """Return the spans that a target's filter selects by default, each with its call.

    Raises LookupError for a span in whose time nothing was served.
    """
    served = read_truth(tracer)
    recorded = json.loads((RECORDINGS / f"{tracer}.otlp.json").read_text("utf-8"))
    request = ParseDict(recorded, ExportTraceServiceRequest())
    traced = []
    for sent in (
        span for each in request.resource_spans for scope in each.scope_spans for span in scope.spans
    ):
        span = to_mirrored_span(sent)
        if not matches(span, SpanFilter()):
            continue
        within = [
            call
            for call in served
            if sent.start_time_unix_nano <= call.received_at <= sent.end_time_unix_nano
        ]
        if not within:
            raise LookupError(f"nothing was said in the time of {span.name} of {tracer}")
        traced.append(Traced(span, within[-1]))
    return traced


def read_versions(tracer: str) -> dict[str, str]:
    """Return the versions of the packages that were recorded, by name."""
    recorded = json.loads((RECORDINGS / f"{tracer}.otlp.json").read_text("utf-8"))
    attributes = recorded["resourceSpans"][0]["resource"]["attributes"]
    return {
        each["key"].removeprefix("version."): each["value"]["stringValue"]
        for each in attributes
        if each["key"].startswith("version.")
    }
