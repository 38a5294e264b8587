"""What is trained, how, and when nothing is."""

from pathlib import Path

import pytest

from extractors.snapshot import Snapshot, read_snapshot
from tests.snapshots import reviewed, snapshot_in
from trainers.plan import Hyperparameters, OverridesInvalid, Plan, Skip, select_plan


def snapshot_of(folder: Path, train: int) -> Snapshot:
    items = [reviewed(number, (f"question {number}", "billing")) for number in range(train + 3)]
    return read_snapshot(snapshot_in(folder, items[:train], holdout=items[train:]))


def select(
    snapshot: Snapshot, *, base_bytes: int = 10**8, max_lora_rank: int = 16, **overrides: object
) -> Plan | Skip:
    return select_plan(
        snapshot,
        threshold=50,
        base_model="base",
        base_digest="digest",
        base_bytes=base_bytes,
        max_lora_rank=max_lora_rank,
        overrides=overrides,
    )


def chosen(plan: Plan | Skip) -> Hyperparameters:
    assert isinstance(plan, Plan)
    return plan.hyperparameters


def test_too_few_examples_are_skipped_with_the_counts_there_are_and_those_it_takes(tmp_path: Path) -> None:
    skip = select(snapshot_of(tmp_path, 49))
    assert isinstance(skip, Skip)
    assert "49 training examples, SFT needs 50" in skip.reason


def test_little_data_gets_more_epochs_and_larger_models_a_lower_learning_rate(tmp_path: Path) -> None:
    few, many = snapshot_of(tmp_path, 60), snapshot_of(tmp_path, 400)
    assert chosen(select(few)).epochs > chosen(select(many)).epochs == 3
    rates = [chosen(select(many, base_bytes=size)).learning_rate for size in (10**8, 3 * 10**9, 16 * 10**9)]
    assert rates == sorted(set(rates), reverse=True)


def test_no_adapter_has_a_higher_rank_than_the_replicas_serve(tmp_path: Path) -> None:
    bounded = chosen(select(snapshot_of(tmp_path, 60), max_lora_rank=8, lora_rank=32, lora_alpha=64))
    assert (bounded.lora_rank, bounded.lora_alpha) == (8, 16)


def test_what_the_settings_say_overrides_the_choice(tmp_path: Path) -> None:
    assert chosen(select(snapshot_of(tmp_path, 60), epochs=1, learning_rate=1e-5)).learning_rate == 1e-5


@pytest.mark.parametrize("overrides", [{"learnign_rate": 1e-4}, {"epochs": 0}])
def test_an_override_that_cannot_be_names_itself(tmp_path: Path, overrides: dict[str, float]) -> None:
    with pytest.raises(OverridesInvalid, match=next(iter(overrides))):
        select(snapshot_of(tmp_path, 60), **overrides)


def test_the_same_choice_has_the_same_id(tmp_path: Path) -> None:
    one, other = select(snapshot_of(tmp_path, 60)), select(snapshot_of(tmp_path, 60))
    assert isinstance(one, Plan)
    assert isinstance(other, Plan)
    assert one.id == other.id
