"""What the gateway adds to a call, against a local stand-in that answers at once.

Client, gateway and stand-in share one machine, and gateway and stand-in one process, so the
figures compare the two ways with each other and are no promise about either.
"""

import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import httpx

from tests.support.gateway import ASK, RouteSource, gateway, route
from tests.support.openai_stand_in import StandIn, serving

CALLS = 400
AT_ONCE = 8


def measure() -> dict[str, float]:
    """Median added latency (ms) at one connection, and the share of requests a second at eight."""
    with (
        serving(StandIn(models={"base", str(ASK["model"])})) as upstream,
        gateway(RouteSource(route(upstream))) as through,
        httpx.Client(base_url=upstream) as direct,
    ):
        for client in (direct, through):
            _one_by_one(client, CALLS // 4)
        plain, added = _one_by_one(direct, CALLS), _one_by_one(through, CALLS)
        fast, slow = _at_once(str(direct.base_url)), _at_once(str(through.base_url))
    return {
        "direct_ms": plain,
        "gateway_ms": added,
        "added_ms": added - plain,
        "throughput_ratio": slow / fast,
    }


def _one_by_one(client: httpx.Client, calls: int) -> float:
    """Median milliseconds of a call."""
    return 1000 * statistics.median(_seconds(client) for _ in range(calls))


def _at_once(url: str) -> float:
    """Requests a second over eight connections."""

    def customer(_number: int) -> None:
        with httpx.Client(base_url=url) as client:
            for _ in range(CALLS // AT_ONCE):
                _seconds(client)

    began = time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(customer, range(AT_ONCE)))
    return CALLS / (time.perf_counter() - began)


def _seconds(client: httpx.Client) -> float:
    began = time.perf_counter()
    client.post("/v1/chat/completions", json=ASK).raise_for_status()
    return time.perf_counter() - began
