"""Spans as they go to Phoenix: their place in a trace, their attributes, their project."""

from opentelemetry.proto.trace.v1.trace_pb2 import Status

from daemon.gateway.otlp import Place, build_export, build_span, count_spans, read_place

PLACE = Place(trace_id=7, span_id=8, parent_id=None, trace_state="")
CALLER = {"traceparent": f"00-{0xABC:032x}-{0xDEF:016x}-00", "tracestate": "vendor=1"}


def test_a_span_stands_in_its_callers_trace_though_the_caller_does_not_sample_it() -> None:
    assert read_place(CALLER, 8) == Place(0xABC, 8, 0xDEF, "vendor=1")


def test_a_span_without_a_readable_caller_begins_a_trace() -> None:
    for headers in ({}, {"traceparent": "00-0-0-00"}, {"traceparent": f"00-{0:032x}-{0:016x}-01"}):
        place = read_place(headers, 8)
        assert place.trace_id
        assert place[1:] == (8, None, "")


def test_a_span_holds_its_attributes_but_for_numbers_beyond_64_bits() -> None:
    attributes = {"text": "ä", "count": -(2**63), "yes": True, "much": 2**63}
    span = build_span(
        place=PLACE, name="Completion", started_ns=1, ended_ns=2, attributes=attributes, error="broke off"
    )
    held = {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes}
    assert held == {"text": "ä", "count": -(2**63), "yes": True}
    assert (span.trace_id, span.span_id, span.parent_span_id) == (bytes(15) + b"\7", bytes(7) + b"\10", b"")
    assert (span.status.code, span.status.message) == (Status.STATUS_CODE_ERROR, "broke off")


def test_each_project_has_its_spans() -> None:
    span = build_span(place=PLACE, name="Completion", started_ns=1, ended_ns=2, attributes={}, error=None)
    export = build_export({"support": [span, span], "sales": [span]})
    projects = [
        {each.key: each.value.string_value for each in told.resource.attributes}["openinference.project.name"]
        for told in export.resource_spans
    ]
    assert projects == ["support", "sales"]
    assert count_spans(export) == 3
