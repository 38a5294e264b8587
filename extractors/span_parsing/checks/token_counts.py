"""Checks of a request and its answer against their numbers of tokens."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from extractors.examples.types import Message
from extractors.phoenix.spans import Span
from extractors.span_parsing.drop_reasons import DropReason, Unreadable
from extractors.span_parsing.nested_attributes import get_path, parse_body

TOKEN_LIMITS = (
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "maxTokens",
    "maxOutputTokens",
    "num_predict",
)
"""Parameters that limit the tokens of an answer."""
NESTED = (
    "options",
    "config",
    "generationConfig",
    "generation_config",
    "inferenceConfig",
    "extra_body",
    "model_kwargs",
    "generation_kwargs",
)
"""Parameters in which providers keep others."""
COMPLETION_COUNTS = (
    "llm.token_count.completion",
    "gen_ai.usage.output_tokens",
    "gen_ai.usage.completion_tokens",
)
"""Attributes with the number of tokens of the answer."""
COMPLETION_COUNTS_IN_BODY = (
    "usage.completion_tokens",
    "usage.output_tokens",
    "usage.outputTokens",
    "usageMetadata.candidatesTokenCount",
    "usage_metadata.candidates_token_count",
    "eval_count",
)
"""Where a response of OpenAI, Anthropic, Bedrock, Gemini or Ollama counts the tokens of its answer."""
THOUGHT_COUNTS = (
    "llm.token_count.completion_details.reasoning",
    "gen_ai.usage.reasoning_tokens",
    "gen_ai.usage.details.reasoning_tokens",
    "gen_ai.usage.reasoning.output_tokens",
    "gen_ai.usage.details.thoughts_tokens",
    "ai.usage.reasoningTokens",
    "ai.usage.outputTokenDetails.reasoningTokens",
)
"""Attributes with the number of tokens that were thoughts."""
GEMINI_PROVIDERS = re.compile(r"gcp|gemini|google|vertex", re.IGNORECASE)
SPARE_TOKENS = 8
"""Tokens beside the text of an answer or a call: the ends of turns, the marks of calls."""
TOKENS_AROUND = 24
"""Tokens that a provider writes around the messages of a request."""


def has_spent_all_tokens(span: Span, parameters: Mapping[str, Any]) -> bool:
    """Return whether the answer has as many tokens as the `parameters` of its request allowed."""
    places = [parameters, *(inner for key in NESTED if isinstance(inner := parameters.get(key), dict))]
    limits = [place.get(key) for place in places for key in TOKEN_LIMITS]
    limits.append(get_path(span.attributes, "gen_ai.request.max_tokens"))
    most = [limit for limit in limits if type(limit) is int and limit > 0]
    return bool(most) and any(count >= min(most) for count in _count_spent(span))


def check_length(span: Span, answer: Message) -> None:
    """Check that the recorded answer is as long as its number of tokens demands: a token has a byte at least.

    Only a tracer of Gemini is known to keep no more than the last piece of a stream. Elsewhere, and where
    thoughts are shown, the number tells nothing: it may count thoughts that are hidden.

    Raises Unreadable (ANSWER_NOT_WHOLE).
    """
    provider = get_path(span.attributes, "gen_ai.provider.name") or get_path(span.attributes, "gen_ai.system")
    if not GEMINI_PROVIDERS.match(str(provider)) or answer.reasoning is not None:
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
    response = parse_body(span.attributes, "output")
    counts = [get_path(span.attributes, path) for path in COMPLETION_COUNTS]
    counts += [get_path(response, path) for path in COMPLETION_COUNTS_IN_BODY]
    return [count for count in counts if type(count) is int]


def _count_thoughts(span: Span) -> int:
    counts = [get_path(span.attributes, path) for path in THOUGHT_COUNTS]
    return max((count for count in counts if type(count) is int), default=0)
