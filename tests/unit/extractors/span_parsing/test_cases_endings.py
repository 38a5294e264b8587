"""Endings: an answer that was cut off or stopped never teaches as a whole, whoever says how it ended."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from extractors.span_parsing.drop_reasons import DropReason
from tests.support.conversations import Call, Turn, read_turns, refuse
from tests.support.flat_attributes import (
    write_body,
    write_call,
    write_genai,
    write_indexed,
    write_llm,
    write_part,
    write_text,
)

ASK = "Describe the lighthouse."
ASKED = {"role": "user", "content": ASK}
CUT = "The lighthouse stands on a reef and its lamp"
BODY = {"model": "m", "messages": [ASKED]}
READ = [Turn("user", ASK), Turn("assistant", CUT)]


def write_output(output: Any) -> dict[str, Any]:
    return write_llm([ASKED], CUT, body=BODY, output=output)


def serialise_generation(reason: dict[str, Any], place: str) -> dict[str, Any]:
    message = {
        "lc": 1,
        "type": "constructor",
        "id": ["langchain", "schema", "messages", "AIMessage"],
        "kwargs": {"content": CUT, "type": "ai", "response_metadata": reason if place == "message" else {}},
    }
    info = reason if place == "generation" else None
    return {
        "generations": [
            [{"text": CUT, "generation_info": info, "message": message, "type": "ChatGeneration"}]
        ]
    }


GENAI_ASKED = [{"role": "user", "parts": [write_part(ASK)]}]
PLACES: dict[str, Callable[[str], dict[str, Any]]] = {
    "llm": lambda reason: write_llm([ASKED], CUT, body=BODY, llm__finish_reason=reason),
    "chat-choice": lambda reason: write_output(
        {"choices": [{"index": 0, "finish_reason": reason, "message": {"role": "assistant", "content": CUT}}]}
    ),
    "completion-choice": lambda reason: (
        write_llm(
            None, None, body={"prompt": ASK}, output={"choices": [{"text": CUT, "finish_reason": reason}]}
        )
        | {"llm.prompts.0.prompt.text": ASK, "llm.choices.0.completion.text": CUT}
    ),
    "anthropic": lambda reason: write_output(
        {"type": "message", "role": "assistant", "content": [write_text(CUT)], "stop_reason": reason}
    ),
    "converse": lambda reason: write_output(
        {"output": {"message": {"role": "assistant", "content": [{"text": CUT}]}}, "stopReason": reason}
    ),
    "gemini": lambda reason: write_output(
        {"candidates": [{"content": {"role": "model", "parts": [{"text": CUT}]}, "finishReason": reason}]}
    ),
    "gemini-snake": lambda reason: write_output(
        {"candidates": [{"content": {"role": "model", "parts": [{"text": CUT}]}, "finish_reason": reason}]}
    ),
    "ollama": lambda reason: write_output(
        {"message": {"role": "assistant", "content": CUT}, "done": True, "done_reason": reason}
    ),
    "langchain-info": lambda reason: write_output(
        serialise_generation({"finish_reason": reason}, "generation")
    ),
    "langchain-metadata": lambda reason: write_output(
        serialise_generation({"finish_reason": reason}, "message")
    ),
    "langchain-anthropic": lambda reason: write_output(
        serialise_generation({"stop_reason": reason}, "message")
    ),
    "langchain-ollama": lambda reason: write_output(serialise_generation({"done_reason": reason}, "message")),
    "genai-attribute": lambda reason: write_genai(
        GENAI_ASKED,
        {"role": "assistant", "parts": [write_part(CUT)]},
        gen_ai__response__finish_reasons=[reason],
    ),
    "genai-message": lambda reason: write_genai(
        GENAI_ASKED, {"role": "assistant", "parts": [write_part(CUT)], "finish_reason": reason}
    ),
    "indexed": lambda reason: write_indexed(
        [ASKED], {"role": "assistant", "content": CUT, "finish_reason": reason}
    ),
    "indexed-attribute": lambda reason: write_indexed(
        [ASKED], {"role": "assistant", "content": CUT}, gen_ai__response__finish_reasons=[reason]
    ),
    "older-json": lambda reason: {
        "gen_ai.request.model": "m",
        "gen_ai.prompt": json.dumps(GENAI_ASKED),
        "gen_ai.completion": json.dumps({"text": CUT, "finish_reason": reason}),
    },
    "vercel": lambda reason: {
        "operation.name": "ai.generateText.doGenerate",
        "gen_ai.request.model": "m",
        "ai.prompt.messages": json.dumps([{"role": "user", "content": [write_text(ASK)]}]),
        "ai.response.text": CUT,
        "ai.response.finishReason": reason,
    },
}
PLACE = pytest.mark.parametrize("place", PLACES)


@PLACE
@pytest.mark.parametrize("reason", ["length", "max_tokens", "MAX_TOKENS"])
def test_an_answer_that_ended_at_its_limit_is_cut_off(place: str, reason: str) -> None:
    assert refuse(PLACES[place](reason)) is DropReason.CUT_OFF


@PLACE
@pytest.mark.parametrize("reason", ["content_filter", "SAFETY", "refusal", "error"])
def test_an_answer_that_something_stopped_ended_abnormally(place: str, reason: str) -> None:
    assert refuse(PLACES[place](reason)) is DropReason.ABNORMAL_END


@PLACE
@pytest.mark.parametrize("reason", ["stop", "end_turn", "STOP"])
def test_an_answer_that_ended_by_itself_is_read(place: str, reason: str) -> None:
    assert read_turns(PLACES[place](reason)) == READ


@pytest.mark.parametrize(
    "reason",
    [
        "model_length",
        "model_context_window_exceeded",
        "max_output_tokens",
        "FinishReason.MAX_TOKENS",
        "LENGTH",
    ],
)
def test_a_limit_in_any_spelling_is_cut_off(reason: str) -> None:
    assert refuse(PLACES["llm"](reason)) is DropReason.CUT_OFF


@pytest.mark.parametrize(
    "reason",
    [
        "pause_turn",
        "RECITATION",
        "PROHIBITED_CONTENT",
        "MALFORMED_FUNCTION_CALL",
        "guardrail_intervened",
        "content_filtered",
        "content-filter",
        "cancelled",
        "failed",
        "abort",
    ],
)
def test_an_abnormal_end_in_any_spelling_refuses(reason: str) -> None:
    assert refuse(PLACES["llm"](reason)) is DropReason.ABNORMAL_END


@pytest.mark.parametrize(
    "reason",
    ["stop_sequence", "completed", "eos", "eos_token", "COMPLETE", "FinishReason.STOP", "end_of_turn"],
)
def test_a_normal_end_in_any_spelling_is_read(reason: str) -> None:
    assert read_turns(PLACES["llm"](reason)) == READ


@pytest.mark.parametrize(
    "reason", ["tool_calls", "tool_call", "tool_use", "tool-calls", "function_call", "STOP"]
)
def test_an_answer_that_ended_with_a_call_is_read(reason: str) -> None:
    answer = {"role": "assistant", "tool_calls": [write_call("l1", "light", on=True)]}
    attributes = write_llm([ASKED], answer, llm__finish_reason=reason)
    assert read_turns(attributes)[-1] == Turn("assistant", calls=(Call("light", {"on": True}),))


def write_response(**status: Any) -> dict[str, Any]:
    message = {
        "type": "message",
        "role": "assistant",
        "content": [{"type": "output_text", "text": CUT, "annotations": []}],
    }
    body = {"model": "m", "input": ASK}
    return write_llm(
        [{}, ASKED], CUT, body=body, output={"object": "response", "output": [message], **status}
    )


def test_a_response_that_is_incomplete_is_cut_off_or_ended_abnormally() -> None:
    details = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    assert refuse(write_response(**details)) is DropReason.CUT_OFF
    details = {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}
    assert refuse(write_response(**details)) is DropReason.ABNORMAL_END
    assert refuse(write_response(status="failed")) is DropReason.ABNORMAL_END
    assert refuse(write_response(status="cancelled")) is DropReason.ABNORMAL_END
    assert read_turns(write_response(status="completed", incomplete_details=None)) == READ


def test_a_refusal_is_no_answer_to_learn() -> None:
    message = {"role": "assistant", "content": None, "refusal": "I cannot say that."}
    output = {"choices": [{"index": 0, "finish_reason": "stop", "message": message}]}
    reasons = {DropReason.ABNORMAL_END, DropReason.NO_ANSWER}
    assert refuse(write_llm([ASKED], {"role": "assistant"}, body=BODY, output=output)) in reasons


def test_one_record_that_tells_of_the_limit_decides() -> None:
    attributes = PLACES["llm"]("stop") | write_body(
        "output", {"choices": [{"finish_reason": "length", "message": {"role": "assistant", "content": CUT}}]}
    )
    assert refuse(attributes) is DropReason.CUT_OFF


# Where no record tells, evidence.


@pytest.mark.parametrize("key", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("place", ["body", "parameters"])
def test_as_many_tokens_as_were_allowed_are_cut_off(key: str, place: str) -> None:
    body = BODY | ({key: 9} if place == "body" else {})
    attributes = write_llm([ASKED], CUT, body=body, llm__token_count__completion=9)
    if place == "parameters":
        attributes["llm.invocation_parameters"] = json.dumps({key: 9})
    assert refuse(attributes) is DropReason.CUT_OFF


def test_as_many_tokens_as_were_allowed_are_cut_off_in_responses() -> None:
    body = {"model": "m", "input": ASK, "max_output_tokens": 9}
    assert refuse(write_llm([ASKED], CUT, body=body, llm__token_count__completion=9)) is DropReason.CUT_OFF


@pytest.mark.parametrize("key", ["gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens"])
def test_as_many_tokens_as_were_allowed_are_cut_off_in_genai(key: str) -> None:
    counted = {"gen_ai.request.max_tokens": 9, key: 9}
    answer = {"role": "assistant", "parts": [write_part(CUT)]}
    assert refuse(write_genai(GENAI_ASKED, answer) | counted) is DropReason.CUT_OFF
    assert (
        refuse(write_indexed([ASKED], {"role": "assistant", "content": CUT}) | counted) is DropReason.CUT_OFF
    )


def test_fewer_tokens_than_were_allowed_are_whole() -> None:
    body = BODY | {"max_tokens": 9}
    assert read_turns(write_llm([ASKED], CUT, body=body, llm__token_count__completion=8)) == READ


def test_an_end_that_is_told_outweighs_the_count_of_tokens() -> None:
    body = BODY | {"max_tokens": 9}
    attributes = write_llm([ASKED], CUT, body=body, llm__token_count__completion=9, llm__finish_reason="stop")
    assert read_turns(attributes) == READ


def test_json_that_was_asked_for_and_breaks_off_is_cut_off() -> None:
    body = BODY | {"response_format": {"type": "json_object"}}
    attributes = write_llm([ASKED], '{"height": 31, "keeper": "Ol', body=body)
    assert refuse(attributes) in {DropReason.CUT_OFF, DropReason.VALUE_CUT}


@pytest.mark.parametrize("arguments", ['{"on": tr', '{"on"', '{"on": true', '"on"', "[true]"])
def test_a_call_whose_arguments_are_no_object_refuses(arguments: str) -> None:
    call = {"id": "l1", "function": {"name": "light", "arguments": arguments}}
    reasons = {DropReason.BROKEN_ARGUMENTS, DropReason.CUT_OFF, DropReason.VALUE_CUT}
    assert refuse(write_llm([ASKED], {"role": "assistant", "tool_calls": [call]})) in reasons


def test_a_span_that_failed_is_no_answer() -> None:
    assert refuse(PLACES["llm"]("stop"), status="ERROR") is DropReason.FAILED


@pytest.mark.parametrize("reasons", [["length"], '["length"]', "length"])
def test_finish_reasons_in_any_type_are_cut_off(reasons: Any) -> None:
    answer = {"role": "assistant", "parts": [write_part(CUT)]}
    attributes = write_genai(GENAI_ASKED, answer, gen_ai__response__finish_reasons=reasons)
    assert refuse(attributes) is DropReason.CUT_OFF


@pytest.mark.parametrize("reason", ["", "null", "unknown", "other", None])
def test_an_end_that_is_not_told_is_no_abnormal_one(reason: str | None) -> None:
    answer = {"role": "assistant", "content": CUT, "finish_reason": reason}
    found = write_indexed([ASKED], answer)
    if reason == "other":
        assert refuse(found) is DropReason.ABNORMAL_END
    else:
        assert read_turns(found) == READ


def test_as_many_tokens_as_were_allowed_are_cut_off_where_the_body_counts_them() -> None:
    message = {"role": "assistant", "content": CUT}
    output = {"choices": [{"index": 0, "message": message}], "usage": {"completion_tokens": 9}}
    attributes = write_llm([ASKED], CUT, body=BODY | {"max_tokens": 9}, output=output)
    assert refuse(attributes) is DropReason.CUT_OFF


def test_a_refusal_among_the_parts_is_no_answer_to_learn() -> None:
    message = {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}
    output = {"object": "response", "status": "completed", "output": [message]}
    attributes = write_llm([{}, ASKED], None, body={"model": "m", "input": ASK}, output=output)
    assert refuse(attributes) in {DropReason.ABNORMAL_END, DropReason.NO_ANSWER}


@pytest.mark.parametrize("status", ["in_progress", "queued"])
def test_a_response_that_has_not_ended_is_no_answer(status: str) -> None:
    assert refuse(write_response(status=status)) in {DropReason.ABNORMAL_END, DropReason.NO_ANSWER}


def test_one_of_two_ends_at_the_limit_refuses() -> None:
    answer = {"role": "assistant", "parts": [write_part(CUT)]}
    attributes = write_genai(GENAI_ASKED, answer, gen_ai__response__finish_reasons=["stop", "length"])
    reasons = {DropReason.CUT_OFF, DropReason.SEVERAL_ANSWERS, DropReason.ANSWERS_DIFFER}
    assert refuse(attributes) in reasons


@pytest.mark.parametrize(
    ("reason", "expected"),
    [("MAX_TOKENS", DropReason.CUT_OFF), ("SAFETY", DropReason.ABNORMAL_END)],
)
def test_the_end_of_a_gemini_candidate_alone_is_seen(reason: str, expected: DropReason) -> None:
    output = {"content": {"role": "model", "parts": [{"text": CUT}]}, "finish_reason": reason}
    body = {"model": "g", "contents": [{"role": "user", "parts": [{"text": ASK}]}]}
    answer = {"role": "model", "content": CUT}
    assert refuse(write_llm([ASKED], answer, body=body, output=output)) is expected


def test_the_end_among_chunks_of_a_stream_is_seen() -> None:
    output = [
        {"choices": [{"index": 0, "delta": {"content": CUT}}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]},
    ]
    assert refuse(write_llm([ASKED], CUT, body=BODY, output=output)) is DropReason.CUT_OFF


@pytest.mark.parametrize("kind", ["message", "function_call"])
def test_an_item_that_is_incomplete_is_cut_off(kind: str) -> None:
    items = {
        "message": {"role": "assistant", "content": [{"type": "output_text", "text": CUT}]},
        "function_call": {"call_id": "l1", "name": "light", "arguments": '{"on": true}'},
    }
    item = {"type": kind, "status": "incomplete", **items[kind]}
    output = {"object": "response", "status": "completed", "output": [item]}
    attributes = write_llm(None, None, body={"model": "m", "input": ASK}, output=output)
    assert refuse(attributes) is DropReason.CUT_OFF


def test_thoughts_that_never_end_are_cut_off() -> None:
    assert refuse(write_llm([ASKED], "<think>It stands on a reef, and")) is DropReason.CUT_OFF


@pytest.mark.parametrize("stopped_at", [",", "END", 151645, None])
@pytest.mark.parametrize("reason", ["stop", "length"])
def test_what_vllm_stopped_at_is_no_reason(reason: str, stopped_at: str | int | None) -> None:
    choice = {"index": 0, "finish_reason": reason, "stop_reason": stopped_at}
    attributes = write_output({"choices": [{**choice, "message": {"role": "assistant", "content": CUT}}]})
    if reason == "stop":
        assert read_turns(attributes) == READ
    else:
        assert refuse(attributes) is DropReason.CUT_OFF
