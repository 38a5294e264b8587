"""Limits: of the tokens of an answer, of the attributes of a span and of the length of a text."""

import json
from typing import Any

import pytest

from extractors.span_parsing.drop_reasons import DropReason
from tests.support.conversations import outline, read, refuse
from tests.support.flat_attributes import (
    list_messages,
    write_body,
    write_genai,
    write_llm,
    write_part,
)

ASK = "Name the lighthouse."
ASKED = {"role": "user", "content": ASK}
ANSWER = "It is called Kullen."
WORDS = "a lamp on the rock above the sea "


def _write_words(length: int) -> str:
    """Return words of this length that end in the midst of one."""
    return (WORDS * (length // len(WORDS) + 1))[: length - 1] + "w"


@pytest.mark.parametrize(
    "limited",
    [
        {"options": {"num_predict": 9}},
        {"config": {"max_output_tokens": 9}},
        {"generationConfig": {"maxOutputTokens": 9}},
        {"generation_config": {"max_output_tokens": 9}},
        {"inferenceConfig": {"maxTokens": 9}},
        {"extra_body": {"max_tokens": 9}},
        {"model_kwargs": {"max_tokens": 9}},
        {"generation_kwargs": {"max_tokens": 9}},
    ],
)
def test_an_answer_of_as_many_tokens_as_were_allowed_is_cut(limited: dict[str, Any]) -> None:
    body = {"model": "m", "messages": [ASKED], **limited}
    spent = write_llm([ASKED], ANSWER, body=body, llm__token_count__completion=9)
    assert refuse(spent) is DropReason.CUT_OFF
    given = write_llm([ASKED], ANSWER, llm__token_count__completion=9)
    assert refuse({**given, "llm.invocation_parameters": json.dumps(limited)}) is DropReason.CUT_OFF
    assert read(write_llm([ASKED], ANSWER, body=body, llm__token_count__completion=8))
    assert read(
        write_llm([ASKED], ANSWER, body=body, llm__token_count__completion=9, llm__finish_reason="stop")
    )


@pytest.mark.parametrize(
    ("end", "reason"),
    [("length", DropReason.CUT_OFF), ("content_filter", DropReason.ABNORMAL_END)],
)
def test_an_end_that_is_told_explains_an_empty_answer(end: str, reason: DropReason) -> None:
    empty = {"role": "assistant", "content": ""}
    assert refuse(write_llm([ASKED], empty, llm__finish_reason=end)) is reason
    output = {"choices": [{"finish_reason": end, "message": empty}]}
    assert refuse(write_llm([ASKED], None, output=output)) is reason
    genai = {"role": "assistant", "parts": [], "finish_reason": end}
    asked = {"role": "user", "parts": [write_part(ASK)]}
    assert refuse(write_genai([asked], genai, gen_ai__response__finish_reasons=[end])) is reason


def test_a_refusal_explains_an_empty_answer() -> None:
    said = {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}
    output = {"object": "response", "status": "completed", "output": [said]}
    attributes = write_llm(None, None, body={"model": "m", "input": ASK}, output=output)
    assert refuse(attributes) is DropReason.ABNORMAL_END


@pytest.mark.parametrize("length", [2048, 4096, 8191])
def test_instructions_and_tools_that_break_off_were_cut(length: int) -> None:
    instructions = json.dumps([write_part("Be kind. " * 1000)])[:length]
    tools = json.dumps([{"type": "function", "name": "light", "description": "Light it. " * 1000}])[:length]
    asked = [{"role": "user", "parts": [write_part(ASK)]}]
    assert (
        refuse(write_genai(asked, ANSWER, gen_ai__system_instructions=instructions)) is DropReason.VALUE_CUT
    )
    assert refuse(write_genai(asked, ANSWER, gen_ai__tool__definitions=tools)) is DropReason.VALUE_CUT


@pytest.mark.parametrize("cut", [500, 3000])
def test_parameters_that_break_off_were_cut(cut: int) -> None:
    tool = {"type": "function", "function": {"name": "light", "description": "Light it. " * 900}}
    parameters = json.dumps({"tools": [tool]})[:cut]
    attributes = write_llm([ASKED], ANSWER, llm__invocation_parameters=parameters)
    assert refuse(attributes) is DropReason.VALUE_CUT


@pytest.mark.parametrize("length", [1024, 4095, 4096, 8192, 32_768])
def test_one_text_that_ends_in_a_word_at_a_power_of_two_was_cut(length: int) -> None:
    asked = [{"role": "user", "content": _write_words(length)}]
    assert refuse(write_llm(asked, ANSWER)) is DropReason.VALUE_CUT
    indexed = {"gen_ai.prompt.0.role": "user", "gen_ai.prompt.0.content": _write_words(length)}
    answered = {"gen_ai.completion.0.role": "assistant", "gen_ai.completion.0.content": ANSWER}
    assert refuse({"gen_ai.system": "openai", **indexed, **answered}) is DropReason.VALUE_CUT


@pytest.mark.parametrize("text", [_write_words(4094), _write_words(4096)[:-1] + ".", _write_words(3333)])
def test_one_text_of_another_length_or_that_ends_a_sentence_is_whole(text: str) -> None:
    assert read(write_llm([{"role": "user", "content": text}], ANSWER)).prompt[0].content == text


@pytest.mark.parametrize("length", [128, 255, 4095, 1500])
def test_two_texts_that_end_in_a_word_at_a_length_that_people_set_were_cut(length: int) -> None:
    first, second = _write_words(length), "B" + _write_words(length)[1:]
    asked = [{"role": "system", "content": first}, {"role": "user", "content": second}]
    assert refuse(write_llm(asked, ANSWER)) is DropReason.VALUE_CUT


def test_short_texts_of_one_length_are_whole() -> None:
    asked = [{"role": "user", "content": '{"berth": "the third from the'}]
    assert read(write_llm(asked, "It is the third from the qua"))


@pytest.mark.parametrize("rounds", [40, 90])
def test_a_long_conversation_without_a_body_is_whole_where_no_limit_explains_its_size(rounds: int) -> None:
    turns = [
        {"role": role, "content": f"{role} {at}"} for at in range(rounds) for role in ("user", "assistant")
    ]
    attributes = write_llm([*turns, ASKED], ANSWER)
    assert len(outline(read(attributes))) == 2 * rounds + 2


@pytest.mark.parametrize("limit", [128, 256, 512, 1000, 1024, 2048])
def test_as_many_attributes_as_a_limit_allows_may_be_too_few(limit: int) -> None:
    turns = [{"role": ("user", "assistant")[at % 2], "content": f"said {at}"} for at in range(1, limit)]
    turns = turns[-(limit // 2 - 6) :]
    turns = turns if turns[-1]["role"] == "user" else turns[:-1]
    attributes: dict[str, Any] = {"openinference.span.kind": "LLM", **list_messages("input", *turns)}
    attributes |= list_messages("output", {"role": "assistant", "content": ANSWER})
    assert refuse(attributes) is DropReason.TRUNCATED


def test_a_body_beside_the_list_shows_that_nothing_was_dropped() -> None:
    turns = [{"role": ("user", "assistant")[at % 2], "content": f"said {at}"} for at in range(59)]
    attributes = write_llm(turns, ANSWER) | write_body("input", {"model": "m", "messages": turns})
    assert len(read(attributes).prompt) == 59


def test_metadata_are_one_attribute_whatever_they_hold() -> None:
    turns = [{"role": ("user", "assistant")[at % 2], "content": f"said {at}"} for at in range(57)]
    attributes: dict[str, Any] = {"openinference.span.kind": "LLM", **list_messages("input", *turns)}
    attributes["metadata"] = json.dumps({f"key {at}": at for at in range(40)})
    attributes |= list_messages("output", {"role": "assistant", "content": ANSWER})
    assert refuse(attributes) is DropReason.TRUNCATED
