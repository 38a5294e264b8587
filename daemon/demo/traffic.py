"""The demo's customers: a support-routing agent that knows only the gateway's address."""

import secrets
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx

from daemon.demo.corpus import CustomerRequest

AT_ONCE = 16
ANSWER_TOKENS = 32
STOPS = (",", "\n", ". ")
"""No destination contains these, so an answer that goes on is none. It ends there by the agent's own wish; an
answer that the limit of tokens cuts off teaches nothing."""
PAUSE_SECONDS = 0.2
"""A steady customer's pause between two requests."""
VERSION_HEADER = "x-learnd-version"
SESSION_HEADER = "x-learnd-session"


@dataclass(frozen=True)
class AgentReply:
    """The answer to one request, or its failure."""

    request: CustomerRequest
    trace_id: str
    text: str
    version: str | None
    """The version that answered, as the gateway says; None where the request failed."""
    error: str | None = None


class Agent:
    """Routes one message a call, as a user's agent would: base URL, model alias, nothing else."""

    def __init__(self, gateway_url: str, model: str, system_prompt: str) -> None:
        self._http = httpx.Client(base_url=gateway_url, timeout=120)
        self._model = model
        self._system_prompt = system_prompt

    def __enter__(self) -> "Agent":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def route(self, request: CustomerRequest) -> AgentReply:
        """Ask for the request's destination. A failure is returned as a reply, too."""
        trace_id = secrets.token_hex(16)
        try:
            answer = self._http.post(
                "/v1/chat/completions",
                json=self._build_body(request),
                headers={
                    # The agent traces its own work: the gateway's span joins this trace.
                    "traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-01",
                    SESSION_HEADER: f"demo-{trace_id[:12]}",
                },
            )
            answer.raise_for_status()
        except httpx.HTTPError as failure:
            return AgentReply(request, trace_id, "", None, error=repr(failure))
        text = answer.json()["choices"][0]["message"]["content"] or ""
        return AgentReply(request, trace_id, text, answer.headers[VERSION_HEADER])

    def _build_body(self, request: CustomerRequest) -> dict[str, object]:
        messages = [
            {"role": "system", "content": self._system_prompt},
            {"role": "user", "content": request.text},
        ]
        return {
            "model": self._model,
            "messages": messages,
            "temperature": 0,
            "max_tokens": ANSWER_TOKENS,
            "stop": STOPS,
        }


def send_all(agent: Agent, requests: Sequence[CustomerRequest]) -> Iterator[AgentReply]:
    """Send every request, sixteen at a time, and yield the replies in the order of the requests."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield from pool.map(agent.route, requests)


@dataclass
class SteadyTraffic:
    """Traffic that does not stop, with the replies so far."""

    replies: list[AgentReply] = field(default_factory=list)

    @property
    def failed(self) -> int:
        return sum(reply.error is not None for reply in self.replies)

    def wait_for(self, count: int, version: str | None = None, seconds: float = 120) -> None:
        """Return once `count` more requests were answered (by `version`), or after `seconds`."""
        before, deadline = len(self.replies), time.monotonic() + seconds
        while time.monotonic() < deadline:
            new = self.replies[before:]
            if sum(version in (None, reply.version) for reply in new) >= count:
                return
            time.sleep(0.05)


@contextmanager
def keep_asking(
    agent: Agent, requests: Sequence[CustomerRequest], pause: float = PAUSE_SECONDS
) -> Iterator[SteadyTraffic]:
    """Let two customers ask in the background until the block ends.

    They `pause` (seconds) between requests, so that a training beside them gets its share of the cores.
    """
    steady, stop = SteadyTraffic(), threading.Event()

    def customer(mine: Iterable[CustomerRequest]) -> None:
        while not stop.is_set():
            for request in mine:
                if stop.wait(pause):
                    return
                steady.replies.append(agent.route(request))

    threads = [threading.Thread(target=customer, args=(requests[n::2],)) for n in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield steady
    finally:
        stop.set()
        for thread in threads:
            thread.join()
