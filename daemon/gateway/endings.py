"""Checks whether an answer that arrived without an error is a whole one.

A server that dies, or a proxy in between, can end a stream as if all were well. Only the answer itself
shows its end: each choice of a completion names a `finish_reason`, a response its status, a message its
`stop_reason`. `[DONE]` proves nothing either way.
"""

from collections.abc import Mapping
from typing import Any

from daemon.gateway.calls import GatewayCall
from daemon.gateway.sse import is_unreadable, parse_chunk

CUT_STREAM = "the stream ended before the model's answer did: a choice has no finish_reason"
OPEN_ANSWER = "the model's answer does not say that it ended: a choice has no finish_reason"
NO_JSON = "the model's answer is not a JSON object"
NO_JSON_EVENT = "an event of the model's stream is not a JSON object"


def find_fault(call: GatewayCall, answer: Mapping[str, Any] | None) -> str | None:
    """Return why the `answer` of `call` is not whole, or None. A stream's answer is assembled first."""
    if call.streamed and any(is_unreadable(event) for event in call.answer):
        return NO_JSON_EVENT
    if answer is None:
        return CUT_STREAM if call.streamed else NO_JSON
    choices = call.api.read_answer(answer).choices
    # A server without `n` may answer once in one piece, but whole.
    expected = call.api.read_request(call.request).answers if call.streamed else 1
    if len(choices) < expected or any(choice.finish_reason is None for choice in choices):
        return CUT_STREAM if call.streamed else OPEN_ANSWER
    return call.api.find_stream_fault(read_chunks(call)) if call.streamed else None


def read_chunks(call: GatewayCall) -> list[dict[str, Any]]:
    """Return the JSON objects in the events of a stream."""
    return [chunk for event in call.answer if (chunk := parse_chunk(event)) is not None]
