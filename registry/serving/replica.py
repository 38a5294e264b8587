"""One vLLM server over HTTP: its models, its adapters and its answers.

Measured against vLLM 0.32. Adapters are loaded under a name that is never used again, and
never with `load_inplace`: with that flag the server reads the folder again for every batch.
"""

import ssl
import time
from collections.abc import Sequence
from enum import StrEnum
from functools import cache
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from pydantic import BaseModel, ValidationError

from extractors.errors import LearndError
from extractors.values import Value

LISTING_SECONDS = 10.0
"""Longest wait for what the server has in its memory: a listing, its metrics."""
LOADING_SECONDS = 60.0
"""Longest wait for a load or an unload; a large adapter is read from disk first."""
ANSWER_SECONDS = 300.0
"""Longest wait for an answer: the first one through a LoRA may compile kernels."""

MOST_ANSWER_BYTES = 2**25
ENCODING_HEADERS = frozenset({"content-encoding", "content-length", "transfer-encoding"})
"""Headers that do not fit a body which was decoded."""

LORA_METRIC = "vllm:lora_requests_info"
UNAVAILABLE = frozenset({502, 503, 504})
DEAD_ENGINE = "EngineCore encountered an issue"
"""Answer of vLLM (HTTP 500) between the death of its engine and its own exit."""


class RefusalReason(StrEnum):
    """The reason of a refusal, as far as the replica's answer tells, as advice on what to do."""

    KEY = "the API key is not accepted; correct the replica's key"
    NO_ROUTE = "restart vLLM with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"
    LORA_OFF = "restart vLLM with --enable-lora"
    RANK = "restart vLLM with a larger --max-lora-rank, or train with a smaller rank"
    INVISIBLE = "the server does not see this folder: mount it there, or set the replica's path mapping"
    UNREADABLE = "the server may not read this folder: correct its permissions"
    INCOMPLETE = "the folder holds no adapter_model.safetensors"
    MODULES = "the adapter was trained on modules that this base model does not have"
    UNKNOWN_MODEL = "nothing of this name is served here: load it first, or correct the name"
    OTHER = "see the server's log"


REASONS_BY_MESSAGE = {
    "LoRA is not enabled": RefusalReason.LORA_OFF,
    "max_lora_rank": RefusalReason.RANK,
    "No adapter found": RefusalReason.INVISIBLE,
    "Permission denied": RefusalReason.UNREADABLE,
    "doesn't contain tensors": RefusalReason.INCOMPLETE,
    "target modules": RefusalReason.MODULES,
    "does not exist": RefusalReason.UNKNOWN_MODEL,
}
"""Reasons by a part of vLLM's message."""

Parsed = TypeVar("Parsed", bound=BaseModel)


class ReplicaUnreachable(LearndError):
    """A replica did not answer, or only its proxy did; another try later may succeed."""


class ReplicaSilent(ReplicaUnreachable):
    """A replica, or the way to it, took a request and gave no answer in time."""


class ReplicaRefused(LearndError):
    """A replica answered and refused; its settings, or learnd's, must change."""

    def __init__(self, message: str, why: RefusalReason = RefusalReason.OTHER) -> None:
        super().__init__(message)
        self.why = why


class GreedyAnswer(Value):
    """One greedy answer through the chat route."""

    text: str
    reasoning: str = ""
    """What the model thought before; empty also where the server leaves thoughts in the text."""
    ended: bool
    """True if the model ended the answer, not the limit."""
    prompt_tokens: int


class _Card(BaseModel):
    id: str
    root: str | None = None
    parent: str | None = None


class _Models(BaseModel):
    data: list[_Card]


class _Tokens(BaseModel):
    tokens: list[int]


class _Message(BaseModel):
    content: str | None = None
    reasoning: str | None = None


class _ChatChoice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int


class _Chat(BaseModel):
    choices: list[_ChatChoice]
    usage: _Usage


class _Scores(BaseModel):
    token_logprobs: list[float]


class _ScoredChoice(BaseModel):
    logprobs: _Scores


class _Scored(BaseModel):
    choices: list[_ScoredChoice]


@cache
def _load_certificates() -> ssl.SSLContext:
    """Load the certificates that are trusted: that takes 200 times as long as the rest of a new client."""
    return httpx.create_ssl_context()


class Replica:
    """A vLLM server. Every method raises ReplicaUnreachable or ReplicaRefused."""

    def __init__(
        self,
        name: str,
        url: str,
        *,
        api_key: str | None = None,
        base_name: str = "base",
        path_map: tuple[str, str] | None = None,
    ) -> None:
        """Open a client. `url` may end in `/v1`; `path_map` is (our, the server's) prefix of adapters."""
        self.name = name
        self.url = url.rstrip("/").removesuffix("/v1")
        self.base_name = base_name
        self._path_map = path_map
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._client = httpx.Client(base_url=self.url, headers=headers, verify=_load_certificates())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._client.close()

    def is_healthy(self) -> bool:
        """Return True if the server and its engine answer; False also if nothing listens."""
        try:
            self._send("GET", "/health", seconds=5)
        except (ReplicaUnreachable, ReplicaRefused):
            return False
        return True

    def list_models(self) -> dict[str, str]:
        """Return everything that is served, the base model included: name to the server's own path."""
        return {card.id: card.root or "" for card in self._cards()}

    def list_adapters(self) -> dict[str, str]:
        """Return the served adapters, whoever loaded them: name to the server's own path."""
        return {card.id: card.root or "" for card in self._cards() if card.parent is not None}

    def to_remote_path(self, path: Path) -> str:
        """Return the folder's path on the server. Raises ReplicaRefused outside the mapped prefix."""
        if self._path_map is None:
            return str(path.absolute())
        local, remote = self._path_map
        if not path.absolute().is_relative_to(Path(local).absolute()):
            raise ReplicaRefused(
                f"replica {self.name} maps {local} to {remote}, and {path} lies outside; "
                "map the folder that holds learnd's adapters"
            )
        return str(PurePosixPath(remote) / path.absolute().relative_to(Path(local).absolute()))

    def load(self, name: str, path: Path) -> None:
        """Serve the adapter in `path` as `name`; a second call with the same path changes nothing."""
        remote = self.to_remote_path(path)
        try:
            body = {"lora_name": name, "lora_path": remote}
            self._send("POST", "/v1/load_lora_adapter", body, seconds=LOADING_SECONDS)
        except ReplicaRefused as refused:
            # vLLM refuses a name that is loaded already, from wherever.
            serving = self.list_adapters().get(name)
            if serving == remote:
                return
            if serving is not None:
                raise ReplicaRefused(
                    f"replica {self.name} serves {name} from {serving} already, not from {remote}; "
                    "unload it first"
                ) from refused
            raise

    def unload(self, name: str) -> None:
        """Stop serving `name`, which need not be loaded. Requests under way are still answered."""
        try:
            self._send("POST", "/v1/unload_lora_adapter", {"lora_name": name}, seconds=LOADING_SECONDS)
        except ReplicaRefused:
            if name in self.list_adapters():
                raise

    def tokenize(
        self, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]] = ()
    ) -> tuple[int, ...]:
        """Return the chat's token ids as the server's template renders it, generation prompt included."""
        # Unlike the chat route, this one knows thoughts only under their newer name.
        named = [
            {**message, "reasoning": message["reasoning_content"]}
            if "reasoning_content" in message
            else message
            for message in messages
        ]
        body: dict[str, Any] = {"model": self.base_name, "messages": named}
        if tools:
            body["tools"] = list(tools)
        return tuple(self._ask(_Tokens, "/tokenize", body).tokens)

    def answer(
        self,
        model: str,
        messages: Sequence[dict[str, Any]],
        *,
        tools: Sequence[dict[str, Any]] = (),
        max_tokens: int = 256,
        response_format: dict[str, Any] | None = None,
    ) -> GreedyAnswer:
        """Return the greedy answer through the chat route; a tool call is the text that the model wrote."""
        body: dict[str, Any] = {
            "model": model,
            "messages": list(messages),
            "max_tokens": max_tokens,
            "temperature": 0,
            # Base models ship sampling defaults that vLLM adopts; greedy means none of them.
            "repetition_penalty": 1.0,
        }
        if tools:
            # "none" still shows the model its tools, and leaves its answer unparsed.
            body |= {"tools": list(tools), "tool_choice": "none"}
        if response_format is not None:
            body["response_format"] = response_format
        chat = self._ask(_Chat, "/v1/chat/completions", body)
        [choice] = chat.choices
        return GreedyAnswer(
            text=choice.message.content or "",
            reasoning=choice.message.reasoning or "",
            ended=choice.finish_reason == "stop",
            prompt_tokens=chat.usage.prompt_tokens,
        )

    def compute_logprobs(
        self, model: str, prompt_ids: Sequence[int], answer_ids: Sequence[int]
    ) -> tuple[float, ...]:
        """Return the log-probability (nats) of each token of the answer, shape (len(answer_ids),).

        Each token takes a request. `prompt_logprobs` would score all in one, but kills the engine
        where a batch mixes it with other requests for adapters (vllm-project/vllm#16668).
        """
        return tuple(
            self._logprob(model, [*prompt_ids, *answer_ids[:position]], token)
            for position, token in enumerate(answer_ids)
        )

    def _logprob(self, model: str, context_ids: Sequence[int], token: int) -> float:
        body = {
            "model": model,
            "prompt": context_ids,
            "max_tokens": 1,
            # Only this token may follow; its log-probability is from before that restriction.
            "allowed_token_ids": [token],
            "ignore_eos": True,
            "logprobs": 0,
        }
        return self._ask(_Scored, "/v1/completions", body).choices[0].logprobs.token_logprobs[0]

    def list_busy_adapters(self) -> frozenset[str] | None:
        """Return the adapters with running or waiting requests; None where the server keeps no statistics."""
        samples = self._lora_samples()
        if samples is None:
            return None
        if not samples:  # Nothing was asked of the server since it started.
            return frozenset()
        labels = samples[-1].labels
        names = f"{labels['running_lora_adapters']},{labels['waiting_lora_adapters']}".split(",")
        return frozenset(name for name in names if name)

    def read_max_loras(self) -> int | None:
        """Return how many adapters a batch can mix (`--max-loras`); None before the first answer."""
        samples = self._lora_samples()
        return int(samples[-1].labels["max_lora"]) if samples else None

    def _lora_samples(self) -> list[Sample] | None:
        """Return vLLM's series about LoRA requests, the current one last; None where it is not exported.

        Every past state has a series of its own, whose value is the time when it was last true: the
        newest is the present.
        """
        text = self._send("GET", "/metrics").text
        try:
            for family in text_string_to_metric_families(text):
                if family.name == LORA_METRIC:
                    return sorted(family.samples, key=lambda sample: sample.value)
        except ValueError as error:
            raise ReplicaRefused(
                f"/metrics of replica {self.name} answered something else than vLLM does: {error}"
            ) from error
        return None

    def _cards(self) -> list[_Card]:
        return self._parse(_Models, self._send("GET", "/v1/models")).data

    def _ask(self, shape: type[Parsed], route: str, body: dict[str, Any]) -> Parsed:
        return self._parse(shape, self._send("POST", route, body, seconds=ANSWER_SECONDS))

    def _parse(self, shape: type[Parsed], response: httpx.Response) -> Parsed:
        try:
            return shape.model_validate_json(response.content)
        except ValidationError as error:
            raise ReplicaRefused(
                f"{response.url} of replica {self.name} answered something else than vLLM does: {error}"
            ) from error

    def _send(
        self,
        method: str,
        route: str,
        body: dict[str, Any] | None = None,
        seconds: float = LISTING_SECONDS,
    ) -> httpx.Response:
        timeout = httpx.Timeout(seconds, connect=5)
        try:
            with self._client.stream(method, route, json=body, timeout=timeout) as answer:
                response = self._read_whole(route, answer, time.monotonic() + seconds)
        except httpx.TransportError as error:
            hangs = isinstance(error, httpx.TimeoutException)
            raise (ReplicaSilent if hangs else ReplicaUnreachable)(
                f"replica {self.name} at {self.url} did not answer {route} "
                f"({type(error).__name__}: {error}); is vLLM running there?"
            ) from error
        if response.status_code in UNAVAILABLE or (
            response.status_code == 500 and DEAD_ENGINE in response.text
        ):
            raise ReplicaUnreachable(
                f"replica {self.name} at {self.url} is not ready: HTTP {response.status_code}"
            )
        if response.is_error:
            raise self._refusal(route, response)
        return response

    def _read_whole(self, route: str, answer: httpx.Response, deadline: float) -> httpx.Response:
        """Return the answer with its body, which comes before `deadline` and is not too large.

        Raises ReplicaRefused and httpx.ReadTimeout: httpx itself limits each read, and not all of them.
        """
        content = bytearray()
        for piece in answer.iter_bytes():
            content += piece
            if len(content) > MOST_ANSWER_BYTES:
                raise ReplicaRefused(
                    f"replica {self.name} answered {route} with more than {MOST_ANSWER_BYTES >> 20} MiB"
                )
            if time.monotonic() > deadline:
                raise httpx.ReadTimeout("its answer comes too slowly", request=answer.request)
        headers = {name: value for name, value in answer.headers.items() if name not in ENCODING_HEADERS}
        return httpx.Response(
            answer.status_code, headers=headers, content=bytes(content), request=answer.request
        )

    def _refusal(self, route: str, response: httpx.Response) -> ReplicaRefused:
        why = _find_reason(response)
        return ReplicaRefused(
            f"replica {self.name} refused {route} (HTTP {response.status_code}): {response.text}; {why}", why
        )


def _find_reason(response: httpx.Response) -> RefusalReason:
    if response.status_code in (401, 403):
        return RefusalReason.KEY
    # vLLM's own errors name the fault under "error"; a bare 404 comes from its router.
    if response.status_code == 404 and '"error"' not in response.text:
        return RefusalReason.NO_ROUTE if "lora_adapter" in response.url.path else RefusalReason.OTHER
    return next(
        (why for saying, why in REASONS_BY_MESSAGE.items() if saying in response.text), RefusalReason.OTHER
    )
