"""The plan that a cycle chooses for its snapshot, before anything is measured or trained."""

from pathlib import Path

from daemon.cycle.training import choose_plan
from extractors.dataset.snapshot import OutcomeCounts, Snapshot, read_snapshot
from extractors.examples.types import Examples
from tests.support.runs import NOWHERE, Runs, make_case
from tests.support.snapshots import make_example, make_snapshot, make_vote
from trainers.planning.apply_rules import BaseModelInfo
from trainers.planning.plan import Plan

BASE = BaseModelInfo(name="tiny", digest="base1", bytes=10**8)


def write_snapshot(runs: Runs, train: Examples, validation: Examples) -> Snapshot:
    """Write the examples as a snapshot of the target that can be judged; each has a session of its own."""
    made = read_snapshot(make_snapshot(runs.context.snapshots, train, validation))
    held_out = OutcomeCounts(approved=5, corrected=0, rejected=0)
    return made.model_copy(update={"manifest": made.manifest.model_copy(update={"held_out": held_out})})


def choose(runs: Runs, snapshot: Snapshot) -> Plan:
    written = runs.context.snapshots / snapshot.id
    found = choose_plan(runs.context, BASE, snapshot, written, runs.context.data_dir / "measure").plan
    assert isinstance(found, Plan)
    return found


def test_sessions_that_only_show_what_was_wrong_are_none_to_race_on(tmp_path: Path) -> None:
    runs = Runs(tmp_path, NOWHERE)
    train = Examples(sft=tuple(make_example(n, make_case(n)) for n in range(60)))
    validation = Examples(
        sft=tuple(make_example(n, make_case(n)) for n in range(60, 70)),
        votes=tuple(make_vote(n, make_case(n), "dunno", desirable=False) for n in range(70, 105)),
    )
    assert choose(runs, write_snapshot(runs, train, validation)).no_race.startswith("10 sessions")
    runs.store.close()
