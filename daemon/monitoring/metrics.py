"""The Prometheus metrics of `learnd run`; with a tenant's token, only that tenant's metrics are shown."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from daemon.access.tokens import Caller


class Metrics:
    """The daemon's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.poll_seconds = Histogram(
            "learnd_poll_seconds",
            "Time of one poll of a target's project",
            ["target"],
            registry=self.registry,
        )
        self.feedback_changes = Counter(
            "learnd_feedback_changes",
            "Annotations found new, edited or deleted",
            ["target"],
            registry=self.registry,
        )
        self.job_failures = Counter(
            "learnd_job_failures", "Scheduled jobs that failed", ["target", "job"], registry=self.registry
        )
        self.cycles = Counter(
            "learnd_cycles", "Cycles ended", ["target", "state", "verdict"], registry=self.registry
        )
        self.cycle_running = Gauge(
            "learnd_cycle_running", "1 while a cycle is unfinished", ["target"], registry=self.registry
        )
        self.training_loss = Gauge(
            "learnd_training_loss",
            "Last training loss; in a race, of each contender",
            ["target", "contender"],
            registry=self.registry,
        )
        self.race_cost = Gauge(
            "learnd_race_cost",
            "Time of the last race between ways to train, as a multiple of the default's",
            ["target"],
            registry=self.registry,
        )
        self.replica_ok = Gauge(
            "learnd_replica_ok",
            "1 while the replica serves what it should",
            ["target", "replica"],
            registry=self.registry,
        )
        self.active_version = Gauge(
            "learnd_active_version",
            "Number of the active version, 0 for the base",
            ["target"],
            registry=self.registry,
        )


def metrics_page(registry: CollectorRegistry, caller: Caller) -> bytes:
    """Return the samples that `caller` may see, by their label `target`, in Prometheus' text format."""
    return generate_latest(_Visible(registry, caller))


class _Visible(Collector):
    """The samples that a caller may see."""

    def __init__(self, registry: CollectorRegistry, caller: Caller) -> None:
        self._registry = registry
        self._caller = caller

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            metric.samples = [
                sample
                for sample in metric.samples
                if self._caller.may_see(sample.labels.get("target", "").partition("/")[0])
            ]
            yield metric
