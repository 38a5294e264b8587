"""The end of an answer: what was cut off never teaches as a whole."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from extractors.phoenix.spans import Span
from extractors.span_parsing.checks.cut_texts import breaks_off
from extractors.span_parsing.checks.token_counts import has_spent_all_tokens
from extractors.span_parsing.drop_reasons import DropReason, Unreadable
from extractors.span_parsing.nested_attributes import get_path, parse_body, parse_json

END_KEYS = frozenset(
    {"finish_reason", "finish_reasons", "finishReason", "stop_reason", "stopReason", "done_reason"}
)
ENVELOPES = frozenset({
    "choices", "candidates", "generations", "output", "response", "raw", "result", "llm_output", "message",
    "messages", "content", "contents", "message_content", "attributes", "data", "kwargs", "response_metadata",
    "generation_info", "additional_kwargs", "incomplete_details", "finish_details",
})  # fmt: skip
"""Keys of a response under which its end may stand; never those of what the model said."""
UNTOLD = frozenset({"", "unspecified", "finish_reason_unspecified", "unknown", "none", "null"})
NORMAL_ENDS = UNTOLD | {
    "stop", "finish_reason_stop", "stop_sequence", "end", "end_turn", "end_of_turn", "eos", "eos_token",
    "complete", "completed", "done", "tool_calls", "tool_call", "tool_use", "function_call",
}  # fmt: skip
"""Ends, as `_normalise` writes them, with which an answer is whole."""
PROTO_ENDS = {0: "unspecified", 1: "stop", 2: "max_tokens"}
"""Google's numbers for an end."""
PRINTED_END = re.compile(r"'finish_reason': '(\w+)'")
"""An end in a message that Haystack's tracer has printed."""
RESPONSE_KEYS = frozenset({"output", "content", "arguments"})
"""Keys beside the status of a response of the Responses API, or of one of its items."""
LIMITS = re.compile(r".*(length|max_\w*token|max_\w*output|token_limit|context_window|incomplete).*")
MOST_OF_AN_END = 100
"""Characters of a finish reason that are looked at."""


def check_told_end(span: Span) -> bool:
    """Check that no record tells an abnormal end; return whether one tells that the answer is whole.

    Raises Unreadable: CUT_OFF, ABNORMAL_END.
    """
    ends = {_normalise(end) for end in _list_ends(span)}
    abnormal = ends - NORMAL_ENDS
    if abnormal:
        cut = all(LIMITS.fullmatch(end) for end in abnormal)
        raise Unreadable(DropReason.CUT_OFF if cut else DropReason.ABNORMAL_END)
    return bool(ends - UNTOLD)


def check_untold_end(span: Span, answer: str, parameters: Mapping[str, Any]) -> None:
    """Check an answer of which no record tells the end: it has fewer tokens than the request allowed.

    `parameters` are those of the request. Nor may it be JSON that breaks off. Raises Unreadable (CUT_OFF).
    """
    if has_spent_all_tokens(span, parameters) or breaks_off(answer):
        raise Unreadable(DropReason.CUT_OFF)


def _normalise(end: str) -> str:
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", end.strip()[:MOST_OF_AN_END].rpartition(".")[2])
    return spaced.replace("-", "_").replace(" ", "_").casefold()


def _list_ends(span: Span) -> Iterator[str]:
    attributes = span.attributes
    yield from _to_texts(get_path(attributes, "llm.finish_reason"))
    yield from _to_texts(get_path(attributes, "ai.response.finishReason"))
    for written in (
        get_path(attributes, "llm.output_messages"),
        get_path(attributes, "gen_ai.response"),
        get_path(attributes, "gen_ai.output.messages"),
        get_path(attributes, "gen_ai.completion"),
        get_path(attributes, "events"),
        parse_body(attributes, "output"),
    ):
        yield from _find_ends(parse_json(written))
    yield from PRINTED_END.findall(str(get_path(parse_body(attributes, "output"), "replies")))


def _find_ends(value: Any) -> Iterator[str]:
    """Yield the ends that a response tells, wherever its provider writes them."""
    for mapping in _walk(value):
        if not RESPONSE_KEYS.isdisjoint(mapping):
            yield from _to_texts(mapping.get("status"))
        if mapping.get("type") == "refusal" or mapping.get("refusal"):
            yield "refusal"
        yield from _to_texts(get_path(mapping, "incomplete_details.reason"))
        for key in _list_end_keys(mapping):
            yield from _to_texts(mapping[key])


def _list_end_keys(mapping: Mapping[str, Any]) -> frozenset[str]:
    """Return the keys under which an object tells an end.

    Beside a `finish_reason`, vLLM's `stop_reason` is no reason: it is the text or the token that the answer
    stopped at.
    """
    keys = END_KEYS.intersection(mapping)
    return keys - {"stop_reason"} if mapping.get("finish_reason") else keys


def _walk(value: Any) -> Iterator[dict[str, Any]]:
    """Yield a response's objects, but not those that the model wrote."""
    if isinstance(value, list):
        for entry in value:
            yield from _walk(entry)
    elif isinstance(value, dict):
        yield value
        for key, inner in value.items():
            if key in ENVELOPES or key.isdecimal():
                yield from _walk(parse_json(inner) if key == "message" else inner)


def _to_texts(value: Any) -> list[str]:
    parsed = parse_json(value) if isinstance(value, str) and value.startswith("[") else value
    if isinstance(parsed, dict):
        parsed = parsed.get("type", parsed.get("reason"))
    entries = parsed if isinstance(parsed, list) else [parsed]
    return [PROTO_ENDS.get(x, "other") if type(x) is int else x for x in entries if type(x) in (str, int)]
