"""`learnd run`: the jobs of every target on a scheduler, and the API beside them.

Each target has five jobs: poll, advance, reconcile, publish, prune. A job that fails waits longer before
each further try, its problem is shown in the status, and the other jobs go on.
"""

import signal
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import structlog
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from daemon.access.tokens import check_tokens
from daemon.cycle.steps import PASSING, advance, find_unfinished_cycle, start_cycle
from daemon.data.ingest import open_phoenix, poll_target
from daemon.monitoring.metrics import Metrics
from daemon.monitoring.notifications import Notifier
from daemon.publishing.publish import publish_target
from daemon.runtime.child_process import Interrupted, OnProgress
from daemon.runtime.clock import utc_now
from daemon.runtime.context import TargetContext
from daemon.runtime.listening import open_socket
from daemon.runtime.locks import daemon_lock
from daemon.scheduling.schedule import Demand, Trigger, find_trigger
from daemon.scheduling.second_looks import SecondLooks
from daemon.server import build_daemon_server
from daemon.serving.pruning import prune_target
from daemon.serving.reconciler import reconcile_target
from daemon.settings.load import Settings
from daemon.settings.types import SettingsError
from daemon.views.status import Health
from extractors.errors import LearndError
from registry.cycles import Cycle, CycleState
from registry.store.database import StoreUnavailable
from registry.store.store import Store
from trainers.job_folder import ProgressLine

log = structlog.get_logger()
ADVANCE_SECONDS = 2.0
PUBLISH_SECONDS = 10.0
PRUNE_SECONDS = 3600.0
NOTIFY_SECONDS = 2.0
KEEP_NOTICES = timedelta(days=30)
LONGEST_BACKOFF = timedelta(minutes=5)
HEAVY = frozenset({CycleState.TRAINING, CycleState.EVALUATING})


def serve(settings: Settings) -> None:
    """Run the daemon until SIGTERM or SIGINT.

    Raises Locked where another daemon works on the data directory, PortTaken and SettingsError.
    """
    # The commands import this module, and should not wait for the pages' library.
    from daemon.console.base.page_session import CONSOLE_PATH

    tokens = settings.agents.read_tokens()
    check_tokens(settings.daemon.host, tokens)
    if not settings.targets:
        raise SettingsError("there are no targets in the settings: nothing to learn; see `learnd init`")
    with daemon_lock(settings.data_dir), ExitStack() as stack:
        listening = stack.enter_context(
            open_socket(settings.daemon.host, settings.daemon.port, "daemon.port")
        )
        store = Store.open(settings.data_dir, utc_now())
        stack.callback(store.close)
        service = Service(settings, store)
        server = build_daemon_server(settings, store, service.health, service.metrics, tokens, utc_now)
        stack.callback(service.close)
        service.start()
        address = f"http://{settings.daemon.host}:{settings.daemon.port}"
        log.info("running", api=address, console=f"{address}{CONSOLE_PATH}/", targets=len(settings.targets))
        for end in (signal.SIGTERM, signal.SIGINT):
            # uvicorn stops its server first and then raises the signal again, for us.
            signal.signal(end, lambda *_: service.stop.set())
        server.run(sockets=[listening])
        log.info("stopping", reason="asked to")


@dataclass
class Backoff:
    """The waiting time of a job that keeps failing."""

    failures: int = 0
    not_before: datetime | None = None

    def record_failure(self, now: datetime, first: timedelta) -> None:
        self.failures += 1
        self.not_before = now + min(first * 2 ** min(self.failures, 10), LONGEST_BACKOFF)

    def record_success(self) -> None:
        self.failures, self.not_before = 0, None


@dataclass
class Service:
    """The scheduler with its jobs; `start` and `close` it once."""

    settings: Settings
    store: Store
    health: Health = field(default_factory=Health)
    metrics: Metrics = field(default_factory=Metrics)
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        workers = 5 * len(self.settings.targets) + len(self.settings.notify) + 2
        self._scheduler = BackgroundScheduler(
            timezone=UTC,
            executors={"default": ThreadPoolExecutor(workers)},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )
        self._started_at = utc_now()
        self._notifiers = [
            Notifier(receiver, self.store, utc_now, self.stop) for receiver in self.settings.notify
        ]
        self._trainings = threading.Semaphore(self.settings.daemon.trainings_at_once)
        self._phoenix = open_phoenix(self.settings)
        self._second_looks = SecondLooks()
        # No cycle begins on a mirror that a poll has filled only in part.
        self._polling = {target.key: threading.Lock() for target in self.settings.targets}

    def start(self) -> None:
        """Start the jobs. Raises SettingsError where a receiver's secret cannot be read."""
        self._start_notifiers()
        for target in self.settings.targets:
            on_progress = self._build_progress_recorder(target.key)
            context = TargetContext(self.settings, target, self.store, utc_now, self.stop, on_progress)
            self._schedule(self.settings.phoenix.poll_seconds, "poll", context, self._poll)
            self._schedule(self.settings.daemon.reconcile_seconds, "reconcile", context, self._reconcile)
            self._schedule(ADVANCE_SECONDS, "advance", context, self._advance)
            self._schedule(PUBLISH_SECONDS, "publish", context, self._publish)
            self._schedule(PRUNE_SECONDS, "prune", context, prune_target)
        self._scheduler.start()

    def _start_notifiers(self) -> None:
        """Start a job for each receiver, so that a receiver that hangs delays neither others nor a cycle."""
        for notifier in self._notifiers:
            notifier.register()
            self._scheduler.add_job(
                _build_notify_job(notifier),
                "interval",
                seconds=NOTIFY_SECONDS,
                id=f"notify {notifier.receiver.name}",
                next_run_time=utc_now(),
            )
        self._scheduler.add_job(
            lambda: self.store.prune_notices(utc_now() - KEEP_NOTICES),
            "interval",
            seconds=PRUNE_SECONDS,
            id="prune notices",
            next_run_time=utc_now(),
        )

    def close(self) -> None:
        """Stop the jobs. A training child ends, and resumes from its checkpoint at the next start."""
        self.stop.set()
        self._scheduler.shutdown(wait=True)
        self._phoenix.close()

    def _schedule(
        self, seconds: float, name: str, context: TargetContext, job: Callable[[TargetContext], None]
    ) -> None:
        self._scheduler.add_job(
            self._guard(name, context, job, timedelta(seconds=seconds)),
            "interval",
            seconds=seconds,
            id=f"{name} {context.target.key}",
            next_run_time=utc_now(),
        )

    def _guard(
        self, name: str, context: TargetContext, job: Callable[[TargetContext], None], every: timedelta
    ) -> Callable[[], None]:
        """Return the job as the scheduler runs it: this is the only place that catches everything."""
        backoff, target = Backoff(), context.target.key

        def run() -> None:
            if self.stop.is_set() or (backoff.not_before and utc_now() < backoff.not_before):
                return
            try:
                job(context)
            except Interrupted:
                return
            except (LearndError, OSError, StoreUnavailable) as problem:
                # A full disk or a locked database may pass; nothing of the cycle is lost.
                log.warning(
                    "job failed", job=name, target=target, problem=str(problem), tries=backoff.failures + 1
                )
                self._record_failure(name, context, backoff, every, str(problem))
            except Exception as bug:
                log.exception("job failed", job=name, target=target)
                self._record_failure(name, context, backoff, every, f"{type(bug).__name__}: {bug}")
                if name == "advance":
                    _fail_cycle(context, f"a defect in learnd, please report it: {type(bug).__name__}: {bug}")
            else:
                backoff.record_success()
                self.health.clear_problem(target, name)

        return run

    def _record_failure(
        self, name: str, context: TargetContext, backoff: Backoff, every: timedelta, problem: str
    ) -> None:
        backoff.record_failure(utc_now(), every)
        self.metrics.job_failures.labels(context.target.key, name).inc()
        self.health.record_problem(context.target.key, name, problem)

    def _poll(self, context: TargetContext) -> None:
        with self._polling[context.target.key], self.metrics.poll_seconds.labels(context.target.key).time():
            changes = poll_target(context, self._phoenix)
        self.metrics.feedback_changes.labels(context.target.key).inc(changes)

    def _publish(self, context: TargetContext) -> None:
        publish_target(context, self._phoenix)

    def _reconcile(self, context: TargetContext) -> None:
        for replica, problem in reconcile_target(context).items():
            self.health.record_replica(context.target.key, replica, problem)
            self.metrics.replica_ok.labels(context.target.key, replica).set(problem == "ok")
        active = self.store.find_active_version(context.target.key)
        self.metrics.active_version.labels(context.target.key).set(active.number if active else 0)

    def _advance(self, context: TargetContext) -> None:
        cycle = find_unfinished_cycle(context) or self._begin(context)
        self.metrics.cycle_running.labels(context.target.key).set(cycle is not None)
        if cycle is None:
            return
        while not cycle.ended:
            cycle = self._step(context, cycle)
        log.info("cycle ended", target=cycle.target, cycle=cycle.id, state=cycle.state, verdict=cycle.verdict)
        self.metrics.cycles.labels(cycle.target, cycle.state, cycle.verdict or "").inc()
        self.health.record_progress(cycle.target, None)

    def _begin(self, context: TargetContext) -> Cycle | None:
        self.store.expire_batches(utc_now())
        again = self._second_looks.find_due(context)
        self.health.record_probation(context.target.key, self._second_looks.last_count(context.target.key))
        trigger = self._find_trigger(context)
        if again is None and trigger is None:
            return None
        with self._polling[context.target.key]:
            return start_cycle(context, trigger or "", again)

    def _find_trigger(self, context: TargetContext) -> Trigger | None:
        """Return why a cycle should train now, or None."""
        key, state = context.target.key, self.store.target_state(context.target.key)
        demand = Demand(
            feedback_changes=state.feedback_changes,
            batch_decided=self.store.has_decided_batch_since(key, state.last_cycle_at),
            asked=self.store.is_cycle_requested(key, state.last_cycle_at),
        )
        return find_trigger(
            context.target,
            demand,
            last=next(iter(self.store.cycles(key, limit=1, trains=True)), None),
            since=self._started_at,
            now=utc_now(),
        )

    def _step(self, context: TargetContext, cycle: Cycle) -> Cycle:
        log.info("cycle", target=cycle.target, cycle=cycle.id, state=cycle.state)
        context.report_stage(cycle.state)
        try:
            if cycle.state not in HEAVY:
                return advance(context, cycle)
            with self._trainings:
                return advance(context, cycle)
        except Interrupted:
            raise
        except PASSING as waits:
            self.store.note(cycle.id, f"waits: {waits}")
            raise

    def _build_progress_recorder(self, target: str) -> OnProgress:
        def record(line: ProgressLine) -> None:
            self.health.record_progress(target, line)
            if line.loss is not None:
                self.metrics.training_loss.labels(target).set(line.loss)

        return record


def _build_notify_job(notifier: Notifier) -> Callable[[], None]:
    """Return a receiver's job as the scheduler runs it: whatever goes wrong, there is a next try."""

    def run() -> None:
        try:
            notifier.deliver()
        except (LearndError, OSError, StoreUnavailable) as problem:
            log.warning("job failed", job="notify", receiver=notifier.receiver.name, problem=str(problem))
        except Exception:
            log.exception("job failed", job="notify", receiver=notifier.receiver.name)

    return run


def _fail_cycle(context: TargetContext, reason: str) -> None:
    if cycle := find_unfinished_cycle(context):
        context.move(cycle, CycleState.FAILED, reason=reason)
