"""The plan that a cycle chooses for its snapshot, before anything is measured or trained."""

import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from daemon.cycle.training import TrainedOnUnknown, choose_plan, find_left_out
from extractors.dataset.snapshot import OutcomeCounts, Snapshot, read_snapshot
from extractors.examples.types import Examples
from tests.support.runs import NOWHERE, Runs, make_case
from tests.support.snapshots import make_example, make_snapshot, make_vote
from trainers.planning.apply_rules import BaseModelInfo
from trainers.planning.plan import Plan

BASE = BaseModelInfo(name="tiny", digest="base1", bytes=10**8)
SHAPE = {"r": 16, "lora_alpha": 32}


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Runs]:
    made = Runs(tmp_path, NOWHERE, thresholds={"sft_examples": 20})
    yield made
    made.store.close()


def make_examples(numbers: Iterable[int]) -> Examples:
    return Examples(sft=tuple(make_example(number, make_case(number)) for number in numbers))


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


def go_live(runs: Runs, numbers: Iterable[int], start: str | None = None) -> str:
    """Make a version that was trained on so many examples the live one, and return its id."""
    snapshot = write_snapshot(runs, make_examples(numbers), Examples())
    cycle = runs.train(snapshot, start_version=start)
    runs.fail(cycle, "a test")
    version = runs.store.version(str(cycle.version_id))
    (runs.context.data_dir / version.path / "adapter_config.json").write_text(json.dumps(SHAPE), "utf-8")
    active = runs.store.find_active_version(runs.context.target.key)
    runs.store.activate(
        version.id,
        expected_active=active.id if active else None,
        drain_until=runs.now,
        now=runs.now,
        actor="ann",
        reason="a test",
    )
    return version.id


def test_the_race_leaves_out_what_the_live_version_and_those_before_it_were_trained_on(runs: Runs) -> None:
    first = go_live(runs, range(8))
    second = go_live(runs, range(100, 124), start=first)
    snapshot = write_snapshot(runs, make_examples(range(100, 130)), make_examples(range(50)))
    plan = choose(runs, snapshot)
    assert [(each.name, each.start_version) for each in plan.challengers] == [("sft from live", second)]
    trained = {each.prompt_key for each in make_examples(range(8)).sft}
    assert set(find_left_out(runs.context, plan, [second])) == trained
    assert find_left_out(runs.context, plan, []) == ()


def test_nothing_goes_on_from_a_version_of_which_nobody_knows_what_it_was_trained_on(runs: Runs) -> None:
    first = go_live(runs, range(8))
    second = go_live(runs, range(100, 124), start=first)
    snapshot = write_snapshot(runs, make_examples(range(100, 130)), make_examples(range(50)))
    plan = choose(runs, snapshot)
    shutil.rmtree(runs.context.snapshots / runs.store.version(first).snapshot_id)
    assert choose(runs, snapshot).challengers == ()
    with pytest.raises(TrainedOnUnknown, match=f"what {second} was trained on is unknown"):
        find_left_out(runs.context, plan, [second])


def test_nothing_goes_on_from_a_version_of_a_rank_above_the_limit(runs: Runs) -> None:
    go_live(runs, range(100, 124))
    snapshot = write_snapshot(runs, make_examples(range(100, 130)), make_examples(range(50)))
    assert [each.name for each in choose(runs, snapshot).challengers] == ["sft from live"]
    limited = runs.settings.training.model_copy(update={"max_lora_rank": 8})
    settings = runs.settings.model_copy(update={"training": limited})
    context = replace(runs.context, settings=settings)
    written = context.snapshots / snapshot.id
    found = choose_plan(context, BASE, snapshot, written, context.data_dir / "measure")
    needs = {rule.method: rule.needs for rule in found.considered}
    assert "no live version of this base, of a rank up to 8, to go on from" in needs["sft from live"]


def test_a_version_that_was_trained_on_most_of_the_validation_side_does_not_race_there(runs: Runs) -> None:
    live = go_live(runs, range(28))
    snapshot = write_snapshot(runs, make_examples(range(100, 130)), make_examples(range(60)))
    found = choose_plan(
        runs.context, BASE, snapshot, runs.context.snapshots / snapshot.id, runs.context.data_dir / "measure"
    )
    needs = {rule.method: rule.needs for rule in found.considered}
    assert f"32 sessions to validate on that {live} was not trained on (needs 40)" in needs["sft from live"]


def test_sessions_that_only_show_what_was_wrong_are_none_to_race_on(runs: Runs) -> None:
    train = make_examples(range(60))
    validation = Examples(
        sft=make_examples(range(60, 70)).sft,
        votes=tuple(make_vote(n, make_case(n), "dunno", desirable=False) for n in range(70, 105)),
    )
    assert choose(runs, write_snapshot(runs, train, validation)).no_race.startswith("10 sessions")
