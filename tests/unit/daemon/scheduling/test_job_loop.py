"""The loop of jobs, with real threads; events, not seconds, say what happened."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from daemon.scheduling.job_loop import LONGEST_RUN_SECONDS, Job, JobLoop

PATIENCE = 30


class Clock:
    """A monotonic clock that a test moves on."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@contextmanager
def running(loop: JobLoop) -> Iterator[JobLoop]:
    loop.start()
    try:
        yield loop
    finally:
        loop.close()


def count_up_to(times: int) -> tuple[threading.Event, list[int], Job]:
    """Return an event that is set when the job ran so many times, its runs, and the job."""
    done, runs = threading.Event(), list[int]()

    def run() -> None:
        runs.append(len(runs))
        if len(runs) == times:
            done.set()

    return done, runs, Job("count", "fast", run, every=0.01)


def test_a_job_runs_again_and_again() -> None:
    done, _, job = count_up_to(3)
    loop = JobLoop({"fast": 1})
    loop.add(job)
    with running(loop):
        assert done.wait(PATIENCE)


def test_a_job_that_hangs_holds_up_its_lane_alone() -> None:
    let_go, done, _, job = threading.Event(), *count_up_to(3)
    loop = JobLoop({"fast": 1, "slow": 1})
    loop.add(Job("hang", "slow", lambda: let_go.wait(PATIENCE) and None, every=0.01))
    loop.add(job)
    with running(loop):
        assert done.wait(PATIENCE)
        let_go.set()


def test_a_job_is_not_run_beside_itself() -> None:
    at_once, most, done = list[int](), list[int](), threading.Event()

    def run() -> None:
        at_once.append(1)
        most.append(len(at_once))
        if len(most) == 20:
            done.set()
        at_once.pop()

    loop = JobLoop({"fast": 4})
    job = loop.add(Job("once", "fast", run))
    with running(loop):
        while not done.wait(0.001):
            for _ in range(5):
                loop.wake(job)
    assert set(most) == {1}


def test_a_job_that_has_more_to_do_lets_the_others_take_their_turn() -> None:
    order, done = list[str](), threading.Event()

    def long() -> float | None:
        order.append("long")
        return 0.0 if order.count("long") < 3 else None

    def short() -> None:
        order.append("short")
        done.set()

    loop = JobLoop({"one": 1})
    loop.add(Job("long", "one", long, every=3600))
    loop.add(Job("short", "one", short, every=3600))
    with running(loop):
        assert done.wait(PATIENCE)
    assert order.index("short") <= 1


def test_a_job_that_waits_its_turn_in_a_lane_that_moves_on_is_not_late() -> None:
    job = Job("queued", "one", lambda: None, every=30)
    job.due_at = 1000.0
    assert job.find_delay(now=1500, lane_began_at=1490) == 0
    assert job.find_delay(now=1500, lane_began_at=1430) == 500
    assert job.find_delay(now=1000 + LONGEST_RUN_SECONDS + 1, lane_began_at=4600) == LONGEST_RUN_SECONDS + 1


def test_a_job_that_cannot_begin_is_late_and_so_is_everything_if_the_loop_stands_still() -> None:
    clock, let_go, began = Clock(), threading.Event(), threading.Event()

    def hang() -> None:
        began.set()
        let_go.wait(PATIENCE)

    loop = JobLoop({"one": 1, "two": 1}, clock)
    hanging = loop.add(Job("hang", "one", hang, every=30, target="acme/routing"))
    starved = loop.add(Job("starved", "one", lambda: None, every=30))
    idle = loop.add(Job("idle", "two", lambda: None))
    assert loop.find_late() == []
    clock.seconds += 61
    assert [job for job, _ in loop.find_late()] == [hanging, starved]
    clock.seconds -= 61
    with running(loop):
        assert began.wait(PATIENCE)
        clock.seconds += 61
        assert loop.find_late() == [(starved, 61.0)]
        clock.seconds += LONGEST_RUN_SECONDS
        assert {job for job, _ in loop.find_late()} == {hanging, starved}
        let_go.set()
    assert idle.due_at is None
