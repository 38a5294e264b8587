"""Measures what a gateway adds to a call: ours, traced, and LiteLLM's proxy beside it, untraced.

Client, gateway, replica and the receiver of traces are processes of their own. The replica and the receiver
are stand-ins that answer at once (`gateway_servers.py`). The ways take turns, in an order that is reversed
each round, and what a gateway adds is the difference of the medians within a round. A gateway's CPU time
for each call, tracing included, is the steadier figure on a busy machine.
"""

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import httpx
import psutil
import tomli_w
import uvloop

from daemon.demo.servers import find_free_port, run_server
from daemon.gateway.route_file import RouteFile
from daemon.runtime.gateway_routes import GatewayRoutes, TargetRoute
from tests.benchmarks.http_calls import CallTimes, build_post, call_for
from tests.benchmarks.litellm_proxy import install, run_litellm
from tests.support.phoenix import wait_until

ROOT = Path(__file__).resolve().parents[2]
MODEL = "acme/routing"
TOKEN = "sk-c3f1b6d2a95e4780b1d7e6f0a2c4958d"
"""Of the agent, to both gateways."""
TURN_SECONDS = 2.0
ROUNDS = 6
AT_ONCE = 8
WORDS = 1000
"""Events of a stream, besides the first and the last ones."""
TRACED_WITHIN_SECONDS = 180
"""Longest time until the traces of a turn have arrived."""
ASK: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "I was charged twice"}]}
STREAM = {**ASK, "stream": True, "max_tokens": WORDS}
TURN = "The parcel did not arrive yet. " * 32
LONG = {**ASK, "messages": [{"role": role, "content": TURN} for role in ("user", "assistant")] * 16}
"""32 KB."""
Figures = dict[str, float]


@dataclass(frozen=True)
class Way:
    """A way to the replica."""

    name: str
    url: str
    pid: int | None
    """The gateway's process; None for the direct way."""


@dataclass
class Turns:
    """Turns of one way, each on the same kind of call."""

    times: list[list[CallTimes]] = field(default_factory=list)
    cpu_seconds: float = 0.0

    @property
    def calls(self) -> int:
        return sum(map(len, self.times))

    def list_medians(self, read: Callable[[CallTimes], float]) -> list[float]:
        """Return the median of each turn, in milliseconds."""
        return [1000 * median(map(read, turn)) for turn in self.times]


def measure() -> Mapping[str, Figures]:
    """Return the figures of each way."""
    with tempfile.TemporaryDirectory(prefix="learnd-gateway-") as name, ExitStack() as stack:
        folder = Path(name)
        replica = stack.enter_context(_run_stand_in("replica", folder))
        traces = stack.enter_context(_run_stand_in("traces", folder))
        ours = stack.enter_context(_run_gateway(folder, replica, traces))
        ways = [Way("direct", replica, None), Way("gateway", *ours)]
        if program := install():
            theirs = stack.enter_context(run_litellm(program, folder, replica, MODEL, TOKEN))
            ways.append(Way("LiteLLM", *theirs))
        bench = Bench(ways, lambda: int(httpx.get(traces).text))
        return bench.measure()


class Bench:
    """Measures the ways; `count_traces` tells how many calls of ours have been traced."""

    def __init__(self, ways: Sequence[Way], count_traces: Callable[[], int]) -> None:
        self._ways = ways
        self._count_traces = count_traces
        self._calls_of_ours = 0

    def measure(self) -> dict[str, Figures]:
        """Return the figures of each way."""
        self._take_turns(ASK, rounds=1)  # warms up
        found: dict[str, Figures] = {way.name: {} for way in self._ways}
        for name, body, rounds in (("", ASK, ROUNDS), ("32 KB, ", LONG, ROUNDS // 2)):
            for way, figures in _compare_latency(self._take_turns(body, rounds=rounds)).items():
                found[way] |= {f"{name}{figure}": value for figure, value in figures.items()}
        for way, turns in self._take_turns(ASK, rounds=ROUNDS // 2, at_once=AT_ONCE).items():
            a_second = [len(turn) / TURN_SECONDS for turn in turns.times]
            found[way][f"{AT_ONCE} at once, calls a second"] = median(a_second)
        for way, figures in _compare_streams(self._take_turns(STREAM, rounds=ROUNDS // 2)).items():
            found[way] |= {f"stream, {figure}": value for figure, value in figures.items()}
        return found

    def _take_turns(self, body: Mapping[str, Any], *, rounds: int, at_once: int = 1) -> dict[str, Turns]:
        """Send `body` every way for `rounds` rounds, over `at_once` connections."""
        turns = {way.name: Turns() for way in self._ways}
        for number in range(rounds):
            for way in self._ways[:: -1 if number % 2 else 1]:
                request = build_post(way.url, "/v1/chat/completions", TOKEN, json.dumps(body).encode())
                before = _read_cpu_seconds(way)
                with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                    times = runner.run(_call_at_once(at_once, way.url, request))
                if way.name == "gateway":
                    self._wait_for_traces(len(times))
                turns[way.name].times.append(times)
                turns[way.name].cpu_seconds += _read_cpu_seconds(way) - before
        return turns

    def _wait_for_traces(self, calls: int) -> None:
        """Wait until `calls` more calls have been traced."""
        self._calls_of_ours += calls
        wait_until(
            lambda: self._count_traces() >= self._calls_of_ours, TRACED_WITHIN_SECONDS, "a turn's traces"
        )


async def _call_at_once(connections: int, url: str, request: bytes) -> list[CallTimes]:
    lists = await asyncio.gather(*(call_for(TURN_SECONDS, url, request) for _ in range(connections)))
    return [times for each in lists for times in each]


def _compare_latency(turns: Mapping[str, Turns]) -> dict[str, Figures]:
    found = {}
    for way, taken in turns.items():
        medians = taken.list_medians(lambda call: call.whole)
        calls = [call.whole for turn in taken.times for call in turn]
        found[way] = {"median_ms": median(medians), "p99_ms": 1000 * quantiles(calls, n=100)[-1]}
        if way != "direct":
            plain = turns["direct"].list_medians(lambda call: call.whole)
            added = [mine - its for mine, its in zip(medians, plain, strict=True)]
            found[way] |= {
                "added_ms": median(added),
                "added_least_ms": min(added),
                "added_most_ms": max(added),
            }
            found[way]["cpu_ms"] = 1000 * taken.cpu_seconds / taken.calls
    return found


def _compare_streams(turns: Mapping[str, Turns]) -> dict[str, Figures]:
    found: dict[str, Figures] = {}
    plain = turns["direct"]
    for way, taken in turns.items():
        first = median(taken.list_medians(lambda call: call.first))
        rest = median(taken.list_medians(lambda call: call.whole - call.first)) * 1000 / WORDS
        found[way] = {"first_ms": first, "1000_events_ms": rest}
        if way != "direct":
            found[way]["first_added_ms"] = first - median(plain.list_medians(lambda call: call.first))
            found[way]["cpu_ms_for_1000_events"] = 1000 * taken.cpu_seconds / taken.calls * 1000 / WORDS
    return found


def _read_cpu_seconds(way: Way) -> float:
    if way.pid is None:
        return 0.0
    used = psutil.Process(way.pid).cpu_times()
    return used.user + used.system


@contextmanager
def _run_stand_in(name: str, folder: Path) -> Iterator[str]:
    """Run one of `gateway_servers`; gives its URL."""
    port = find_free_port()
    where = ["--host", "127.0.0.1", "--port", str(port), "--log-level", "warning", "--no-access-log"]
    with run_server(
        [sys.executable, "-m", "uvicorn", f"tests.benchmarks.gateway_servers:{name}", *where],
        health_url=f"http://127.0.0.1:{port}/healthz",
        log=folder / f"{name}.log",
        env=_build_environment(),
        start_seconds=60,
    ):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def _run_gateway(folder: Path, replica: str, traces: str) -> Iterator[tuple[str, int]]:
    """Run `learnd gateway` before `replica`; gives its URL and process id.

    It has no daemon, and goes by the routes that it finds in its folder.
    """
    port, config = find_free_port(), folder / "learnd.toml"
    tenant, agent = MODEL.split("/")
    target = {"tenant": tenant, "agent": agent, "project": "p", "task": "generation", "base_model": "none"}
    settings = {
        "data_dir": str(folder / "data"),
        "gateway": {"port": port, "state_dir": str(folder / "state")},
        "phoenix": {"url": traces},
        "replicas": [{"name": "r", "url": replica, "base_name": "base"}],
        "targets": [target],
    }
    config.write_text(tomli_w.dumps(settings), "utf-8")
    routes = RouteFile(folder / "state")
    routes.prepare()
    routes.write(GatewayRoutes(routes={MODEL: TargetRoute(version=None)}))
    tokens = {
        "LEARND_AGENTS__TOKENS": json.dumps({TOKEN: tenant}),
        "LEARND_GATEWAY__DAEMON_TOKEN": "of-a-daemon-that-is-down",
    }
    with run_server(
        [sys.executable, "-m", "learnd", "gateway", "--config", str(config)],
        health_url=f"http://127.0.0.1:{port}/readyz",
        log=folder / "gateway.log",
        env={**_build_environment(), **tokens},
        start_seconds=60,
    ) as process:
        yield f"http://127.0.0.1:{port}", process.pid


def _build_environment() -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
