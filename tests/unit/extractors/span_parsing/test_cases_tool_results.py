"""Results of tools: never the user's words, always after their calls, whichever message carried them."""

import json
from typing import Any

import pytest

from extractors.span_parsing.drop_reasons import DropReason
from tests.support.conversations import Call, Turn, read_turns, refuse
from tests.support.flat_attributes import (
    write_call,
    write_genai,
    write_indexed,
    write_llm,
    write_part,
    write_text,
)

ASK = "Is there a berth in Turku or Vaasa?"
ASKED = {"role": "user", "content": ASK}
TURKU, VAASA = Call("find_berth", {"harbour": "Turku"}), Call("find_berth", {"harbour": "Vaasa"})
ONE_CALL = {"role": "assistant", "tool_calls": [write_call("b1", "find_berth", harbour="Turku")]}
TWO_CALLS = {
    "role": "assistant",
    "tool_calls": [
        write_call("b1", "find_berth", harbour="Turku"),
        write_call("b2", "find_berth", harbour="Vaasa"),
    ],
}
ANSWER = "Yes, number 14."
ONE_RESULT = [
    Turn("user", ASK),
    Turn("assistant", calls=(TURKU,)),
    Turn("tool", "14 is free", answers=TURKU),
    Turn("assistant", ANSWER),
]
TWO_RESULTS_AND_WORDS = [
    Turn("user", ASK),
    Turn("assistant", calls=(TURKU, VAASA)),
    Turn("tool", "14 is free", answers=TURKU),
    Turn("tool", "full", answers=VAASA),
    Turn("user", "Just the number."),
    Turn("assistant", ANSWER),
]


def use(call_id: str, harbour: str) -> dict[str, Any]:
    return {"type": "tool_use", "id": call_id, "name": "find_berth", "input": {"harbour": harbour}}


def result(call_id: str, content: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": call_id, "content": content}


def part_call(call_id: str, harbour: str) -> dict[str, Any]:
    return {"type": "tool_call", "id": call_id, "name": "find_berth", "arguments": {"harbour": harbour}}


def part_response(call_id: str, response: Any, key: str = "response") -> dict[str, Any]:
    return {"type": "tool_call_response", "id": call_id, key: response}


@pytest.mark.parametrize("content", ["14 is free", [{"type": "text", "text": "14 is free"}]])
def test_a_result_in_an_anthropic_user_turn_is_the_tools(content: Any) -> None:
    body = {
        "model": "c",
        "messages": [
            ASKED,
            {"role": "assistant", "content": [use("b1", "Turku")]},
            {"role": "user", "content": [result("b1", content)]},
        ],
    }
    listed = [ASKED, ONE_CALL, {"role": "user", "content": "14 is free", "tool_call_id": "b1"}]
    assert read_turns(write_llm(listed, ANSWER, body=body)) == ONE_RESULT


def test_a_listed_result_of_role_user_is_the_tools_without_any_body() -> None:
    listed = [ASKED, ONE_CALL, {"role": "user", "content": "14 is free", "tool_call_id": "b1"}]
    assert read_turns(write_llm(listed, ANSWER)) == ONE_RESULT


def test_two_results_and_words_in_one_anthropic_turn_are_three_messages() -> None:
    """The listed message keeps one id and the last result; only the body tells the whole."""
    turn = [result("b1", "14 is free"), result("b2", "full"), write_text("Just the number.")]
    calls = {"role": "assistant", "content": [use("b1", "Turku"), use("b2", "Vaasa")]}
    body = {"model": "c", "messages": [ASKED, calls, {"role": "user", "content": turn}]}
    poor = {
        "role": "user",
        "content": "full",
        "tool_call_id": "b2",
        "contents": [None, None, write_text("Just the number.")],
    }
    assert read_turns(write_llm([ASKED, TWO_CALLS, poor], ANSWER, body=body)) == TWO_RESULTS_AND_WORDS


def test_two_results_of_which_the_list_keeps_one_are_refused_without_a_body() -> None:
    poor = {
        "role": "user",
        "content": "full",
        "tool_call_id": "b2",
        "contents": [None, None, write_text("Just the number.")],
    }
    reasons = {DropReason.NOT_WHOLE, DropReason.TEXTS_DIFFER}
    assert refuse(write_llm([ASKED, TWO_CALLS, poor], ANSWER)) in reasons


@pytest.mark.parametrize("role", ["user", "tool"])
@pytest.mark.parametrize("key", ["response", "result"])
def test_a_genai_response_is_the_tools_whatever_its_role(role: str, key: str) -> None:
    messages = [
        {"role": "user", "parts": [write_part(ASK)]},
        {"role": "assistant", "parts": [part_call("b1", "Turku")]},
        {"role": role, "parts": [part_response("b1", "14 is free", key)]},
    ]
    assert read_turns(write_genai(messages, ANSWER)) == ONE_RESULT


@pytest.mark.parametrize("key", ["response", "result"])
def test_a_genai_response_that_is_an_object_is_json(key: str) -> None:
    messages = [
        {"role": "user", "parts": [write_part(ASK)]},
        {"role": "assistant", "parts": [part_call("b1", "Turku")]},
        {"role": "user", "parts": [part_response("b1", {"free": 14}, key)]},
    ]
    assert json.loads(read_turns(write_genai(messages, ANSWER))[2].text) == {"free": 14}


def test_words_after_genai_responses_come_after_them() -> None:
    last = [part_response("b1", "14 is free"), part_response("b2", "full"), write_part("Just the number.")]
    messages = [
        {"role": "user", "parts": [write_part(ASK)]},
        {"role": "assistant", "parts": [part_call("b1", "Turku"), part_call("b2", "Vaasa")]},
        {"role": "user", "parts": last},
    ]
    assert read_turns(write_genai(messages, ANSWER)) == TWO_RESULTS_AND_WORDS


def test_a_converse_result_is_the_tools() -> None:
    asked = {"role": "user", "contents": [write_text(ASK)]}
    called = {**ONE_CALL, "contents": [write_text("I look.")]}
    given = {"role": "user", "content": '{"free": 14}', "tool_call_id": "b1"}
    assert read_turns(write_llm([asked, called, given], ANSWER, body=[])) == [
        Turn("user", ASK),
        Turn("assistant", "I look.", (TURKU,)),
        Turn("tool", '{"free": 14}', answers=TURKU),
        Turn("assistant", ANSWER),
    ]


def test_two_converse_results_in_one_body_turn_are_two_messages() -> None:
    def use_block(call_id: str, harbour: str) -> dict[str, Any]:
        return {"toolUse": {"toolUseId": call_id, "name": "find_berth", "input": {"harbour": harbour}}}

    def result_block(call_id: str, text: str) -> dict[str, Any]:
        return {"toolResult": {"toolUseId": call_id, "content": [{"text": text}], "status": "success"}}

    body = [
        {"role": "user", "content": [{"text": ASK}]},
        {"role": "assistant", "content": [use_block("b1", "Turku"), use_block("b2", "Vaasa")]},
        {
            "role": "user",
            "content": [
                result_block("b1", "14 is free"),
                result_block("b2", "full"),
                {"text": "Just the number."},
            ],
        },
    ]
    assert read_turns(write_llm(None, ANSWER, body=body)) == TWO_RESULTS_AND_WORDS


def test_a_gemini_function_response_is_the_tools() -> None:
    contents = [
        {"role": "user", "parts": [{"text": ASK}]},
        {"role": "model", "parts": [{"functionCall": {"name": "find_berth", "args": {"harbour": "Turku"}}}]},
        {
            "role": "user",
            "parts": [{"functionResponse": {"name": "find_berth", "response": {"result": "14 is free"}}}],
        },
    ]
    listed = [
        ASKED,
        {"role": "model", "tool_calls": [write_call(None, "find_berth", harbour="Turku")]},
        {"role": "user", "content": '{"result": "14 is free"}'},
    ]
    answer = {"role": "model", "content": ANSWER}
    assert read_turns(write_llm(listed, answer, body={"contents": contents})) == [
        Turn("user", ASK),
        Turn("assistant", calls=(TURKU,)),
        Turn("tool", '{"result": "14 is free"}', answers=TURKU),
        Turn("assistant", ANSWER),
    ]


def test_a_listed_result_without_id_after_a_call_is_not_the_users_words() -> None:
    """Without its body nothing tells that the user did not say this."""
    listed = [
        ASKED,
        {"role": "model", "tool_calls": [write_call(None, "find_berth", harbour="Turku")]},
        {"role": "user", "content": '{"result": "14 is free"}'},
    ]
    assert refuse(write_llm(listed, {"role": "model", "content": ANSWER})) is DropReason.NOT_WHOLE


def test_two_listed_results_keep_their_order_and_their_calls() -> None:
    results = [
        {"role": "tool", "content": "full", "tool_call_id": "b2"},
        {"role": "tool", "content": "14 is free", "tool_call_id": "b1"},
    ]
    turns = read_turns(write_llm([ASKED, TWO_CALLS, *results], ANSWER))
    assert turns[2:4] == [Turn("tool", "full", answers=VAASA), Turn("tool", "14 is free", answers=TURKU)]


def test_a_result_that_is_empty_is_a_result() -> None:
    """Tools that only do something return nothing; an empty text that was written is not one that is gone."""
    body = {
        "messages": [
            ASKED,
            ONE_CALL | {"content": None},
            {"role": "tool", "content": "", "tool_call_id": "b1"},
        ]
    }
    listed = [ASKED, ONE_CALL, {"role": "tool", "content": "", "tool_call_id": "b1"}]
    assert read_turns(write_llm(listed, ANSWER, body=body)) == [
        *ONE_RESULT[:2],
        Turn("tool", "", answers=TURKU),
        ONE_RESULT[3],
    ]


@pytest.mark.parametrize(
    "messages",
    [
        [ASKED, {"role": "tool", "content": "14 is free", "tool_call_id": "b1"}],
        [ASKED, {"role": "tool", "content": "14 is free", "tool_call_id": "b1"}, ONE_CALL],
        [ASKED, ONE_CALL, {"role": "user", "content": "And now?"}],
        [ASKED, TWO_CALLS, {"role": "tool", "content": "full", "tool_call_id": "b2"}],
        [ASKED, ONE_CALL, {"role": "tool", "content": "full", "tool_call_id": "b9"}],
        [{"role": "tool", "content": "14 is free", "tool_call_id": "b1"}, ASKED],
        [
            ASKED,
            ONE_CALL,
            {"role": "tool", "content": "14 is free", "tool_call_id": "b1"},
            {"role": "tool", "content": "14 is free", "tool_call_id": "b1"},
        ],
    ],
    ids=["no-call", "before-call", "no-result", "one-of-two", "another-id", "at-the-start", "twice"],
)
def test_calls_and_results_that_do_not_meet_are_not_whole(messages: list[dict[str, Any]]) -> None:
    body = {"messages": [{"content": None, **message} for message in messages]}
    assert refuse(write_llm(messages, ANSWER)) is DropReason.NOT_WHOLE
    assert refuse(write_llm(messages, ANSWER, body=body)) is DropReason.NOT_WHOLE
    assert refuse(write_llm(None, ANSWER, body=body)) is DropReason.NOT_WHOLE


def test_a_result_after_other_words_of_the_user_is_refused() -> None:
    late = [
        ASKED,
        ONE_CALL,
        {"role": "user", "content": "Hurry."},
        {"role": "tool", "content": "14", "tool_call_id": "b1"},
    ]
    assert refuse(write_llm(late, ANSWER)) is DropReason.NOT_WHOLE


def test_a_result_in_indexed_attributes_of_role_user_is_the_tools() -> None:
    messages = [
        ASKED,
        {
            "role": "assistant",
            "tool_calls": [{"id": "b1", "name": "find_berth", "arguments": '{"harbour": "Turku"}'}],
        },
        {"role": "user", "content": json.dumps([result("b1", "14 is free")])},
    ]
    assert read_turns(write_indexed(messages, ANSWER)) == ONE_RESULT


def test_a_langchain_tool_message_is_the_tools() -> None:
    def serialise(kind: str, **kwargs: Any) -> dict[str, Any]:
        return {
            "lc": 1,
            "type": "constructor",
            "id": ["langchain", "schema", "messages", kind],
            "kwargs": kwargs,
        }

    calls = [{"name": "find_berth", "args": {"harbour": "Turku"}, "id": "b1", "type": "tool_call"}]
    messages = [
        serialise("HumanMessage", content=ASK, type="human"),
        serialise("AIMessage", content="", type="ai", tool_calls=calls, invalid_tool_calls=[]),
        serialise("ToolMessage", content="14 is free", type="tool", tool_call_id="b1", status="success"),
    ]
    assert read_turns(write_llm(None, ANSWER, body={"messages": [messages]})) == ONE_RESULT


def test_ids_that_a_server_counts_anew_in_each_turn_link_within_their_turn() -> None:
    again = {"role": "assistant", "tool_calls": [write_call("b1", "find_berth", harbour="Vaasa")]}
    listed = [
        ASKED,
        ONE_CALL,
        {"role": "tool", "content": "14 is free", "tool_call_id": "b1"},
        again,
        {"role": "tool", "content": "full", "tool_call_id": "b1"},
    ]
    body = {"messages": [{"content": None, **message} for message in listed]}
    expected = [
        *ONE_RESULT[:3],
        Turn("assistant", calls=(VAASA,)),
        Turn("tool", "full", answers=VAASA),
        ONE_RESULT[3],
    ]
    assert read_turns(write_llm(listed, ANSWER)) == expected
    assert read_turns(write_llm(listed, ANSWER, body=body)) == expected


def test_the_output_of_a_function_in_parts_is_their_text() -> None:
    arguments = json.dumps(TURKU.arguments)
    items = [
        ASKED,
        {"type": "function_call", "call_id": "b1", "name": "find_berth", "arguments": arguments},
        {
            "type": "function_call_output",
            "call_id": "b1",
            "output": [{"type": "input_text", "text": "14 is free"}],
        },
    ]
    assert read_turns(write_llm(None, ANSWER, body={"model": "m", "input": items})) == ONE_RESULT


def test_results_of_parallel_gemini_calls_meet_them_by_their_order() -> None:
    def respond(result: str) -> dict[str, Any]:
        return {"functionResponse": {"name": "find_berth", "response": {"result": result}}}

    contents = [
        {"role": "user", "parts": [{"text": ASK}]},
        {
            "role": "model",
            "parts": [
                {"functionCall": {"name": "find_berth", "args": {"harbour": "Turku"}}},
                {"functionCall": {"name": "find_berth", "args": {"harbour": "Vaasa"}}},
            ],
        },
        {"role": "user", "parts": [respond("14 is free"), respond("full")]},
    ]
    turns = read_turns(write_llm(None, ANSWER, body={"contents": contents}))
    assert turns == [
        Turn("user", ASK),
        Turn("assistant", calls=(TURKU, VAASA)),
        Turn("tool", '{"result": "14 is free"}', answers=TURKU),
        Turn("tool", '{"result": "full"}', answers=VAASA),
        Turn("assistant", ANSWER),
    ]


def test_an_error_that_a_tool_gave_back_is_its_result() -> None:
    failed = result("b1", "no such harbour") | {"is_error": True}
    body = {
        "messages": [
            ASKED,
            {"role": "assistant", "content": [use("b1", "Turku")]},
            {"role": "user", "content": [failed]},
        ]
    }
    turns = read_turns(write_llm(None, ANSWER, body=body))
    assert turns[2] == Turn("tool", "no such harbour", answers=TURKU)


def test_a_user_who_repeats_the_result_is_not_taken_for_the_tool() -> None:
    """The list shows the last result and the words after it: being alike makes them no one text."""
    both = {
        "role": "user",
        "content": "14",
        "tool_call_id": "b1",
        "contents": [None, write_text("14")],
    }
    said = [Turn("tool", "14", answers=TURKU), Turn("user", "14")]
    assert read_turns(write_llm([ASKED, ONE_CALL, both], ANSWER))[2:4] == said
    use_block, words = use("b1", "Turku"), [result("b1", "14"), write_text("14")]
    messages = [ASKED, {"role": "assistant", "content": [use_block]}, {"role": "user", "content": words}]
    turns = read_turns(write_llm([ASKED, ONE_CALL, both], ANSWER, body={"messages": messages}))
    assert turns[2:4] == said
