"""Run a cycle, or go on with one, until it is in a state; begin its step, and die of SIGKILL in the middle.

    python -m tests.e2e.die_in CONFIG STATE MOMENT

MOMENT is the stage of the job's progress line at which to die (`training`, `answering`), `statement` for the
first SQL statement of the step, or `after commit` for the first statement after something was committed.
"""

import os
import signal
import sys
import threading
from pathlib import Path

from sqlalchemy import Engine, event

from daemon.cycle.steps import advance, begin_cycle, find_unfinished_cycle
from daemon.runtime.clock import utc_now
from daemon.runtime.context import TargetContext
from daemon.runtime.locks import daemon_lock
from daemon.settings.load import load_settings
from registry.store.store import Store
from trainers.job_folder import ProgressLine


def main(config: Path, state: str, moment: str) -> None:
    settings = load_settings(config)
    now_in_step = threading.Event()

    def die_at_line(line: ProgressLine) -> None:
        if now_in_step.is_set() and line.stage == moment:
            die()

    with daemon_lock(settings.data_dir), Store.open(settings.data_dir, utc_now()) as store:
        context = TargetContext(settings, settings.targets[0], store, utc_now, on_progress=die_at_line)
        cycle = find_unfinished_cycle(context) or begin_cycle(context, "operator")
        while cycle.state != state:
            assert not cycle.ended, f"the cycle ended {cycle.state} before {state}: {cycle.reason}"
            cycle = advance(context, cycle)
        now_in_step.set()
        if moment == "statement":
            event.listen(Engine, "after_cursor_execute", die)
        elif moment == "after commit":
            event.listen(Engine, "commit", lambda _: event.listen(Engine, "after_cursor_execute", die))
        cycle = advance(context, cycle)
        raise AssertionError(f"the step from {state} to {cycle.state} ended without {moment!r}")


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
