"""What tools return: lists of parts are their texts, lists of data stay data, images are no text."""

import json
from typing import Any

import pytest

from extractors.span_parsing.drop_reasons import DropReason
from tests.support.conversations import Call, Turn, outline, read, read_turns, refuse
from tests.support.flat_attributes import write_genai, write_llm, write_part, write_text

ASK = "How deep is the lock?"
ASKED = {"role": "user", "parts": [write_part(ASK)]}
CALL = {"type": "tool_call", "id": "t1", "name": "measure", "arguments": {"lock": "east"}}
CALLING = {"role": "assistant", "parts": [CALL]}
MEASURED = Call("measure", {"lock": "east"})
ENDED = Turn("assistant", "It is known now.")
IMAGE = {"image": {"format": "png", "source": {"bytes": "AAAA"}}}


def _return_genai(**returned: Any) -> dict[str, Any]:
    result = {"role": "tool", "parts": [{"type": "tool_call_response", "id": "t1", **returned}]}
    return write_genai([ASKED, CALLING, result], ENDED.text)


def _read_result(attributes: dict[str, Any]) -> str:
    """Return what the tool returned, as it was read."""
    [result] = [message for message in read(attributes).prompt if message.role == "tool"]
    return result.content


@pytest.mark.parametrize(
    ("blocks", "text"),
    [
        ([{"text": "6 m"}], "6 m"),
        ([{"text": "6 m"}, {"text": "or so"}], "6 m\nor so"),
        ([{"json": {"metres": 6}}], '{"metres": 6}'),
        ([{"depth": 6}], '[{"depth": 6}]'),
        ([{"text": "6 m", "gauge": 3}], '[{"text": "6 m", "gauge": 3}]'),
    ],
)
def test_blocks_of_bedrock_that_a_tool_returned_are_their_texts(blocks: Any, text: str) -> None:
    assert _read_result(_return_genai(response=blocks)) == text


@pytest.mark.parametrize("block", [IMAGE, {"document": {"name": "d"}}, {"video": {"source": {}}}])
def test_a_block_that_is_no_text_in_what_a_tool_returned_is_none(block: Any) -> None:
    assert refuse(_return_genai(response=[{"text": "6 m"}, block])) is DropReason.NOT_TEXT


@pytest.mark.parametrize(
    "data",
    [
        [{"type": "text", "text": "deep", "score": 4}, {"type": "text", "text": "shallow", "score": 1}],
        [{"type": "sluice", "metres": 6}, {"type": "gate", "metres": 5}],
        [{"type": "gate"}],
        [],
        [4, 6],
    ],
)
def test_a_list_of_data_stays_what_the_tool_returned(data: Any) -> None:
    assert json.loads(_read_result(_return_genai(result=data))) == data
    assert json.loads(_read_result(_return_genai(response=data))) == data


def test_a_tool_that_returned_nothing_is_no_gap() -> None:
    assert _read_result(_return_genai(result=None)) == "null"


@pytest.mark.parametrize("indent", [None, 1])
def test_parts_as_text_in_a_result_are_their_texts(indent: int | None) -> None:
    written = json.dumps([{**write_text("6 metres"), "id": "lc_4"}], indent=indent)
    assert _read_result(_return_genai(response=written)) == "6 metres"


def test_an_image_in_parts_as_text_of_a_result_is_no_text() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    written = json.dumps([write_text("6 metres"), image])
    assert refuse(_return_genai(response=written)) is DropReason.NOT_TEXT


MEDIA = {"type": "media", "data": "AAAA", "mediaType": "image/png"}


def test_content_that_vercel_returns_under_a_type_is_its_texts() -> None:
    texts = {"type": "content", "value": [write_text("6 m"), write_text("deep")]}
    assert _read_result(_return_genai(response=texts)) == "6 m\ndeep"
    image = {"type": "content", "value": [write_text("6 m"), MEDIA]}
    assert refuse(_return_genai(response=image)) is DropReason.NOT_TEXT


def _return_vercel(output: Any, *parts: Any) -> dict[str, Any]:
    call = {"type": "tool-call", "toolCallId": "t1", "toolName": "measure", "input": {"lock": "east"}}
    result = {"type": "tool-result", "toolCallId": "t1", "toolName": "measure", "output": output}
    messages = [
        {"role": "user", "content": [write_text(ASK)]},
        {"role": "assistant", "content": [call, *parts[:1]]},
        {"role": "tool", "content": [*parts[1:], result]},
    ]
    return {
        "operation.name": "ai.generateText.doGenerate",
        "ai.operationId": "ai.generateText.doGenerate",
        "gen_ai.request.model": "m",
        "ai.prompt.messages": json.dumps(messages),
        "ai.response.text": ENDED.text,
        "ai.response.finishReason": "stop",
    }


@pytest.mark.parametrize(
    ("output", "text"),
    [
        ({"type": "json", "value": [{"type": "gate", "kn": 4}]}, '[{"type": "gate", "kn": 4}]'),
        ({"type": "json", "value": [{"type": "text", "text": "a"}]}, '[{"type": "text", "text": "a"}]'),
        ({"type": "text", "value": "6 m"}, "6 m"),
        ({"type": "content", "value": [write_text("6 m")]}, "6 m"),
        ({"type": "execution-denied", "reason": "Not today."}, "Not today."),
    ],
)
def test_what_a_tool_of_vercel_returned_is_what_was_sent(output: Any, text: str) -> None:
    assert _read_result(_return_vercel(output)) == text


def test_asking_for_a_persons_approval_says_nothing() -> None:
    asked = {"type": "tool-approval-request", "approvalId": "a1", "toolCallId": "t1"}
    given = {"type": "tool-approval-response", "approvalId": "a1", "approved": True}
    turns = read_turns(_return_vercel({"type": "text", "value": "6 m"}, asked, given))
    assert turns == [
        Turn("user", ASK),
        Turn("assistant", calls=(MEASURED,)),
        Turn("tool", "6 m", answers=MEASURED),
        ENDED,
    ]


@pytest.mark.parametrize(("rounds", "parallel"), [(1, 40), (6, 3), (12, 2), (30, 2)])
def test_results_that_stand_in_one_message_are_read_from_the_tracers_own_record(
    rounds: int, parallel: int
) -> None:
    messages: list[Any] = [ASKED]
    for turn in range(rounds):
        ids = [f"t{turn}_{at}" for at in range(parallel)]
        calls = [{**CALL, "id": call_id, "arguments": {"lock": call_id}} for call_id in ids]
        results = [{"type": "tool_call_response", "id": x, "response": f"depth of {x}"} for x in ids]
        messages += [{"role": "assistant", "parts": calls}, {"role": "user", "parts": results}]
    call = read(write_genai(messages, ENDED.text))
    turns = outline(call)
    assert len(turns) == 2 + rounds * (parallel + 1)
    returned = [message for message in call.prompt if message.role == "tool"]
    assert [message.content for message in returned] == [
        f"depth of t{turn}_{at}" for turn in range(rounds) for at in range(parallel)
    ]


def test_a_result_that_adk_wrote_over_the_next_message_is_read_from_the_body() -> None:
    def write_gemini_call(name: str) -> dict[str, Any]:
        return {"function_call": {"id": name, "name": name, "args": {}}}

    def write_gemini_result(name: str, said: str) -> dict[str, Any]:
        return {"function_response": {"id": name, "name": name, "response": {"result": said}}}

    body = {
        "model": "m",
        "contents": [
            {"role": "user", "parts": [{"text": ASK}]},
            {"role": "model", "parts": [write_gemini_call("sound"), write_gemini_call("scan")]},
            {"role": "user", "parts": [write_gemini_result("sound", "6"), write_gemini_result("scan", "7")]},
            {"role": "model", "parts": [{"text": "Six or seven."}]},
            {"role": "user", "parts": [{"text": "Which one?"}]},
        ],
        "config": {},
    }
    calls = [{"id": name, "function": {"name": name, "arguments": "{}"}} for name in ("sound", "scan")]
    listed: list[dict[str, Any]] = [
        {"role": "user", "contents": [write_text(ASK)]},
        {"role": "model", "tool_calls": calls},
        {"role": "tool", "name": "sound", "tool_call_id": "sound", "content": '{"result": "6"}'},
        {
            "role": "model",
            "name": "scan",
            "tool_call_id": "scan",
            "content": '{"result": "7"}',
            "contents": [write_text("Six or seven.")],
        },
        {"role": "user", "contents": [write_text("Which one?")]},
    ]
    sound, scan = Call("sound"), Call("scan")
    assert read_turns(write_llm(listed, "Six.", body=body)) == [
        Turn("user", ASK),
        Turn("assistant", calls=(sound, scan)),
        Turn("tool", '{"result": "6"}', answers=sound),
        Turn("tool", '{"result": "7"}', answers=scan),
        Turn("assistant", "Six or seven."),
        Turn("user", "Which one?"),
        Turn("assistant", "Six."),
    ]
