"""Which version answers for a target: asked of the daemon, kept for a while, kept on disk.

The same as the gateway does, without its hop, for agents in Python. What the daemon said last
stays in force while it is down, also for an agent that starts meanwhile. The calls themselves go
straight to a replica, so tracing them is the agent's own instrumentation's part.
"""

import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from learnd.active_version import ActiveVersion, keep_version, read_kept_version
from learnd.errors import DaemonUnreachable, NoReplicaAnswers, RequestRefused
from learnd.files import fetch_files

DAEMON_SECONDS = 5.0
"""How long the daemon may take to say what is active."""
RETRY_SECONDS = 5.0
"""How long a daemon that did not answer is left alone."""

Result = TypeVar("Result")


class ActiveAdapter:
    """The active version of one target.

    `target` is `tenant/agent`; `url` is the daemon's (or `LEARND_URL`), `token` the tenant's (or
    `LEARND_TOKEN`), `replica_key` the vLLM servers' key where they want one (or
    `LEARND_REPLICA_KEY`). An answer is kept for `cache_seconds`, or for less where the daemon
    says so; under `state_dir` it outlives the process. Safe to share between threads.
    """

    def __init__(
        self,
        target: str,
        url: str | None = None,
        token: str | None = None,
        *,
        replica_key: str | None = None,
        cache_seconds: float = 30.0,
        timeout_seconds: float = 120.0,
        state_dir: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.target = target
        self._url = (url or os.environ.get("LEARND_URL") or "http://127.0.0.1:8710").rstrip("/")
        token = token or os.environ.get("LEARND_TOKEN")
        replica_key = replica_key or os.environ.get("LEARND_REPLICA_KEY")
        self._cache_seconds = cache_seconds
        self._state_dir = state_dir or _find_state_dir()
        self._clock = clock
        self._daemon = httpx.Client(headers=_build_headers(token), timeout=DAEMON_SECONDS)
        self._replicas = httpx.Client(headers=_build_headers(replica_key), timeout=timeout_seconds)
        self._lock = threading.Lock()
        self._kept: ActiveVersion | None = None
        self._ask_again_at = float("-inf")

    def resolve(self, *, fresh: bool = False) -> ActiveVersion:
        """What is active now: as kept, or asked anew when that is too old or `fresh` is wanted.

        Raises DaemonUnreachable when the daemon does not answer and never did, Refused when it
        knows no such target or not this token.
        """
        with self._lock:
            if fresh or self._kept is None or self._clock() >= self._ask_again_at:
                self._refresh()
            assert self._kept is not None  # noqa: S101  # _refresh raises otherwise
            return self._kept

    def chat(self, messages: Sequence[dict[str, Any]], **parameters: Any) -> dict[str, Any]:
        """One chat completion from a replica, as OpenAI's API gives it; not streamed.

        A replica that cannot be reached is passed over. Raises NoReplicaAnswers when none is
        left, httpx.HTTPStatusError when one refuses the request.
        """
        if parameters.get("stream"):
            raise ValueError("chat() does not stream: give your OpenAI client to call()")
        return self.call(lambda live: self._post_chat(live, messages, parameters), not_found=NoReplicaAnswers)

    def call(
        self, ask: Callable[[ActiveVersion], Result], not_found: type[Exception] | tuple[type[Exception], ...]
    ) -> Result:
        """`ask(resolved)`; once more with a fresh answer when it raises `not_found`.

        For any client, streaming included:

            routing.call(
                lambda live: OpenAI(base_url=live.base_url, api_key=key).chat.completions.create(
                    model=live.model, messages=messages, stream=True
                ),
                not_found=openai.NotFoundError,
            )
        """
        try:
            return ask(self.resolve())
        except not_found:
            return ask(self.resolve(fresh=True))

    def fetch(self, folder: Path) -> Path:
        """The active adapter's files, below `folder`, in a folder of their own that never changes.

        Files are downloaded once, checked against their digests, and appear all at once.
        Raises NoActiveAdapter, BrokenAdapter, DaemonUnreachable, Refused.
        """
        return self.fetch_version(self.resolve(), folder)

    def fetch_version(self, resolved: ActiveVersion, folder: Path) -> Path:
        """The files of the version that `resolved` names; see `fetch`."""
        return fetch_files(self._daemon, self._url, resolved, folder)

    def close(self) -> None:
        self._daemon.close()
        self._replicas.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _refresh(self) -> None:
        try:
            resolved, cache_seconds = self._ask_daemon()
        except DaemonUnreachable:
            self._kept = self._kept or read_kept_version(self._state_dir, self._url, self.target)
            if self._kept is None:
                raise
            self._ask_again_at = self._clock() + RETRY_SECONDS
            return
        self._ask_again_at = self._clock() + min(self._cache_seconds, cache_seconds)
        if self._kept is None or resolved.fields != self._kept.fields:
            keep_version(self._state_dir, self._url, resolved)
        self._kept = resolved

    def _ask_daemon(self) -> tuple[ActiveVersion, float]:
        """What the daemon says, and for how long that may be kept, in seconds."""
        address = f"{self._url}/v1/active/{self.target}"
        try:
            answer = self._daemon.get(address)
        except httpx.TransportError as unreachable:
            raise DaemonUnreachable(
                f"learnd's daemon at {self._url} does not answer: {unreachable}"
            ) from None
        if answer.status_code in {401, 403, 404}:
            raise RequestRefused(f"{address}: {answer.text[:200]}; check the target's name and the token")
        try:
            content = answer.raise_for_status().json()
            resolved = ActiveVersion.from_answer(content)
            return resolved, float(content["cache_seconds"])
        except (httpx.HTTPStatusError, ValueError, KeyError, TypeError) as odd:
            raise DaemonUnreachable(
                f"{address} gave no usable answer (is it learnd's daemon?): {odd}"
            ) from None

    def _post_chat(
        self, live: ActiveVersion, messages: Sequence[dict[str, Any]], parameters: dict[str, Any]
    ) -> dict[str, Any]:
        request = {**parameters, "model": live.model, "messages": list(messages)}
        problems = []
        for url in random.sample(live.replicas, len(live.replicas)):  # spreads the load; nothing secret
            try:
                answer = self._replicas.post(f"{url}/v1/chat/completions", json=request)
            except httpx.ConnectError as unreachable:
                problems.append(f"{url}: {unreachable}")
                continue
            if answer.status_code == httpx.codes.NOT_FOUND:
                problems.append(f"{url} does not serve {live.model}")
                continue
            content: dict[str, Any] = answer.raise_for_status().json()
            return content
        raise NoReplicaAnswers(
            f"no replica answers for {self.target}: {'; '.join(problems) or 'it has none'}"
        )


def _build_headers(token: str | None) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"} if token else {}


def _find_state_dir() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "learnd"
