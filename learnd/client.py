"""Finds the version that answers for a target: asks the daemon, and keeps the answer for a while and on disk.

Does the same as the gateway, without its hop, for agents in Python. The daemon's last answer stays in
force while the daemon is down, also for an agent that starts meanwhile. Calls go straight to a replica, so
the agent's own instrumentation must trace them.
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
"""How long the daemon may take to answer."""
RETRY_SECONDS = 5.0
"""How long a daemon that did not answer is left alone."""

Result = TypeVar("Result")


class ActiveAdapter:
    """The active version of one target.

    `target` is `tenant/agent`; `url` is the daemon's (or `LEARND_URL`), `token` the tenant's (or
    `LEARND_TOKEN`), `replica_key` the vLLM servers' key if they need one (or `LEARND_REPLICA_KEY`). An
    answer is used for `cache_seconds`, or for less if the daemon says so; it is also kept in `state_dir`,
    for the next process. Safe to share between threads.
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
        """Return what is active now: the kept answer, unless it is too old or `fresh` is true.

        Raises DaemonUnreachable where the daemon does not answer and no answer is kept, RequestRefused
        where it does not know the target or the token.
        """
        with self._lock:
            if fresh or self._kept is None or self._clock() >= self._ask_again_at:
                self._refresh()
            assert self._kept is not None  # noqa: S101  # _refresh raises otherwise
            return self._kept

    def chat(self, messages: Sequence[dict[str, Any]], **parameters: Any) -> dict[str, Any]:
        """Return one chat completion from a replica, in the form of OpenAI's API; not streamed.

        A replica that cannot be reached is passed over. Raises NoReplicaAnswers where none is left, and
        httpx.HTTPStatusError where one refuses the request.
        """
        if parameters.get("stream"):
            raise ValueError("chat() does not stream: give your OpenAI client to call()")
        return self.call(lambda live: self._post_chat(live, messages, parameters), not_found=NoReplicaAnswers)

    def call(
        self, ask: Callable[[ActiveVersion], Result], not_found: type[Exception] | tuple[type[Exception], ...]
    ) -> Result:
        """Return `ask(active_version)`; ask once more, with a fresh answer, if it raises `not_found`.

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
        """Download the active adapter's files into a folder of their own below `folder`, and return it.

        Files are downloaded once and checked against their digests; the folder appears when it is complete,
        and never changes.
        Raises NoActiveAdapter, BrokenAdapter, DaemonUnreachable, RequestRefused.
        """
        return self.fetch_version(self.resolve(), folder)

    def fetch_version(self, resolved: ActiveVersion, folder: Path) -> Path:
        """Download the files of the version that `resolved` names; see `fetch`."""
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
        """Return the daemon's answer, and for how many seconds it may be used."""
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
