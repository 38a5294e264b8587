"""Flat OTLP attributes become spans, by the decoder of the installed Phoenix, as the mirror keeps them."""

import json
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from extractors.phoenix.spans import ATTRIBUTE_ROOTS, Span, add_events

with warnings.catch_warnings():
    # Phoenix imports its whole server, whose libraries warn about each other.
    warnings.simplefilter("ignore")
    from phoenix.trace.otel import decode_otlp_span

STARTED_AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def decode(
    attributes: Mapping[str, Any],
    events: Sequence[tuple[str, Mapping[str, Any]]] = (),
    *,
    status: Literal["UNSET", "OK", "ERROR"] = "UNSET",
    span_id: str = "00000000000000a1",
    trace_id: str = "000000000000000000000000000000b2",
) -> Span:
    """Return the selected span that Phoenix makes of flat `attributes`, with the roots that the mirror keeps.

    `events` are names with flat attributes. The kind is UNKNOWN where Phoenix finds none.
    """
    nanoseconds = int(STARTED_AT.timestamp() * 1e9)
    sent = OtlpSpan(
        name="chat",
        span_id=bytes.fromhex(span_id),
        trace_id=bytes.fromhex(trace_id),
        start_time_unix_nano=nanoseconds,
        end_time_unix_nano=nanoseconds + 10**9,
        attributes=_encode_attributes(attributes),
        events=[
            OtlpSpan.Event(
                name=name, time_unix_nano=nanoseconds + number, attributes=_encode_attributes(written)
            )
            for number, (name, written) in enumerate(events)
        ],
        status=Status(code=Status.StatusCode.Value(f"STATUS_CODE_{status}")),
    )
    return to_mirrored_span(sent)


def to_mirrored_span(sent: OtlpSpan) -> Span:
    """Return what the mirror keeps of a span that was sent to Phoenix."""
    decoded = decode_otlp_span(sent)
    # Phoenix stores attributes as JSON, which knows no tuples.
    stored = json.loads(json.dumps(dict(decoded.attributes)))
    span = Span(
        span_id=decoded.context.span_id,
        trace_id=decoded.context.trace_id,
        parent_id=decoded.parent_id,
        name=decoded.name,
        kind=decoded.span_kind.value,
        started_at=decoded.start_time,
        selected=True,
        status=decoded.status_code.value,
        attributes={root: value for root, value in stored.items() if root in ATTRIBUTE_ROOTS},
    )
    events = [{"name": event.name, "attributes": dict(event.attributes)} for event in decoded.events]
    return add_events(span, json.loads(json.dumps(events)))


def _encode_attributes(attributes: Mapping[str, Any]) -> list[KeyValue]:
    return [KeyValue(key=key, value=_encode_value(value)) for key, value in attributes.items()]


def _encode_value(value: Any) -> AnyValue:
    match value:
        case bool():
            return AnyValue(bool_value=value)
        case int():
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case str():
            return AnyValue(string_value=value)
        case list() | tuple():
            return AnyValue(array_value=ArrayValue(values=[_encode_value(entry) for entry in value]))
        case dict():
            return AnyValue(kvlist_value=KeyValueList(values=_encode_attributes(value)))
    raise TypeError(f"OTLP has no attribute value of type {type(value).__name__}")
