"""Each call as an OpenInference LLM span in Phoenix, off the request's path.

A request only takes its span's id and leaves the finished call in a bounded queue. A thread makes the spans
and sends them. A slow or dead Phoenix costs traces at worst, never a request.
A call whose answer did not come whole is an ERROR span (`daemon.gateway.endings`), so that nothing
learns from it.
"""

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Iterable

import httpx
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from daemon.gateway.attributes import Attributes, describe_answer, describe_request, to_valid_text
from daemon.gateway.calls import SESSION_HEADER, GatewayCall
from daemon.gateway.endings import read_answer
from daemon.gateway.otlp import build_export, build_span, count_spans, generate_span_id, read_place
from extractors.llm.endpoint import INTERNAL_HEADER

log = logging.getLogger(__name__)

BATCH_CALLS = 64
BATCH_BYTES = 4 * 2**20
GATHER_SECONDS = 0.5
"""Time that a batch waits for more calls after its first."""
SEND_SECONDS = 30.0
BACKOFF_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)
LOG_EVERY_SECONDS = 60.0
RETRIED = frozenset({408, 429, 500, 502, 503, 504, 507})
"""507 is Phoenix's locked storage. Other errors would come again for the same spans."""
OVERHEAD_BYTES = 4096
"""Estimated memory of a queued call besides its bodies."""
EVENT_OVERHEAD_BYTES = 48
"""Memory of an event of its answer besides its text."""


class Tracing:
    """Opens spans for calls and brings the finished ones to Phoenix."""

    def __init__(
        self, phoenix_url: str, api_key: str | None = None, *, max_queued_bytes: int = 64 * 2**20
    ) -> None:
        """Trace into the Phoenix at `phoenix_url`.

        At most `max_queued_bytes` of calls wait while Phoenix is down; further ones go untraced.
        """
        self._url = f"{phoenix_url}/v1/traces"
        self._headers = {"content-type": "application/x-protobuf"}
        if api_key:
            self._headers["authorization"] = f"Bearer {api_key}"
        self._max_queued_bytes = max_queued_bytes
        self._queue: deque[GatewayCall] = deque()
        self._queued_bytes = 0
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._send_batches, name="gateway-tracing", daemon=True)
        self._lost_calls = _LostCalls()

    @property
    def lost(self) -> int:
        """The number of calls that went untraced since the start."""
        return self._lost_calls.count

    def start(self) -> None:
        """Start the thread that sends spans."""
        self._thread.start()

    def close(self, seconds: float = 5.0) -> None:
        """Send what is queued, for at most `seconds`; what is left then is lost, and counted."""
        with self._changed:
            self._closing.set()
            self._changed.notify()
        self._thread.join(seconds)

    def begin(self, call: GatewayCall) -> None:
        """Give the call the id of its span."""
        call.span_id = generate_span_id()

    def end(self, call: GatewayCall) -> None:
        """Queue a finished call; never waits."""
        size = _measure(call)
        with self._changed:
            # One call may be larger by itself: it waits where no other does.
            if self._queue and self._queued_bytes + size > self._max_queued_bytes:
                self._lost_calls.add(1, "the queue is full: Phoenix is down or too slow")
                return
            self._queued_bytes += size
            self._queue.append(call)
            # The thread is woken for a whole batch: waking it for each call would slow down the next ones.
            if len(self._queue) == 1 or self._has_whole_batch():
                self._changed.notify()

    def _has_whole_batch(self) -> bool:
        return len(self._queue) >= BATCH_CALLS or self._queued_bytes >= BATCH_BYTES or self._closing.is_set()

    def _send_batches(self) -> None:
        with httpx.Client(headers=self._headers, timeout=SEND_SECONDS) as client:
            while calls := self._take_batch():
                if spans := self._build_spans(calls):
                    self._deliver(client, build_export(spans))

    def _take_batch(self) -> list[GatewayCall]:
        """Return some finished calls; none only while closing, when everything is sent."""
        batch: list[GatewayCall] = []
        taken = 0
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing.is_set())
            self._changed.wait_for(self._has_whole_batch, GATHER_SECONDS)
            while self._queue and len(batch) < BATCH_CALLS and taken < BATCH_BYTES:
                batch.append(self._queue.popleft())
                taken += _measure(batch[-1])
            self._queued_bytes -= taken
        return batch

    def _build_spans(self, calls: Iterable[GatewayCall]) -> dict[str, list[Span]]:
        """Return the spans of `calls` by their project in Phoenix."""
        spans: dict[str, list[Span]] = {}
        for call in calls:
            try:
                span = _build_span(call)
            except (TypeError, ValueError, RecursionError) as odd:
                self._lost_calls.add(1, f"a call cannot be described: {odd}")
            else:
                spans.setdefault(call.route.project, []).append(span)
        return spans

    def _deliver(self, client: httpx.Client, export: ExportTraceServiceRequest) -> None:
        """Send one batch, and send it again while Phoenix may still take it."""
        payload, calls = export.SerializeToString(), count_spans(export)
        attempt = 0
        while True:
            try:
                response = client.post(self._url, content=payload)
            except httpx.TransportError as unreachable:
                problem = f"{type(unreachable).__name__}: {unreachable}"
            else:
                if response.is_success:
                    return
                problem = f"HTTP {response.status_code}: {response.text[:200]}"
                if response.status_code not in RETRIED:
                    self._lost_calls.add(calls, f"{self._url} refused them ({problem})")
                    return
            if self._closing.wait(BACKOFF_SECONDS[min(attempt, len(BACKOFF_SECONDS) - 1)]):
                self._lost_calls.add(calls, f"{self._url} could not be reached before the end ({problem})")
                return
            attempt += 1


class _LostCalls:
    """Counts the calls that went untraced, and logs the count once a minute at most."""

    def __init__(self) -> None:
        self.count = 0
        self._logged_at = float("-inf")

    def add(self, calls: int, why: str) -> None:
        self.count += calls
        if time.monotonic() - self._logged_at >= LOG_EVERY_SECONDS:
            self._logged_at = time.monotonic()
            log.warning("%d calls went untraced so far; the last because %s", self.count, why)


def _measure(call: GatewayCall) -> int:
    answer = sum(map(len, call.answer)) + EVENT_OVERHEAD_BYTES * len(call.answer)
    return OVERHEAD_BYTES + call.request_memory + answer


def _build_span(call: GatewayCall) -> Span:
    """Return the call as a span, within the caller's trace where `traceparent` names one."""
    told = call.api.read_request(call.request)
    answer = read_answer(call, told.answers)
    attributes: Attributes = {
        **_list_learnd_attributes(call, told.user),
        **describe_request(call.request, told),
    }
    if answer.body is not None and answer.told is not None:
        attributes |= describe_answer(answer.body, answer.told)
    error = call.error or answer.fault
    return build_span(
        place=read_place(call.headers, call.span_id or generate_span_id()),
        name=call.api.span_name or "",
        started_ns=call.started_ns,
        ended_ns=call.ended_ns,
        attributes=attributes,
        error=None if error is None else to_valid_text(error),
    )


def _list_learnd_attributes(call: GatewayCall, user: str | None) -> dict[str, str | bool]:
    """Return the attributes of learnd's side of the call."""
    about = {"tenant": call.route.tenant, "agent": call.route.agent, "version": call.version}
    internal = call.headers.get(INTERNAL_HEADER, "").lower() == "true"
    attributes: dict[str, str | bool] = {
        "openinference.span.kind": "LLM",
        "llm.model_name": call.route.target,
        "metadata": json.dumps(about),
        "learnd.internal": internal,
        **{f"learnd.{key}": value for key, value in about.items()},
    }
    if session := call.headers.get(SESSION_HEADER):
        attributes["session.id"] = session
    if user is not None:
        attributes["user.id"] = to_valid_text(user)
    return attributes
