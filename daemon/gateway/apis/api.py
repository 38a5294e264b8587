"""The differences between the APIs: their requests, answers, streams and errors.

The rest of the gateway forwards and traces calls of all of them alike.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from daemon.gateway.replies import ApiError

Json = dict[str, Any]


@dataclass(frozen=True)
class TracedRequest:
    """A request in the form of a chat completion's."""

    messages: Sequence[Any] = ()
    tools: Sequence[Any] = ()
    prompts: Sequence[Any] = ()
    """Prompts of a text completion: texts, or lists of token ids."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """All else in the request."""
    user: str | None = None
    answers: int = 1
    """How many answers it asks for."""


@dataclass(frozen=True)
class TracedChoice:
    """One answer: a chat's message, or the text of a text completion."""

    message: Json | None = None
    text: str | None = None
    finish_reason: str | None = None
    """Why it ended, in the words of a chat completion; None where the answer does not show its end."""


@dataclass(frozen=True)
class TracedAnswer:
    """An answer in the form of a chat completion's."""

    choices: Sequence[TracedChoice]
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None


class Api(ABC):
    """One API."""

    path: str
    span_name: str | None
    """Name of a call's span; None where calls of this API ask no model, and are not traced."""

    @abstractmethod
    def check_request(self, request: Mapping[str, Any]) -> None:
        """Check that the request needs nothing that the gateway does not do. Raises ApiError (400)."""

    def build_replica_request(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the request as a replica gets it, but for the model's name."""
        return request

    def ask_for_usage(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the request so that its answer tells the number of tokens, for the trace."""
        return request

    def rename_model(self, content: Json, alias: str) -> Json:
        """Return an answer, or an event of a stream, under the alias; itself where it names no model."""
        return {**content, "model": alias} if "model" in content else content

    @abstractmethod
    def is_passed_on(self, chunk: Mapping[str, Any], request: Mapping[str, Any]) -> bool:
        """Return False for an event that only the trace has asked for."""

    def read_error(self, content: Mapping[str, Any]) -> str | None:
        """Return the message of an answer or an event that is an error; None for any other."""
        # vLLM's errors were once objects of their own.
        is_error = content.get("error") or content.get("object") == "error"
        return (find_message(content) or "the model failed") if is_error else None

    def build_error(self, problem: ApiError) -> Json:
        """Return the body that tells an agent of a problem."""
        error = {"message": str(problem), "type": problem.kind, "param": problem.param, "code": problem.code}
        return {"error": error}

    @abstractmethod
    def build_error_event(self, problem: ApiError, events_before: int) -> bytes:
        """Return the event that tells an agent of a problem within a stream."""

    def adapt_error(self, status: int, content: Json) -> Json:
        """Return a replica's error in the form of this API; itself where it has that form."""
        return content if isinstance(content.get("error"), dict) else self._rebuild_error(status, content)

    def _rebuild_error(self, status: int, content: Mapping[str, Any]) -> Json:
        message = find_message(content) or f"the model answered HTTP {status} with an error"
        kind = "server_error" if status >= 500 else "invalid_request_error"
        return self.build_error(ApiError(status, message, kind=kind))

    @abstractmethod
    def find_stream_fault(self, chunks: Sequence[Json]) -> str | None:
        """Return why a stream is not whole, as far as its assembled answer does not show it; else None."""

    @abstractmethod
    def assemble(self, chunks: Sequence[Json]) -> Json:
        """Return a stream's chunks as one answer, in the form of an answer in one piece."""

    @abstractmethod
    def read_request(self, request: Mapping[str, Any]) -> TracedRequest:
        """Return what the request asks. Never raises, whatever it holds."""

    @abstractmethod
    def read_answer(self, answer: Mapping[str, Any]) -> TracedAnswer:
        """Return what was answered. Never raises, whatever it holds."""


def find_message(content: Mapping[str, Any]) -> str | None:
    """Return the message of an error in whatever form a server gives it; None where it has none."""
    error = content.get("error")
    found = error.get("message") if isinstance(error, dict) else error
    for message in (found, content.get("message"), content.get("detail")):
        if isinstance(message, str) and message:
            return message
    return None


def read_count(usage: Any, key: str) -> int | None:
    """Return a number of tokens; None where there is none."""
    count = usage.get(key) if isinstance(usage, dict) else None
    return count if type(count) is int else None


def read_type(value: Any) -> str:
    """Return the type that an object names; an empty text where it names none."""
    kind = value.get("type") if isinstance(value, dict) else None
    return kind if isinstance(kind, str) else ""


def to_list(value: Any) -> list[Any]:
    """Return `value` where it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def omit(request: Mapping[str, Any], keys: frozenset[str]) -> Json:
    """Return the request without `keys`."""
    return {key: value for key, value in request.items() if key not in keys}


def build_function_tool(name: Any, description: Any, parameters: Any, strict: Any) -> Json:
    """Return the definition of a function as chat completions have it; None stands for what is not told."""
    told = {"name": name, "description": description, "parameters": parameters, "strict": strict}
    return {"type": "function", "function": {key: value for key, value in told.items() if value is not None}}


def build_call(call_id: Any, name: Any, arguments: Any) -> Json:
    """Return a call of a tool as chat completions have it."""
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": text}}


def build_message(role: Any, parts: Sequence[Any], calls: Sequence[Json] = ()) -> Json:
    """Return a message as chat completions have it: content that is one text is no list of parts."""
    is_text = len(parts) == 1 and isinstance(parts[0], dict) and parts[0].keys() == {"type", "text"}
    content: Any = list(parts)
    if is_text and parts[0]["type"] == "text":
        content = parts[0]["text"]
    elif not parts:
        content = None
    return {"role": role, "content": content, **({"tool_calls": list(calls)} if calls else {})}
