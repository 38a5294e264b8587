"""Reads an answer as it arrived, and checks whether it is a whole one.

A server that dies, or a proxy in between, can end a stream as if all were well. Only the answer itself
shows its end: each choice of a completion names a `finish_reason`, a response its status, a message its
`stop_reason`. `[DONE]` proves nothing either way.
"""

from dataclasses import dataclass

from daemon.gateway.apis.api import Json, TracedAnswer
from daemon.gateway.calls import GatewayCall
from daemon.gateway.sse import parse_events, parse_object

CUT_STREAM = "the stream ended before the model's answer did: nothing says why it ended"
OPEN_ANSWER = "the model's answer does not say that it ended"
NO_JSON = "the model's answer is not a JSON object"
NO_JSON_EVENT = "an event of the model's stream is not a JSON object"


@dataclass(frozen=True)
class ArrivedAnswer:
    """An answer as far as it came."""

    body: Json | None
    """In one piece; None where nothing of it can be read."""
    told: TracedAnswer | None
    """What it says."""
    fault: str | None
    """Why it is not whole; None where it is."""


def read_answer(call: GatewayCall, expected: int) -> ArrivedAnswer:
    """Return the answer of `call`, which asked for `expected` choices; a stream's is put together."""
    if not call.streamed:
        body = parse_object(b"".join(call.answer))
        if body is None:
            return ArrivedAnswer(None, None, NO_JSON)
        told = call.api.read_answer(body)
        # A server without `n` may answer once, but whole.
        return ArrivedAnswer(body, told, None if _shows_its_end(told, 1) else OPEN_ANSWER)
    chunks, is_damaged = parse_events(call.answer)
    if not chunks:
        return ArrivedAnswer(None, None, NO_JSON_EVENT if is_damaged else CUT_STREAM)
    body = call.api.assemble(chunks)
    told = call.api.read_answer(body)
    if is_damaged:
        fault: str | None = NO_JSON_EVENT
    elif not _shows_its_end(told, expected):
        fault = CUT_STREAM
    else:
        fault = call.api.find_stream_fault(chunks)
    return ArrivedAnswer(body, told, fault)


def _shows_its_end(told: TracedAnswer, choices: int) -> bool:
    """Return whether there are at least so many choices, and each says why it ended."""
    ended = all(choice.finish_reason is not None for choice in told.choices)
    return ended and len(told.choices) >= choices
