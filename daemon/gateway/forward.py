"""One completion: from the agent's body to a replica's answer, whole or streamed."""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, cast

import aiohttp

from daemon.gateway.apis.api import find_message
from daemon.gateway.calls import SPAN_HEADER, VERSION_HEADER, GatewayCall
from daemon.gateway.limits import BeyondLimits, write_json
from daemon.gateway.metrics import GatewayMetrics
from daemon.gateway.replies import (
    ApiError,
    ClientGone,
    Receive,
    Send,
    send_piece,
    send_start,
    send_whole,
)
from daemon.gateway.sse import EventCutter, is_named_error, read_chunk, read_object, replace_data
from daemon.gateway.tracing import Tracing
from daemon.gateway.upstream import (
    REST_SECONDS,
    NoReplica,
    ReplicaAnswer,
    RouteMissing,
    Upstream,
)

REQUEST_HEADERS = ("x-request-id", "traceparent", "tracestate")
"""The only headers that go on to a replica: no token of the agent's, nothing of its connection."""
ANSWER_HEADERS = ("content-type", "retry-after", "x-request-id")
BROKE_OFF = "the model broke off in the middle of its answer"


async def forward(
    call: GatewayCall,
    upstream: Upstream,
    tracing: Tracing | None,
    metrics: GatewayMetrics,
    receive: Receive,
    send: Send,
) -> None:
    """Answer `call`, count it and trace it.

    Raises ApiError while nothing has been sent, and ClientGone.
    """
    metrics.begin(call)
    if tracing and call.api.span_name:
        tracing.begin(call)
    try:
        await _run_while_connected(receive, _forward_to_replica(call, upstream, send))
    except ApiError as refused:
        call.status, call.error = refused.status, str(refused)
        raise
    except ClientGone as gone:
        call.status, call.error = 499, str(gone)
        raise
    finally:
        call.ended_ns = time.time_ns()
        metrics.end(call)
        if tracing and call.span_id is not None:
            tracing.end(call)


async def _run_while_connected(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Do `work`. Once the client hangs up, stop it and raise ClientGone."""
    # A task for the work, too, and a wait for both would cost each call more than reading and writing it.
    working, is_over = cast("asyncio.Task[None]", asyncio.current_task()), False
    leaving = asyncio.ensure_future(_wait_for_disconnect(receive))

    def stop(_: object) -> None:
        if not is_over:
            working.cancel()

    leaving.add_done_callback(stop)
    try:
        await work
    except asyncio.CancelledError:
        if not leaving.done() or leaving.cancelled():
            raise
        working.uncancel()
        raise ClientGone("the agent left before it had its answer") from None
    finally:
        is_over = True
        leaving.cancel()


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _forward_to_replica(call: GatewayCall, upstream: Upstream, send: Send) -> None:
    request = call.api.build_replica_request(call.request)
    if call.span_id is not None:
        request = call.api.ask_for_usage(request)
    headers = {name: call.headers[name] for name in REQUEST_HEADERS if name in call.headers}
    try:
        async with upstream.answer(call.route, call.api.path, request, headers) as answer:
            call.status = answer.response.status
            call.streamed = answer.is_stream
            await (_send_stream if answer.is_stream else _send_whole)(call, answer, send)
    except NoReplica as none:
        raise ApiError(
            503,
            str(none),
            kind="server_error",
            code="no_replica",
            headers={"retry-after": f"{REST_SECONDS:.0f}"},
        ) from none
    except RouteMissing as missing:
        raise ApiError(404, str(missing), code="unknown_url") from missing
    except BeyondLimits as beyond:
        raise ApiError(
            502, f"the model's answer {beyond}", kind="server_error", code="unusable_answer"
        ) from beyond


async def _send_whole(call: GatewayCall, answer: ReplicaAnswer, send: Send) -> None:
    call.answer.append(answer.start)
    body = answer.start
    content = read_object(body)
    if content is not None:
        call.error = call.api.read_error(content)
        told = (
            call.api.adapt_error(call.status, content)
            if call.status >= 400
            else call.api.rename_model(content, call.route.target)
        )
        if told is not content:
            body = write_json(told)
    if call.status >= 400 and call.error is None:
        message = find_message(content) if content else None
        call.error = message or _name_status(call)
    await send_whole(send, call.status, body, _build_headers(call, answer))


def _name_status(call: GatewayCall) -> str:
    return f"the model answered HTTP {call.status} with an error"


async def _send_stream(call: GatewayCall, answer: ReplicaAnswer, send: Send) -> None:
    await send_start(send, call.status, {**_build_headers(call, answer), "cache-control": "no-cache"})
    cutter = EventCutter()
    if call.status >= 400:
        call.error = _name_status(call)
    try:
        async for piece in answer.pieces():
            await _send_events(call, cutter.feed(piece), send)
        await _send_events(call, cutter.finish(), send)
    except aiohttp.ClientError as broken:
        call.error = f"{BROKE_OFF} ({type(broken).__name__})"
        await _send_error(call, BROKE_OFF, send)
    except BeyondLimits as beyond:
        call.error = f"the model's answer {beyond}"
        await _send_error(call, call.error, send)
    await send_piece(send, b"", more=False)


async def _send_error(call: GatewayCall, message: str, send: Send) -> None:
    problem = ApiError(502, message, kind="server_error")
    event = call.api.build_error_event(problem, events_before=len(call.answer))
    call.answer.append(event)
    await send_piece(send, event + b"\n\n", more=True)


async def _send_events(call: GatewayCall, events: list[bytes], send: Send) -> None:
    """Pass events on under the alias, without the usage that only our trace asked for."""
    passed = []
    for event in events:
        call.answer.append(event)
        chunk = read_chunk(event)
        if chunk is None:
            passed.append(event)
            continue
        call.error = call.error or call.api.read_error(chunk)
        if call.error is None and is_named_error(event):
            call.error = find_message(chunk) or "the model failed"
        if call.api.is_passed_on(chunk, call.request):
            renamed = call.api.rename_model(chunk, call.route.target)
            passed.append(event if renamed is chunk else replace_data(event, renamed))
    if passed:
        await send_piece(send, b"".join(event + b"\n\n" for event in passed), more=True)


def _build_headers(call: GatewayCall, answer: ReplicaAnswer) -> dict[str, str]:
    received = answer.response.headers
    headers = {name: received[name] for name in ANSWER_HEADERS if name in received}
    headers[VERSION_HEADER] = call.version
    if call.span_id is not None:
        headers[SPAN_HEADER] = f"{call.span_id:016x}"
    return headers
