"""Each call as an OpenInference LLM span in Phoenix, off the request's path.

A request only opens its span (for the id) and leaves the finished call in a bounded queue. A thread
describes the calls and sends them. A slow or dead Phoenix costs traces at worst, never a request.
A call whose answer did not come whole is an ERROR span (`daemon.gateway.endings`), so that nothing
learns from it.
"""

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence

import httpx
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from daemon.gateway.attributes import describe_answer, describe_request, to_valid_text
from daemon.gateway.calls import SESSION_HEADER, GatewayCall
from daemon.gateway.endings import read_answer
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
NO_LIMITS = SpanLimits(
    max_attributes=SpanLimits.UNSET,
    max_span_attributes=SpanLimits.UNSET,
    max_attribute_length=SpanLimits.UNSET,
    max_span_attribute_length=SpanLimits.UNSET,
)
"""OpenTelemetry's default of 128 attributes drops the first messages of a long conversation."""


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
        self._tracers: dict[str, Tracer] = {}
        self._ended = _EndedSpans()
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
        """Give the call its span, within the caller's trace where `traceparent` names one."""
        parent = TraceContextTextMapPropagator().extract(call.headers, context=Context())
        call.span = self._find_tracer(call.route.project).start_span(
            call.api.span_name or "", context=parent, kind=SpanKind.INTERNAL, start_time=call.started_ns
        )

    def end(self, call: GatewayCall) -> None:
        """Queue a finished call; never waits."""
        with self._changed:
            if self._queued_bytes + _measure(call) > self._max_queued_bytes:
                self._lost_calls.add(1, "the queue is full: Phoenix is down or too slow")
                return
            self._queued_bytes += _measure(call)
            self._queue.append(call)
            self._changed.notify()

    def _find_tracer(self, project: str) -> Tracer:
        if project not in self._tracers:
            provider = TracerProvider(
                resource=Resource({"service.name": "learnd-gateway", "openinference.project.name": project}),
                # A caller that does not sample its own trace still wants to be learned from.
                sampler=ALWAYS_ON,
                span_limits=NO_LIMITS,
                shutdown_on_exit=False,
            )
            provider.add_span_processor(self._ended)
            self._tracers[project] = provider.get_tracer("learnd.gateway")
        return self._tracers[project]

    def _send_batches(self) -> None:
        with httpx.Client(headers=self._headers, timeout=SEND_SECONDS) as client:
            while calls := self._take_batch():
                self._deliver(client, self._finish_spans(calls))

    def _take_batch(self) -> list[GatewayCall]:
        """Return some finished calls; none only while closing, when everything is sent."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing.is_set())
        self._closing.wait(GATHER_SECONDS)
        batch: list[GatewayCall] = []
        taken = 0
        with self._changed:
            while self._queue and len(batch) < BATCH_CALLS and taken < BATCH_BYTES:
                batch.append(self._queue.popleft())
                taken += _measure(batch[-1])
            self._queued_bytes -= taken
        return batch

    def _finish_spans(self, calls: Iterable[GatewayCall]) -> list[ReadableSpan]:
        for call in calls:
            try:
                _finish_span(call)
            except (TypeError, ValueError, RecursionError) as odd:
                self._lost_calls.add(1, f"a call cannot be described: {odd}")
        return self._ended.take()

    def _deliver(self, client: httpx.Client, spans: Sequence[ReadableSpan]) -> None:
        """Send one batch, and send it again while Phoenix may still take it."""
        payload = encode_spans(spans).SerializeToString()
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
                    self._lost_calls.add(len(spans), f"{self._url} refused them ({problem})")
                    return
            if self._closing.wait(BACKOFF_SECONDS[min(attempt, len(BACKOFF_SECONDS) - 1)]):
                self._lost_calls.add(
                    len(spans), f"{self._url} could not be reached before the end ({problem})"
                )
                return
            attempt += 1


class _EndedSpans(SpanProcessor):
    """Collects spans as they end, in the tracing thread."""

    def __init__(self) -> None:
        self._spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self._spans.append(span)

    def take(self) -> list[ReadableSpan]:
        spans, self._spans = self._spans, []
        return spans


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
    return OVERHEAD_BYTES + call.request_bytes + sum(map(len, call.answer))


def _finish_span(call: GatewayCall) -> None:
    """Describe the call on its span, and end the span."""
    if call.span is None:
        return
    told = call.api.read_request(call.request)
    call.span.set_attributes(
        {**_list_learnd_attributes(call, told.user), **describe_request(call.request, told)}
    )
    answer = read_answer(call)
    error = call.error or answer.fault
    if error is not None:
        call.span.set_status(Status(StatusCode.ERROR, to_valid_text(error)))
    else:
        call.span.set_status(Status(StatusCode.OK))
    if answer.body is not None and answer.told is not None:
        call.span.set_attributes(describe_answer(answer.body, answer.told))
    call.span.end(call.ended_ns)


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
