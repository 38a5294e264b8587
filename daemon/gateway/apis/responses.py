"""OpenAI's Responses: items in, items out, and a stream of typed events.

Reference: https://platform.openai.com/docs/api-reference/responses. The gateway keeps no responses, and
asks no replica to: another replica, or the next version, would not know them.
"""

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
from daemon.gateway.apis.response_items import ItemBuilder, list_texts
from daemon.gateway.replies import ApiError
from daemon.gateway.sse import build_event

_SAID = frozenset({"input", "instructions", "tools"})
_NEED_STORED = ("previous_response_id", "conversation", "prompt")
_LAST_EVENTS = frozenset({"response.completed", "response.incomplete", "response.failed"})
_CALLS = {"function_call": "arguments", "custom_tool_call": "input"}
"""Items that call a tool of the agent's, and where they keep what the tool is given."""
_RESULTS = frozenset({"function_call_output", "custom_tool_call_output"})
_STORES_NOTHING = "no response is stored behind this gateway; send the whole conversation in `input`"
_UNENDED = "the stream ended before the model's answer did: its last event is missing"
_CONTRADICTED = "the pieces of the model's stream and its last event say different things"


class Responses(Api):
    """The Responses API, without what is stored between calls."""

    path = "/v1/responses"
    span_name = "Response"

    def check_request(self, request: Mapping[str, Any]) -> None:
        """Refuse what stands for something stored. Raises ApiError (400)."""
        for key in _NEED_STORED:
            if request.get(key) is not None:
                raise build_nothing_stored(f"`{key}` cannot be used", param=key)
        if request.get("background"):
            raise build_nothing_stored("`background` cannot be used", param="background")
        for index, item in enumerate(to_list(request.get("input"))):
            if read_type(item) == "item_reference":
                raise build_nothing_stored("an item cannot be referred to", param=f"input[{index}]")

    def build_replica_request(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the request; a replica that could store the answer is told not to."""
        return {**request, "store": False}

    def rename_model(self, content: Json, alias: str) -> Json:
        inner = content.get("response")
        if isinstance(inner, dict) and "model" in inner:
            return {**content, "response": {**inner, "model": alias}}
        return super().rename_model(content, alias)

    @override
    def is_passed_on(self, chunk: Mapping[str, Any], request: Mapping[str, Any]) -> bool:
        """Return True: the last event has the number of tokens, asked for or not."""
        return True

    def read_error(self, content: Mapping[str, Any]) -> str | None:
        inner = content.get("response")
        if isinstance(inner, dict) and (read_type(content) == "response.failed" or inner.get("error")):
            return find_message(inner) or "the model failed"
        if read_type(content) == "error":
            return find_message(content) or "the model failed"
        return super().read_error(content)

    def build_error_event(self, problem: ApiError, events_before: int) -> bytes:
        """Return the event `error`: as it is documented, and as OpenAI's own servers and clients know it."""
        error = self.build_error(problem)
        told = {key: error["error"][key] for key in ("message", "param")}
        code = problem.code or problem.kind
        return build_event(
            {"type": "error", "code": code, **told, "sequence_number": events_before, **error}, name="error"
        )

    def find_stream_fault(self, chunks: Sequence[Json]) -> str | None:
        last = _find_last_response(chunks)
        if last is None:
            return _UNENDED
        ended = [list_texts(item) for item in to_list(last.get("output"))]
        for index, item in _build_items(chunks).items():
            if not ended:
                told = list_texts(item.build()) if item.is_done else item.join_pieces()
            else:
                told = ended[index] if index < len(ended) else {}
            if any(told.get(place, "") != text for place, text in item.join_pieces().items()):
                return _CONTRADICTED
        return None

    def assemble(self, chunks: Sequence[Json]) -> Json:
        """Return the response of the last event; without one, what the events before it say."""
        answer: Json = {}
        for chunk in chunks:
            if isinstance(chunk.get("response"), dict):
                answer = chunk["response"]
        if answer.get("output"):
            return answer
        items = sorted(_build_items(chunks).items())
        return {**answer, "output": [item.build() for _, item in items]}

    def read_request(self, request: Mapping[str, Any]) -> TracedRequest:
        instructions, said, user = request.get("instructions"), request.get("input"), request.get("user")
        items: list[Any] = []
        if isinstance(instructions, str) and instructions:
            items.append({"role": "system", "content": instructions})
        else:
            items += to_list(instructions)
        items += [{"role": "user", "content": said}] if isinstance(said, str) else to_list(said)
        return TracedRequest(
            messages=list(_join_turns(map(_to_message, items))),
            tools=[_to_tool(tool) for tool in to_list(request.get("tools"))],
            parameters=omit(request, _SAID),
            user=user if isinstance(user, str) else None,
        )

    def read_answer(self, answer: Mapping[str, Any]) -> TracedAnswer:
        output = answer.get("output")
        items = output if isinstance(output, list) else [] if output is None else [output]
        messages = list(_join_turns(map(_to_message, items)))
        reason = _read_end(answer, calls_tools=any(message.get("tool_calls") for message in messages))
        usage = answer.get("usage")
        said = messages or [build_message("assistant", [])]
        return TracedAnswer(
            choices=[TracedChoice(message=message, finish_reason=reason) for message in said],
            prompt_tokens=read_count(usage, "input_tokens"),
            completion_tokens=read_count(usage, "output_tokens"),
            total_tokens=read_count(usage, "total_tokens"),
        )


RESPONSES = Responses()


def build_nothing_stored(what: str, *, param: str | None = None) -> ApiError:
    """Return the refusal of what only a stored response could give."""
    return ApiError(400, f"{what}, because {_STORES_NOTHING}", code="unsupported_parameter", param=param)


def _find_last_response(chunks: Sequence[Json]) -> Json | None:
    for chunk in reversed(chunks):
        if read_type(chunk) in _LAST_EVENTS and isinstance(response := chunk.get("response"), dict):
            return response
    return None


def _build_items(chunks: Sequence[Json]) -> dict[int, ItemBuilder]:
    """Return the items that the events tell of, by their place in the output."""
    items: dict[int, ItemBuilder] = {}
    for chunk in chunks:
        index = chunk.get("output_index")
        if type(index) is int:
            items.setdefault(index, ItemBuilder()).add(chunk)
    return items


def _read_end(answer: Mapping[str, Any], *, calls_tools: bool) -> str | None:
    """Return why a response ended, in the words of a chat completion; None where it did not."""
    if answer.get("status") == "completed":
        return "tool_calls" if calls_tools else "stop"
    if answer.get("status") != "incomplete":
        return None
    details = answer.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, dict) else None
    if reason == "max_output_tokens":
        return "length"
    return reason if isinstance(reason, str) and reason else "incomplete"


def _to_message(item: Any) -> Json:
    """Return an item as a message; one that chat completions do not have is a part with its own type."""
    if not isinstance(item, dict):
        return {"role": "", "content": [item]}
    kind = read_type(item)
    if "role" in item:
        return build_message(item["role"], list(_to_parts(item.get("content"))))
    if kind in _CALLS:
        call_id = item.get("call_id") or item.get("id")
        return build_message("assistant", [], [build_call(call_id, item.get("name"), item.get(_CALLS[kind]))])
    if kind in _RESULTS:
        result = build_message("tool", list(_to_parts(item.get("output"))))
        return {**result, "tool_call_id": item.get("call_id")}
    if kind == "reasoning":
        return build_message("assistant", _list_thoughts(item))
    return build_message("assistant", [item])


def _list_thoughts(item: Mapping[str, Any]) -> list[Json]:
    written = [*to_list(item.get("summary")), *to_list(item.get("content"))]
    texts = [part["text"] for part in written if isinstance(part, dict) and isinstance(part.get("text"), str)]
    return [{"type": "reasoning", "text": text} for text in texts] or [{"type": "reasoning"}]


def _to_parts(content: Any) -> Iterator[Any]:
    if isinstance(content, str):
        yield {"type": "text", "text": content}
    for part in to_list(content):
        kind = read_type(part)
        if kind in ("input_text", "output_text"):
            yield {"type": "text", "text": part.get("text")}
        elif kind == "input_image":
            yield {"type": "image_url", "image_url": part.get("image_url")}
        else:
            yield part


def _join_turns(messages: Iterator[Json]) -> Iterator[Json]:
    """Join the items of one assistant turn: thoughts, a text and calls. Two texts stay apart."""
    turn: Json | None = None
    for message in messages:
        if turn is not None and _belong_together(turn, message):
            calls = [*turn.get("tool_calls", ()), *message.get("tool_calls", ())]
            turn = build_message("assistant", [*_list_parts(turn), *_list_parts(message)], calls)
            continue
        if turn is not None:
            yield turn
        turn = message
    if turn is not None:
        yield turn


def _belong_together(turn: Json, message: Json) -> bool:
    is_one_turn = turn.get("role") == message.get("role") == "assistant"
    return is_one_turn and not (_says_something(turn) and _says_something(message))


def _says_something(message: Json) -> bool:
    return any(read_type(part) != "reasoning" for part in _list_parts(message))


def _list_parts(message: Json) -> list[Any]:
    content = message.get("content")
    return [{"type": "text", "text": content}] if isinstance(content, str) else to_list(content)


def _to_tool(tool: Any) -> Any:
    """Return the definition of a function as chat completions have it; the provider's tools as they are."""
    if read_type(tool) != "function" or "function" in tool:
        return tool
    return build_function_tool(
        tool.get("name"), tool.get("description"), tool.get("parameters"), tool.get("strict")
    )
