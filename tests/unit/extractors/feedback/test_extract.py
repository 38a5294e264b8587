"""Tests of the reviewed items that spans and annotations make."""

import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extractors.examples.prompt_keys import compute_prompt_key
from extractors.examples.types import Message
from extractors.feedback.extract import Extraction, extract
from extractors.feedback.rules import FeedbackRules
from extractors.phoenix.spans import Annotation, Span
from extractors.span_parsing.drop_reasons import MOST_SPANS, DropReason
from tests.support.traffic import NOON, annotation, correction, openinference, span

ONLY, LAST, NEVER = (FeedbackRules(inherit=rule) for rule in ("only", "last", "never"))


def outcomes(spans: list[Span], annotations: list[Annotation], rules: FeedbackRules = ONLY) -> dict[str, str]:
    """Newest source span of each item to its outcome."""
    found = extract(spans, annotations, rules)
    return {item.source_span_ids[-1]: item.outcome for item in found.items}


def test_a_reviewed_call_becomes_an_item() -> None:
    (found,) = extract([span(session_id="abc")], [annotation()], ONLY).items
    assert (found.outcome, found.gold, found.response.content) == ("approved", found.response, "billing")
    assert (found.source_span_ids, found.session_id, found.started_at) == (("s1",), "abc", NOON)


def test_items_come_oldest_first_and_the_rest_is_counted() -> None:
    spans = [span("s3", 3), span("s1", 1), span("s2", 2), span("s4", 4)]
    said = [annotation("s1"), correction("s2"), annotation("s3", "rejected")]
    found = extract(spans, said, ONLY)
    assert [item.source_span_ids for item in found.items] == [("s1",), ("s2",), ("s3",)]
    assert [item.outcome for item in found.items] == ["approved", "corrected", "rejected"]
    assert found.dropped == {DropReason.NO_FEEDBACK.value: 1}


def test_a_call_that_the_gateway_answered_for_another_target_is_dropped() -> None:
    attributes = openinference(("user", "hello"), learnd={"tenant": "other", "agent": "routing"})
    foreign = span("s1", attributes=attributes)
    found = extract([foreign, span("s2")], [annotation("s1"), annotation("s2")], ONLY, target="acme/routing")
    assert [item.source_span_ids for item in found.items] == [("s2",)]
    assert found.dropped == {DropReason.OTHER_TARGET.value: 1}


def test_spans_that_are_not_selected_are_no_calls() -> None:
    assert extract([span(selected=False)], [annotation()], ONLY) == Extraction(items=(), dropped={})


def test_what_is_dropped_is_counted_by_reason() -> None:
    spans = [
        span("own", attributes={"learnd": {"internal": True}}),
        span("failed", status="ERROR"),
        span("empty", attributes={}),
        span("torn"),
        span("fine"),
    ]
    said = [annotation("torn"), annotation("torn", "rejected", identifier="bob"), annotation("fine")]
    found = extract(spans, said, ONLY)
    assert [item.source_span_ids for item in found.items] == [("fine",)]
    assert found.dropped == {
        reason.value: 1
        for reason in (DropReason.INTERNAL, DropReason.FAILED, DropReason.NO_PROMPT, DropReason.DISAGREEMENT)
    }
    assert found.dropped_spans[DropReason.FAILED.value] == ("failed",)
    assert found.dropped_spans[DropReason.DISAGREEMENT.value] == ("torn",)


def trace_twice(**gateway: Any) -> list[Span]:
    """An agent's span, and our gateway's span of the same call below it."""
    attributes = openinference(("user", "What about s1?"), learnd={"version": "acme.v2"})
    below = {"parent_id": "http", "trace_id": "trace-s1", "attributes": attributes, **gateway}
    http = span("http", 1, trace_id="trace-s1", parent_id="s1", selected=False, kind="UNKNOWN", attributes={})
    return [span("s1", session_id="abc"), http, span("gateway", 2, **below)]


@pytest.mark.parametrize("annotated", ["s1", "gateway"])
def test_a_call_traced_twice_is_one_item_with_the_feedback_of_both(annotated: str) -> None:
    (found,) = extract(trace_twice(), [annotation(annotated)], NEVER).items
    assert found.source_span_ids == ("s1", "gateway")
    assert (found.session_id, found.answered_by) == ("abc", "acme.v2")
    assert found.started_at == NOON + timedelta(minutes=2)


def test_feedback_on_both_spans_of_one_call_is_weighed_together() -> None:
    said = [annotation("s1"), annotation("gateway", "rejected", identifier="bob")]
    assert extract(trace_twice(), said, NEVER).dropped == {DropReason.DISAGREEMENT.value: 1}


def test_a_call_traced_twice_side_by_side_in_one_trace_is_one_item() -> None:
    agents, _, gateways = trace_twice(parent_id=None)
    found = extract([agents, gateways], [annotation("trace-s1", level="trace")], ONLY)
    assert [item.source_span_ids for item in found.items] == [("s1", "gateway")]


def test_feedback_on_a_span_between_the_two_reaches_the_call() -> None:
    assert outcomes(trace_twice(), [annotation("http")]) == {"gateway": "approved"}


def test_nested_spans_with_different_answers_are_two_calls() -> None:
    spans = trace_twice(attributes=openinference(("user", "And this?"), answer="returns"))
    assert outcomes(spans, [annotation("s1"), annotation("gateway", "rejected")]) == {
        "s1": "approved",
        "gateway": "rejected",
    }
    assert outcomes(spans, [annotation("s1")]) == {"s1": "approved"}


def test_a_truncated_span_gives_its_feedback_to_the_gateways_span_below() -> None:
    agents, http, gateways = trace_twice()
    agents = agents.model_copy(update={"kind": "UNKNOWN"})
    found = extract([agents, http, gateways], [annotation("s1")], ONLY)
    assert [item.source_span_ids for item in found.items] == [("gateway",)]
    assert found.dropped == {DropReason.TRUNCATED.value: 1}


def conversation() -> list[Span]:
    """An agent's root span with two calls below it, all in one session."""
    root = span("root", trace_id="t", session_id="s", selected=False, kind="AGENT", attributes={})
    calls = [span(f"c{n}", n, trace_id="t", session_id="s", parent_id="root") for n in (1, 2)]
    return [root, *calls]


ABOVE = [
    annotation("root"),
    annotation("t", level="trace"),
    annotation("s", level="session"),
]


@pytest.mark.parametrize("above", ABOVE, ids=["ancestor", "trace", "session"])
def test_feedback_from_above_reaches_the_only_call_or_the_last_one(above: Annotation) -> None:
    both, alone = conversation(), conversation()[:2]
    assert outcomes(alone, [above], ONLY) == {"c1": "approved"}
    assert outcomes(both, [above], ONLY) == {}
    assert outcomes(both, [above], LAST) == {"c2": "approved"}
    assert outcomes(alone, [above], NEVER) == {}


@pytest.mark.parametrize("above", ABOVE, ids=["ancestor", "trace", "session"])
def test_feedback_on_the_call_itself_outranks_what_comes_from_above(above: Annotation) -> None:
    direct = annotation("c2", "rejected", annotator_kind="CODE")
    assert outcomes(conversation(), [above, direct], LAST) == {"c2": "rejected"}


def test_nearer_feedback_outranks_what_is_said_further_up() -> None:
    said = [annotation("root", "rejected"), annotation("t", level="trace")]
    assert outcomes(conversation(), said, LAST) == {"c2": "rejected"}


ALL = FeedbackRules(inherit="all")


def review_turns(*annotations: Annotation, rules: FeedbackRules = ALL) -> list[tuple[str, str]]:
    """Outcome and gold of the turns of `conversation`."""
    items = extract(conversation(), annotations, rules).items
    return [(item.outcome, item.gold.content if item.gold else "") for item in items]


@pytest.mark.parametrize(
    "corrections",
    [
        [correction("s", "42", level="session")],
        [annotation("s", "rejected", level="session", metadata={"correction": "42"})],
        [annotation("s", "rejected", level="session"), correction("s", "42", level="session")],
    ],
    ids=["correction", "in-metadata", "with-a-verdict"],
)
def test_a_correction_of_a_conversation_is_the_gold_of_its_last_turn_alone(
    corrections: list[Annotation],
) -> None:
    assert review_turns(*corrections) == [("corrected", "42")]
    by_bob = annotation("s", level="session", annotator_kind="LLM", identifier="bob")
    assert review_turns(*corrections, by_bob) == [("approved", "billing"), ("corrected", "42")]


@pytest.mark.parametrize(("label", "gold"), [("approved", "billing"), ("rejected", "")])
def test_a_verdict_on_a_conversation_is_about_every_turn_where_all_inherit(label: str, gold: str) -> None:
    assert review_turns(annotation("s", label, level="session")) == [(label, gold), (label, gold)]


def test_a_candidate_for_a_conversation_answers_its_last_turn_alone() -> None:
    note = annotation("s", level="session", metadata={"response": "42"})
    found = extract(conversation(), [note], ALL)
    assert [(judged.response.content, judged.source_span_ids) for judged in found.judged] == [("42", ("c2",))]


def test_a_failed_attempt_does_not_take_the_feedback_of_the_retry() -> None:
    root, first, second = conversation()
    failed = first.model_copy(update={"status": "ERROR"})
    assert outcomes([root, failed, second], [annotation("root")], ONLY) == {"c2": "approved"}


def test_a_call_without_session_belongs_to_that_of_its_trace() -> None:
    root, call, _ = conversation()
    (found,) = extract([root, call.model_copy(update={"session_id": None})], [annotation("c1")], ONLY).items
    assert found.session_id == "s"


def test_gold_answers_are_spelled_as_in_the_output_space() -> None:
    spans = [span("s1"), span("s2", 1), span("s3", 2)]
    said = [annotation("s1"), correction("s2", "SHIPPING"), correction("s3", "no idea")]
    found = extract(spans, said, ONLY, output_space=("Billing", "shipping"))
    assert [item.gold and item.gold.content for item in found.items] == ["Billing", "shipping"]
    assert found.dropped == {DropReason.OUTSIDE_OUTPUT_SPACE.value: 1}


def test_repetitions_within_a_session_are_one_item_and_across_sessions_are_not() -> None:
    chat = openinference(("user", "Hello"))
    spans = [span(f"s{n}", n, session_id=session, attributes=chat) for n, session in enumerate("aab")]
    found = extract(spans, [annotation(f"s{n}") for n in range(3)], ONLY)
    assert [item.source_span_ids for item in found.items] == [("s1",), ("s2",)]
    assert found.dropped == {DropReason.REPEATED.value: 1}


def test_a_repetition_within_a_session_has_the_word_that_counts_the_most() -> None:
    chat = openinference(("user", "Hello"))
    spans = [span(f"s{n}", n, session_id="a", attributes=chat) for n in range(2)]
    said = [annotation("s0", updated_at=NOON), annotation("s1", annotator_kind="LLM")]
    (found,) = extract(spans, said, ONLY).items
    assert found.source_span_ids == ("s1",)
    assert (found.verdict_rank, found.verdict_at) == (0, NOON)


def test_prompts_are_alike_but_for_case_space_unicode_form_and_system_prompt() -> None:
    def key(*messages: tuple[str, str]) -> str:
        return compute_prompt_key([Message(role=role, content=content) for role, content in messages])

    assert key(("system", "A"), ("user", "My  ﬁrst\nbill")) == key(
        ("system", "B"), ("user", "my first BILL ")
    )
    assert key(("user", "My bill")) != key(("user", "My parcel"))
    assert key(("user", "My bill")) != key(("user", "My"), ("assistant", "bill"))
    assert key(("system", "A")) != key(("system", "B"))


KEYS = st.sampled_from([
    "llm", "input_messages", "output_messages", "message", "role", "content", "contents", "message_content",
    "type", "text", "tool_calls", "tool_call", "function", "name", "arguments", "tools", "tool",
    "json_schema", "prompts", "prompt", "choices", "prompt_template", "template", "variables", "gen_ai",
    "input", "output", "value", "mime_type", "messages", "parts", "completion", "system_instructions",
    "definitions", "metadata", "session", "id", "learnd", "version", "internal", "data", "kwargs", "0", "1",
    "7",
])  # fmt: skip
TEXT = st.text(st.characters(exclude_categories=[]), max_size=8)  # lone surrogates too
WORDS = ["user", "assistant", "tool", "text", "image", "application/json", "{{x}}", "[]", "{", '"x"']
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.sampled_from(WORDS)
JUNK = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(KEYS, inner, max_size=4)
        | st.dictionaries(KEYS, inner, max_size=4).map(lambda value: json.dumps(value))
    ),
    max_leaves=25,
)


CALL = {"id": "c1", "function": {"name": "f", "arguments": "{}"}}
PART = {"message_content": {"type": "text", "text": "hi"}}
WHOLE = {
    "llm": {
        "input_messages": [
            {"message": {"role": "user", "contents": [PART]}},
            {"message": {"role": "assistant", "tool_calls": [{"tool_call": CALL}]}},
        ],
        "output_messages": [{"message": {"role": "assistant", "content": "billing"}}],
        "tools": [{"tool": {"json_schema": {"type": "function", "function": {"name": "f"}}}}],
    },
    "input": {"value": {"messages": [[{"type": "human", "data": {"content": "hi", "type": "human"}}]]}},
    "output": {"value": {"choices": [{"message": {"role": "assistant", "content": "billing"}}]}},
    "gen_ai": {
        "system_instructions": [{"type": "text", "content": "Route."}],
        "input": {"messages": [{"role": "user", "parts": [{"type": "text", "content": "hi"}]}]},
        "output": {"messages": [{"role": "assistant", "parts": [{"type": "tool_call", "name": "f"}]}]},
    },
    "metadata": {"session_id": "s"},
    "learnd": {"version": "v1"},
}


def places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all nodes."""
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path, *(place for key, value in inner for place in places(value, (*path, key)))]


def insert_junk(tree: Any, path: tuple[Any, ...], junk: Any) -> Any:
    """`tree` with `junk` in the place of one node."""
    if not path:
        return junk
    copy = list(tree) if isinstance(tree, list) else dict(tree)
    copy[path[0]] = insert_junk(tree[path[0]], path[1:], junk)
    return copy


SPOILED = st.builds(
    lambda roots, path, junk: insert_junk({root: WHOLE[root] for root in {path[0], *roots}}, path, junk),
    st.lists(st.sampled_from(sorted(WHOLE)), max_size=3),
    st.sampled_from([path for path in places(WHOLE) if path]),
    JUNK,
)


@given(
    attributes=st.lists(SPOILED | st.dictionaries(KEYS, JUNK, max_size=5), min_size=1, max_size=3),
    metadata=st.dictionaries(st.sampled_from(["correction", "response"]), JUNK),
    label=st.none() | TEXT | st.just("approved"),
    parents=st.lists(st.sampled_from(["s0", "s1", "s2", "gone", None]), min_size=3, max_size=3),
)
@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
def test_no_junk_makes_extraction_raise_or_lose_count(
    attributes: list[dict[str, Any]], metadata: dict[str, Any], label: str | None, parents: list[str | None]
) -> None:
    spans = [
        span(f"s{n}", trace_id="t", parent_id=parents[n], attributes=written)
        for n, written in enumerate(attributes)
    ]
    said = [annotation(found.span_id, label, metadata=metadata) for found in spans]
    found = extract(spans, said, FeedbackRules(inherit="last"))
    merged = sum(len(item.source_span_ids) for item in found.items)
    calls = {reason: n for reason, n in found.dropped.items() if reason != DropReason.ANSWER_UNREADABLE}
    assert merged + sum(calls.values()) <= len(spans)
    for made in (*found.items, *found.judged):
        made.model_dump_json().encode()
    assert extract(reversed(spans), reversed(said), FeedbackRules(inherit="last")) == found


def test_what_is_dropped_can_be_looked_at() -> None:
    unread = [span(span_id=f"{number:016x}", minute=number) for number in range(MOST_SPANS + 5)]
    found = extract(unread, [], ONLY)
    newest = found.dropped_spans[DropReason.NO_FEEDBACK.value]
    assert found.dropped == {DropReason.NO_FEEDBACK.value: MOST_SPANS + 5}
    assert newest == tuple(each.span_id for each in unread[5:])
