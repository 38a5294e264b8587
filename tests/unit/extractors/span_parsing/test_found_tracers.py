"""Shapes of single tracers: Strands, Haystack, DSPy, LlamaIndex, Vercel, agno, pydantic-ai, Vertex AI."""

import json
from typing import Any

import pytest

from extractors.span_parsing.drop_reasons import DropReason
from tests.support.conversations import Call, Turn, read, read_turns, refuse
from tests.support.flat_attributes import (
    list_messages,
    write_body,
    write_call,
    write_genai,
    write_llm,
    write_part,
    write_text,
)

ASK = "Is the mill still turning?"
ASKED = {"role": "user", "content": ASK}
ANSWER = "It turns at dawn."
LOOK = Call("look", {"at": "sails"})
LOOKED = [
    Turn("system", "Be brief."),
    Turn("user", ASK),
    Turn("assistant", calls=(LOOK,)),
    Turn("tool", "turning", answers=LOOK),
    Turn("assistant", ANSWER),
]


def test_the_events_of_strands_hold_blocks_of_bedrock() -> None:
    use = {"toolUse": {"toolUseId": "u1", "name": "look", "input": {"at": "sails"}}}
    result = {"toolResult": {"toolUseId": "u1", "status": "success", "content": [{"text": "turning"}]}}
    events = [
        ("gen_ai.system.message", {"content": json.dumps([{"text": "Be brief."}])}),
        ("gen_ai.user.message", {"content": json.dumps([{"text": ASK}])}),
        ("gen_ai.assistant.message", {"content": json.dumps([use])}),
        ("gen_ai.tool.message", {"content": json.dumps([result])}),
        ("gen_ai.choice", {"finish_reason": "end_turn", "message": json.dumps([{"text": ANSWER}])}),
    ]
    attributes = {"gen_ai.system": "strands-agents", "gen_ai.operation.name": "chat"}
    assert read_turns(attributes, events=events) == LOOKED


def _write_strands(*, invented: bool) -> dict[str, Any]:
    """Return a span as OpenInference's processor of Strands writes it: each list twice, a body of its own."""
    attributes: dict[str, Any] = write_llm([ASKED], {"role": "assistant", "tool_calls": [
        write_call("u1", "look", at="sails")]})  # fmt: skip
    attributes["llm.input_messages"] = json.dumps([{"message.role": "user", "message.content": ASK}])
    attributes["llm.output_messages"] = json.dumps([{"message.role": "assistant"}])
    if invented:
        said = {"content": "", "role": "assistant"}
        attributes |= write_body("output", {"choices": [{"finish_reason": "stop", "message": said}]})
    return attributes


@pytest.mark.parametrize("invented", [False, True])
def test_a_list_that_strands_writes_twice_is_read_once(invented: bool) -> None:
    assert read_turns(_write_strands(invented=invented)) == [
        Turn("user", ASK),
        Turn("assistant", calls=(LOOK,)),
    ]


def test_thoughts_that_a_processor_joined_to_the_text_are_thoughts() -> None:
    said = {"role": "assistant", "finish_reason": "stop", "parts": [
        {"type": "reasoning", "content": "Dawn?"}, write_part(ANSWER)]}  # fmt: skip
    attributes = write_genai([{"role": "user", "parts": [write_part(ASK)]}], said)
    attributes |= list_messages("output", {"role": "assistant", "content": f"Dawn? {ANSWER}"})
    answer = read({**attributes, **write_llm([ASKED])}).response
    assert (answer.content, answer.reasoning) == (ANSWER, "Dawn?")


def _print_reply(*parts: str, end: str = "stop") -> dict[str, Any]:
    content = ", ".join(parts)
    meta = f"{{'model': 'm', 'index': 0, 'finish_reason': '{end}'}}"
    role = "<ChatRole.ASSISTANT: 'assistant'>"
    return {"replies": [f"ChatMessage(_role={role}, _content=[{content}], _name=None, _meta={meta})"]}


TEXT_PRINTED = f"TextContent(text='{ANSWER}')"
CALL_PRINTED = "ToolCall(tool_name='look', arguments={'at': 'sails'}, id='u1')"
CALLING = {"role": "assistant", "tool_calls": [write_call("u1", "look", at="sails")]}


def test_what_haystack_printed_tells_how_its_answer_ended() -> None:
    assert read(write_llm([ASKED], ANSWER, output=_print_reply(TEXT_PRINTED))).response.content == ANSWER
    cut = write_llm([ASKED], ANSWER, output=_print_reply(TEXT_PRINTED, end="length"))
    assert refuse(cut) is DropReason.CUT_OFF
    filtered = write_llm([ASKED], ANSWER, output=_print_reply(TEXT_PRINTED, end="content_filter"))
    assert refuse(filtered) is DropReason.ABNORMAL_END


def test_what_haystack_printed_tells_of_a_text_beside_calls() -> None:
    calls_alone = write_llm([ASKED], CALLING, output=_print_reply(CALL_PRINTED, end="tool_calls"))
    assert read(calls_alone).response.tool_calls
    both = write_llm([ASKED], CALLING, output=_print_reply(TEXT_PRINTED, CALL_PRINTED, end="tool_calls"))
    assert refuse(both) is DropReason.ANSWER_NOT_WHOLE


@pytest.mark.parametrize("part", ["ImageContent(base64_image='AAAA')", "FileContent(base64_data='AAAA')"])
def test_what_haystack_printed_tells_of_images(part: str) -> None:
    printed = f"ChatMessage(_role=<ChatRole.USER: 'user'>, _content=[TextContent(text='{ASK}'), {part}])"
    assert refuse(write_llm([ASKED], ANSWER, body={"messages": [printed]})) is DropReason.NOT_TEXT


@pytest.mark.parametrize(
    ("choice", "thoughts"),
    [
        (ANSWER, None),
        ({"text": ANSWER}, None),
        ({"text": ANSWER, "reasoning_content": "Dawn?"}, "Dawn?"),
        ({"text": ANSWER, "logprobs": None}, None),
    ],
)
def test_each_entry_of_dspys_answer_is_a_choice(choice: Any, thoughts: str | None) -> None:
    answer = read(write_llm([ASKED], None, output=[choice])).response
    assert (answer.content, answer.reasoning) == (ANSWER, thoughts)
    several = write_llm([ASKED], None, output=[choice, "No."])
    assert refuse(several) is DropReason.SEVERAL_ANSWERS


def test_an_entry_of_dspys_answer_may_call_tools() -> None:
    choice = {"text": None, "tool_calls": [write_call("u1", "look", at="sails")]}
    turns = read_turns(write_llm([ASKED], None, output=[choice]))
    assert turns == [Turn("user", ASK), Turn("assistant", calls=(LOOK,))]


@pytest.mark.parametrize("kind", ["document", "audio", "video", "image"])
def test_blocks_of_llama_index_that_are_no_text_are_none(kind: str) -> None:
    blocks = [{"block_type": "text", "text": ASK}, {"block_type": kind, "data": "AAAA"}]
    body = {"messages": [{"role": "user", "additional_kwargs": {}, "blocks": blocks}]}
    assert refuse(write_llm([ASKED], ANSWER, body=body)) is DropReason.NOT_TEXT


def test_text_blocks_of_llama_index_are_text() -> None:
    blocks = [{"block_type": "text", "text": ASK}]
    body = {"messages": [{"role": "user", "additional_kwargs": {}, "blocks": blocks}]}
    for listed in ([ASKED], None):
        assert read_turns(write_llm(listed, ANSWER, body=body)) == [
            Turn("user", ASK),
            Turn("assistant", ANSWER),
        ]


VERCEL = {
    "ai.prompt.messages": json.dumps([{"role": "user", "content": [write_text(ASK)]}]),
    "ai.response.finishReason": "stop",
    "gen_ai.request.model": "m",
}


@pytest.mark.parametrize("operation", ["ai.generateObject.doGenerate", "ai.streamObject.doStream"])
def test_an_object_that_vercel_generated_is_the_answer(operation: str) -> None:
    written = {"ai.operationId": operation, "operation.name": operation, "ai.response.object": '{"on": true}'}
    assert read({**VERCEL, **written}).response.content == '{"on": true}'


def test_a_file_in_vercels_answer_is_no_text() -> None:
    files = json.dumps([{"type": "file", "mediaType": "image/png", "data": "AAAA"}])
    written = {"ai.operationId": "ai.generateText.doGenerate", "ai.response.text": ANSWER}
    assert refuse({**VERCEL, **written, "ai.response.files": files}) is DropReason.NOT_TEXT


@pytest.mark.parametrize("field", ["files", "videos", "images", "audio", "image_output", "file_output"])
def test_media_that_agno_writes_beside_the_text_is_no_text(field: str) -> None:
    body = {"messages": [{**ASKED, field: [{"id": "1", "url": "u"}]}]}
    assert refuse(write_llm([ASKED], ANSWER, body=body)) is DropReason.NOT_TEXT


def test_parts_of_pydantic_ais_events_have_a_kind() -> None:
    events = [
        {"event.name": "gen_ai.user.message", "role": "user", "content": ASK},
        {
            "event.name": "gen_ai.choice",
            "index": 0,
            "message": {
                "role": "assistant",
                "content": [{"kind": "thinking", "text": "Dawn?"}, {"kind": "text", "text": ANSWER}],
            },
        },
    ]
    attributes = {"gen_ai.operation.name": "chat", "events": json.dumps(events)}
    answer = read(attributes).response
    assert (answer.content, answer.reasoning) == (ANSWER, "Dawn?")


@pytest.mark.parametrize(
    ("number", "reason"),
    [(2, DropReason.CUT_OFF), (3, DropReason.ABNORMAL_END), (8, DropReason.ABNORMAL_END)],
)
def test_the_numbers_of_vertex_ai_tell_the_end(number: int, reason: DropReason) -> None:
    candidate = {"content": {"role": "model", "parts": [{"text": ANSWER}]}, "finish_reason": number}
    assert refuse(write_llm([ASKED], ANSWER, output={"candidates": [candidate]})) is reason
    whole = {"candidates": [{**candidate, "finish_reason": 1}]}
    assert read(write_llm([ASKED], ANSWER, output=whole)).response.content == ANSWER


ASKED_GENAI = {"role": "user", "parts": [write_part(ASK)]}
THINKING = [
    {"ai.usage.reasoningTokens": 256},
    {"ai.usage.outputTokenDetails.reasoningTokens": 256},
    {"ai.response.providerMetadata": json.dumps({"openai": {"reasoningTokens": 256}})},
    {"gen_ai.usage.details.thoughts_tokens": 256},
    {},
]


@pytest.mark.parametrize("told", THINKING)
def test_tokens_of_hidden_thoughts_are_no_missing_text(told: dict[str, Any]) -> None:
    attributes = write_genai([ASKED_GENAI], ANSWER, gen_ai__usage__output_tokens=270)
    assert read({**attributes, **told}).response.content == ANSWER
    vercel = {**VERCEL, "ai.operationId": "ai.generateText.doGenerate", "ai.response.text": ANSWER}
    assert read({**vercel, **told, "gen_ai.usage.output_tokens": 270}).response.content == ANSWER


def test_a_summary_of_thoughts_is_shorter_than_its_tokens() -> None:
    content = [{"type": "thinking", "thinking": "Summary.", "signature": "s"}, write_text(ANSWER)]
    output = {
        "role": "assistant",
        "content": content,
        "stop_reason": "end_turn",
        "usage": {"output_tokens": 2000},
    }
    for thoughts in (content[:1], [{"type": "redacted_thinking", "data": "x"}]):
        said = {**output, "content": [*thoughts, write_text(ANSWER)]}
        assert read(write_llm([ASKED], None, output=said)).response.content == ANSWER
