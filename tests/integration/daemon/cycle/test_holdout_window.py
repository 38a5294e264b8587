"""One window of held-out traffic judges so many candidates; a version on probation may lose its data."""

import shutil
from datetime import timedelta
from pathlib import Path

from daemon.cycle.steps import advance
from daemon.runtime.context import TargetContext
from daemon.scheduling.second_looks import SecondLooks
from daemon.settings.load import Settings
from extractors.dataset.holdout_split import Window
from extractors.dataset.snapshot import read_snapshot, write_snapshot
from extractors.examples.types import Examples
from registry.cycles import Cycle, CycleState
from registry.store.store import Store
from registry.versions import Candidate, VersionState
from tests.support.snapshots import BEGAN, make_example, make_item, make_snapshot
from trainers.models.base_model import compute_base_digest
from trainers.planning.hyperparameters import Hyperparameters
from trainers.planning.plan import Plan, TrainingStage

MOST = 2


def build_context(tmp_path: Path, model: Path) -> TargetContext:
    target = {
        "tenant": "acme",
        "agent": "routing",
        "project": "routing",
        "task": "classification",
        "base_model": str(model),
        "gate": {"candidates_per_window": MOST},
    }
    settings = Settings.model_validate({"data_dir": tmp_path / "data", "targets": [target]})
    return TargetContext(settings, settings.targets[0], Store.open(settings.data_dir, BEGAN), lambda: BEGAN)


def write_numbered_snapshot(context: TargetContext, number: int, window: Window) -> str:
    """Write a snapshot with training examples of its own, judged by `window`, and return its id."""
    examples = Examples(sft=(make_example(number, (f"question {number}", "billing")),))
    held_out = [make_item(99, ("held out", "billing"))]
    made = read_snapshot(make_snapshot(context.data_dir, examples, holdout=held_out))
    manifest = made.manifest.model_copy(update={"window": window, "snapshot_id": f"snapshot{number}"})
    write_snapshot(made.model_copy(update={"manifest": manifest}), context.snapshots)
    return manifest.snapshot_id


def start_selecting(context: TargetContext, number: int, window: Window) -> Cycle:
    cycle = context.store.start_cycle("acme/routing", "new examples", BEGAN + timedelta(hours=number))
    return context.move(
        cycle, CycleState.SELECTING, snapshot_id=write_numbered_snapshot(context, number, window)
    )


def add_judged_cycle(context: TargetContext, number: int, window: Window) -> None:
    """Add a cycle that trained something and reached a verdict."""
    cycle = start_selecting(context, number, window)
    plan = Plan(
        stages=(TrainingStage(method="sft", data="sft", hyperparameters=Hyperparameters()),),
        reason="a test",
        snapshot_id=str(cycle.snapshot_id),
        base_model=context.target.base_model,
        base_digest=compute_base_digest(context.target.base_model),
    )
    for state, changes in (
        (CycleState.TRAINING, {"plan": plan}),
        (CycleState.EVALUATING, {}),
        (CycleState.DONE, {"verdict": "REJECT"}),
    ):
        cycle = context.move(cycle, state, **changes)


def test_a_window_that_has_judged_enough_waits_for_newer_traffic(tmp_path: Path, tiny_model: Path) -> None:
    context = build_context(tmp_path, tiny_model)
    window = Window(start=BEGAN, end=BEGAN + timedelta(hours=1))
    newer = Window(start=BEGAN + timedelta(days=1), end=BEGAN + timedelta(days=2))
    add_judged_cycle(context, 1, window)
    once = advance(context, start_selecting(context, 2, window))
    assert "candidates" not in once.reason, "one candidate is fewer than two"
    add_judged_cycle(context, 3, window)
    skipped = advance(context, start_selecting(context, 4, window))
    assert skipped.state is CycleState.SKIPPED
    assert "has judged 2 candidates" in skipped.reason
    assert "gate.candidates_per_window" in skipped.reason
    moved = advance(context, start_selecting(context, 5, newer))
    assert "candidates" not in moved.reason
    context.store.close()


def test_a_version_on_probation_whose_snapshot_is_gone_is_given_up_and_stops_nothing(
    tmp_path: Path, tiny_model: Path
) -> None:
    context = build_context(tmp_path, tiny_model)
    window = Window(start=BEGAN, end=BEGAN + timedelta(hours=1))
    cycle = start_selecting(context, 1, window)
    version = context.store.add_candidate(
        cycle.id,
        Candidate(
            path="adapters/one",
            files={},
            base_model=context.target.base_model,
            base_digest="digest",
            rank=8,
            snapshot_id=str(cycle.snapshot_id),
            plan_id="plan",
            parent_id=None,
            code_version="0.1.0",
        ),
        BEGAN,
    )
    context.store.judge(version.id, VersionState.PROBATION, now=BEGAN, actor="learnd", reason="promising")
    looks = SecondLooks()
    assert looks.find_due(context) is None
    assert context.store.version(version.id).state is VersionState.PROBATION
    shutil.rmtree(context.snapshots / version.snapshot_id)
    assert looks.find_due(context) is None
    assert context.store.version(version.id).state is VersionState.REJECTED
    context.store.close()
