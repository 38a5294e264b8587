"""What one record knows that it lacks, another fills in; what they say against each other refuses."""

import json
from typing import Any

import pytest

from extractors.span_parsing.calls import read_call
from extractors.span_parsing.drop_reasons import DropReason
from tests.support.conversations import Call, Turn, read, read_turns, refuse
from tests.support.flat_attributes import write_call, write_genai, write_llm, write_part, write_text
from tests.support.otlp import decode

TIDE = Call("read_tide", {"harbour": "Brest"})
SYSTEM = {"role": "system", "content": "Speak as a pilot."}
ASKED = {"role": "user", "content": "Can I cross the bar?"}
CALLED = {"role": "assistant", "tool_calls": [write_call("t1", "read_tide", harbour="Brest")]}
RESULT = {"role": "tool", "content": "2.4 m, rising", "tool_call_id": "t1"}
HISTORY = [SYSTEM, ASKED, CALLED, RESULT]
WHOLE = [
    Turn("system", "Speak as a pilot."),
    Turn("user", "Can I cross the bar?"),
    Turn("assistant", calls=(TIDE,)),
    Turn("tool", "2.4 m, rising", answers=TIDE),
    Turn("assistant", "From six o'clock on."),
]
ANSWER = "From six o'clock on."


def write_both(
    listed: list[dict[str, Any]], messages: list[dict[str, Any]], answer: Any = ANSWER
) -> dict[str, Any]:
    return write_llm(listed, answer, body={"model": "m", "messages": messages})


# One record is poorer, and it shows.


def test_a_tools_result_under_another_key_is_read_from_the_genai_attribute_itself() -> None:
    messages = [
        {"role": "user", "parts": [write_part("Can I cross the bar?")]},
        {
            "role": "assistant",
            "parts": [
                {"type": "tool_call", "id": "t1", "name": "read_tide", "arguments": {"harbour": "Brest"}}
            ],
        },
        {
            "role": "user",
            "parts": [
                {"type": "tool_call_response", "id": "t1", "name": "read_tide", "result": "2.4 m, rising"}
            ],
        },
    ]
    attributes = write_genai(
        messages,
        ANSWER,
        gen_ai__system="openai",
        gen_ai__provider__name="openai",
        gen_ai__system_instructions=json.dumps([write_part("Speak as a pilot.")]),
    )
    assert read_turns(attributes) == WHOLE


def test_messages_that_phoenix_does_not_map_are_read_from_the_genai_attribute_itself() -> None:
    clock = Call("read_clock")
    messages = [
        {"role": "user", "parts": [write_part("How late is it?")]},
        {
            "role": "assistant",
            "parts": [{"type": "tool_call", "id": "k1", "name": "read_clock", "arguments": None}],
        },
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "k1", "result": "17:31"}]},
    ]
    answer = {"role": "assistant", "parts": [write_part("Half past five.")]}
    assert read_turns(write_genai(messages, answer)) == [
        Turn("user", "How late is it?"),
        Turn("assistant", calls=(clock,)),
        Turn("tool", "17:31", answers=clock),
        Turn("assistant", "Half past five."),
    ]


def serialise(kind: str, content: Any, **kwargs: Any) -> dict[str, Any]:
    names = ["langchain_core", "messages", kind]
    return {
        "lc": 1,
        "type": "constructor",
        "id": names,
        "kwargs": {"content": content, "additional_kwargs": {}, **kwargs},
    }


def test_a_listed_message_with_a_role_alone_is_read_from_the_body() -> None:
    body = {
        "messages": [
            [
                serialise("SystemMessage", "Speak as a pilot."),
                serialise("HumanMessage", [write_text("Can I cross the bar?")]),
            ]
        ]
    }
    assert read_turns(write_llm([SYSTEM, {"role": "user"}], ANSWER, body=body)) == [*WHOLE[:2], WHOLE[-1]]


def test_listed_calls_and_results_that_are_gone_are_read_from_a_langchain_body() -> None:
    calls = [{"name": "read_tide", "args": {"harbour": "Brest"}, "id": "t1", "type": "tool_call"}]
    messages = [
        serialise("SystemMessage", "Speak as a pilot."),
        serialise("HumanMessage", "Can I cross the bar?"),
        serialise("AIMessage", [], tool_calls=calls),
        serialise("ToolMessage", [write_text("2.4 m, rising")], tool_call_id="t1"),
    ]
    listed = [SYSTEM, ASKED, {"role": "assistant"}, {"role": "tool"}]
    assert read_turns(write_llm(listed, ANSWER, body={"messages": [messages]})) == WHOLE


@pytest.mark.parametrize(
    "poor",
    [
        [SYSTEM, ASKED, {"role": "assistant"}, RESULT],
        [SYSTEM, ASKED, CALLED, {"role": "tool", "content": "2.4 m, rising"}],
        [SYSTEM, ASKED, CALLED, {"role": "tool", "tool_call_id": "t1"}],
        [SYSTEM, {"role": "user"}, {"role": "assistant"}, {"role": "tool"}],
    ],
    ids=["no-call", "no-id", "no-result", "roles-alone"],
)
def test_what_a_listed_message_lacks_is_read_from_the_body(poor: list[dict[str, Any]]) -> None:
    assert read_turns(write_both(poor, HISTORY)) == WHOLE


def test_a_function_call_of_the_older_format_that_is_not_listed_is_read_from_the_body() -> None:
    body = {
        "model": "m",
        "messages": [
            ASKED,
            {
                "role": "assistant",
                "content": None,
                "function_call": {"name": "read_tide", "arguments": '{"harbour": "Brest"}'},
            },
            {"role": "function", "name": "read_tide", "content": "2.4 m, rising"},
        ],
    }
    listed = [
        ASKED,
        {"role": "assistant"},
        {"role": "function", "content": "2.4 m, rising", "name": "read_tide"},
    ]
    assert read_turns(write_llm(listed, ANSWER, body=body)) == WHOLE[1:]


def test_a_body_without_its_system_prompt_is_no_contradiction() -> None:
    assert read_turns(write_llm(HISTORY, ANSWER, body=[*HISTORY[1:]])) == WHOLE


# Records that differ in nothing that matters.


def test_white_space_and_the_order_of_keys_are_no_contradiction() -> None:
    call = {"id": "t1", "type": "function", "function": {"name": "plan", "arguments": '{"a":1,"b":[2]}'}}
    same = {"id": "t1", "type": "function", "function": {"name": "plan", "arguments": '{"b": [2], "a": 1}'}}
    listed = [
        {"role": "user", "content": "  Plan it. \n"},
        {"role": "assistant", "tool_calls": [call]},
        RESULT,
    ]
    body = [
        {"role": "user", "content": "Plan it."},
        {"role": "assistant", "content": None, "tool_calls": [same]},
        RESULT,
    ]
    turns = read_turns(write_both(listed, body))
    assert turns[:2] == [
        Turn("user", "Plan it."),
        Turn("assistant", calls=(Call("plan", {"a": 1, "b": [2]}),)),
    ]


def test_the_place_of_the_system_prompt_is_no_contradiction() -> None:
    anthropic = {"system": "Speak as a pilot.", "messages": [ASKED]}
    expected = [*WHOLE[:2], WHOLE[-1]]
    assert read_turns(write_llm([ASKED], ANSWER, body=anthropic)) == expected
    assert read_turns(write_llm([SYSTEM, ASKED], ANSWER, body=anthropic)) == expected


def test_content_and_contents_that_agree_are_one_text() -> None:
    both = {"role": "assistant", "content": "Aye", "contents": [write_text("Aye")]}
    body = {"model": "m", "input": "Ready?"}
    assert read_turns(write_llm([{"role": "user", "content": "Ready?"}], both, body=body)) == [
        Turn("user", "Ready?"),
        Turn("assistant", "Aye"),
    ]


def test_content_that_is_the_parts_in_one_is_one_text() -> None:
    both = {"role": "assistant", "content": "Aye, aye", "contents": [write_text("Aye, "), write_text("aye")]}
    assert read(write_llm([ASKED], both)).response.content == "Aye, aye"


def test_a_developer_in_the_body_is_the_listed_system() -> None:
    body = [{"role": "developer", "content": "Speak as a pilot."}, ASKED]
    assert read_turns(write_both([SYSTEM, ASKED], body)) == [*WHOLE[:2], WHOLE[-1]]


# Contradictions.


DIFFERENT = {DropReason.TEXTS_DIFFER, DropReason.TOOL_CALLS_DIFFER, DropReason.HISTORY_DIFFERS}
NEARLY = {
    "text": [SYSTEM, {"role": "user", "content": "Can I cross the road?"}, CALLED, RESULT],
    "system": [{"role": "system", "content": "Speak as a cook."}, ASKED, CALLED, RESULT],
    "result": [SYSTEM, ASKED, CALLED, {**RESULT, "content": "1.1 m, falling"}],
    "text-beside": [SYSTEM, ASKED, {**CALLED, "content": "I look."}, RESULT],
    "arguments": [
        SYSTEM,
        ASKED,
        {**CALLED, "tool_calls": [write_call("t1", "read_tide", harbour="Nantes")]},
        RESULT,
    ],
    "name": [
        SYSTEM,
        ASKED,
        {**CALLED, "tool_calls": [write_call("t1", "read_wind", harbour="Brest")]},
        RESULT,
    ],
    "one-more": [SYSTEM, ASKED, {"role": "user", "content": "Quick!"}, CALLED, RESULT],
    "longer": [*HISTORY, {"role": "assistant", "content": "Yes."}, {"role": "user", "content": "Sure?"}],
    "role": [SYSTEM, {"role": "assistant", "content": "Can I cross the bar?"}, CALLED, RESULT],
    "order": [SYSTEM, CALLED, RESULT, ASKED],
}


@pytest.mark.parametrize("other", NEARLY.values(), ids=NEARLY.keys())
def test_bodies_and_lists_that_differ_are_a_contradiction(other: list[dict[str, Any]]) -> None:
    assert refuse(write_both(HISTORY, other)) in DIFFERENT
    assert refuse(write_both(other, HISTORY)) in DIFFERENT


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ("text", DropReason.TEXTS_DIFFER),
        ("system", DropReason.TEXTS_DIFFER),
        ("result", DropReason.TEXTS_DIFFER),
        ("arguments", DropReason.TOOL_CALLS_DIFFER),
        ("name", DropReason.TOOL_CALLS_DIFFER),
        ("one-more", DropReason.HISTORY_DIFFERS),
        ("longer", DropReason.HISTORY_DIFFERS),
        ("role", DropReason.HISTORY_DIFFERS),
        ("order", DropReason.HISTORY_DIFFERS),
    ],
)
def test_a_contradiction_is_named(other: str, reason: DropReason) -> None:
    assert refuse(write_both(HISTORY, NEARLY[other])) is reason


def test_an_answer_that_is_listed_otherwise_than_in_the_body_is_a_contradiction() -> None:
    output = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "Never."}}]}
    assert refuse(write_llm([ASKED], ANSWER, output=output)) is DropReason.TEXTS_DIFFER


def test_a_call_of_the_answer_that_only_the_body_has_is_not_lost() -> None:
    message = {"role": "assistant", "content": None, "tool_calls": CALLED["tool_calls"]}
    output = {"choices": [{"index": 0, "finish_reason": "tool_calls", "message": message}]}
    assert read_turns(write_llm([ASKED], {"role": "assistant"}, output=output))[-1] == WHOLE[2]


def test_a_call_of_the_answer_that_contradicts_the_body_refuses() -> None:
    message = {"role": "assistant", "content": None, "tool_calls": CALLED["tool_calls"]}
    output = {"choices": [{"index": 0, "finish_reason": "tool_calls", "message": message}]}
    other = {"role": "assistant", "tool_calls": [write_call("t1", "read_tide", harbour="Nantes")]}
    assert refuse(write_llm([ASKED], other, output=output)) is DropReason.TOOL_CALLS_DIFFER


def test_content_and_contents_that_say_two_things_are_a_contradiction() -> None:
    odd = {
        "role": "user",
        "content": "Can I cross the bar?",
        "contents": [write_text("Can I cross the road?")],
    }
    assert refuse(write_llm([odd], ANSWER)) is DropReason.TEXTS_DIFFER


def test_an_openinference_record_and_a_genai_record_that_differ_are_a_contradiction() -> None:
    attributes = write_genai([{"role": "user", "parts": [write_part("Can I cross the road?")]}], ANSWER)
    assert refuse(write_llm([ASKED], ANSWER) | attributes) is DropReason.TEXTS_DIFFER


def test_an_openinference_record_and_a_genai_record_that_agree_are_read_once() -> None:
    attributes = write_genai([{"role": "user", "parts": [write_part(ASKED["content"])]}], ANSWER)
    assert read_turns(write_llm([ASKED], ANSWER) | attributes) == [WHOLE[1], WHOLE[-1]]


# Records that tell something else than the conversation, and contradict nothing.


def test_an_input_that_is_the_last_message_alone_is_no_contradiction() -> None:
    attributes = write_llm(HISTORY, ANSWER) | {"input.value": RESULT["content"], "output.value": ANSWER}
    assert read_turns(attributes) == WHOLE


@pytest.mark.parametrize("output", [f"assistant: {ANSWER}", f"{ANSWER}\n"])
def test_an_output_that_names_the_speaker_is_no_contradiction(output: str) -> None:
    attributes = write_llm([ASKED], ANSWER) | {
        "input.value": f"user: {ASKED['content']}",
        "output.value": output,
    }
    assert read_turns(attributes) == [WHOLE[1], WHOLE[-1]]


def test_bodies_of_objects_written_as_text_do_not_stand_against_the_list() -> None:
    body = {"messages": ["ChatMessage(_role=<ChatRole.USER: 'user'>, _content=[TextContent(text='Can')])"]}
    output = {"replies": ["ChatMessage(_role=<ChatRole.ASSISTANT: 'assistant'>, _content=[])"]}
    assert read_turns(write_llm([ASKED], ANSWER, body=body, output=output)) == [WHOLE[1], WHOLE[-1]]


@pytest.mark.parametrize(
    "config",
    [
        {"config": {"system_instruction": "Speak as a pilot."}},
        {"config": {"systemInstruction": {"parts": [{"text": "Speak as a pilot."}]}}},
        {"systemInstruction": {"role": "user", "parts": [{"text": "Speak as a pilot."}]}},
        {"system_instruction": {"parts": [{"text": "Speak as a pilot."}]}},
    ],
    ids=["text", "config", "camel", "snake"],
)
def test_the_system_prompt_of_a_gemini_body_is_read(config: dict[str, Any]) -> None:
    body = {"model": "g", "contents": [{"role": "user", "parts": [{"text": ASKED["content"]}]}], **config}
    expected = [*WHOLE[:2], WHOLE[-1]]
    assert read_turns(write_llm(None, ANSWER, body=body)) == expected
    assert read_turns(write_llm([ASKED], ANSWER, body=body)) == expected
    assert read_turns(write_llm([SYSTEM, ASKED], ANSWER, body=body)) == expected


def write_anthropic_results(**further: Any) -> dict[str, Any]:
    use = {"type": "tool_use", "id": "t1", "name": "read_tide", "input": {"harbour": "Brest"}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": "2.4 m, rising"}
    messages = [ASKED, {"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]
    return {"model": "c", "messages": messages, **further}


LISTED_RESULT = [SYSTEM, ASKED, CALLED, {**RESULT, "role": "user"}]


def test_a_system_prompt_that_only_a_poorer_list_holds_is_not_lost() -> None:
    """Anthropic's results make the list poorer than the body: what it holds more still counts."""
    found = read_turns(write_llm(LISTED_RESULT, ANSWER, body=write_anthropic_results()))
    assert found == WHOLE


def test_a_system_prompt_of_a_poorer_list_that_differs_is_a_contradiction() -> None:
    body = write_anthropic_results(system="Speak as a cook.")
    assert refuse(write_llm(LISTED_RESULT, ANSWER, body=body)) is DropReason.TEXTS_DIFFER


def test_a_question_that_a_poorer_list_lacks_is_a_contradiction() -> None:
    """The list lacks results of tools, never a question."""
    body = write_anthropic_results(system="Speak as a pilot.")
    body["messages"] = [{"role": "user", "content": "Ahoy."}, *body["messages"]]
    assert refuse(write_llm(LISTED_RESULT, ANSWER, body=body)) is DropReason.HISTORY_DIFFERS


def test_a_system_prompt_that_one_record_keeps_apart_stands_first() -> None:
    """What is kept apart from the messages comes before them, wherever a list shows it."""
    asked_back = {"role": "assistant", "content": "Which bar?"}
    told = {"role": "user", "content": "The outer one."}
    body = {"model": "m", "instructions": SYSTEM["content"], "input": [ASKED, asked_back, told]}
    found = read_call(decode(write_llm([{}, ASKED, asked_back, SYSTEM, told], ANSWER, body=body)))
    if isinstance(found, DropReason):
        assert found is DropReason.HISTORY_DIFFERS
    else:
        assert found.prompt[0].role == "system"


def test_a_turn_that_one_list_calls_the_systems_is_no_system_prompt() -> None:
    """Beside several results the other record may hold more turns: the one whose role changed is no gap."""
    told = {"role": "user", "content": "The outer one."}
    second = {"role": "tool", "content": "1.1 m, falling", "tool_call_id": "t2"}
    twice = {"role": "assistant", "tool_calls": [*CALLED["tool_calls"], write_call("t2", "read_tide")]}
    listed = [ASKED, twice, RESULT, second, told]
    messages: list[dict[str, Any]] = [
        {"role": "user", "parts": [write_part(ASKED["content"])]},
        {
            "role": "assistant",
            "parts": [
                {"type": "tool_call", "id": "t1", "name": "read_tide", "arguments": {"harbour": "Brest"}},
                {"type": "tool_call", "id": "t2", "name": "read_tide", "arguments": {}},
            ],
        },
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "t1", "response": "2.4 m, rising"}]},
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "t2", "response": "1.1 m, falling"}]},
        {"role": "user", "parts": [write_part(told["content"])]},
    ]
    attributes = write_genai(messages, ANSWER)
    assert len(read_turns(write_llm(listed, ANSWER) | attributes)) == 6
    for changed in (second, told):
        damaged = [{**each, "role": "system"} if each is changed else each for each in listed]
        assert refuse(write_llm(damaged, ANSWER) | attributes) is DropReason.HISTORY_DIFFERS


def test_a_user_turn_that_the_poorer_list_lacks_after_results_is_a_contradiction() -> None:
    """One message of the list stands for results and the words after them, never for a further turn."""
    told = {"type": "text", "text": "The outer one."}
    body = write_anthropic_results(system="Speak as a pilot.")
    *before, results = body["messages"]
    body["messages"] = [*before, {**results, "content": [*results["content"], told]}]
    listed = [*LISTED_RESULT[:-1], {**LISTED_RESULT[-1], "contents": [write_text("The outer one.")]}]
    assert len(read_turns(write_llm(listed, ANSWER, body=body))) == len(WHOLE) + 1
    body["messages"].append({"role": "user", "content": "The outer one."})
    assert refuse(write_llm(listed, ANSWER, body=body)) is DropReason.HISTORY_DIFFERS
