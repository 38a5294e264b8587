"""Runs jobs again and again in a few threads, by a clock that is never set.

One thread hands each job that is due to its lane, a small pool of threads. Jobs that are slow, or that wait
for a server that hangs, take threads of their lane only. The time of day plays no part: where the machine's
clock is set back by days, every job runs on.

    waiting ── due ──> queued ── a thread of its lane is free ──> running ──> waiting
"""

import heapq
import itertools
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

PATIENCE_SECONDS = 60.0
"""A job with a period may begin this much later, or by twice its period, before it counts as late."""
WOKEN_PATIENCE_SECONDS = 600.0
"""The same for a job that was woken: cycles wait for each other."""
LONGEST_RUN_SECONDS = 3600.0
"""A job with a period that runs for longer counts as late: its next run is due all that time."""


@dataclass(eq=False)
class Job:
    """A job of the loop. All times are seconds of the loop's clock."""

    name: str
    lane: str
    run: Callable[[], float | None]
    """Does the job once. Returns after how many seconds it is due again, or None for `every`."""
    every: float | None = None
    """Seconds from one start to the next; None for a job that is due only when it is woken."""
    target: str | None = None
    """The target (`tenant/agent`) that the job works for; None for all of them."""
    due_at: float | None = field(default=None, init=False)
    """When the job has to begin; None for one that waits to be woken."""
    handed_over: bool = field(default=False, init=False)
    """Whether the job is queued in its lane, or running."""
    began_at: float | None = field(default=None, init=False)
    """When the job began to run; None while it does not."""

    def find_delay(self, now: float, lane_began_at: float) -> float:
        """Return for how many seconds the job is late; 0 for a job that is well.

        A job that is queued behind others waits its turn while its lane begins one after the other.
        """
        if self.began_at is not None:
            ran = now - self.began_at
            return ran if self.every is not None and ran > LONGEST_RUN_SECONDS else 0.0
        if self.due_at is None:
            return 0.0
        patience = WOKEN_PATIENCE_SECONDS if self.every is None else max(PATIENCE_SECONDS, 2 * self.every)
        late, standing = now - self.due_at, now - lane_began_at
        return late if late > patience and (standing > patience or late > LONGEST_RUN_SECONDS) else 0.0


class JobLoop:
    """The jobs and the threads that run them; `start` and `close` it once."""

    def __init__(self, lanes: Mapping[str, int], clock: Callable[[], float] = time.monotonic) -> None:
        """`lanes` are the most threads by name; `clock` returns seconds and never goes back."""
        self.clock = clock
        self._lanes = {name: ThreadPoolExecutor(most, name) for name, most in lanes.items()}
        self._lane_began_at = dict.fromkeys(lanes, clock())
        self._jobs: list[Job] = []
        self._waiting: list[tuple[float, int, Job]] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._hand_over_forever, name="jobs", daemon=True)

    def add(self, job: Job) -> Job:
        """Add a job, which is due at once unless it waits to be woken."""
        with self._changed:
            self._jobs.append(job)
            if job.every is not None:
                self._put(job, self.clock())
        return job

    def wake(self, job: Job) -> None:
        """Make a job due now that waits to be woken; one that has a time, or is running, keeps to it."""
        with self._changed:
            if job.due_at is None and not job.handed_over:
                self._put(job, self.clock())

    def start(self) -> None:
        """Begin to run the jobs."""
        self._thread.start()

    def close(self) -> None:
        """Begin no further job, and return when those that run have ended."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()
        for lane in self._lanes.values():
            lane.shutdown(wait=False, cancel_futures=True)
        for lane in self._lanes.values():
            lane.shutdown(wait=True)

    def find_late(self) -> list[tuple[Job, float]]:
        """Return the jobs that should have begun long ago, each with its seconds of delay.

        This needs no thread of the loop: it finds a loop that stands still, too.
        """
        now = self.clock()
        with self._changed:
            delays = [(job, job.find_delay(now, self._lane_began_at[job.lane])) for job in self._jobs]
        return [(job, delay) for job, delay in delays if delay]

    def list_running(self) -> list[str]:
        """Return what runs now: the jobs' names, each with its target."""
        with self._changed:
            return [
                f"{job.name} {job.target or ''}".strip() for job in self._jobs if job.began_at is not None
            ]

    def _put(self, job: Job, due_at: float) -> None:
        """Make a job due; the caller holds the lock."""
        job.due_at = due_at
        heapq.heappush(self._waiting, (due_at, next(self._numbers), job))
        if self._waiting[0][2] is job:
            self._changed.notify()

    def _hand_over_forever(self) -> None:
        with self._changed:
            while not self._closed:
                now = self.clock()
                while self._waiting and self._waiting[0][0] <= now:
                    job = heapq.heappop(self._waiting)[2]
                    job.handed_over = True
                    self._lanes[job.lane].submit(self._run, job)
                self._changed.wait(self._waiting[0][0] - now if self._waiting else None)

    def _run(self, job: Job) -> None:
        self._lane_began_at[job.lane] = job.began_at = began = self.clock()
        pause = None
        try:
            pause = job.run()
        finally:
            now = self.clock()
            with self._changed:
                job.handed_over, job.began_at, job.due_at = False, None, None
                if pause is not None:
                    self._put(job, now + pause)
                elif job.every is not None:
                    self._put(job, max(now, began + job.every))
