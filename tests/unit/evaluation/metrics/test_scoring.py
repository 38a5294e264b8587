"""Right and wrong answers, by task."""

import pytest

from evaluation.metrics.scoring import build_scorer
from extractors.examples.types import Message, ToolCall

ROUTING = build_scorer("classification", ("Billing", "Card lost"), ())
WRITING = build_scorer("generation", (), ())


def says(text):
    return Message(role="assistant", content=text)


@pytest.mark.parametrize("text", ["Billing", " billing\n", '"Billing."'])
def test_a_label_counts_without_regard_to_case_space_and_quotes(text):
    assert ROUTING.is_correct(text, ended=True, gold=says("Billing"))
    assert ROUTING.is_valid(text, ended=True)


def test_a_label_in_a_sentence_is_no_label():
    assert not ROUTING.is_correct("It is Billing", ended=True, gold=says("Billing"))
    assert not ROUTING.is_valid("It is Billing", ended=True)


def test_without_an_output_space_the_labels_seen_in_training_are_valid():
    seen = build_scorer("classification", (), ("refund",))
    assert seen.is_valid("Refund", ended=True)
    assert not seen.is_valid("Billing", ended=True)


def test_a_text_counts_but_for_white_space():
    assert WRITING.is_correct("Dear  all,\nbye", ended=True, gold=says("Dear all, bye"))
    assert not WRITING.is_correct("dear all, bye", ended=True, gold=says("Dear all, bye"))


def test_an_answer_that_was_cut_off_is_neither_right_nor_a_valid_text():
    assert not WRITING.is_correct("Dear all", ended=False, gold=says("Dear all"))
    assert not WRITING.is_valid("Dear all", ended=False)
    assert not WRITING.is_valid(" \n", ended=True)


CALL = ToolCall(name="find", arguments='{"city": "Köln", "days": 2}')


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>\n{"name": "find", "arguments": {"days": 2, "city": "K\\u00f6ln"}}\n</tool_call>',
        'I look {it} up. {"name": "find", "parameters": {"city": "Köln", "days": 2}}',
    ],
)
def test_a_tool_call_counts_by_name_and_arguments(text):
    assert WRITING.is_correct(text, ended=True, gold=Message(role="assistant", tool_calls=(CALL,)))


@pytest.mark.parametrize(
    "text",
    [
        "find",
        '{"name": "find", "arguments": {"city": "Bonn", "days": 2}}',
        '{"name": "find", "arguments": {"city": "Köln", "days": 2}}{"name": "find", "arguments": {}}',
    ],
)
def test_another_call_no_call_or_one_call_more_is_wrong(text):
    assert not WRITING.is_correct(text, ended=True, gold=Message(role="assistant", tool_calls=(CALL,)))


@pytest.mark.parametrize("arguments", ["", "null", "{}", " "])
def test_a_call_without_arguments_is_one_with_none(arguments):
    gold = Message(role="assistant", tool_calls=(ToolCall(name="now", arguments=arguments),))
    assert WRITING.is_correct('{"name": "now", "arguments": {}}', ended=True, gold=gold)
    assert not WRITING.is_correct('{"name": "now", "arguments": {"zone": "UTC"}}', ended=True, gold=gold)


def test_objects_without_end_in_an_answer_are_no_call():
    assert not WRITING.is_correct(
        '{"a":' * 5000, ended=True, gold=Message(role="assistant", tool_calls=(CALL,))
    )
