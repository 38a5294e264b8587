"""OpenAI's chat completions and text completions.

Reference: https://platform.openai.com/docs/api-reference/chat. The chunks of a stream are
`chat.completion.chunk` and `text_completion`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from typing_extensions import override

from daemon.gateway.apis.api import (
    Api,
    Json,
    TracedAnswer,
    TracedChoice,
    TracedRequest,
    omit,
    read_count,
    to_list,
)
from daemon.gateway.deltas import MessageBuilder, keep_objects
from daemon.gateway.replies import ApiError
from daemon.gateway.sse import build_event

_SAID = frozenset({"messages", "prompt", "tools", "functions"})
_NO_INDEX = "a choice of the model's stream has an index that is no number"
NO_REASON = frozenset({"", "null"})
"""Spellings of a `finish_reason` that is none; some servers send them in every chunk but the last."""


class Completions(Api):
    """Chat completions and text completions: choices, each with a message or a text."""

    def __init__(self, path: str, span_name: str) -> None:
        self.path = path
        self.span_name = span_name

    @override
    def check_request(self, request: Mapping[str, Any]) -> None:
        """Leave all checks to the replica."""

    def ask_for_usage(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        options = request.get("stream_options") or {}
        if request.get("stream") is not True or not isinstance(options, dict):
            return request
        return {**request, "stream_options": {**options, "include_usage": True}}

    def is_passed_on(self, chunk: Mapping[str, Any], request: Mapping[str, Any]) -> bool:
        """Return False for the token counts that the agent has not asked for."""
        options = request.get("stream_options")
        wants_usage = isinstance(options, dict) and bool(options.get("include_usage"))
        return wants_usage or chunk.get("choices") != [] or not chunk.get("usage")

    @override
    def build_error_event(self, problem: ApiError, events_before: int) -> bytes:
        return build_event(self.build_error(problem))

    @override
    def find_stream_fault(self, chunks: Sequence[Json]) -> str | None:
        """Return a fault where the place of a choice cannot be read; each shows its end itself."""
        indices = {type(c.get("index", 0)) for chunk in chunks for c in keep_objects(chunk.get("choices"))}
        return None if indices <= {int, type(None)} else _NO_INDEX

    def assemble(self, chunks: Sequence[Json]) -> Json:
        """Return a stream's chunks as one answer.

        Log probabilities and token ids are left out: lists and objects beside the text and the message.
        """
        answer: Json = {}
        choices: dict[int, _ChoiceBuilder] = {}
        for chunk in chunks:
            answer.update(
                {key: value for key, value in chunk.items() if key != "choices" and value is not None}
            )
            for choice in keep_objects(chunk.get("choices")):
                choices.setdefault(_read_index(choice), _ChoiceBuilder()).add(choice)
        return {
            **answer,
            "choices": [{"index": index, **choice.build()} for index, choice in sorted(choices.items())],
        }

    def read_request(self, request: Mapping[str, Any]) -> TracedRequest:
        number, user = request.get("n"), request.get("user")
        return TracedRequest(
            messages=to_list(request.get("messages")),
            tools=_list_tools(request),
            prompts=_list_prompts(request.get("prompt")),
            parameters=omit(request, _SAID),
            user=user if isinstance(user, str) else None,
            answers=number if type(number) is int and number > 1 else 1,
        )

    def read_answer(self, answer: Mapping[str, Any]) -> TracedAnswer:
        usage = answer.get("usage")
        return TracedAnswer(
            choices=[_read_choice(choice) for choice in to_list(answer.get("choices"))],
            prompt_tokens=read_count(usage, "prompt_tokens"),
            completion_tokens=read_count(usage, "completion_tokens"),
            total_tokens=read_count(usage, "total_tokens"),
        )


CHAT_COMPLETIONS = Completions("/v1/chat/completions", "ChatCompletion")
TEXT_COMPLETIONS = Completions("/v1/completions", "Completion")


class _ChoiceBuilder:
    """Collects what the chunks say of one choice."""

    def __init__(self) -> None:
        self._plain: Json = {}
        self._texts: list[str] = []
        self._message: MessageBuilder | None = None

    def add(self, choice: Json) -> None:
        # `finish_reason` and what servers add to it, such as vLLM's `stop_reason`.
        plain = {key: value for key, value in choice.items() if isinstance(value, str | int) and value != ""}
        self._plain |= {key: value for key, value in plain.items() if key not in ("index", "text")}
        if isinstance(choice.get("text"), str):
            self._texts.append(choice["text"])
        # Some servers send an answer that they have whole as one chunk with a message in it.
        delta = choice.get("delta") or choice.get("message")
        if isinstance(delta, dict) and delta:
            self._message = self._message or MessageBuilder()
            self._message.add(delta)

    def build(self) -> Json:
        built = dict(self._plain)
        if self._texts:
            built["text"] = "".join(self._texts)
        if self._message is not None:
            built["message"] = self._message.build()
        return built


def _read_index(choice: Mapping[str, Any]) -> int:
    index = choice.get("index")
    return index if type(index) is int else 0


def _list_tools(request: Mapping[str, Any]) -> list[Any]:
    """Return the tools; `functions`, their form before there were tools, as tools."""
    functions = to_list(request.get("functions"))
    return [
        *to_list(request.get("tools")),
        *({"type": "function", "function": function} for function in functions),
    ]


def _list_prompts(prompt: Any) -> list[Any]:
    """Return the prompts of a text completion: texts, or lists of token ids."""
    if prompt is None:
        return []
    is_several = isinstance(prompt, list) and all(isinstance(each, str | list) for each in prompt)
    return prompt if is_several else [prompt]


def _read_choice(choice: Any) -> TracedChoice:
    choice = choice if isinstance(choice, dict) else {}
    message, text, reason = choice.get("message"), choice.get("text"), choice.get("finish_reason")
    return TracedChoice(
        message=message if isinstance(message, dict) else None,
        text=text if isinstance(text, str) and message is None else None,
        finish_reason=reason if isinstance(reason, str) and reason not in NO_REASON else None,
    )
