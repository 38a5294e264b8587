"""How an answer ended, and whether texts were cut: what was cut off never teaches as a whole."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from extractors.examples.types import Message
from extractors.phoenix.spans import Span
from extractors.span_parsing.drop_reasons import DropReason, Unreadable
from extractors.span_parsing.nested_attributes import get_path, parse_json

END_KEYS = frozenset(
    {"finish_reason", "finish_reasons", "finishReason", "stop_reason", "stopReason", "done_reason"}
)
ENVELOPES = frozenset(
    {
        *("choices", "candidates", "generations", "output", "response", "raw", "result", "llm_output"),
        *("message", "messages", "content", "contents", "message_content", "attributes", "data", "kwargs"),
        *(
            "response_metadata",
            "generation_info",
            "additional_kwargs",
            "incomplete_details",
            "finish_details",
        ),
    }
)
"""Keys of a response under which its end may stand; never those of what the model said."""
UNTOLD = frozenset({"", "unspecified", "finish_reason_unspecified", "unknown", "none", "null"})
NORMAL_ENDS = UNTOLD | {
    *("stop", "finish_reason_stop", "stop_sequence", "end", "end_turn", "end_of_turn", "eos", "eos_token"),
    *("complete", "completed", "done", "tool_calls", "tool_call", "tool_use", "function_call"),
}
RESPONSE_KEYS = frozenset({"output", "content", "arguments"})
"""Keys beside the status of a response of the Responses API, or of one of its items."""
LIMITS = re.compile(r".*(length|max_\w*token|max_\w*output|token_limit|context_window|incomplete).*")
MOST_OF_AN_END = 100
"""Characters of a finish reason that are looked at."""
MOST_TOKENS = (
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "maxTokens",
    "maxOutputTokens",
    "num_predict",
)
SPENT = ("llm.token_count.completion", "gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens")
SPENT_IN_BODY = (
    "usage.completion_tokens",
    "usage.output_tokens",
    "usage.outputTokens",
    "usageMetadata.candidatesTokenCount",
    "usage_metadata.candidates_token_count",
    "eval_count",
)
"""Where a response of OpenAI, Anthropic, Bedrock, Gemini or Ollama counts the tokens of its answer."""
THOUGHTS = (
    "llm.token_count.completion_details.reasoning",
    "gen_ai.usage.reasoning_tokens",
    "gen_ai.usage.details.reasoning_tokens",
    "gen_ai.usage.reasoning.output_tokens",
    "gen_ai.usage.details.thoughts_tokens",
    "ai.usage.reasoningTokens",
    "ai.usage.outputTokenDetails.reasoningTokens",
)
"""Attributes with the number of tokens that were thoughts."""
GEMINI = re.compile(r"gcp|gemini|google|vertex", re.IGNORECASE)
SPARE_TOKENS = 8
"""Tokens beside the text of an answer or a call: the ends of turns, the marks of calls."""
TOKENS_AROUND = 24
"""Tokens that a provider writes around the messages of a request."""
SHORTEST_LIMIT = 32
"""Characters below which two texts may well be of one length by chance."""


def check_end(span: Span, answer: str, parameters: Mapping[str, Any]) -> None:
    """Check that the answer ended by itself, as far as any record of `span` tells.

    `parameters` are those of the request. Where no record tells the end, evidence decides: as many tokens
    as the request allowed, or JSON that breaks off. Raises Unreadable: CUT_OFF, ABNORMAL_END.
    """
    ends = {_normalise(end) for end in _list_ends(span)}
    abnormal = sorted(ends - NORMAL_ENDS)
    if abnormal:
        cut = all(LIMITS.fullmatch(end) for end in abnormal)
        raise Unreadable(DropReason.CUT_OFF if cut else DropReason.ABNORMAL_END)
    if not ends - UNTOLD and (_has_spent_all_tokens(span, parameters) or breaks_off(answer)):
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
        get_path(attributes, "output.value"),
    ):
        yield from _find_ends(parse_json(written))


def _find_ends(value: Any) -> Iterator[str]:
    """Yield the ends that a response tells, wherever its provider writes them."""
    for mapping in _walk(value):
        if not RESPONSE_KEYS.isdisjoint(mapping):
            yield from _to_texts(mapping.get("status"))
        if mapping.get("type") == "refusal" or mapping.get("refusal"):
            yield "refusal"
        yield from _to_texts(get_path(mapping, "incomplete_details.reason"))
        for key in END_KEYS.intersection(mapping):
            yield from _to_texts(mapping[key])


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
    return [entry for entry in entries if isinstance(entry, str)]


def _has_spent_all_tokens(span: Span, parameters: Mapping[str, Any]) -> bool:
    limits = [parameters.get(key) for key in MOST_TOKENS]
    limits.append(get_path(span.attributes, "gen_ai.request.max_tokens"))
    most = [limit for limit in limits if type(limit) is int and limit > 0]
    return bool(most) and any(count >= min(most) for count in _count_spent(span))


def check_length(span: Span, answer: Message) -> None:
    """Check that the recorded answer is as long as its number of tokens demands: a token has a byte at least.

    Only a tracer of Gemini is known to keep no more than the last piece of a stream. Elsewhere, and where
    thoughts are shown, the number tells nothing: it may count thoughts that are hidden. Raises Unreadable (ANSWER_NOT_WHOLE).
    """
    provider = get_path(span.attributes, "gen_ai.provider.name") or get_path(span.attributes, "gen_ai.system")
    if not GEMINI.match(str(provider)) or answer.reasoning is not None:
        return
    said = [answer.content, *(call.name + call.arguments for call in answer.tool_calls)]
    most = sum(len(text.encode()) for text in said) + SPARE_TOKENS * (1 + len(answer.tool_calls))
    if max(_count_spent(span), default=0) - _count_thoughts(span) > most:
        raise Unreadable(DropReason.ANSWER_NOT_WHOLE)


def check_history_held(span: Span, prompt: Sequence[Message], tools: Sequence[dict[str, Any]]) -> None:
    """Check that a Responses request whose body is not traced has no more tokens than its messages explain.

    Raises Unreadable (HISTORY_ELSEWHERE).
    """
    response_id = get_path(span.attributes, "gen_ai.response.id")
    tokens = get_path(span.attributes, "gen_ai.usage.input_tokens")
    if not str(response_id).startswith("resp_") or type(tokens) is not int:
        return
    texts = [message.model_dump_json() for message in prompt] if len(prompt) > 1 else [prompt[0].content]
    most = sum(len(text.encode()) for text in [*texts, *map(json.dumps, tools)]) + TOKENS_AROUND
    if get_path(span.attributes, "input.value") is None and tokens > most:
        raise Unreadable(DropReason.HISTORY_ELSEWHERE)


def _count_spent(span: Span) -> list[int]:
    response = parse_json(get_path(span.attributes, "output.value"))
    counts = [get_path(span.attributes, path) for path in SPENT]
    counts += [get_path(response, path) for path in SPENT_IN_BODY]
    return [count for count in counts if type(count) is int]


def _count_thoughts(span: Span) -> int:
    counts = [get_path(span.attributes, path) for path in THOUGHTS]
    return max((count for count in counts if type(count) is int), default=0)


def breaks_off(text: str) -> bool:
    """Return whether `text` is JSON that ends before it is closed."""
    text = text.strip().removeprefix("```json").lstrip()
    if not re.match(r'\{\s*"|\[\s*[\[{"]', text):
        return False
    open_brackets, in_string, escaped = 0, False, False
    for character in text:
        if in_string:
            escaped, in_string = (
                character == "\\" and not escaped,
                escaped or character != '"',
            )
        elif character == '"':
            in_string = True
        elif character in "[{":
            open_brackets += 1
        elif character in "]}":
            open_brackets -= 1
            if open_brackets == 0:
                return False
    return True


def check_values_whole(span: Span) -> None:
    """Check that no attribute was cut at a length limit. Raises Unreadable (VALUE_CUT).

    The evidence is two different texts that are both of the greatest length of all, of which one is JSON
    that breaks off, or both end in the midst of a word at a length that people set as a limit.
    """
    texts = {text for text in _list_texts(span.attributes) if len(text) >= SHORTEST_LIMIT}
    longest = max(map(len, texts), default=0)
    at_limit = [text for text in texts if len(text) == longest]
    if len(at_limit) < 2:
        return
    in_words = _is_round(longest) and all(text[-1].isalnum() for text in at_limit)
    if in_words or any(map(breaks_off, at_limit)):
        raise Unreadable(DropReason.VALUE_CUT)


def _is_round(length: int) -> bool:
    """Return whether `length` is a power of two from 128 on, or some thousands or five hundreds."""
    return length >= 128 and (length & (length - 1) == 0 or length % 500 == 0)


def _list_texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _list_texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _list_texts(inner)
