"""Anthropic's Messages, and its count of a request's tokens.

Reference: https://docs.anthropic.com/en/api/messages.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from typing_extensions import override

from daemon.gateway.apis.api import (
    Api,
    Json,
    TracedAnswer,
    TracedChoice,
    TracedRequest,
    build_call,
    build_function_tool,
    build_message,
    find_message,
    omit,
    read_count,
    read_type,
    to_list,
)
from daemon.gateway.replies import ApiError
from daemon.gateway.sse import build_event
from extractors.span_parsing.messages.chat_messages import BILLING_HEADER

_SAID = frozenset({"messages", "system", "tools"})
_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "refusal": "content_filter",
}
"""Why an answer ended, in the words of a chat completion; other reasons stay as they are."""
_ERROR_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
"""Types of errors by status (https://docs.anthropic.com/en/api/errors)."""
_DELTAS = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}
"""Deltas with a fragment of a block, and where they keep it."""
_UNENDED = "the stream ended before the model's answer did: it has no message_stop"
_OUT_OF_ORDER = "the events of the model's stream are not in the order of one message"


class Messages(Api):
    """The Messages API: blocks of content in and out."""

    path = "/v1/messages"
    span_name: str | None = "Message"

    @override
    def check_request(self, request: Mapping[str, Any]) -> None:
        """Leave all checks to the replica."""

    @override
    def is_passed_on(self, chunk: Mapping[str, Any], request: Mapping[str, Any]) -> bool:
        """Return True: each stream tells the number of tokens."""
        return True

    def rename_model(self, content: Json, alias: str) -> Json:
        inner = content.get("message")
        if isinstance(inner, dict) and "model" in inner:
            return {**content, "message": {**inner, "model": alias}}
        return super().rename_model(content, alias)

    def read_error(self, content: Mapping[str, Any]) -> str | None:
        is_error = read_type(content) == "error" or content.get("error")
        return (find_message(content) or "the model failed") if is_error else None

    def build_error(self, problem: ApiError) -> Json:
        default = "api_error" if problem.status >= 500 else "invalid_request_error"
        kind = _ERROR_TYPES.get(problem.status, default)
        return {"type": "error", "error": {"type": kind, "message": str(problem)}}

    @override
    def build_error_event(self, problem: ApiError, events_before: int) -> bytes:
        return build_event(self.build_error(problem), name="error")

    def adapt_error(self, status: int, content: Json) -> Json:
        is_own = read_type(content) == "error" and isinstance(content.get("error"), dict)
        return content if is_own else self._rebuild_error(status, content)

    def find_stream_fault(self, chunks: Sequence[Json]) -> str | None:
        if not any(read_type(chunk) == "message_stop" for chunk in chunks):
            return _UNENDED
        return None if _is_one_message(chunks) else _OUT_OF_ORDER

    def assemble(self, chunks: Sequence[Json]) -> Json:
        answer: Json = {}
        blocks: dict[int, _BlockBuilder] = {}
        for chunk in chunks:
            index, delta, usage = chunk.get("index"), chunk.get("delta"), chunk.get("usage")
            if isinstance(chunk.get("message"), dict):
                answer = {**chunk["message"]}
            elif type(index) is int:
                blocks.setdefault(index, _BlockBuilder()).add(chunk)
            elif isinstance(delta, dict):
                answer |= delta
            if isinstance(usage, dict):
                known = answer.get("usage")
                answer["usage"] = {**(known if isinstance(known, dict) else {}), **usage}
        return {**answer, "content": [block.build() for _, block in sorted(blocks.items())]}

    def read_request(self, request: Mapping[str, Any]) -> TracedRequest:
        metadata = request.get("metadata")
        user = metadata.get("user_id") if isinstance(metadata, dict) else None
        told = [message for each in to_list(request.get("messages")) for message in _to_messages(each)]
        return TracedRequest(
            messages=[*_list_system(request.get("system")), *told],
            tools=[_to_tool(tool) for tool in to_list(request.get("tools"))],
            parameters=omit(request, _SAID),
            user=user if isinstance(user, str) else None,
        )

    def read_answer(self, answer: Mapping[str, Any]) -> TracedAnswer:
        reason, usage = answer.get("stop_reason"), answer.get("usage")
        message = _build_turn("assistant", answer.get("content"))
        counts = [
            read_count(usage, key)
            for key in ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
        ]
        prompt = None if counts[0] is None else sum(count or 0 for count in counts)
        completion = read_count(usage, "output_tokens")
        return TracedAnswer(
            choices=[
                TracedChoice(
                    message=message,
                    finish_reason=_REASONS.get(reason, reason)
                    if isinstance(reason, str) and reason
                    else None,
                )
            ],
            prompt_tokens=prompt,
            completion_tokens=completion,
            total_tokens=None if prompt is None or completion is None else prompt + completion,
        )


class CountTokens(Messages):
    """The number of tokens that a request of the Messages API has; no model answers it."""

    path = "/v1/messages/count_tokens"
    span_name = None


MESSAGES = Messages()
COUNT_TOKENS = CountTokens()


class _BlockBuilder:
    """Collects the events of one block of an answer."""

    def __init__(self) -> None:
        self._block: Json = {}
        # Joined once, in the end: a text that grows by each delta is copied as often.
        self._pieces: dict[str, list[str]] = {}
        self._citations: list[Any] = []

    def add(self, event: Mapping[str, Any]) -> None:
        block, delta = event.get("content_block"), event.get("delta")
        if isinstance(block, dict):
            self._block = block
        if not isinstance(delta, dict):
            return
        kind = read_type(delta)
        key = _DELTAS.get(kind)
        if key is not None and isinstance(delta.get(key), str):
            self._pieces.setdefault(key, []).append(delta[key])
        elif kind == "citations_delta":
            self._citations.append(delta.get("citation"))
        elif kind == "signature_delta":
            self._block = {**self._block, "signature": delta.get("signature")}

    def build(self) -> Json:
        built = {**self._block}
        for key, pieces in self._pieces.items():
            if key == "partial_json":
                built["input"] = _parse_input("".join(pieces))
            else:
                known = built.get(key)
                built[key] = "".join([known if isinstance(known, str) else "", *pieces])
        if self._citations:
            built["citations"] = [*to_list(built.get("citations")), *self._citations]
        return built


def _is_one_message(chunks: Sequence[Json]) -> bool:
    """Return whether the events begin one message, and each of its blocks in turn, before they add to it.

    A server that begins again in mid-stream would have its two answers taken for one.
    """
    open_blocks: set[int] = set()
    begun, ended, known = False, False, 0
    for chunk in chunks:
        kind, index = read_type(chunk), chunk.get("index")
        if kind == "message_start":
            if begun:
                return False
            begun = True
        elif kind.startswith("content_block_"):
            if ended or not begun or type(index) is not int:
                return False
            is_start = kind == "content_block_start"
            if index != known if is_start else index not in open_blocks:
                return False
            known += is_start
            (open_blocks.discard if kind == "content_block_stop" else open_blocks.add)(index)
        ended = ended or kind == "message_stop"
    return begun


def _parse_input(text: str) -> Any:
    """Return what a tool is given; the text itself where it is no JSON, because it was cut off."""
    try:
        return json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError):
        return text


def _list_system(system: Any) -> list[Json]:
    """Return the system prompt as the model gets it: vLLM joins its blocks without anything between them."""
    if not system:
        return []
    if isinstance(system, list) and all(_is_text(block) for block in system):
        texts = [block["text"] for block in system]
        shown = [text for text in texts if not text.startswith(BILLING_HEADER)]
        return [{"role": "system", "content": "".join(shown or texts)}]
    return [_build_turn("system", system)]


def _is_text(block: Any) -> bool:
    return read_type(block) == "text" and isinstance(block.get("text"), str)


def _to_messages(message: Any) -> Iterator[Json]:
    """Yield a message; each result of a tool in it as a message of its own, in its place."""
    if not isinstance(message, dict):
        yield {"role": "", "content": [message]}
        return
    role, content = message.get("role"), message.get("content")
    waiting: list[Any] = []
    for block in to_list(content):
        if read_type(block) == "tool_result":
            if waiting:
                yield _build_turn(role, waiting)
            waiting = []
            returned = block.get("content")
            result = _build_turn("tool", "" if returned is None else returned)
            yield {**result, "tool_call_id": block.get("tool_use_id")}
        else:
            waiting.append(block)
    if waiting or not to_list(content):
        yield _build_turn(role, waiting or content)


def _build_turn(role: Any, content: Any) -> Json:
    """Return a message of these blocks as chat completions have it."""
    if not isinstance(content, list):
        return {"role": role, "content": content}
    parts = [_to_part(block) for block in content if not _is_call(block)]
    calls = [
        build_call(block.get("id"), block.get("name"), block.get("input"))
        for block in content
        if _is_call(block)
    ]
    return build_message(role, parts, calls)


def _is_call(block: Any) -> bool:
    return read_type(block) == "tool_use"


def _to_part(block: Any) -> Any:
    """Return a block as chat completions have it; what they do not have keeps its own type."""
    if _is_text(block):
        return {"type": "text", "text": block["text"]}
    if read_type(block) == "image":
        return {"type": "image_url", "image_url": {"url": _find_address(block.get("source"))}}
    return block


def _find_address(source: Any) -> str | None:
    if not isinstance(source, dict):
        return None
    if read_type(source) == "url":
        return source.get("url")
    return f"data:{source.get('media_type')};base64,{source.get('data')}"


def _to_tool(tool: Any) -> Any:
    """Return the definition of a function as chat completions have it; the provider's tools as they are."""
    if not isinstance(tool, dict) or "input_schema" not in tool:
        return tool
    return build_function_tool(
        tool.get("name"), tool.get("description"), tool.get("input_schema"), tool.get("strict")
    )
