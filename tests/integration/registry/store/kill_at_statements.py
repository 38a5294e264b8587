"""A change of the store, killed at each of its SQL statements in turn, the commit included.

    python -m tests.integration.registry.store.kill_at_statements BEFORE FOLDER CHANGE [ARGUMENT]

copies the store in BEFORE to FOLDER/0, FOLDER/1, …, makes the change in each copy, and is killed one
statement later each time, until a change is completed. It forks for each copy: importing the store
takes seconds, a change milliseconds.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from sqlalchemy import Engine, event

from registry.batches import ItemDecision, ItemState
from registry.store.store import Store

NOW = datetime(2026, 3, 2, tzinfo=UTC)


def activate(store: Store, version: str) -> None:
    store.activate(
        version, expected_active="acme.routing.v1", drain_until=NOW, now=NOW, actor="ann", reason=""
    )


def roll_back(store: Store, target: str) -> None:
    store.rollback(
        target,
        to=None,
        expected_active="acme.routing.v1",
        drain_until=NOW,
        now=NOW,
        actor="ann",
        reason="",
    )


def approve_three(store: Store, batch: str) -> None:
    decisions = [ItemDecision(number=n, revision=0, state=ItemState.APPROVED) for n in (1, 2, 3)]
    store.decide(batch, decisions, actor="ann", now=NOW)


CHANGES: Mapping[str, Callable[[Store, str], None]] = {
    each.__name__: each for each in (activate, roll_back, approve_three)
}


def kill_at_each_statement(
    before: Path, folder: Path, change: Callable[[Store, str], None], argument: str
) -> tuple[list[Path], Path]:
    """Return the stores in which `change` was killed, and the one in which it was completed."""
    arguments = [str(before), str(folder), change.__name__, argument]
    subprocess.run([sys.executable, "-m", __name__, *arguments], check=True, timeout=120)
    *killed, completed = sorted(folder.iterdir(), key=lambda path: int(path.name))
    return killed, completed


def main(before: Path, folder: Path, change: Callable[[Store, str], None], argument: str) -> None:
    for number in count():
        data = folder / str(number)
        shutil.copytree(before, data)
        if (child := os.fork()) == 0:
            make_change(data, change, argument, last_statement=number + 1)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        if os.WIFEXITED(status):
            sys.exit(os.WEXITSTATUS(status))
        assert os.WTERMSIG(status) == signal.SIGKILL


def make_change(
    data: Path, change: Callable[[Store, str], None], argument: str, *, last_statement: int
) -> None:
    """Make the change in the store of the folder `data`, and die at its `last_statement`, from 1."""
    with Store.open(data, NOW) as store:
        statements = count(1)

        def die_in_time(*_: object) -> None:
            if next(statements) == last_statement:
                os.kill(os.getpid(), signal.SIGKILL)

        event.listen(Engine, "after_cursor_execute", die_in_time)
        event.listen(Engine, "commit", die_in_time)
        change(store, argument)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), CHANGES[sys.argv[3]], sys.argv[4])
