"""Every metric of the daemon and of the gateway, read from their registries."""

from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry

from daemon.gateway.metrics import GatewayMetrics
from daemon.monitoring.metrics import Metrics as DaemonMetrics
from reference_pages.markdown import GENERATED, code, table

INTRO = """# Metrics

The daemon and the gateway each answer `GET /metrics` in Prometheus' text format. Where agents have tokens,
`/metrics` wants one and shows the figures of that tenant's targets. Counters get the ending `_total` there;
histograms have `_bucket`, `_sum` and `_count`. [Monitoring](../guides/monitoring.md) says what to watch.

"""


def metrics_page() -> str:
    """Return the page as Markdown."""
    daemon, gateway = DaemonMetrics(), GatewayMetrics(untraced=lambda: 0, daemon_silent=lambda: 0.0)
    return GENERATED + INTRO + _describe("Daemon", daemon) + _describe("Gateway", gateway)


def _describe(title: str, metrics: object) -> str:
    registries = [each for each in vars(metrics).values() if isinstance(each, CollectorRegistry)]
    labels = {each.describe()[0].name: each._labelnames for each in _collectors(metrics)}
    rows = [
        (
            code(metric.name),
            metric.type,
            ", ".join(map(code, labels.get(metric.name, ()))) or "–",
            metric.documentation,
        )
        for registry in registries
        for metric in registry.collect()
    ]
    return f"## {title}\n\n" + table(("metric", "type", "labels", "meaning"), rows)


def _collectors(metrics: object) -> Iterator[Any]:
    return (
        each for each in vars(metrics).values() if hasattr(each, "describe") and hasattr(each, "_labelnames")
    )
