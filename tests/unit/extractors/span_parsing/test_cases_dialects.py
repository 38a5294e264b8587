"""Dialects: tools, calls and messages that are usable, however a tracer or a provider spells them."""

import json
from typing import Any

import pytest

from extractors.span_parsing.drop_reasons import DropReason
from tests.support.conversations import Call, Turn, read, read_turns, refuse
from tests.support.flat_attributes import (
    write_body,
    write_call,
    write_genai,
    write_indexed,
    write_llm,
    write_part,
    write_text,
)

ASK = "Wind in Kiel?"
ASKED = {"role": "user", "content": ASK}
SCHEMA = {"type": "object", "properties": {"port": {"type": "string"}}, "required": ["port"]}
WIND = Call("read_wind", {"port": "Kiel"})
CALLING = {"role": "assistant", "tool_calls": [write_call("w1", "read_wind", port="Kiel")]}
FUNCTION = {"name": "read_wind", "description": "Wind now.", "parameters": SCHEMA}
DEFINED = ({"type": "function", "function": FUNCTION},)
DESCRIBED = {"name": "read_wind", "description": "Wind now."}


# An answer whose call stands among its parts.


def test_a_call_that_stands_among_the_parts_as_well_is_one_call() -> None:
    use = {"type": "tool_use"}
    answer = {**CALLING, "contents": [write_text("I look it up."), use]}
    attributes = write_llm([ASKED], answer, tools=[{**DESCRIBED, "input_schema": SCHEMA}])
    attributes |= {
        "llm.output_messages.0.message.contents.1.tool_call.id": "w1",
        "llm.output_messages.0.message.contents.1.tool_call.function.name": "read_wind",
        "llm.output_messages.0.message.contents.1.tool_call.function.arguments": '{"port": "Kiel"}',
    }
    assert read_turns(attributes) == [Turn("user", ASK), Turn("assistant", "I look it up.", (WIND,))]


def test_a_call_that_stands_among_the_parts_alone_is_a_call() -> None:
    answer = {"role": "assistant", "contents": [write_text("I look it up."), {"type": "tool_use"}]}
    attributes = write_llm([ASKED], answer) | {
        "llm.output_messages.0.message.contents.1.tool_call.id": "w1",
        "llm.output_messages.0.message.contents.1.tool_call.function.name": "read_wind",
        "llm.output_messages.0.message.contents.1.tool_call.function.arguments": '{"port": "Kiel"}',
    }
    assert read_turns(attributes)[-1] == Turn("assistant", "I look it up.", (WIND,))


def test_a_part_that_is_a_call_nobody_wrote_down_refuses() -> None:
    answer = {"role": "assistant", "contents": [write_text("I look it up."), {"type": "tool_use"}]}
    reasons = {DropReason.NOT_WHOLE, DropReason.MALFORMED, DropReason.TRUNCATED}
    assert refuse(write_llm([ASKED], answer)) in reasons


def test_a_call_of_an_anthropic_body_is_a_call() -> None:
    use = {"type": "tool_use", "id": "w1", "name": "read_wind", "input": {"port": "Kiel"}}
    output = {"role": "assistant", "content": [write_text("I look."), use], "stop_reason": "tool_use"}
    turns = read_turns(write_llm(None, None, body={"messages": [ASKED]}, output=output))
    assert turns == [Turn("user", ASK), Turn("assistant", "I look.", (WIND,))]


# Definitions of tools.

DEFINITIONS: dict[str, Any] = {
    "openai": {"type": "function", "function": FUNCTION},
    "strict": {"type": "function", "function": {**FUNCTION, "strict": True}},
    "responses": {"type": "function", **FUNCTION},
    "anthropic": {**DESCRIBED, "input_schema": SCHEMA},
    "anthropic-custom": {
        "type": "custom",
        **DESCRIBED,
        "input_schema": SCHEMA,
        "cache_control": {"type": "e"},
    },
    "converse": {"toolSpec": {**DESCRIBED, "inputSchema": {"json": SCHEMA}}},
    "converse-text": {"toolSpec": {**DESCRIBED, "inputSchema": {"json": json.dumps(SCHEMA)}}},
    "mcp": {**DESCRIBED, "inputSchema": SCHEMA},
    "gemini": {"functionDeclarations": [FUNCTION]},
    "gemini-snake": {"function_declarations": [FUNCTION]},
    "gemini-json-schema": {"functionDeclarations": [{**DESCRIBED, "parametersJsonSchema": SCHEMA}]},
    "schema-as-text": {**DESCRIBED, "parameters": json.dumps(SCHEMA)},
    "schema-as-text-nested": {"type": "function", "function": {**FUNCTION, "parameters": json.dumps(SCHEMA)}},
}


def strip_strict(tools: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
    return tuple(
        {**tool, "function": {key: value for key, value in tool["function"].items() if key != "strict"}}
        for tool in tools
    )


@pytest.mark.parametrize("definition", DEFINITIONS.values(), ids=DEFINITIONS)
@pytest.mark.parametrize("place", ["listed", "body", "parameters"])
def test_a_definition_of_any_provider_is_openais(definition: dict[str, Any], place: str) -> None:
    if place == "listed":
        attributes = write_llm([ASKED], CALLING, tools=[definition])
    elif place == "body":
        attributes = write_llm([ASKED], CALLING, body={"messages": [ASKED], "tools": [definition]})
    else:
        attributes = write_llm([ASKED], CALLING)
        attributes["llm.invocation_parameters"] = json.dumps({"tools": [definition]})
    assert strip_strict(read(attributes).tools) == DEFINED


def test_several_declarations_of_gemini_are_several_tools() -> None:
    definition = {"functionDeclarations": [FUNCTION, {"name": "read_tide"}]}
    tools = read(write_llm([ASKED], CALLING, tools=[definition])).tools
    assert [tool["function"]["name"] for tool in tools] == ["read_wind", "read_tide"]


@pytest.mark.parametrize(
    "entry",
    [
        {"cachePoint": {"type": "default"}},
        {"systemTool": {"name": "nova_grounding"}},
        {"googleSearch": {}},
        {"google_search": {}},
        {"codeExecution": {}},
        {"type": "web_search_20250305", "name": "web_search", "max_uses": 3},
        {"type": "web_search_preview"},
        {"type": "file_search", "vector_store_ids": ["vs_1"]},
        {"type": "code_interpreter", "container": {"type": "auto"}},
        {"type": "mcp", "server_label": "port", "server_url": "https://mcp.test"},
    ],
    ids=lambda entry: str(entry.get("type", next(iter(entry)))),
)
def test_what_is_no_function_among_the_tools_is_left_out(entry: dict[str, Any]) -> None:
    tools = [DEFINITIONS["openai"], entry]
    assert read(write_llm([ASKED], CALLING, tools=tools)).tools == DEFINED
    assert read(write_llm([ASKED], CALLING, body={"messages": [ASKED], "tools": tools})).tools == DEFINED


def test_functions_of_the_older_format_are_tools() -> None:
    body = {"messages": [ASKED], "functions": [FUNCTION]}
    assert read(write_llm([ASKED], CALLING, body=body)).tools == DEFINED


def test_indexed_functions_have_a_schema_not_a_text() -> None:
    answer = {
        "role": "assistant",
        "finish_reason": "tool_calls",
        "tool_calls": [{"id": "w1", "name": "read_wind", "arguments": '{"port":"Kiel"}'}],
    }
    functions = {
        "llm.request.functions.0.name": "read_wind",
        "llm.request.functions.0.description": "Wind now.",
    }
    for key in ("parameters", "input_schema"):
        attributes = write_indexed([ASKED], answer) | functions
        attributes[f"llm.request.functions.0.{key}"] = json.dumps(SCHEMA)
        call = read(attributes)
        assert call.tools == DEFINED
        assert [made.name for made in call.response.tool_calls] == ["read_wind"]


@pytest.mark.parametrize("key", ["parameters", "input_schema"])
@pytest.mark.parametrize("as_text", [False, True])
def test_genai_definitions_have_a_schema_not_a_text(key: str, as_text: bool) -> None:
    definition = {"type": "function", **DESCRIBED, key: json.dumps(SCHEMA) if as_text else SCHEMA}
    messages = [{"role": "user", "parts": [write_part(ASK)]}]
    attributes = write_genai(messages, "Four.", gen_ai__tool__definitions=json.dumps([definition]))
    assert read(attributes).tools == DEFINED


def test_converse_tools_and_messages_are_read() -> None:
    system = {"role": "system", "contents": [write_text("Speak as a pilot.")]}
    asked = {"role": "user", "contents": [write_text(ASK)]}
    body = [{"role": "user", "content": [{"text": ASK}]}]
    call = read(write_llm([system, asked], CALLING, body=body, tools=[DEFINITIONS["converse"]]))
    assert call.tools == DEFINED
    assert [message.role for message in call.prompt] == ["system", "user"]


def test_a_cache_point_among_the_blocks_of_a_message_is_nothing() -> None:
    body = [{"role": "user", "content": [{"text": ASK}, {"cachePoint": {"type": "default"}}]}]
    assert read_turns(write_llm(None, "Four.", body=body)) == [Turn("user", ASK), Turn("assistant", "Four.")]


# Roles.


def test_roles_that_a_framework_made_up_are_the_ones_they_mean() -> None:
    listed = [
        {"role": "user", "contents": [write_text(ASK)]},
        {"role": "tool-call", "contents": [write_text("Calling tools: read_wind(port=Kiel)")]},
        {"role": "tool-response", "contents": [write_text("4 Bft")]},
    ]
    call = read(write_llm(listed, "Four.", body={"messages": []}))
    assert [message.role for message in call.prompt][:2] == ["user", "assistant"]
    assert call.prompt[2].role in ("user", "tool")
    assert call.prompt[2].content == "4 Bft"


@pytest.mark.parametrize(
    ("role", "meant"),
    [
        ("human", "user"),
        ("developer", "system"),
        ("User", "user"),
        ("SYSTEM", "system"),
        ("HumanMessage", "user"),
    ],
)
def test_a_role_in_any_spelling_is_read(role: str, meant: str) -> None:
    listed = [{"role": role, "content": "Wind?"}, ASKED]
    assert read(write_llm(listed, "Four.")).prompt[0].role == meant


# Older GenAI, events and other SDKs.

OLDER = [
    {"role": "user", "parts": [write_part(ASK)]},
    {
        "role": "assistant",
        "parts": [
            write_part("I look."),
            {"type": "tool_call", "id": "1", "name": "read_wind", "arguments": {"port": "Kiel"}},
        ],
    },
    {"role": "tool", "parts": [{"type": "tool_call_response", "id": "1", "response": "4 Bft"}]},
]
OLDER_TURNS = [
    Turn("user", ASK),
    Turn("assistant", "I look.", (WIND,)),
    Turn("tool", "4 Bft", answers=WIND),
    Turn("assistant", "Four."),
]


@pytest.mark.parametrize(
    "completion",
    [
        {"text": "Four.", "finish_reason": "stop"},
        {"role": "assistant", "content": "Four."},
        [{"role": "assistant", "content": "Four."}],
        [{"role": "assistant", "parts": [write_part("Four.")], "finish_reason": "stop"}],
    ],
    ids=["text", "message", "messages", "parts"],
)
def test_the_older_json_of_a_prompt_and_a_completion_is_read(completion: Any) -> None:
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "m",
        "gen_ai.prompt": json.dumps(OLDER),
        "gen_ai.completion": json.dumps(completion),
    }
    assert read_turns(attributes) == OLDER_TURNS


def test_the_older_json_with_messages_of_openai_is_read() -> None:
    messages = [
        ASKED,
        {**CALLING, "content": "I look."},
        {"role": "tool", "tool_call_id": "w1", "content": "4 Bft"},
    ]
    attributes = {
        "gen_ai.request.model": "m",
        "gen_ai.prompt": json.dumps(messages),
        "gen_ai.completion": json.dumps([{"role": "assistant", "content": "Four."}]),
    }
    assert read_turns(attributes) == OLDER_TURNS


CHAT = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m", "gen_ai.response.id": "r7"}


def test_a_span_whose_messages_are_elsewhere_says_so() -> None:
    assert refuse(CHAT | {"gen_ai.response.model": "m"}) is DropReason.CONTENT_ELSEWHERE


def test_messages_in_events_of_the_span_are_read() -> None:
    events = [
        ("gen_ai.user.message", {"gen_ai.system": "openai", "content": ASK}),
        (
            "gen_ai.choice",
            {
                "index": 0,
                "finish_reason": "stop",
                "message": json.dumps({"role": "assistant", "content": "Four."}),
            },
        ),
    ]
    turns = read_turns(CHAT, events=events)
    assert turns == [Turn("user", ASK), Turn("assistant", "Four.")]


def test_messages_in_one_event_are_read() -> None:
    details = {
        "gen_ai.input.messages": json.dumps([{"role": "user", "parts": [write_part(ASK)]}]),
        "gen_ai.output.messages": json.dumps([{"role": "assistant", "parts": [write_part("Four.")]}]),
    }
    events = [("gen_ai.client.inference.operation.details", details)]
    assert read_turns(CHAT, events=events) == [Turn("user", ASK), Turn("assistant", "Four.")]


def test_messages_in_events_of_the_older_content_are_read() -> None:
    events = [
        ("gen_ai.content.prompt", {"gen_ai.prompt": json.dumps([ASKED])}),
        (
            "gen_ai.content.completion",
            {"gen_ai.completion": json.dumps([{"role": "assistant", "content": "Four."}])},
        ),
    ]
    assert read_turns(CHAT, events=events) == [Turn("user", ASK), Turn("assistant", "Four.")]


def write_vercel(messages: list[Any], **further: Any) -> dict[str, Any]:
    return {
        "operation.name": "ai.generateText.doGenerate",
        "gen_ai.system": "openai.chat",
        "gen_ai.request.model": "m",
        "gen_ai.response.finish_reasons": ["stop"],
        "ai.prompt.messages": json.dumps(messages),
        **{f"ai.{key.replace('__', '.')}": value for key, value in further.items()},
    }


def test_messages_of_the_vercel_sdk_are_read() -> None:
    messages = [{"role": "user", "content": [write_text(ASK)]}]
    attributes = write_vercel(messages, response__text="Four.", response__finishReason="stop")
    assert read_turns(attributes) == [Turn("user", ASK), Turn("assistant", "Four.")]


def test_calls_and_results_of_the_vercel_sdk_are_read() -> None:
    made = {"type": "tool-call", "toolCallId": "1", "toolName": "read_wind", "input": {"port": "Kiel"}}
    result = {
        "type": "tool-result",
        "toolCallId": "1",
        "toolName": "read_wind",
        "output": {"type": "text", "value": "4 Bft"},
    }
    messages = [
        {"role": "system", "content": "Speak as a pilot."},
        {"role": "user", "content": [write_text(ASK)]},
        {"role": "assistant", "content": [write_text("I look."), made]},
        {"role": "tool", "content": [result]},
    ]
    attributes = write_vercel(messages, response__text="Four.")
    assert read_turns(attributes) == [Turn("system", "Speak as a pilot."), *OLDER_TURNS]


def test_a_call_that_the_vercel_sdk_answers_with_is_read() -> None:
    calls = [
        {"toolCallType": "function", "toolCallId": "1", "toolName": "read_wind", "args": '{"port": "Kiel"}'}
    ]
    tool = {"type": "function", **DESCRIBED, "inputSchema": SCHEMA}
    attributes = write_vercel(
        [{"role": "user", "content": [write_text(ASK)]}],
        prompt__tools=[json.dumps(tool)],
        response__toolCalls=json.dumps(calls),
        response__finishReason="tool-calls",
    )
    attributes["gen_ai.response.finish_reasons"] = ["tool-calls"]
    call = read(attributes)
    assert call.tools == DEFINED
    assert [(made.name, json.loads(made.arguments)) for made in call.response.tool_calls] == [
        ("read_wind", {"port": "Kiel"})
    ]


# Arguments.


@pytest.mark.parametrize("arguments", ["", None, {}, "{}"], ids=["empty", "null", "object", "text"])
def test_a_call_without_arguments_has_an_empty_object(arguments: Any) -> None:
    part = {"type": "tool_call", "id": "k1", "name": "read_clock", "arguments": arguments}
    answer = {"role": "assistant", "parts": [part], "finish_reason": "tool_call"}
    turns = read_turns(write_genai([{"role": "user", "parts": [write_part("How late is it?")]}], answer))
    assert turns[-1] == Turn("assistant", calls=(Call("read_clock"),))


@pytest.mark.parametrize("place", ["history", "answer"])
@pytest.mark.parametrize("arguments", ["", None])
def test_a_listed_call_without_arguments_has_an_empty_object(place: str, arguments: Any) -> None:
    call = {"id": "k1", "function": {"name": "read_clock", "arguments": arguments}}
    calling = {"role": "assistant", "tool_calls": [call]}
    if place == "answer":
        turns = read_turns(write_llm([ASKED], calling))
    else:
        told = {"role": "tool", "content": "17:31", "tool_call_id": "k1"}
        turns = read_turns(write_llm([ASKED, calling, told], "Late."))
    assert turns[1] == Turn("assistant", calls=(Call("read_clock"),))


def test_arguments_that_are_an_object_in_the_body_are_the_listed_text() -> None:
    function = {"name": "read_wind", "arguments": {"port": "Kiel"}}
    message = {"role": "assistant", "content": None, "tool_calls": [{"id": "w1", "function": function}]}
    told = {"role": "tool", "content": "4 Bft", "tool_call_id": "w1"}
    body = {"messages": [ASKED, message, told]}
    turns = read_turns(write_llm([ASKED, CALLING, told], "Four.", body=body))
    assert turns[1] == Turn("assistant", calls=(WIND,))


def test_a_body_that_is_a_list_of_messages_is_a_request() -> None:
    attributes = write_llm(None, "Four.") | write_body("input", [ASKED])
    assert read_turns(attributes) == [Turn("user", ASK), Turn("assistant", "Four.")]


# LangChain's serialised messages.


def write_langchain(answer: dict[str, Any], listed: dict[str, Any] | None = None) -> dict[str, Any]:
    """A span with this serialised answer, and its listed form if given."""
    asked = {"lc": 1, "type": "constructor", "kwargs": {"type": "human", "content": ASK}}
    generation = {"text": "", "message": {"lc": 1, "type": "constructor", "kwargs": answer}}
    output = {"generations": [[generation]], "type": "LLMResult"}
    listed_prompt = [ASKED] if listed else None
    return write_llm(listed_prompt, listed, body={"messages": [[asked]]}, output=output)


LANGCHAIN_CALL = {"name": "read_wind", "args": {"port": "Kiel"}, "id": "w1", "type": "tool_call"}


def test_a_chunk_of_a_streamed_answer_is_the_assistants() -> None:
    kwargs = {"type": "AIMessageChunk", "content": "Four.", "tool_calls": [], "tool_call_chunks": []}
    assert read_turns(write_langchain(kwargs)) == [Turn("user", ASK), Turn("assistant", "Four.")]


def test_a_call_that_is_serialised_twice_is_one_call() -> None:
    extra = {"tool_calls": [write_call("w1", "read_wind", port="Kiel")]}
    kwargs = {"type": "ai", "content": "", "additional_kwargs": extra, "tool_calls": [LANGCHAIN_CALL]}
    for attributes in (write_langchain(kwargs), write_langchain(kwargs, CALLING)):
        assert read_turns(attributes)[-1] == Turn("assistant", calls=(WIND,))


def test_arguments_of_a_streamed_block_are_those_of_the_call() -> None:
    block = {
        "type": "tool_use",
        "id": "w1",
        "name": "read_wind",
        "input": {},
        "partial_json": '{"port": "Kiel"}',
    }
    content = [{**write_text("I look."), "index": 0}, {**block, "index": 1}]
    kwargs = {"type": "AIMessageChunk", "content": content, "tool_calls": [LANGCHAIN_CALL]}
    answer = Turn("assistant", "I look.", (WIND,))
    assert read_turns(write_langchain(kwargs))[-1] == answer
    assert read_turns(write_langchain(kwargs, {**CALLING, "content": "I look."}))[-1] == answer


def test_a_call_that_langchain_could_not_parse_is_not_lost() -> None:
    broken = {"name": "read_wind", "args": '{"port": "Ki', "id": "w1", "error": "Expecting value"}
    kwargs = {"type": "ai", "content": "I look.", "tool_calls": [], "invalid_tool_calls": [broken]}
    reasons = {DropReason.BROKEN_ARGUMENTS, DropReason.CUT_OFF, DropReason.MALFORMED}
    assert refuse(write_langchain(kwargs)) in reasons
    assert refuse(write_langchain(kwargs, {"role": "assistant", "content": "I look."})) in reasons


@pytest.mark.parametrize("place", ["chat", "responses"])
def test_a_call_with_free_text_instead_of_arguments_refuses(place: str) -> None:
    if place == "chat":
        call = {"id": "w1", "type": "custom", "custom": {"name": "run", "input": "wind Kiel"}}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        output: dict[str, Any] = {
            "choices": [{"index": 0, "finish_reason": "tool_calls", "message": message}]
        }
        attributes = write_llm(None, None, body={"messages": [ASKED]}, output=output)
    else:
        item = {"type": "custom_tool_call", "call_id": "w1", "name": "run", "input": "wind Kiel"}
        output = {"object": "response", "status": "completed", "output": [item]}
        attributes = write_llm(None, None, body={"model": "m", "input": ASK}, output=output)
    reasons = {DropReason.BROKEN_ARGUMENTS, DropReason.MALFORMED, DropReason.NOT_TEXT}
    assert refuse(attributes) in reasons


# Events that a tracer writes as one attribute.


def test_events_in_one_attribute_are_read() -> None:
    events = [
        {"event.name": "gen_ai.system.message", "role": "system", "content": "Speak as a pilot."},
        {"event.name": "gen_ai.user.message", "role": "user", "content": ASK, "gen_ai.message.index": 0},
        {
            "event.name": "gen_ai.assistant.message",
            "role": "assistant",
            "content": "I look.",
            "tool_calls": [
                {
                    "id": "1",
                    "type": "function",
                    "function": {"name": "read_wind", "arguments": '{"port": "Kiel"}'},
                }
            ],
            "gen_ai.message.index": 1,
        },
        {
            "event.name": "gen_ai.tool.message",
            "role": "tool",
            "id": "1",
            "name": "read_wind",
            "content": "4 Bft",
            "gen_ai.message.index": 2,
        },
        {"event.name": "gen_ai.choice", "index": 0, "message": {"role": "assistant", "content": "Four."}},
    ]
    attributes = CHAT | {"events": json.dumps(events)}
    assert read_turns(attributes) == [Turn("system", "Speak as a pilot."), *OLDER_TURNS]


def test_choices_in_events_of_a_request_for_two_are_several() -> None:
    def choose(index: int, text: str) -> tuple[str, dict[str, Any]]:
        message = json.dumps({"role": "assistant", "content": text})
        return ("gen_ai.choice", {"index": index, "finish_reason": "stop", "message": message})

    events = [("gen_ai.user.message", {"content": ASK}), choose(0, "Four."), choose(1, "Five.")]
    assert refuse(CHAT, events=events) is DropReason.SEVERAL_ANSWERS


def test_a_choice_in_an_event_that_ended_at_the_limit_is_cut_off() -> None:
    message = json.dumps({"role": "assistant", "content": "Fo"})
    choice = {"index": 0, "finish_reason": "length", "message": message}
    events = [("gen_ai.user.message", {"content": ASK}), ("gen_ai.choice", choice)]
    assert refuse(CHAT, events=events) is DropReason.CUT_OFF


def test_events_of_a_user_message_alone_hold_no_answer() -> None:
    assert refuse(CHAT, events=[("gen_ai.user.message", {"content": ASK})]) in {
        DropReason.NO_ANSWER,
        DropReason.CONTENT_ELSEWHERE,
    }


# Bodies and blocks in the attributes and events of GenAI.


def test_request_and_response_bodies_as_prompt_and_completion_are_read() -> None:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Four."}}
    attributes = CHAT | {
        "gen_ai.prompt": json.dumps({"model": "m", "messages": [ASKED]}),
        "gen_ai.completion": json.dumps({"id": "c1", "choices": [choice]}),
    }
    assert read_turns(attributes) == [Turn("user", ASK), Turn("assistant", "Four.")]


@pytest.mark.parametrize(("reason", "is_read"), [("stop", True), ("length", False)])
def test_langchains_bodies_as_prompt_and_completion_are_read(reason: str, is_read: bool) -> None:
    asked = {"lc": 1, "type": "constructor", "kwargs": {"type": "human", "content": ASK}}
    message = {"lc": 1, "type": "constructor", "kwargs": {"type": "ai", "content": "Four."}}
    generation = {"text": "Four.", "message": message, "generation_info": {"finish_reason": reason}}
    attributes = CHAT | {
        "gen_ai.prompt": json.dumps({"messages": [[asked]]}),
        "gen_ai.completion": json.dumps({"generations": [[generation]], "type": "LLMResult"}),
    }
    if is_read:
        assert read_turns(attributes) == [Turn("user", ASK), Turn("assistant", "Four.")]
    else:
        assert refuse(attributes) is DropReason.CUT_OFF


def test_bodies_of_events_as_json_are_read() -> None:
    choice = {"index": 0, "finish_reason": "stop", "message": {"content": "Four."}}
    events = [
        ("gen_ai.user.message", {"gen_ai.event.content": json.dumps({"content": ASK})}),
        ("gen_ai.choice", {"gen_ai.event.content": json.dumps(choice)}),
    ]
    assert read_turns(CHAT, events=events) == [Turn("user", ASK), Turn("assistant", "Four.")]


def test_converse_blocks_in_events_are_read() -> None:
    use = {"toolUse": {"toolUseId": "1", "name": "read_wind", "input": {"port": "Kiel"}}}
    result = {"toolResult": {"toolUseId": "1", "status": "success", "content": [{"text": "4 Bft"}]}}
    events = [
        ("gen_ai.user.message", {"content": json.dumps([{"text": ASK}])}),
        ("gen_ai.assistant.message", {"content": json.dumps([{"text": "I look."}, use])}),
        ("gen_ai.tool.message", {"content": json.dumps([result])}),
        ("gen_ai.choice", {"finish_reason": "end_turn", "message": json.dumps([{"text": "Four."}])}),
    ]
    assert read_turns(CHAT, events=events) == OLDER_TURNS


def test_messages_that_are_no_text_but_structures_are_read() -> None:
    attributes = CHAT | {
        "gen_ai.input.messages": [{"role": "user", "parts": [write_part(ASK)]}],
        "gen_ai.output.messages": [{"role": "assistant", "parts": [write_part("Four.")]}],
    }
    assert read_turns(attributes) == [Turn("user", ASK), Turn("assistant", "Four.")]


def test_the_body_of_a_completion_is_read() -> None:
    output = {"choices": [{"index": 0, "text": "Four.", "finish_reason": "stop"}]}
    attributes = write_llm(None, None, body={"model": "m", "prompt": ASK}, output=output)
    assert read_turns(attributes) == [Turn("user", ASK), Turn("assistant", "Four.")]


@pytest.mark.parametrize(
    "contents", [ASK, [ASK], [{"text": ASK}], {"role": "user", "parts": [{"text": ASK}]}]
)
def test_gemini_contents_of_any_shape_are_read(contents: Any) -> None:
    attributes = write_llm(None, "Four.", body={"model": "g", "contents": contents})
    assert read_turns(attributes) == [Turn("user", ASK), Turn("assistant", "Four.")]
