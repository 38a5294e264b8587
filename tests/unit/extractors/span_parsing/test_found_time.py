"""Depth and size: whatever is nested, long or numerous ends with a reading or a reason, in linear work.

The sizes are such that a reader whose work grows faster than its input would not end within a test run.
"""

import json
from typing import Any

import pytest

from extractors.span_parsing.calls import ModelCall, read_call
from extractors.span_parsing.drop_reasons import DropReason
from tests.support.conversations import refuse
from tests.support.flat_attributes import list_messages, write_body, write_llm, write_text
from tests.support.otlp import decode

ASKED = {"role": "user", "content": "Count the stairs."}


def _nest_results(depth: int) -> str:
    opening = '[{"type":"tool_result","tool_use_id":"t","content":'
    return f'{{"messages":[{{"role":"user","content":{opening * depth}"x"{"}]" * depth}}}]}}'


@pytest.mark.parametrize("depth", [50, 100, 200, 300, 450, 900, 5000])
def test_results_nested_in_results_end(depth: int) -> None:
    attributes: dict[str, Any] = write_llm(None, "Ninety.")
    attributes |= {"input.value": _nest_results(depth), "input.mime_type": "application/json"}
    assert isinstance(read_call(decode(attributes)), ModelCall | DropReason)


@pytest.mark.parametrize("depth", [50, 200, 400, 600, 900, 5000])
def test_nested_schemas_end(depth: int) -> None:
    schema = '{"type":"OBJECT","properties":{"a":' * depth + '{"type":"STRING"}' + "}}" * depth
    tool = f'{{"type":"function","function":{{"name":"count","parameters":{schema}}}}}'
    attributes = write_llm([ASKED], "Ninety.", llm__tools__0__tool__json_schema=tool)
    assert isinstance(read_call(decode(attributes)), ModelCall | DropReason)


@pytest.mark.parametrize(
    "bracket", ["[", '{"content":', '{"message":', '{"output":[', '[{"type":"text","text":']
)
@pytest.mark.parametrize(
    "side", ["input.value", "output.value", "gen_ai.completion", "ai.response.toolCalls"]
)
def test_deep_bodies_end(bracket: str, side: str) -> None:
    closing = "".join({"[": "]", "{": "}"}[x] for x in reversed(bracket) if x in "[{")
    for depth in (100, 240, 450, 3000):
        attributes = write_llm([ASKED], "Ninety.")
        attributes |= {side: bracket * depth + "1" + closing * depth}
        attributes |= {"input.mime_type": "application/json", "output.mime_type": "application/json"}
        assert isinstance(read_call(decode(attributes)), ModelCall | DropReason)


@pytest.mark.parametrize("piece", ["max_", "token", "max_w", "length_", "A"])
def test_a_long_finish_reason_is_an_abnormal_end(piece: str) -> None:
    attributes = write_llm([ASKED], "Ninety.", llm__finish_reason=piece * (400_000 // len(piece)) + "!")
    found = read_call(decode(attributes))
    assert found in (DropReason.ABNORMAL_END, DropReason.CUT_OFF)


def test_many_results_as_messages_of_the_user_end() -> None:
    count = 250
    calls = [{"type": "tool_use", "id": f"t{at}", "name": "step", "input": {"at": at}} for at in range(count)]
    results = [{"type": "tool_result", "tool_use_id": f"t{at}", "content": f"{at}"} for at in range(count)]
    body = {
        "messages": [ASKED, {"role": "assistant", "content": calls}, {"role": "user", "content": results}]
    }
    listed_calls = [
        {"id": call["id"], "function": {"name": "step", "arguments": json.dumps(call["input"])}}
        for call in calls
    ]
    listed: list[dict[str, Any]] = [
        ASKED,
        {"role": "assistant", "tool_calls": listed_calls},
        *({"role": "user", "tool_call_id": f"t{at}", "content": f"{at}"} for at in range(count - 1)),
    ]
    assert isinstance(read_call(decode(write_llm(listed, "Done.", body=body))), ModelCall | DropReason)


def test_many_messages_and_parts_end() -> None:
    said = [{"role": role, "content": f"{at}"} for at in range(2000) for role in ("user", "assistant")]
    attributes = write_llm([*said, ASKED], "Ninety.", body={"messages": [*said, ASKED]})
    assert isinstance(read_call(decode(attributes)), ModelCall)
    parts = [write_text(f"{at}") for at in range(10_000)]
    body = {"messages": [{"role": "user", "content": parts}]}
    assert isinstance(read_call(decode(write_llm(None, "Ninety.", body=body))), ModelCall)


@pytest.mark.parametrize(
    "piece", ["[", "[{", '{"', "{{a", "{a}", "```json", "content='", "<think>", "Human: ", "\n", "[["]
)
def test_long_texts_end(piece: str) -> None:
    text = piece * (300_000 // len(piece)) + "x"
    listed = [{"role": "user", "content": text}]
    for attributes in (
        write_llm(listed, "Ninety."),
        write_llm([ASKED], text),
        {"openinference.span.kind": "LLM", "input.value": text, "output.value": text},
        {
            **write_llm(None, "Ninety."),
            "llm.prompt_template.template": text,
            "llm.prompt_template.variables": "{}",
        },
        {
            **write_llm([ASKED], None),
            **list_messages("output", {"content": text}),
            **write_body("output", text),
        },
    ):
        assert isinstance(read_call(decode(attributes)), ModelCall | DropReason)


def test_text_beyond_any_model_is_too_large() -> None:
    text = json.dumps({"messages": [{"role": "user", "content": "word " * 120_000}]})
    attributes = {**write_llm(None, "Ninety."), "input.value": text, "input.mime_type": "application/json"}
    assert refuse(attributes) is DropReason.TOO_LARGE
