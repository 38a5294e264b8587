"""Checks whether an answer that arrived without an error is a whole one.

A server that dies, or a proxy in between, can end a stream as if all were well. Only the answer itself
shows its end: each of its choices names a `finish_reason`. `[DONE]` proves nothing either way.
"""

from collections.abc import Mapping
from typing import Any

from daemon.gateway.calls import GatewayCall
from daemon.gateway.deltas import keep_objects
from daemon.gateway.sse import is_unreadable

CUT_STREAM = "the stream ended before the model's answer did: a choice has no finish_reason"
OPEN_ANSWER = "the model's answer does not say that it ended: a choice has no finish_reason"
NO_REASON = frozenset({"", "null"})
"""Spellings of a `finish_reason` that is none; some servers send them in every chunk but the last."""
NO_JSON = "the model's answer is not a JSON object"
NO_JSON_EVENT = "an event of the model's stream is not a JSON object"


def find_fault(call: GatewayCall, answer: Mapping[str, Any] | None) -> str | None:
    """Return why the `answer` of `call` is not whole, or None. A stream's answer is assembled first."""
    if call.streamed and any(is_unreadable(event) for event in call.answer):
        return NO_JSON_EVENT
    if answer is None:
        return CUT_STREAM if call.streamed else NO_JSON
    choices = keep_objects(answer.get("choices"))
    if all(_has_ended(choice) for choice in choices) and len(choices) >= _count_expected(call):
        return None
    return CUT_STREAM if call.streamed else OPEN_ANSWER


def _has_ended(choice: Mapping[str, Any]) -> bool:
    reason = choice.get("finish_reason")
    return isinstance(reason, str) and reason not in NO_REASON


def _count_expected(call: GatewayCall) -> int:
    """Return the choices that there are at least; a server without `n` may answer once, but whole."""
    number = call.request.get("n")
    return number if call.streamed and type(number) is int and number > 1 else 1
