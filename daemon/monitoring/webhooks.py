"""Posts to a receiver that may be slow, endless or broken, within one deadline and not beyond a stop.

httpx limits each step of an exchange (connecting, one read), so a peer that sends its head byte by byte holds
a plain client for as long as it likes. Here the deadline is for all of it, from the name's look-up on.
"""

import asyncio
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import httpx

from daemon.runtime.child_process import Interrupted
from extractors.errors import LearndError

POLL_SECONDS = 0.1


class PostFailed(LearndError):
    """A post got no answer. The message does not hold the URL, whose path may be a secret."""


def post(url: str, body: bytes, headers: Mapping[str, str], *, seconds: float, stop: threading.Event) -> int:
    """Post `body` and return the status of the answer, whose body is not read; redirects are not followed.

    Raises PostFailed, also where there is no answer after `seconds`, and Interrupted once `stop` is set.
    """
    loop = _Loop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        try:
            return runner.run(_post_until(stop, url, body, headers, seconds))
        finally:
            runner.run(loop.abort_connections())


async def _post_until(
    stop: threading.Event, url: str, body: bytes, headers: Mapping[str, str], seconds: float
) -> int:
    posting = asyncio.create_task(_post(url, body, headers, seconds))
    while not posting.done() and not stop.is_set():
        await asyncio.wait({posting}, timeout=POLL_SECONDS)
    if not posting.done():
        posting.cancel()
        await asyncio.wait({posting})
    if posting.cancelled():
        raise Interrupted("stopping; the notice is sent again after the next start")
    return posting.result()


async def _post(url: str, body: bytes, headers: Mapping[str, str], seconds: float) -> int:
    try:
        async with (
            asyncio.timeout(seconds),
            httpx.AsyncClient(timeout=None) as client,  # noqa: S113  # the deadline is for all of it
            client.stream("POST", url, content=body, headers=headers) as answer,
        ):
            return answer.status_code
    except TimeoutError:
        raise PostFailed(f"it did not answer within {seconds:g} s") from None
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as problem:
        raise PostFailed(_describe(problem)) from problem


def _describe(problem: Exception) -> str:
    """Return what went wrong: the error of the operating system, where there is one behind httpx's."""
    cause: BaseException = problem
    while (below := cause.__cause__ or cause.__context__) is not None:
        cause = below
        if isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
    words = f"{type(problem).__name__}: {str(cause) or problem}"
    if "CERTIFICATE_VERIFY_FAILED" in words:
        return f"{words}; where its certificate is your own, let SSL_CERT_FILE name your CA's"
    return words


class _Loop(asyncio.SelectorEventLoop):
    """A loop that is left at once: nobody waits for the look-up of a name, which cannot be cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self._connections: list[asyncio.BaseTransport] = []

    async def create_connection(self, *arguments: Any, **options: Any) -> Any:
        transport, protocol = await super().create_connection(*arguments, **options)
        self._connections.append(transport)
        return transport, protocol

    async def abort_connections(self) -> None:
        """Close what is open: httpx leaves the socket to the garbage where a TLS handshake is cancelled."""
        for connection in self._connections:
            connection.close()
        await asyncio.sleep(0)

    async def getaddrinfo(self, host: Any, port: Any, **limits: Any) -> Any:
        found: asyncio.Future[Any] = self.create_future()

        def look_up() -> None:
            try:
                result, problem = socket.getaddrinfo(host, port, **limits), None
            except (OSError, UnicodeError) as failed:
                result, problem = [], failed
            with suppress(RuntimeError):  # The loop was left meanwhile.
                self.call_soon_threadsafe(answer, result, problem)

        def answer(result: list[Any], problem: Exception | None) -> None:
            if found.done():
                return
            if problem is None:
                found.set_result(result)
            else:
                found.set_exception(problem)

        threading.Thread(target=look_up, name="look-up", daemon=True).start()
        return await found
