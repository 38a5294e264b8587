"""Prometheus metrics of the gateway; a tenant's token shows that tenant's only."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from daemon.access.tokens import Caller
from daemon.gateway.calls import GatewayCall
from daemon.monitoring.metrics import metrics_page

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class GatewayMetrics:
    """Counts calls by alias, version and status."""

    def __init__(self, untraced: Callable[[], int], daemon_silent: Callable[[], float]) -> None:
        self._registry = CollectorRegistry()
        self._for_everybody = CollectorRegistry()
        self._requests = Counter(
            "learnd_gateway_requests",
            "Calls answered",
            ["target", "version", "status"],
            registry=self._registry,
        )
        self._in_flight = Gauge(
            "learnd_gateway_in_flight", "Calls being answered", ["target"], registry=self._registry
        )
        self._seconds = Histogram(
            "learnd_gateway_seconds",
            "From a call's arrival to the end of its answer",
            ["target"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        lost = Gauge("learnd_gateway_untraced_calls", "Calls that went untraced", registry=self._registry)
        lost.set_function(untraced)
        silent = Gauge(
            "learnd_gateway_daemon_silent_seconds",
            "Time since the daemon last told which versions are active, 0 while it answers",
            registry=self._for_everybody,
        )
        silent.set_function(daemon_silent)

    def begin(self, call: GatewayCall) -> None:
        self._in_flight.labels(call.route.target).inc()

    def end(self, call: GatewayCall) -> None:
        self._in_flight.labels(call.route.target).dec()
        self._requests.labels(call.route.target, call.version, str(call.status)).inc()
        self._seconds.labels(call.route.target).observe(call.seconds)

    def render(self, caller: Caller) -> bytes:
        """Return the caller's metrics in Prometheus' text format."""
        return metrics_page(self._registry, caller) + generate_latest(self._for_everybody)
