"""How the gateway's spans tell requests and answers: whole, or as an error. The replica is a stand-in."""

import json
import zlib
from typing import Any

import httpx
import pytest

from tests.support.gateway import ASK, HELLO, TracedCall, traced_gateway
from tests.support.openai_stand_in import StandIn
from tests.support.phoenix import wait_until

REPLY = {"role": "assistant", "content": "Your money is on its way."}


def chunk(finish_reason: str | None = None, index: int = 0, **delta: Any) -> dict[str, Any]:
    choice = {"index": index, "delta": delta, "finish_reason": finish_reason}
    return {"id": "chat-1", "object": "chat.completion.chunk", "model": "base", "choices": [choice]}


def piece(text: str, finish_reason: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "text": text, "finish_reason": finish_reason}
    return {"id": "text-1", "object": "text_completion", "model": "base", "choices": [choice]}


def whole(*choices: dict[str, Any], **more: Any) -> dict[str, Any]:
    listed = [{"index": index, **choice} for index, choice in enumerate(choices)]
    return {"id": "chat-1", "object": "chat.completion", "model": "base", "choices": listed, **more}


def ask(replica: StandIn, path: str = "/v1/chat/completions", **request: Any) -> TracedCall:
    with traced_gateway(replica) as (client, calls):
        sent = {**ASK, **request} if "prompt" not in request else {"model": ASK["model"], **request}
        assert client.post(path, json=sent).status_code == 200
    (call,) = calls
    return call


@pytest.fixture
def replica() -> StandIn:
    return StandIn()


CUT_STREAMS = {
    "neither": ([chunk(role="assistant", content=""), chunk(content="Your money")], False),
    "only done": ([chunk(role="assistant", content="Your money")], True),
    "one of two choices": ([chunk(content="a"), chunk(content="b", index=1), chunk("stop", index=1)], True),
    "an empty reason": ([chunk("", content="Your money")], True),
    "a reason that says null": ([chunk("null", content="Your money")], True),
    "nothing": ([], False),
    "only done, without a choice": ([], True),
}


@pytest.mark.parametrize("case", CUT_STREAMS)
def test_a_stream_without_the_end_of_each_choice_is_an_error(replica: StandIn, case: str) -> None:
    chunks, done = CUT_STREAMS[case]
    replica.answer_with(*chunks, done=done)
    call = ask(replica, stream=True)
    assert call.error is not None
    assert call.error.startswith("the stream ended before the model's answer did")


def test_what_came_of_a_cut_stream_is_still_shown(replica: StandIn) -> None:
    replica.answer_with(chunk(role="assistant", content="Your "), chunk(content="money"), done=False)
    call = ask(replica, stream=True)
    assert call.attributes["llm.output_messages.0.message.content"] == "Your money"
    assert "llm.finish_reason" not in call.attributes


def test_a_stream_of_fewer_choices_than_were_asked_for_is_an_error(replica: StandIn) -> None:
    replica.answer_with(chunk(content="a"), chunk("stop"))
    assert ask(replica, stream=True, n=2).error is not None
    replica.answer_with(
        chunk(content="a"), chunk(content="b", index=1), chunk("stop"), chunk("stop", index=1)
    )
    assert ask(replica, stream=True, n=2).error is None


@pytest.mark.parametrize("done", [True, False])
def test_a_finish_reason_ends_a_stream_with_or_without_done(replica: StandIn, done: bool) -> None:
    replica.answer_with(chunk(role="assistant", content="Your money"), chunk("stop"), done=done)
    call = ask(replica, stream=True)
    assert call.error is None
    assert call.attributes["llm.finish_reason"] == "stop"
    assert call.attributes["llm.output_messages.0.message.content"] == "Your money"


def test_the_last_reason_that_was_given_counts(replica: StandIn) -> None:
    replica.answer_with(chunk("null", content="Your money"), chunk("length"), chunk(""))
    call = ask(replica, stream=True)
    assert call.error is None
    assert call.attributes["llm.output_messages.0.message.finish_reason"] == "length"


def test_a_text_completion_ends_like_a_chat(replica: StandIn) -> None:
    replica.answer_with(piece("Your "), piece("money"), done=True)
    call = ask(replica, "/v1/completions", prompt="Say:", stream=True)
    assert call.error is not None
    replica.answer_with(piece("Your "), piece("money", "length"), done=False)
    call = ask(replica, "/v1/completions", prompt="Say:", stream=True)
    assert call.error is None
    assert call.find("llm.choices.0.completion") == {"text": "Your money", "finish_reason": "length"}
    assert call.attributes["llm.finish_reason"] == "length"
    assert not call.find("llm.output_messages")


OPEN_ANSWERS = {
    "no reason": whole({"message": REPLY}),
    "null": whole({"message": REPLY, "finish_reason": None}),
    "one of two": whole({"message": REPLY, "finish_reason": "stop"}, {"message": REPLY}),
    "no choice": whole(),
    "no answer": {"detail": "busy"},
    "no object": ["busy"],
}


@pytest.mark.parametrize("case", OPEN_ANSWERS)
def test_an_answer_in_one_piece_that_names_no_end_is_an_error(replica: StandIn, case: str) -> None:
    replica.answer_whole(OPEN_ANSWERS[case])
    assert ask(replica).error is not None


def test_an_error_that_comes_with_status_200_is_an_error(replica: StandIn) -> None:
    replica.answer_whole({"error": {"message": "out of memory"}, "choices": []})
    assert ask(replica).error == "out of memory"
    replica.answer_with(chunk(content="Your"), {"error": {"message": "out of memory"}})
    assert ask(replica, stream=True).error == "out of memory"


def test_an_error_in_the_form_of_an_object_is_one(replica: StandIn) -> None:
    error = {"object": "error", "message": "out of memory", "code": 500}
    replica.answer_with(chunk(content="Your money"), error, chunk("stop"))
    assert ask(replica, stream=True).error == "out of memory"


def test_choices_whose_places_cannot_be_read_are_not_made_one(replica: StandIn) -> None:
    chunks = [chunk(content="a"), chunk(content="b", index=1), chunk("stop"), chunk("stop", index=1)]
    for each in chunks:
        each["choices"][0]["index"] = str(each["choices"][0]["index"])
    replica.answer_with(*chunks)
    assert ask(replica, stream=True).error is not None


def test_chunks_that_say_there_is_no_error_are_none(replica: StandIn) -> None:
    replica.answer_with({**chunk(content="Your money"), "error": None}, {**chunk("stop"), "error": None})
    assert ask(replica, stream=True).error is None


def test_a_stream_with_a_damaged_event_is_an_error(replica: StandIn) -> None:
    replica.answer_with(chunk(content="Your "), chunk(content="money"), chunk("stop"))
    assert replica.raw is not None
    replica.raw[1] = replica.raw[1].replace(b"money", b"mo\nney")
    assert ask(replica, stream=True).error == "an event of the model's stream is not a JSON object"


def test_comments_and_empty_events_do_no_harm(replica: StandIn) -> None:
    replica.answer_with(chunk(content="Your money"), chunk("stop"))
    assert replica.raw is not None
    replica.raw = [b": ping\r\n\r\n", b"data:\n\n", b"event: message\nid: 1\n", *replica.raw, b": bye\n\n"]
    call = ask(replica, stream=True)
    assert call.error is None
    assert call.attributes["llm.output_messages.0.message.content"] == "Your money"


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_stream_is_read_alike_however_the_network_cuts_it(replica: StandIn, size: int) -> None:
    replica.answer_with(chunk(role="assistant", content="blåbær "), chunk(content="🫐"), chunk("stop"))
    assert replica.raw is not None
    # Written as UTF-8, unlike what json.dumps escapes, and with CR LF.
    sent = b"".join(replica.raw).replace(b"\n", b"\r\n")
    sent = sent.replace(rb"bl\u00e5b\u00e6r", "blåbær".encode()).replace(rb"\ud83e\uded0", "🫐".encode())
    replica.raw = [sent[start : start + size] for start in range(0, len(sent), size)]
    call = ask(replica, stream=True)
    assert call.error is None
    assert call.attributes["llm.output_messages.0.message.content"] == "blåbær 🫐"


def test_a_client_that_hangs_up_in_mid_stream_leaves_an_error(replica: StandIn) -> None:
    replica.answer, replica.event_seconds = "word " * 100, 0.05
    with traced_gateway(replica) as (client, calls):
        with client.stream("POST", "/v1/chat/completions", json={**ASK, "stream": True}) as answer:
            next(answer.iter_bytes())
        wait_until(lambda: replica.aborted == 1, 5, "the replica to stop")
    assert [call.error for call in calls] == ["the agent left before it had its answer"]


def test_the_end_of_every_choice_is_told(replica: StandIn) -> None:
    choices = [
        {"finish_reason": reason, "message": {"role": "assistant", "content": reason}}
        for reason in ("stop", "length", "content_filter")
    ]
    replica.answer_whole(whole(*choices))
    call = ask(replica, n=3)
    assert call.attributes["llm.finish_reason"] == "stop"
    for index, reason in enumerate(("stop", "length", "content_filter")):
        assert call.attributes[f"llm.output_messages.{index}.message.finish_reason"] == reason


def test_a_legacy_function_call_is_told_with_its_function(replica: StandIn) -> None:
    replica.answer_with(
        chunk(role="assistant", content=None, function_call={"name": "refund", "arguments": ""}),
        chunk(function_call={"arguments": '{"euro":'}),
        chunk(function_call={"arguments": " 12}"}),
        chunk("function_call"),
    )
    history = [
        *HELLO,
        {
            "role": "assistant",
            "content": None,
            "function_call": {"name": "find", "arguments": '{"of": "ann"}'},
        },
        {"role": "function", "name": "find", "content": "two payments"},
    ]
    call = ask(replica, stream=True, messages=history, functions=[{"name": "refund", "parameters": {}}])
    assert call.error is None
    assert call.find("llm.input_messages.1.message") == {
        "role": "assistant",
        "function_call_name": "find",
        "function_call_arguments_json": '{"of": "ann"}',
    }
    assert call.find("llm.input_messages.2.message") == {
        "role": "function",
        "name": "find",
        "content": "two payments",
    }
    assert json.loads(str(call.attributes["llm.tools.0.tool.json_schema"])) == {
        "type": "function",
        "function": {"name": "refund", "parameters": {}},
    }
    assert call.find("llm.output_messages.0.message") == {
        "role": "assistant",
        "function_call_name": "refund",
        "function_call_arguments_json": '{"euro": 12}',
        "finish_reason": "function_call",
    }
    answer = json.loads(str(call.attributes["output.value"]))
    assert answer["choices"][0]["message"]["function_call"] == {"name": "refund", "arguments": '{"euro": 12}'}


def test_parallel_calls_of_one_index_stay_two(replica: StandIn) -> None:
    calls = [
        {"index": 0, "id": f"c{n}", "function": {"name": "refund", "arguments": f'{{"payment": {n}}}'}}
        for n in (1, 2)
    ]
    replica.answer_with(*(chunk(tool_calls=[call]) for call in calls), chunk("tool_calls"))
    call = ask(replica, stream=True)
    for index in (0, 1):
        assert call.find(f"llm.output_messages.0.message.tool_calls.{index}.tool_call") == {
            "id": f"c{index + 1}",
            "function.name": "refund",
            "function.arguments": f'{{"payment": {index + 1}}}',
        }


@pytest.mark.parametrize("stream", [False, True])
def test_thoughts_are_told_apart_from_the_answer(replica: StandIn, stream: bool) -> None:
    if stream:
        replica.answer_with(
            chunk(role="assistant", content=""),
            chunk(reasoning_content="Two payments"),
            chunk(reasoning=", one order."),
            chunk(**REPLY),
            chunk("stop"),
        )
    else:
        message = {**REPLY, "reasoning": "Two payments, one order."}
        replica.answer_whole(whole({"message": message, "finish_reason": "stop"}))
    call = ask(replica, stream=stream)
    assert call.find("llm.output_messages.0.message") == {
        "role": "assistant",
        "contents.0.message_content.type": "reasoning",
        "contents.0.message_content.text": "Two payments, one order.",
        "contents.1.message_content.type": "text",
        "contents.1.message_content.text": REPLY["content"],
        "finish_reason": "stop",
    }


@pytest.mark.parametrize("stream", [False, True])
def test_a_refusal_is_told_as_one(replica: StandIn, stream: bool) -> None:
    if stream:
        replica.answer_with(chunk(role="assistant", refusal="I can"), chunk(refusal="not."), chunk("stop"))
    else:
        message = {"role": "assistant", "content": None, "refusal": "I cannot."}
        replica.answer_whole(whole({"message": message, "finish_reason": "stop"}))
    call = ask(replica, stream=stream)
    assert call.find("llm.output_messages.0.message") == {
        "role": "assistant",
        "contents.0.message_content.type": "refusal",
        "contents.0.message_content.text": "I cannot.",
        "finish_reason": "stop",
    }


def test_parameters_that_change_what_an_answer_is_are_told(replica: StandIn) -> None:
    changing = {"continue_final_message": True, "add_generation_prompt": False, "echo": True, "max_tokens": 9}
    call = ask(replica, messages=[*HELLO, {"role": "assistant", "content": '{"team": "'}], **changing)
    parameters = json.loads(str(call.attributes["llm.invocation_parameters"]))
    assert {name: parameters[name] for name in changing} == changing
    body = json.loads(str(call.attributes["input.value"]))
    assert {name: body[name] for name in changing} == changing


@pytest.mark.parametrize("prompt", [[3, 14, 15], [[3, 14], [15]], ["a", "b"]])
def test_a_prompt_is_told_as_text_only_where_it_is_text(replica: StandIn, prompt: list[Any]) -> None:
    call = ask(replica, "/v1/completions", prompt=prompt)
    if prompt == ["a", "b"]:
        assert call.find("llm.prompts") == {"0.prompt.text": "a", "1.prompt.text": "b"}
    elif prompt == [3, 14, 15]:
        assert call.find("llm.prompts") == {"0.prompt.token_ids": "[3, 14, 15]"}
    else:
        assert call.find("llm.prompts") == {"0.prompt.token_ids": "[3, 14]", "1.prompt.token_ids": "[15]"}


def compress(body: bytes, bits: int) -> bytes:
    compressor = zlib.compressobj(wbits=bits)
    return compressor.compress(body) + compressor.flush()


ENCODINGS = [("gzip", 31), ("x-gzip", 31), ("GZip", 31), ("deflate", 15), ("deflate", -15)]


@pytest.mark.parametrize(("encoding", "bits"), ENCODINGS)
def test_a_compressed_request_is_read(replica: StandIn, encoding: str, bits: int) -> None:
    with traced_gateway(replica) as (client, calls):
        answer = client.post(
            "/v1/chat/completions",
            content=compress(json.dumps(ASK).encode(), bits),
            headers={"content-encoding": encoding},
        )
    assert answer.status_code == 200
    assert replica.seen == [{**ASK, "model": "base"}]
    assert calls[0].attributes["llm.input_messages.0.message.content"] == HELLO[0]["content"]


def refuse(client: httpx.Client, body: bytes, encoding: str) -> httpx.Response:
    return client.post("/v1/chat/completions", content=body, headers={"content-encoding": encoding})


def test_a_compressed_request_that_cannot_be_read_is_refused_with_its_reason(replica: StandIn) -> None:
    good = compress(json.dumps(ASK).encode(), 31)
    with traced_gateway(replica) as (client, calls):
        answers = {
            "bomb": refuse(client, compress(bytes(2**20 + 1), 31), "gzip"),
            "no gzip": refuse(client, json.dumps(ASK).encode(), "gzip"),
            "cut": refuse(client, good[:-9], "gzip"),
            "damaged": refuse(client, good[:-5] + bytes(5), "gzip"),
            "more after it": refuse(client, good + good, "gzip"),
            "no deflate": refuse(client, json.dumps(ASK).encode(), "deflate"),
            "empty": refuse(client, b"", "gzip"),
            "unknown": refuse(client, good, "br"),
            "twice": refuse(client, good, "gzip, gzip"),
        }
    messages = {name: answer.json()["error"]["message"] for name, answer in answers.items()}
    assert {name: answer.status_code for name, answer in answers.items()} == {
        **dict.fromkeys(answers, 400),
        "bomb": 413,
        "unknown": 415,
        "twice": 415,
    }
    assert messages["bomb"] == f"the body is larger than {2**20} bytes"
    assert messages["cut"] == "the body is not valid gzip: it ends too early"
    assert messages["more after it"] == "the body goes on after the end of its gzip data"
    assert all("not valid gzip" in messages[name] for name in ("no gzip", "damaged", "empty"))
    assert "not valid deflate" in messages["no deflate"]
    assert messages["unknown"] == "the content encoding `br` is not supported; use gzip, deflate or none"
    assert answers["unknown"].headers["accept-encoding"] == "gzip, deflate"
    assert replica.seen == []
    assert calls == []


@pytest.fixture(params=[False, True], ids=["whole", "stream"])
def compressed(request: pytest.FixtureRequest, replica: StandIn) -> bool:
    """A replica, or a proxy before it, that compresses its answers though nobody asked for it."""
    if request.param:
        replica.answer_with(chunk(**REPLY), chunk("stop"))
    else:
        replica.answer_whole(whole({"message": REPLY, "finish_reason": "stop"}))
    assert replica.raw is not None
    packed = compress(b"".join(replica.raw), 31)
    replica.raw = [packed[:20], packed[20:]]
    replica.raw_headers["content-encoding"] = "gzip"
    return bool(request.param)


def test_a_compressed_answer_is_passed_on_and_told_as_text(replica: StandIn, compressed: bool) -> None:
    with traced_gateway(replica) as (client, calls):
        answer = client.post("/v1/chat/completions", json={**ASK, "stream": compressed})
    assert REPLY["content"] in answer.text
    assert "content-encoding" not in answer.headers
    assert calls[0].error is None
    assert calls[0].attributes["llm.output_messages.0.message.content"] == REPLY["content"]
