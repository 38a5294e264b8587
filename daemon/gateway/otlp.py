"""Spans in OpenTelemetry's protocol, built from values. The SDK's spans cost more than all else of a trace.

Format: https://github.com/open-telemetry/opentelemetry-proto. A trace goes on where `traceparent` says so:
https://www.w3.org/TR/trace-context/.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from opentelemetry.context import Context
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from daemon.gateway.attributes import Attributes

SERVICE = "learnd-gateway"
SCOPE = InstrumentationScope(name="learnd.gateway")
_INTEGERS = range(-(2**63), 2**63)
_IDS = RandomIdGenerator()
_PROPAGATOR = TraceContextTextMapPropagator()


class Place(NamedTuple):
    """The place of a span in a trace."""

    trace_id: int
    span_id: int
    parent_id: int | None
    trace_state: str


def generate_span_id() -> int:
    """Return a new id for a span."""
    return _IDS.generate_span_id()


def read_place(headers: Mapping[str, str], span_id: int) -> Place:
    """Return the place of a request's span: within the caller's trace, or in one of its own.

    A caller that does not sample its own trace still wants to be learned from.
    """
    caller = get_current_span(_PROPAGATOR.extract(headers, context=Context())).get_span_context()
    if not caller.is_valid:
        return Place(_IDS.generate_trace_id(), span_id, None, "")
    return Place(caller.trace_id, span_id, caller.span_id, caller.trace_state.to_header())


def build_span(
    *, place: Place, name: str, started_ns: int, ended_ns: int, attributes: Attributes, error: str | None
) -> Span:
    """Return a span; its status is OK, or ERROR with the reason `error`."""
    code = Status.STATUS_CODE_OK if error is None else Status.STATUS_CODE_ERROR
    span = Span(
        trace_id=place.trace_id.to_bytes(16),
        span_id=place.span_id.to_bytes(8),
        parent_span_id=b"" if place.parent_id is None else place.parent_id.to_bytes(8),
        trace_state=place.trace_state,
        name=name,
        kind=Span.SPAN_KIND_INTERNAL,
        start_time_unix_nano=started_ns,
        end_time_unix_nano=ended_ns,
        status=Status(code=code, message=error or ""),
    )
    _add_attributes(span, attributes)
    return span


def build_export(spans: Mapping[str, Sequence[Span]]) -> ExportTraceServiceRequest:
    """Return the request that brings `spans`, by project, to Phoenix."""
    export = ExportTraceServiceRequest()
    for project, among in spans.items():
        resource_spans = export.resource_spans.add()
        _add_attributes(
            resource_spans.resource, {"service.name": SERVICE, "openinference.project.name": project}
        )
        resource_spans.scope_spans.add(scope=SCOPE, spans=among)
    return export


def count_spans(export: ExportTraceServiceRequest) -> int:
    """Return the number of spans in a request."""
    return sum(len(scoped.spans) for each in export.resource_spans for scoped in each.scope_spans)


def _add_attributes(described: Span | Resource, attributes: Attributes) -> None:
    """Add attributes, without numbers that have more than 64 bits."""
    # Each is made in its place: messages that are made before are copied, which takes ten times as long.
    for key, value in attributes.items():
        if isinstance(value, int) and value not in _INTEGERS:
            continue
        added = described.attributes.add()
        added.key = key
        if isinstance(value, str):
            added.value.string_value = value
        elif isinstance(value, bool):
            added.value.bool_value = value
        else:
            added.value.int_value = value
