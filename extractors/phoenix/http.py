"""One request to Phoenix, retried where waiting helps, answered by JSON or by a typed error.

`phoenix.py` knows the questions; this file knows how Phoenix fails: plain-text bodies, GraphQL
errors inside a 200, its web page instead of an answer, and times when it is busy.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

import httpx
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_delay,
    wait_random_exponential,
)

from extractors.errors import LearndError

BUSY = frozenset({429, 502, 503, 504, 507})
"""Too many requests, a proxy without its server, ingest queue full, storage locked: all pass by waiting."""

LONGEST_WAIT = 30.0
"""Seconds to the next try at most, whatever `Retry-After` asks."""


class PhoenixError(LearndError):
    """Root of what can go wrong between learnd and Phoenix."""


class PhoenixUnreachable(PhoenixError):
    """Phoenix does not answer, or stays busy; nothing is lost, try again later."""


class PhoenixRefused(PhoenixError):
    """Phoenix does not accept the API key, or the key may not do this."""


class PhoenixAnswer(PhoenixError):
    """Phoenix answered something that learnd does not understand."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class _TryAgain(PhoenixUnreachable):
    """A failure that may pass; `after` is what the server asked for, in seconds."""

    def __init__(self, message: str, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


class PhoenixHttp:
    """HTTP to one Phoenix. Every call but `made` may be sent twice: reads, and writes that upsert.

    Threads may share it.
    """

    def __init__(self, url: str, api_key: str | None, timeout: float, patience: float) -> None:
        """`timeout` is for one request, `patience` for all tries of it together, in seconds."""
        self.url = url.rstrip("/")
        # Phoenix compresses at gzip's slowest level, which made a page of spans take half as long again.
        headers = {"accept-encoding": "identity"}
        if api_key:
            headers["authorization"] = f"Bearer {api_key}"
        self._client = httpx.Client(base_url=self.url, headers=headers, timeout=timeout)
        self._retrying = Retrying(
            retry=retry_if_exception_type(_TryAgain),
            stop=stop_after_delay(patience),
            wait=_wait,
            reraise=True,
        )

    def close(self) -> None:
        self._client.close()

    def json(self, method: str, path: str, **request: Any) -> Any:
        """The JSON that `path` answers. Raises PhoenixError."""
        return self._parsed(self.send(method, path, **request))

    def made(self, path: str, **request: Any) -> Any:
        """The JSON of a POST that makes something new each time: sent once, whatever becomes of it.

        Raises PhoenixError; then look whether it was made before asking again.
        """
        return self._parsed(self._send_once("POST", path, **request))

    def graphql(self, query: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        """The `data` of a GraphQL answer. Raises PhoenixError, for the errors inside a 200 too."""
        answer = self.json("POST", "/graphql", json={"query": query, "variables": dict(variables)})
        if not isinstance(answer, dict) or answer.get("errors") or not isinstance(answer.get("data"), dict):
            raise PhoenixAnswer(f"{self.url}/graphql answered {_short(json.dumps(answer))}")
        data: dict[str, Any] = answer["data"]
        return data

    def part(self, path: str, **request: Any) -> Any:
        """The JSON of the only part of a multipart answer to a POST. Raises PhoenixError."""
        answer = self.send("POST", path, headers={"accept": "application/json"}, **request)
        boundary = answer.headers.get("content-type", "").partition("boundary=")[2].encode()
        body = answer.content.partition(b"\r\n\r\n")[2]
        content, end, _ = body.rpartition(b"\r\n--" + boundary + b"--")
        if not boundary or not end:
            raise PhoenixAnswer(f"{self.url}{path} answered no whole multipart body: {_short(answer.text)}")
        return self._parsed(answer, content)

    def send(self, method: str, path: str, **request: Any) -> httpx.Response:
        """The answer of a successful request. Raises PhoenixError."""
        return self._retrying(self._send_once, method, path, **request)

    def _send_once(self, method: str, path: str, **request: Any) -> httpx.Response:
        try:
            answer = self._client.request(method, path, **request)
        except httpx.UnsupportedProtocol as error:
            raise PhoenixUnreachable(f"{self.url} is no URL of a Phoenix: {error}") from error
        except httpx.TransportError as error:
            raise _TryAgain(
                f"Phoenix at {self.url} does not answer ({type(error).__name__}: {error}); "
                "is it running, and is this its URL?"
            ) from error
        if answer.is_success:
            return answer
        raise self._failure(answer)

    def _failure(self, answer: httpx.Response) -> PhoenixError:
        said = f"{answer.request.method} {answer.request.url.copy_with(query=None)}: {answer.status_code}"
        said = f"{said} {_short(answer.text)}"
        if answer.status_code in BUSY:
            return _TryAgain(f"Phoenix stays busy ({said})", _retry_after(answer))
        if answer.status_code == 401:
            return PhoenixRefused(
                f"Phoenix does not know this API key, or wants one ({said}); set a valid key"
            )
        if answer.status_code == 403:
            return PhoenixRefused(
                f"the Phoenix API key may not do this ({said}); use a system key or that of a member "
                "(a viewer's may not query spans)"
            )
        return PhoenixAnswer(f"Phoenix failed ({said})", answer.status_code)

    def _parsed(self, answer: httpx.Response, content: bytes | None = None) -> Any:
        try:
            return json.loads(answer.content if content is None else content)
        except ValueError as error:
            raise PhoenixAnswer(
                f"{answer.request.url.copy_with(query=None)} answered no JSON but {_short(answer.text)}; "
                "is this the base URL of a Phoenix?"
            ) from error


_backoff = wait_random_exponential(multiplier=0.2, max=10)


def _wait(call: RetryCallState) -> float:
    """What the server asked for, else exponential with jitter; seconds."""
    error = call.outcome.exception() if call.outcome else None
    if isinstance(error, _TryAgain) and error.after is not None:
        return min(error.after, LONGEST_WAIT)
    return _backoff(call)


def _retry_after(answer: httpx.Response) -> float | None:
    """Seconds of a `Retry-After` header; its date form is left to the ordinary back-off."""
    value = answer.headers.get("retry-after", "")
    return float(value) if value.isdigit() else None


def storable(value: Any) -> Any:
    """JSON as every database behind Phoenix can hold it.

    PostgreSQL refuses NUL in texts, half of a surrogate pair is no UTF-8, and JSON has no NaN.
    """
    if isinstance(value, str):
        return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, Mapping):
        return {storable(name): storable(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [storable(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _short(text: str, length: int = 200) -> str:
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[:length]}…"
