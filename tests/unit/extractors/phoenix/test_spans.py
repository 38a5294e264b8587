"""The filter that tells the target's calls from other spans."""

import pytest

from extractors.phoenix.spans import SpanFilter, matches
from tests.support.traffic import openinference, span


def test_kind_name_and_attributes_must_all_be_as_wanted() -> None:
    call = span(name="route", attributes=openinference(("user", "hi"), metadata={"agent": "router"}))
    assert matches(call, SpanFilter(name="route", attributes={"metadata.agent": "router"}))
    assert not matches(call, SpanFilter(name="other"))
    assert not matches(call, SpanFilter(attributes={"metadata.agent": "writer"}))
    assert not matches(call, SpanFilter(kind="TOOL"))


def test_a_call_whose_tracer_lost_the_kind_is_still_a_call() -> None:
    assert matches(span(kind="UNKNOWN"), SpanFilter())
    assert matches(span(kind="UNKNOWN", attributes={"gen_ai": {"request": {"model": "m"}}}), SpanFilter())


@pytest.mark.parametrize("attributes", [{}, {"input": {"value": "hi"}}])
def test_a_span_of_unknown_kind_without_a_models_attributes_is_no_call(attributes: dict[str, object]) -> None:
    assert not matches(span(kind="UNKNOWN", attributes=attributes), SpanFilter())
    assert not matches(span(kind="UNKNOWN"), SpanFilter(kind="TOOL"))
