"""Reading one span: every convention that is known, and a reason for what cannot be read."""

import json
from typing import Any

import pytest

from extractors.examples.types import Message, ToolCall
from extractors.span_parsing.calls import ModelCall, read_call
from extractors.span_parsing.drop_reasons import DropReason
from tests.support.traffic import openinference, span

WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
SYSTEM_AND_USER = (Message(role="system", content="Route."), Message(role="user", content="My bill? 🧾"))
BILLING = Message(role="assistant", content="billing")


def read(attributes: dict[str, Any], **changes: Any) -> ModelCall:
    call = read_call(span(attributes=attributes, **changes))
    assert isinstance(call, ModelCall), call
    return call


def build_listed(*messages: Any) -> dict[str, Any]:
    return {"llm": {"input_messages": list(messages), **ANSWERED}}


def try_to_read(attributes: dict[str, Any], **changes: Any) -> ModelCall | DropReason:
    return read_call(span(attributes=attributes, **changes))


def to_body(**content: Any) -> dict[str, Any]:
    return {"value": json.dumps(content), "mime_type": "application/json"}


def build_parts(role: str, *written: dict[str, Any]) -> dict[str, Any]:
    return {"role": role, "parts": list(written)}


def build_text_part(content: str) -> dict[str, Any]:
    return {"type": "text", "content": content}


CHAT = [{"role": "system", "content": "Route."}, {"role": "user", "content": "My bill? 🧾"}]
LANGCHAIN = [
    [
        {"type": "system", "data": {"content": "Route.", "type": "system"}},
        {"lc": 1, "type": "constructor", "kwargs": {"content": "My bill? 🧾", "type": "human"}},
    ]
]
TOOLS = [{"tool": {"json_schema": json.dumps(WEATHER)}}]
ANSWERED = {"output_messages": [{"message": {"role": "assistant", "content": "billing"}}]}
SAID = {"role": "assistant", "content": "billing"}
GENERATIONS = [[{"text": "billing", "message": {"type": "ai", "data": {"content": "billing", "type": "ai"}}}]]


@pytest.mark.parametrize(
    "attributes",
    [
        openinference(("system", "Route."), ("user", "My bill? 🧾")),
        {"input": to_body(model="m", messages=CHAT), "llm": ANSWERED},
        {"input": to_body(messages=LANGCHAIN), "output": to_body(generations=GENERATIONS)},
        {"input": to_body(messages=CHAT), "output": to_body(choices=[{"message": SAID}])},
        {"input": to_body(messages=CHAT),
         "output": {"value": '["billing"]', "mime_type": "application/json"}},
        {
            "gen_ai": {
                "system_instructions": json.dumps([build_text_part("Route.")]),
                "input": {"messages": json.dumps([build_parts("user", build_text_part("My bill? 🧾"))])},
                "output": {"messages": json.dumps([build_parts("assistant", build_text_part("billing"))])},
            }
        },
        {"gen_ai": {"prompt": CHAT, "completion": [SAID]}},
        {"gen_ai": {"prompt": {"1": CHAT[1], "0": CHAT[0]}, "completion": {"0": SAID}}},
    ],
    ids=["openinference", "request", "langchain", "response", "dspy", "gen-ai", "gen-ai-old", "by-index"],
)  # fmt: skip
def test_every_convention_gives_the_same_call(attributes: dict[str, Any]) -> None:
    call = read(attributes)
    assert (call.prompt, call.response) == (SYSTEM_AND_USER, BILLING)


def test_tools_tool_calls_and_their_results_are_read_alike_from_all_conventions() -> None:
    asked = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
    traced = {
        "llm": {
            "tools": TOOLS,
            "input_messages": [
                {"message": {"role": "user", "content": "Rome?"}},
                {"message": {"role": "assistant", "tool_calls": [{"tool_call": asked}]}},
                {"message": {"role": "tool", "content": "sunny", "tool_call_id": "c1"}},
            ],
            "output_messages": [{"message": {"tool_calls": [{"tool_call": asked}]}}],
        }
    }
    request = [
        {"role": "user", "content": "Rome?"},
        {"role": "assistant", "content": None, "tool_calls": [asked]},
        {"role": "tool", "content": "sunny", "tool_call_id": "c1"},
    ]
    bodies = {
        "input": to_body(messages=request, tools=[WEATHER]),
        "output": to_body(choices=[{"message": {"role": "assistant", "tool_calls": [asked]}}]),
    }
    calling = {"type": "tool_call", "id": "c1", "name": "weather", "arguments": {"city": "Rome"}}
    answering = {"type": "tool_call_response", "id": "c1", "response": "sunny"}
    messages = [
        build_parts("user", build_text_part("Rome?")),
        build_parts("assistant", calling),
        build_parts("tool", answering),
    ]
    gen_ai = {
        "gen_ai": {
            "input": {"messages": json.dumps(messages)},
            "output": {"messages": json.dumps([build_parts("assistant", calling)])},
            "tool": {"definitions": json.dumps([{"name": "weather", "parameters": {"type": "object"}}])},
        }
    }
    calls = [read(attributes) for attributes in (traced, bodies, gen_ai)]
    assert calls[0] == calls[1] == calls[2]
    assert calls[0].tools == (WEATHER,)
    assert calls[0].prompt[1].tool_calls == (ToolCall(id="c1", name="weather", arguments='{"city": "Rome"}'),)
    assert calls[0].prompt[2] == Message(role="tool", content="sunny", tool_call_id="c1")


def test_text_parts_are_joined_and_a_picture_is_refused() -> None:
    def contents(*written: dict[str, Any]) -> dict[str, Any]:
        message = {"role": "user", "contents": [{"message_content": part} for part in written]}
        return {"llm": {"input_messages": [{"message": message}], **ANSWERED}}

    two = contents({"type": "text", "text": "one"}, {"type": "text", "text": "two"})
    assert read(two).prompt[0].content == "one\ntwo"
    picture = {"type": "image", "image": {"image": {"url": "https://example.com/cat.png"}}}
    assert try_to_read(contents(picture)) is DropReason.NOT_TEXT


def test_a_prompt_that_is_one_text_becomes_one_user_message() -> None:
    plain = {"input": {"value": "My bill?"}, "output": {"value": "billing", "mime_type": "text/plain"}}
    completion = {
        "llm": {
            "prompts": [{"prompt": {"text": "My bill?"}}],
            "choices": [{"completion": {"text": "billing"}}],
        }
    }
    template = {
        "llm": {
            "prompt_template": {"template": "My {{thing}}?", "variables": '{"thing": "bill"}'},
            **ANSWERED,
        }
    }
    for attributes in (plain, completion, template):
        call = read(attributes)
        assert (call.prompt, call.response) == ((Message(role="user", content="My bill?"),), BILLING)


def test_session_and_version_are_found_where_they_are_written() -> None:
    chat = openinference(("user", "My bill?"))
    named = read({**chat, "session": {"id": "abc"}, "learnd": {"version": "acme.v3"}})
    assert (named.session_id, named.answered_by) == ("abc", "acme.v3")
    assert read({**chat, "metadata": {"thread_id": "t1"}}).session_id == "t1"
    assert read({**chat, "metadata": '{"session_id": "s9"}'}).session_id == "s9"
    assert read({**chat, "gen_ai": {"conversation": {"id": "c4"}}}).session_id == "c4"
    assert read(chat, session_id="phoenix").session_id == "phoenix"


@pytest.mark.parametrize(
    "marked",
    [
        {"learnd": {"internal": True}},
        {"metadata": {"learnd_internal": True}},
        {"metadata": '{"learnd_internal": "true"}'},
    ],
)
def test_learnds_own_calls_are_never_examples(marked: dict[str, Any]) -> None:
    assert try_to_read(openinference(("user", "My bill?"), **marked)) is DropReason.INTERNAL


def test_judgements_and_experiments_are_never_examples() -> None:
    for kind in ("EVALUATOR", "EXPERIMENT"):
        assert try_to_read(openinference(("user", "My bill?")), kind=kind) is DropReason.INTERNAL


USER = {"message": {"role": "user", "content": "And mine?"}}
ROLELESS = {"message": {"content": "the end of a message whose role was dropped"}}


@pytest.mark.parametrize(
    "listed", [[None, USER], [{}, USER], [ROLELESS, USER], {"3": USER}, {"0": USER, "2": USER}]
)
def test_a_gap_in_the_messages_is_filled_from_the_request_body_or_the_call_is_dropped(listed: Any) -> None:
    cut = {"llm": {"input_messages": listed, **ANSWERED}}
    assert try_to_read(cut) is DropReason.TRUNCATED
    assert try_to_read({**cut, "input": {"value": "And mine?"}}) is DropReason.TRUNCATED
    assert read({**cut, "input": to_body(messages=CHAT)}).prompt == SYSTEM_AND_USER


def test_messages_from_which_phoenix_closed_the_gap_are_not_trusted() -> None:
    chat = openinference(("user", "And mine?"))
    assert try_to_read(chat, kind="UNKNOWN") is DropReason.TRUNCATED
    long = openinference(*[("user", "a"), ("assistant", "b")] * 31)
    assert try_to_read(long) is DropReason.TRUNCATED
    shorter = {**openinference(("user", "My bill? 🧾")), "input": to_body(messages=CHAT)}
    assert read(shorter, kind="UNKNOWN").prompt == SYSTEM_AND_USER
    other = {**chat, "input": to_body(messages=CHAT)}
    assert try_to_read(other, kind="UNKNOWN") is DropReason.TEXTS_DIFFER


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({}, DropReason.NO_PROMPT),
        (openinference(("user", "")), DropReason.NO_PROMPT),
        ({"input": to_body(question="My bill?"), "llm": ANSWERED}, DropReason.NO_PROMPT),
        (openinference(("user", "My bill?"), answer=" "), DropReason.NO_ANSWER),
        ({"input": to_body(messages=CHAT), "output": to_body(id="r1", model="m")}, DropReason.NO_ANSWER),
        ({"input": to_body(messages=CHAT),
          "output": {"value": '["a", "b"]', "mime_type": "application/json"}},
         DropReason.SEVERAL_ANSWERS),
        ({"llm": {"input_messages": "user: hi", **ANSWERED}}, DropReason.MALFORMED),
        (build_listed({"message": {"role": 7, "content": "hi"}}), DropReason.MALFORMED),
        (build_listed({"message": {"role": "user", "content": 5}}), DropReason.MALFORMED),
        ({"llm": {**openinference(("user", "hi"))["llm"], "tools": [{"tool": {"json_schema": "{"}}]}},
         DropReason.MALFORMED),
        (openinference(("user", "x" * 1_000_000)), DropReason.TOO_LARGE),
        ({"input": {"value": "x" * 1_000_000}, "llm": ANSWERED}, DropReason.TOO_LARGE),
        (openinference(("user", "half an emoji: \ud83d")), DropReason.NOT_UNICODE),
    ],
    ids=lambda value: value.name if isinstance(value, DropReason) else "",
)  # fmt: skip
def test_what_cannot_be_read_is_dropped_with_its_reason(
    attributes: dict[str, Any], reason: DropReason
) -> None:
    assert try_to_read(attributes) is reason


def test_a_call_that_failed_is_dropped() -> None:
    assert try_to_read(openinference(("user", "My bill?")), status="ERROR") is DropReason.FAILED


def test_tools_too_deep_to_be_stored_are_refused() -> None:
    deep: dict[str, Any] = {}
    for _ in range(400):
        deep = {"a": deep}
    chat = openinference(("user", "hi"))
    chat["llm"]["tools"] = [{"tool": {"json_schema": {"name": "f", "parameters": deep}}}]
    assert try_to_read(chat) is DropReason.MALFORMED
