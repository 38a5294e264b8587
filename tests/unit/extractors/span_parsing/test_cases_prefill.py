"""Prefill: an answer that continues what the request began is half an answer."""

import json
from typing import Any

import pytest

from extractors.span_parsing.drop_reasons import DropReason
from tests.support.conversations import Turn, read_turns, refuse
from tests.support.flat_attributes import write_genai, write_indexed, write_llm, write_part, write_text

ASKED = {"role": "user", "content": "Flag as JSON"}
BEGUN = {"role": "assistant", "content": '{"flag": "'}
REST = 'blue"}'


def test_an_answer_that_continues_the_last_message_is_refused() -> None:
    body = {"model": "c", "messages": [ASKED, BEGUN]}
    rest = {"role": "assistant", "contents": [write_text(REST)]}
    assert refuse(write_llm([ASKED, BEGUN], rest, body=body)) is DropReason.PREFILLED
    assert refuse(write_llm([ASKED, BEGUN], rest)) is DropReason.PREFILLED
    assert refuse(write_llm(None, rest, body=body)) is DropReason.PREFILLED


@pytest.mark.parametrize("answer", [REST, '{"flag": "blue"}'], ids=["rest", "echo"])
@pytest.mark.parametrize(
    "mark",
    [{"continue_final_message": True, "add_generation_prompt": False}, {"echo": True}],
    ids=["continue", "echoed"],
)
def test_a_request_that_says_so_is_refused(answer: str, mark: dict[str, Any]) -> None:
    body = {"model": "m", "messages": [ASKED, BEGUN], **mark}
    assert refuse(write_llm([ASKED, BEGUN], answer, body=body)) is DropReason.PREFILLED


@pytest.mark.parametrize("mark", ["prefix", "partial"])
def test_a_marked_beginning_is_refused(mark: str) -> None:
    body = {"model": "m", "messages": [ASKED, {**BEGUN, mark: True}]}
    assert refuse(write_llm([ASKED, BEGUN], REST, body=body)) is DropReason.PREFILLED


@pytest.mark.parametrize(
    "attributes",
    [
        write_genai(
            [
                {"role": "user", "parts": [write_part("Flag as JSON")]},
                {"role": "assistant", "parts": [write_part('{"flag": "')]},
            ],
            REST,
        ),
        write_indexed([ASKED, BEGUN], REST),
        write_llm([{}, ASKED, BEGUN], REST, body={"model": "m", "input": [ASKED, BEGUN]}),
        {
            "gen_ai.request.model": "m",
            "gen_ai.prompt": json.dumps([ASKED, BEGUN]),
            "gen_ai.completion": json.dumps([{"role": "assistant", "content": REST}]),
        },
    ],
    ids=["genai", "indexed", "responses", "older-json"],
)
def test_a_beginning_is_refused_in_every_convention(attributes: dict[str, Any]) -> None:
    assert refuse(attributes) is DropReason.PREFILLED


def test_a_completion_that_repeats_its_prompt_is_refused() -> None:
    attributes = write_llm(None, None, body={"prompt": "The flag is", "echo": True}) | {
        "llm.prompts.0.prompt.text": "The flag is",
        "llm.choices.0.completion.text": "The flag is blue.",
        "llm.invocation_parameters": '{"echo": true}',
    }
    assert refuse(attributes) is DropReason.PREFILLED


def test_a_request_that_does_not_continue_is_read() -> None:
    body = {"model": "m", "messages": [ASKED], "continue_final_message": False, "echo": False}
    assert read_turns(write_llm([ASKED], '{"flag": "blue"}', body=body)) == [
        Turn("user", "Flag as JSON"),
        Turn("assistant", '{"flag": "blue"}'),
    ]
