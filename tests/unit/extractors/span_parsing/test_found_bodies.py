"""Bodies: known by their MIME type and their shape; whatever they hold, the reader ends with a reason."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from extractors.span_parsing.calls import ModelCall, read_call
from extractors.span_parsing.drop_reasons import DropReason
from tests.support.conversations import Turn, read, read_turns, refuse
from tests.support.flat_attributes import list_messages, write_body, write_call, write_llm, write_text
from tests.support.otlp import decode

ASK = "Which label fits this letter?"
ASKED = {"role": "user", "content": ASK}
LABELS = '["invoice", "reminder"]'
BODY = {"model": "m", "messages": [ASKED]}
BODIES: list[dict[str, Any]] = [
    {"choices": [{"finish_reason": "stop", "message": {
        "role": "assistant", "content": [write_text("yes")], "annotations": [{"type": "url_citation"}],
        "tool_calls": [write_call("c1", "sort", tray=2)], "audio": {"id": "a"}}}],
     "usage": {"completion_tokens": 3}, "citations": ["https://post.test"]},
    {"candidates": [{"content": {"role": "model", "parts": [{"text": "yes", "thought": False}]},
                     "finish_reason": "STOP", "grounding_metadata": {"grounding_chunks": [{"web": {}}]}}]},
    {"object": "response", "status": "completed", "output": [{"type": "message", "role": "assistant",
     "content": [{"type": "output_text", "text": "yes", "annotations": [{"type": "file_citation"}]}]}]},
    {"generations": [[{"text": "yes", "message": {"lc": 1, "type": "constructor", "id": ["x", "AIMessage"],
     "kwargs": {"content": "yes", "type": "ai", "additional_kwargs": {"tool_outputs": [{"type": "x"}]},
                "response_metadata": {"finish_reason": "stop"}}}}]]},
    {"output": {"message": {"role": "assistant", "content": [{"text": "yes"}]}}, "stopReason": "end_turn",
     "context_management": {"applied_edits": [{"type": "x"}]}},
    {"replies": ["ChatMessage(_content=[TextContent(text='yes')])"]},
]  # fmt: skip
REQUESTS: list[dict[str, Any]] = [
    {"model": "m", "messages": [{"role": "user", "content": [write_text(ASK)], "files": [{"url": "u"}]}],
     "tools": [{"type": "function", "function": {"name": "sort", "parameters": {"type": "object"}}}],
     "options": {"num_predict": 9}, "prompt": {"id": "p"}},
    {"model": "m", "input": [{"role": "user", "content": ASK}], "instructions": [{"role": "system"}]},
    {"model": "m", "contents": [{"role": "user", "parts": [{"text": ASK}]}],
     "config": {"system_instruction": {"parts": [{"text": "Sort."}]},
                "tools": [{"function_declarations": []}]}},
    {"messages": [{"role": "user", "blocks": [{"block_type": "text", "text": ASK}]}]},
    {"model": "m", "prompt": [ASK], "images": ["AA"]},
]  # fmt: skip
ODD_VALUES: tuple[Any, ...] = (
    5,
    0,
    True,
    None,
    "x",
    [],
    {},
    [5],
    [True, None],
    {"type": 5},
    [{"type": ["x"]}],
    1.5,
)


def vary(value: Any) -> Iterator[Any]:
    """Yield the value again and again, each time with an odd value in the place of another part of it."""
    yield from ODD_VALUES
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from ({**value, key: varied} for varied in vary(inner))
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            yield from ([*value[:at], varied, *value[at + 1 :]] for varied in vary(inner))


@pytest.mark.parametrize("output", BODIES, ids=lambda body: next(iter(body)))
def test_no_value_in_a_response_raises(output: Any) -> None:
    for varied in vary(output):
        for listed in (None, "yes"):
            span = decode(write_llm([ASKED], listed, body=BODY, output=varied))
            assert isinstance(read_call(span), ModelCall | DropReason)
        span = decode({"gen_ai.prompt": json.dumps(BODY), "gen_ai.completion": json.dumps(varied)})
        assert isinstance(read_call(span), ModelCall | DropReason)


@pytest.mark.parametrize("body", REQUESTS, ids=["chat", "responses", "gemini", "llama-index", "completion"])
def test_no_value_in_a_request_raises(body: Any) -> None:
    for varied in vary(body):
        for listed in (None, [ASKED]):
            span = decode(write_llm(listed, "yes", body=varied))
            assert isinstance(read_call(span), ModelCall | DropReason)
        span = decode({"gen_ai.prompt": json.dumps(varied), "gen_ai.completion": "yes"})
        assert isinstance(read_call(span), ModelCall | DropReason)


GENAI_ANSWER = {
    "role": "assistant",
    "finish_reason": "stop",
    "parts": [
        {"type": "tool_call", "id": "c1", "name": "sort", "arguments": {"tray": 2}},
        {"type": "reasoning", "content": "Hm."},
        {"type": "text", "content": "yes"},
    ],
}


def test_no_value_in_a_genai_message_raises() -> None:
    for varied in vary([GENAI_ANSWER]):
        for asked in ([{"role": "user", "parts": [{"type": "text", "content": ASK}]}], varied):
            messages = {
                "gen_ai.input.messages": json.dumps(asked),
                "gen_ai.output.messages": json.dumps(varied),
            }
            given = {"gen_ai.system_instructions": json.dumps(varied), "gen_ai.tool.definitions": "[]"}
            assert isinstance(read_call(decode({**messages, **given})), ModelCall | DropReason)
            event = ("gen_ai.choice", {"message": json.dumps(varied), "finish_reason": "stop"})
            assert isinstance(read_call(decode(messages, [event])), ModelCall | DropReason)


@pytest.mark.parametrize("annotations", [7, True, "none"])
def test_annotations_that_are_no_list_raise_nothing(annotations: Any) -> None:
    said = {"role": "assistant", "content": "invoice", "annotations": annotations}
    assert read(write_llm([ASKED], None, body=BODY, output={"choices": [{"message": said}]}))


@pytest.mark.parametrize(
    "answer",
    [
        LABELS,
        '["invoice"]',
        '{"role": "assistant", "content": "hello"}',
        '[{"role": "assistant", "content": "hello"}]',
        '{"status": "open", "content": "ok"}',
        '{"output": "x", "status": "open"}',
        '{"refusal": "none", "label": "invoice"}',
        '{"type": "refusal"}',
        '{"finish_reason": "length"}',
        '{"message": {"status": "failed", "content": "x"}}',
        '{"usage": {"output_tokens": 400}}',
        '{"choices": [{"text": "yes"}, {"text": "no"}]}',
        '{"citations": ["p. 4"]}',
    ],
)
@pytest.mark.parametrize("kind", ["", "text/plain", "listed"])
def test_an_answer_that_is_json_is_no_response(answer: str, kind: str) -> None:
    attributes: dict[str, Any] = {**write_llm([ASKED]), "output.value": answer}
    if kind == "text/plain":
        attributes["output.mime_type"] = kind
    elif kind == "listed":
        attributes |= list_messages("output", {"role": "assistant", "content": answer})
        attributes["output.mime_type"] = "application/json"
    assert read_turns(attributes) == [Turn("user", ASK), Turn("assistant", answer)]


@pytest.mark.parametrize(
    "prompt",
    [
        '{"messages": [{"role": "user", "content": "inner"}]}',
        '{"model": "T", "input": "hello"}',
        '{"contents": "abc"}',
        '{"documents": ["a"], "question": "b"}',
        '{"suffix": "Ltd"}',
        '{"conversation": ["a"]}',
        '{"prompt": {"id": "p1"}}',
        '{"n": 3}',
        '{"max_tokens": 5}',
        '{"echo": true}',
    ],
)
@pytest.mark.parametrize("kind", ["", "text/plain", "listed"])
def test_a_prompt_that_is_json_is_no_request(prompt: str, kind: str) -> None:
    attributes: dict[str, Any] = {**write_llm(None, "Fine, noted."), "input.value": prompt}
    if kind == "text/plain":
        attributes["input.mime_type"] = kind
    elif kind == "listed":
        attributes |= list_messages("input", {"role": "user", "content": prompt})
        attributes["input.mime_type"] = "application/json"
    assert read_turns(attributes) == [Turn("user", prompt), Turn("assistant", "Fine, noted.")]


@pytest.mark.parametrize("field", ["images", "files", "videos", "audio", "attachments"])
def test_what_a_message_of_the_body_holds_beside_its_text_is_no_text(field: str) -> None:
    asked = {**ASKED, field: [{"id": "1", "url": "https://post.test/1"}]}
    body = {"messages": [asked]}
    assert refuse(write_llm([ASKED], "invoice", body=body)) is DropReason.NOT_TEXT


def test_images_beside_the_prompt_of_a_completion_are_no_text() -> None:
    body = {"model": "llava", "prompt": ASK, "images": ["AAAA"]}
    attributes = {
        "openinference.span.kind": "LLM",
        "llm.prompts.0.prompt.text": ASK,
        "output.value": "invoice",
    }
    assert refuse({**attributes, **write_body("input", body)}) is DropReason.NOT_TEXT


@pytest.mark.parametrize(
    "part",
    [
        {"inline_data": {"data": "AAAA", "mime_type": "application/pdf"}},
        {"file_data": {"file_uri": "u", "mime_type": "application/pdf"}},
        {"name": "files/x", "uri": "u", "mime_type": "application/pdf"},
    ],
)
@pytest.mark.parametrize("listed", [[ASKED], [{"role": "user", "contents": [write_text(ASK)]}], None])
def test_a_file_among_the_texts_of_gemini_contents_is_no_text(part: Any, listed: Any) -> None:
    for contents in ([ASK, part], [part, ASK]):
        body = {"model": "m", "contents": contents, "config": {}}
        assert refuse(write_llm(listed, "invoice", body=body)) is DropReason.NOT_TEXT


def test_texts_and_contents_of_gemini_stand_side_by_side() -> None:
    body = {"model": "m", "contents": ["One.", {"role": "user", "parts": [{"text": "Two."}]}]}
    turns = read_turns(write_llm(None, "Three.", body=body))
    assert turns[-2:] == [Turn("user", "Two."), Turn("assistant", "Three.")]
    assert turns[0] == Turn("user", "One.")


def test_instructions_may_be_a_list_of_messages() -> None:
    body = {"model": "m", "input": ASK, "instructions": [{"role": "system", "content": "Sort letters."}]}
    assert read_turns(write_llm(None, "invoice", body=body)) == [
        Turn("system", "Sort letters."),
        Turn("user", ASK),
        Turn("assistant", "invoice"),
    ]


@pytest.mark.parametrize("item", ["local_shell_call", "shell_call", "apply_patch_call", "custom_tool_call"])
def test_a_call_that_takes_no_arguments_is_refused_for_that(item: str) -> None:
    call = {"type": item, "id": "i1", "call_id": "c1", "status": "completed", "name": "x", "input": "ls"}
    output = {"object": "response", "status": "completed", "output": [call]}
    attributes = write_llm(None, None, body={"model": "m", "input": ASK}, output=output)
    assert refuse(attributes) is DropReason.BROKEN_ARGUMENTS


@pytest.mark.parametrize(
    "prompt",
    [
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n",
        "<s>[INST] hi [/INST]",
        "<|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>",
        "<start_of_turn>user\nhi<end_of_turn>\n<start_of_turn>model\n",
        "<|user|>\nhi\n<|assistant|>\n",
        "\n\nHuman: hi\n\nAssistant:",
        "Human: hi\nAI:",
    ],
)
def test_a_prompt_that_was_rendered_before_is_refused(prompt: str) -> None:
    span = {"openinference.span.kind": "LLM", "output.value": "hello"}
    reason = DropReason.RENDERED_OTHERWISE
    assert refuse({**span, "llm.prompts.0.prompt.text": prompt}) is reason
    assert refuse({**span, "input.value": prompt}) is reason
    assert refuse({**span, **write_body("input", {"model": "m", "prompt": prompt})}) is reason


@pytest.mark.parametrize(
    ("output", "body"),
    [
        ({"context_management": {"applied_edits": [{"type": "clear_tool_uses_20250919"}]}}, {}),
        ({}, {"add_generation_prompt": False}),
    ],
)
def test_a_prompt_that_the_server_changed_is_refused(output: dict[str, Any], body: dict[str, Any]) -> None:
    said = {"role": "assistant", "content": [write_text("invoice")], "stop_reason": "end_turn", **output}
    attributes = write_llm([ASKED], "invoice", body={**BODY, **body}, output=said)
    assert refuse(attributes) is DropReason.RENDERED_OTHERWISE


def test_no_edits_of_the_context_change_nothing() -> None:
    said = {
        "role": "assistant",
        "content": [write_text("invoice")],
        "context_management": {"applied_edits": []},
    }
    assert read(write_llm([ASKED], "invoice", body=BODY, output=said))
