"""A recording as the spans that Phoenix would hold, beside the calls that the stand-in served."""

from typing import NamedTuple

from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from extractors.phoenix.spans import Span, SpanFilter, matches
from tests.corpus.recorded import read_recording, read_truth
from tests.corpus.said import ServedCall
from tests.support.otlp import to_mirrored_span


class Traced(NamedTuple):
    """A span of a model's call, and the call that was served in its time."""

    span: Span
    call: ServedCall


def replay(tracer: str) -> list[Traced]:
    """Return the spans that a target's filter selects by default, each with its call.

    Raises LookupError for a span in whose time nothing was served.
    """
    served = read_truth(tracer)
    request = ParseDict(read_recording(tracer), ExportTraceServiceRequest())
    traced = []
    for sent in (
        span for each in request.resource_spans for scope in each.scope_spans for span in scope.spans
    ):
        span = to_mirrored_span(sent)
        if not matches(span, SpanFilter()):
            continue
        began, ended = sent.start_time_unix_nano, sent.end_time_unix_nano
        within = [call for call in served if began <= call.received_at <= ended]
        if not within:
            raise LookupError(f"nothing was said in the time of {span.name} of {tracer}")
        traced.append(Traced(span, within[-1]))
    return traced
