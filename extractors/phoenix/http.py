"""HTTP to Phoenix: requests are retried where waiting helps, and answered by JSON or by a typed error.

The clients know the questions (`span_client`, `annotation_client`, `dataset_client`). This file knows how
Phoenix fails: plain-text bodies, GraphQL errors inside a 200, its web page instead of an answer, and times
when it is busy.
"""

import json
import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
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
"""Most seconds until the next attempt, whatever `Retry-After` asks."""


class PhoenixError(LearndError):
    """Root of the errors between learnd and Phoenix."""


class PhoenixUnreachable(PhoenixError):
    """Phoenix does not answer, or stays busy; nothing is lost, try again later."""


class PhoenixRefused(PhoenixError):
    """Phoenix does not accept the API key, or the key lacks the permission."""


class PhoenixAnswer(PhoenixError):
    """Phoenix answered something that learnd does not understand."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class _TemporaryFailure(PhoenixUnreachable):
    """A failure that may pass; `after` is the wait that the server asked for, in seconds."""

    def __init__(self, message: str, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


class PhoenixHttp:
    """HTTP to one Phoenix. Threads may share it.

    Every request except that of `post_once` may be sent twice, so it must be a read or an upsert.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None,
        timeout: float,
        patience: float,
        stop: threading.Event | None = None,
    ) -> None:
        """`timeout` bounds one request, `patience` all attempts of it together, in seconds.

        Once `stop` is set, nothing is tried again.
        """
        self.url = url.rstrip("/")
        self._stop = stop
        # Phoenix compresses at gzip's slowest level, which made a page of spans take half as long again.
        headers = {"accept-encoding": "identity"}
        if api_key:
            headers["authorization"] = f"Bearer {api_key}"
        self._client = httpx.Client(base_url=self.url, headers=headers, timeout=timeout)
        self._retrying = Retrying(
            retry=retry_if_exception_type(_TemporaryFailure),
            stop=stop_after_delay(patience),
            wait=_wait_seconds,
            sleep=self._pause,
            reraise=True,
        )

    def close(self) -> None:
        self._client.close()

    def _pause(self, seconds: float) -> None:
        """Wait before another attempt. Raises PhoenixUnreachable where there is to be none."""
        if self._stop is None:
            time.sleep(seconds)
        elif self._stop.wait(seconds):
            raise PhoenixUnreachable(f"Phoenix at {self.url} did not answer before learnd was stopped")

    def json(self, method: str, path: str, **request: Any) -> Any:
        """Return the JSON that `path` answers. Raises PhoenixError."""
        return self._parse_json(self.send(method, path, **request))

    def read_pages(self, path: str, parameters: Sequence[tuple[str, str]]) -> Iterator[list[dict[str, Any]]]:
        """Yield the pages of a list, each with its entries. Raises PhoenixError."""
        cursor: list[tuple[str, str]] = []
        while True:
            page = self.json("GET", path, params=[*parameters, *cursor])
            yield page["data"]
            if page["next_cursor"] is None:
                return
            cursor = [("cursor", page["next_cursor"])]

    def post_once(self, path: str, **request: Any) -> Any:
        """Return the JSON of a POST that creates something new each time; it is sent once, even if it fails.

        Raises PhoenixError. Look for what it may have created before you send it again.
        """
        return self._parse_json(self._send_once("POST", path, **request))

    def graphql(self, query: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        """Return the `data` of a GraphQL answer. Raises PhoenixError, for errors inside a 200 too."""
        answer = self.json("POST", "/graphql", json={"query": query, "variables": dict(variables)})
        if not isinstance(answer, dict) or answer.get("errors") or not isinstance(answer.get("data"), dict):
            raise PhoenixAnswer(f"{self.url}/graphql answered {_shorten(json.dumps(answer))}")
        data: dict[str, Any] = answer["data"]
        return data

    def post_for_part(self, path: str, **request: Any) -> Any:
        """Return the JSON in the only part of a multipart answer to a POST. Raises PhoenixError."""
        answer = self.send("POST", path, headers={"accept": "application/json"}, **request)
        boundary = answer.headers.get("content-type", "").partition("boundary=")[2].encode()
        body = answer.content.partition(b"\r\n\r\n")[2]
        content, end, _ = body.rpartition(b"\r\n--" + boundary + b"--")
        if not boundary or not end:
            raise PhoenixAnswer(f"{self.url}{path} answered no whole multipart body: {_shorten(answer.text)}")
        return self._parse_json(answer, content)

    def send(self, method: str, path: str, **request: Any) -> httpx.Response:
        """Send a request, again while that helps, and return its successful answer. Raises PhoenixError."""
        return self._retrying(self._send_once, method, path, **request)

    def _send_once(self, method: str, path: str, **request: Any) -> httpx.Response:
        try:
            answer = self._client.request(method, path, **request)
        except httpx.UnsupportedProtocol as error:
            raise PhoenixUnreachable(f"{self.url} is no URL of a Phoenix: {error}") from error
        except httpx.TransportError as error:
            raise _TemporaryFailure(
                f"Phoenix at {self.url} does not answer ({type(error).__name__}: {error}); "
                "is it running, and is this its URL?"
            ) from error
        if answer.is_success:
            return answer
        raise self._to_error(answer)

    def _to_error(self, answer: httpx.Response) -> PhoenixError:
        request = f"{answer.request.method} {answer.request.url.copy_with(query=None)}"
        details = f"{request}: {answer.status_code} {_shorten(answer.text)}"
        if answer.status_code in BUSY:
            return _TemporaryFailure(f"Phoenix stays busy ({details})", _retry_after(answer))
        if answer.status_code == 401:
            return PhoenixRefused(
                f"Phoenix does not know this API key, or wants one ({details}); set a valid key"
            )
        if answer.status_code == 403:
            return PhoenixRefused(
                f"the Phoenix API key may not do this ({details}); use a system key or that of a member "
                "(a viewer's may not query spans)"
            )
        return PhoenixAnswer(f"Phoenix failed ({details})", answer.status_code)

    def _parse_json(self, answer: httpx.Response, content: bytes | None = None) -> Any:
        try:
            return json.loads(answer.content if content is None else content)
        except ValueError as error:
            raise PhoenixAnswer(
                f"{answer.request.url.copy_with(query=None)} answered no JSON but {_shorten(answer.text)}; "
                "is this the base URL of a Phoenix?"
            ) from error


_backoff = wait_random_exponential(multiplier=0.2, max=10)


def _wait_seconds(call: RetryCallState) -> float:
    """Seconds to wait: those that the server asked for, or an exponential back-off with jitter."""
    error = call.outcome.exception() if call.outcome else None
    if isinstance(error, _TemporaryFailure) and error.after is not None:
        return min(error.after, LONGEST_WAIT)
    return _backoff(call)


def _retry_after(answer: httpx.Response) -> float | None:
    """Seconds that a `Retry-After` header asks for; its date form is left to the ordinary back-off."""
    value = answer.headers.get("retry-after", "")
    return float(value) if value.isdigit() else None


def to_storable(value: Any) -> Any:
    """Return JSON that every database behind Phoenix can hold.

    PostgreSQL refuses NUL in texts, half of a surrogate pair is no UTF-8, and JSON has no NaN.
    """
    if isinstance(value, str):
        return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, Mapping):
        return {to_storable(name): to_storable(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [to_storable(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _shorten(text: str, length: int = 200) -> str:
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[:length]}…"
