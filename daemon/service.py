"""`learnd run`: the jobs of every target, and the API beside them.

    lane          threads                     jobs
    phoenix       4                           poll every `poll_seconds`; publish when a cycle has ended
    cycles        trainings at once, and 3    advance, woken by `schedule`
    reconcile …   2 for each set of replicas  reconcile, woken by `serving`
    housekeeping  1                           prune
    notify …      1 for each receiver         notify
    schedule      1                           asks the store which targets are due, for all of them at once
    serving       1                           asks the store which targets have something to serve

A job that fails waits longer before each further try, its problem is shown in the status, and the other jobs
go on. While Phoenix answers nobody, one job at a time asks it. Periods are measured by a clock that nobody
sets; `daemon.watchdog` notices jobs that did not run.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog

from daemon.access.tokens import check_tokens
from daemon.cycle.replay import prune_replay
from daemon.cycle.steps import PASSING, advance, find_unfinished_cycle, start_cycle
from daemon.data.ingest import open_phoenix, poll_once
from daemon.guarded_job import AGAIN, GuardedJob
from daemon.monitoring.metrics import Metrics
from daemon.monitoring.notifications import Notifier
from daemon.publishing.publish import publish_target
from daemon.runtime.child_process import Interrupted, OnProgress
from daemon.runtime.clock import utc_now
from daemon.runtime.context import TargetContext
from daemon.runtime.listening import open_socket
from daemon.runtime.locks import daemon_lock
from daemon.runtime.paths import hide_folders
from daemon.scheduling.job_loop import Job, JobLoop
from daemon.scheduling.outage import Outage
from daemon.scheduling.schedule import find_trigger
from daemon.scheduling.second_looks import SecondLooks
from daemon.server import build_daemon_server
from daemon.serving.pruning import prune_target
from daemon.serving.reconciler import reconcile_target
from daemon.serving.silent_replicas import SilentReplicas
from daemon.settings.load import Settings
from daemon.settings.target import TargetSettings
from daemon.settings.types import SettingsError
from daemon.views.status import Health
from daemon.watchdog import Watchdog
from extractors.phoenix.http import PhoenixUnreachable
from registry.cycles import Cycle, CycleState
from registry.store.store import Store
from registry.targets import TargetDemand
from trainers.job_folder import ProgressLine

log = structlog.get_logger()
ADVANCE_SECONDS = 2.0
PUBLISH_SECONDS = 10.0
PRUNE_SECONDS = 3600.0
NOTIFY_SECONDS = 2.0
STOP_SECONDS = 20.0
"""How long the jobs have to end once the daemon is told to stop; service managers wait 30 seconds or more."""
KEEP_NOTICES = timedelta(days=30)
PHOENIX, CYCLES, HOUSEKEEPING = "phoenix", "cycles", "housekeeping"
"""Lanes of targets' jobs."""
PHOENIX_THREADS = 4
LIGHT_STEPS_AT_ONCE = 3
"""Cycles that may take a step beside those that train or evaluate."""
LOOKS_UNTIL_THOROUGH = 15
"""One look at all targets, idle or not, in so many."""
PROBE_SECONDS = 10.0
"""How long Phoenix has to answer anything at all, before nobody else tries."""
HEAVY = frozenset({CycleState.TRAINING, CycleState.EVALUATING})


def serve(settings: Settings, clock: Callable[[], datetime] = utc_now) -> None:
    """Run the daemon until SIGTERM or SIGINT. `clock` returns aware UTC.

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
        store = Store.open(settings.data_dir, clock())
        stack.callback(store.close)
        service = Service(settings, store, clock)
        server = build_daemon_server(settings, store, service.health, service.metrics, tokens, clock)
        stack.callback(service.close)
        service.start()
        address = f"http://{settings.daemon.host}:{settings.daemon.port}"
        log.info("running", api=address, console=f"{address}{CONSOLE_PATH}/", targets=len(settings.targets))
        for end in (signal.SIGTERM, signal.SIGINT):
            # uvicorn stops its server first and then raises the signal again, for us.
            signal.signal(end, lambda *_: service.stop.set())
        server.run(sockets=[listening])
        log.info("stopping", reason="asked to")
        service.leave_in_time()


@dataclass
class Service:
    """The jobs of all targets; `start` and `close` it once."""

    settings: Settings
    store: Store
    clock: Callable[[], datetime] = utc_now
    """Aware UTC. Periods and back-off do not depend on it."""
    health: Health = field(default_factory=Health)
    metrics: Metrics = field(default_factory=Metrics)
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        settings = self.settings
        self._targets = {target.key: target for target in settings.targets}
        self._contexts = {key: self._build_context(target) for key, target in self._targets.items()}
        self._notifiers = [Notifier(each, self.store, self.clock, self.stop) for each in settings.notify]
        self._loop = JobLoop(self._choose_lanes())
        self._watchdog = Watchdog(
            self._loop, self.store, self.health, list(self._targets), self.clock, self.stop
        )
        self._started_at = self.clock()
        self._trainings = threading.Semaphore(settings.daemon.trainings_at_once)
        self._phoenix = open_phoenix(settings, stop=self.stop)
        self._probe = open_phoenix(settings, timeout=PROBE_SECONDS, patience=0)
        self._outage = Outage(self._probe.version)
        self._second_looks = SecondLooks()
        self._silent_replicas = SilentReplicas()
        self._looks = 0
        # No cycle begins on a mirror that a poll has filled only in part.
        self._polling = {key: threading.Lock() for key in self._targets}
        self._half_polled: set[str] = set()
        self._jobs: dict[tuple[str, str], Job] = {}

    def start(self) -> None:
        """Start the jobs. Raises SettingsError where a receiver's secret cannot be read."""
        settings = self.settings
        for notifier in self._notifiers:
            notifier.register()
            self._add_common(
                f"notify {notifier.receiver.name}", NOTIFY_SECONDS, notifier.deliver, shown=False
            )
        self._add_common("prune shared", PRUNE_SECONDS, self._prune_shared, shown=False)
        self._add_common("schedule", ADVANCE_SECONDS, self._wake_cycles)
        self._add_common("serving", settings.daemon.reconcile_seconds, self._wake_reconcilers)
        for key, context in self._contexts.items():
            self._add("poll", context, PHOENIX, self._poll, settings.phoenix.poll_seconds)
            self._add("publish", context, PHOENIX, self._publish, PUBLISH_SECONDS, woken=True)
            self._add("prune", context, HOUSEKEEPING, prune_target, PRUNE_SECONDS)
            self._add("advance", context, CYCLES, self._advance, ADVANCE_SECONDS, woken=True)
            lane = name_replica_lane(settings, context.target)
            self._add(
                "reconcile", context, lane, self._reconcile, settings.daemon.reconcile_seconds, woken=True
            )
            # A run may have ended before the last daemon did.
            self._loop.wake(self._jobs["publish", key])
        self._loop.start()
        self._watchdog.start()

    def leave_in_time(self) -> None:
        """End the process before long, though a job should hang in a call to a server that drips.

        Every job may be killed at any moment, and goes on at the next start.
        """

        def leave() -> None:
            log.warning("jobs cut off", jobs=self._loop.list_running(), after_seconds=STOP_SECONDS)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)

        last = threading.Timer(STOP_SECONDS, leave)
        last.daemon = True
        last.start()

    def close(self) -> None:
        """Stop the jobs. A training child ends, and resumes from its checkpoint at the next start."""
        self.stop.set()
        self._loop.close()
        self._phoenix.close()
        self._probe.close()

    def _build_context(self, target: TargetSettings) -> TargetContext:
        on_progress = self._build_progress_recorder(target.key)
        return TargetContext(self.settings, target, self.store, self.clock, self.stop, on_progress)

    def _choose_lanes(self) -> dict[str, int]:
        """Return how many threads each lane has: one lane for each thing that may hang."""
        lanes = {
            PHOENIX: PHOENIX_THREADS,
            CYCLES: self.settings.daemon.trainings_at_once + LIGHT_STEPS_AT_ONCE,
            HOUSEKEEPING: 1,
            "schedule": 1,
            "serving": 1,
            "prune shared": 1,
        }
        lanes |= {f"notify {receiver.name}": 1 for receiver in self.settings.notify}
        return lanes | {name_replica_lane(self.settings, target): 2 for target in self.settings.targets}

    def _add_common(
        self, name: str, seconds: float, job: Callable[[], object], *, shown: bool = True
    ) -> None:
        """Add a job for all targets, in a lane of its own; `shown` puts its problems into their status."""
        shown_at = list(self._targets) if shown else []
        guarded = GuardedJob(name, job, seconds, shown_at, self.health, self.metrics, self.stop)
        self._loop.add(Job(name, name, guarded, seconds))

    def _add(
        self,
        name: str,
        context: TargetContext,
        lane: str,
        job: Callable[[TargetContext], object],
        seconds: float,
        *,
        woken: bool = False,
    ) -> None:
        """Add a target's job, which is due every so many `seconds`, or only when it is woken."""
        key = context.target.key
        guarded = GuardedJob(name, lambda: job(context), seconds, [key], self.health, self.metrics, self.stop)
        if name == "advance":
            guarded.on_defect = lambda words: _fail_cycle(context, words)
        self._jobs[name, key] = self._loop.add(Job(name, lane, guarded, None if woken else seconds, key))

    def _wake_cycles(self) -> None:
        """Wake the targets whose cycle is under way or due: one query finds them, nearly every time.

        Cron times, second looks and targets that the store does not know are looked at less often.
        """
        now = self.clock()
        self.store.expire_batches(now)
        thorough = self._looks % LOOKS_UNTIL_THOROUGH == 0
        self._looks += 1
        demands = {demand.target: demand for demand in self.store.find_demands(now, idle=thorough)}
        if thorough:
            demands |= {key: TargetDemand(target=key) for key in self._targets if key not in demands}
        for key, demand in demands.items():
            if (target := self._targets.get(key)) is None:
                continue
            self.metrics.cycle_running.labels(key).set(demand.unfinished)
            looks_again = thorough and demand.on_probation
            due = find_trigger(target, demand, since=self._started_at, now=now) is not None
            if demand.unfinished or looks_again or due:
                self._loop.wake(self._jobs["advance", key])

    def _wake_reconcilers(self) -> None:
        """Wake the targets that have replicas, or versions that are to be let go."""
        wanted = {version.target for version in self.store.find_wanted_versions()}
        active = self.store.find_active_versions()
        for key, target in self._targets.items():
            version = active.get(key)
            self.metrics.active_version.labels(key).set(version.number if version else 0)
            if key in wanted or self.settings.find_replicas(target):
                self._loop.wake(self._jobs["reconcile", key])

    def _prune_shared(self) -> None:
        """Remove what belongs to no single target."""
        self.store.prune_notices(self.clock() - KEEP_NOTICES)
        prune_replay(self.settings, self.store)

    def _poll(self, context: TargetContext) -> object:
        """Read one piece of what is new in Phoenix; a project with much takes turns with the others."""
        key = context.target.key
        try:
            with (
                self._outage.attempt(),
                self._polling[key],
                self.metrics.poll_seconds.labels(key).time(),
            ):
                changes, complete = poll_once(context, self._phoenix)
                (self._half_polled.discard if complete else self._half_polled.add)(key)
        except PhoenixUnreachable as problem:
            if self._outage.problem is not None:
                self.store.record_poll_problem(list(self._targets), self.clock(), str(problem))
            raise
        self.metrics.feedback_changes.labels(key).inc(changes)
        return None if complete else AGAIN

    def _publish(self, context: TargetContext) -> None:
        if self.store.find_unpublished_cycles(context.target.key):
            with self._outage.attempt():
                publish_target(context, self._phoenix)

    def _reconcile(self, context: TargetContext) -> None:
        for replica, problem in reconcile_target(context, self._silent_replicas).items():
            self.health.record_replica(context.target.key, replica, hide_folders(problem))
            self.metrics.replica_ok.labels(context.target.key, replica).set(problem == "ok")

    def _advance(self, context: TargetContext) -> None:
        """Take the target's cycle to its end, or as far as it gets while others train."""
        key = context.target.key
        cycle = find_unfinished_cycle(context) or self._begin(context)
        while cycle is not None and not cycle.ended:
            self.metrics.cycle_running.labels(key).set(1)
            if (cycle := self._step(context, cycle)) is None:
                return
        self.metrics.cycle_running.labels(key).set(0)
        if cycle is None:
            return
        log.info("cycle ended", target=key, cycle=cycle.id, state=cycle.state, verdict=cycle.verdict)
        self.metrics.cycles.labels(key, cycle.state, cycle.verdict or "").inc()
        if cycle.report and cycle.report.race:
            self.metrics.race_cost.labels(key).set(cycle.report.race.cost)
        self.health.record_progress(key, None)
        self._loop.wake(self._jobs["publish", key])

    def _begin(self, context: TargetContext) -> Cycle | None:
        """Start the cycle that is due; None where none is, or a poll is under way."""
        key, polling = context.target.key, self._polling[context.target.key]
        if key in self._half_polled or not polling.acquire(blocking=False):
            return None
        try:
            again = self._second_looks.find_due(context)
            self.health.record_probation(key, self._second_looks.last_count(key))
            now = self.clock()
            demand = self.store.find_demand(key, now)
            trigger = find_trigger(context.target, demand, since=self._started_at, now=now)
            if again is None and trigger is None:
                return None
            return start_cycle(context, trigger or "", again)
        finally:
            polling.release()

    def _step(self, context: TargetContext, cycle: Cycle) -> Cycle | None:
        """Take one step; None where it has to wait until others have trained."""
        heavy = cycle.state in HEAVY
        if heavy and not self._trainings.acquire(blocking=False):
            return None
        log.info("cycle", target=cycle.target, cycle=cycle.id, state=cycle.state)
        context.report_stage(cycle.state)
        try:
            return advance(context, cycle)
        except Interrupted:
            raise
        except PASSING as waits:
            self.store.note(cycle.id, f"waits: {hide_folders(str(waits))}")
            raise
        finally:
            if heavy:
                self._trainings.release()

    def _build_progress_recorder(self, target: str) -> OnProgress:
        def record(line: ProgressLine) -> None:
            self.health.record_progress(target, line)
            if line.loss is not None:
                self.metrics.training_loss.labels(target, line.contender).set(line.loss)

        return record


def name_replica_lane(settings: Settings, target: TargetSettings) -> str:
    """Return the lane of the target's reconciler: a replica that hangs holds up who shares it."""
    return " ".join(["reconcile", *(replica.name for replica in settings.find_replicas(target))])


def _fail_cycle(context: TargetContext, words: str) -> None:
    if cycle := find_unfinished_cycle(context):
        reason = f"a defect in learnd, please report it: {words}"
        context.move(cycle, CycleState.FAILED, reason=reason)
