"""Examples that base models wrote, on disk: the words of a plan about them, and the time that they stay."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.cycle.replay import ReplayForecast, forecast_replay, prune_replay
from daemon.service import Service
from registry.cycles import CycleState
from tests.support.phoenix import wait_until
from tests.support.replay import write_parts
from tests.support.runs import DPO, NOWHERE, SFT, Runs, make_held_out, make_report
from trainers.planning.plan import Contender, Plan, TrainingStage


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Runs]:
    made = Runs(tmp_path, NOWHERE, task="generation")
    yield made
    made.store.close()


def list_written(runs: Runs) -> set[str]:
    return {folder.name for folder in (runs.context.data_dir / "replay").iterdir()}


def write_replay(runs: Runs, *digests: str) -> None:
    for digest in digests:
        write_parts(runs.context.data_dir / "replay" / digest)


def make_plan(examples: int, *stages: TrainingStage, challengers: tuple[Contender, ...] = ()) -> Plan:
    """Return a plan of a snapshot with so many examples of each kind."""
    return Plan(
        stages=stages,
        challengers=challengers,
        reason="",
        counts={"sft": examples, "pairs": examples},
        snapshot_id="s",
        base_model="tiny",
        base_digest="base1",
    )


def test_a_forecast_says_how_much_is_mixed_in_and_whether_it_is_written(runs: Runs) -> None:
    little, much = make_plan(200, SFT), make_plan(1000, SFT)
    assert forecast_replay(runs.context, little) == ReplayForecast(share=0.1, examples=20)
    write_replay(runs, "base1")
    assert forecast_replay(runs.context, little) == ReplayForecast(share=0.1, examples=20, is_written=True)
    assert forecast_replay(runs.context, much) == ReplayForecast(share=0.1, examples=100)


def test_a_forecast_counts_what_a_challenger_mixes_in(runs: Runs) -> None:
    contender = Contender(name="sft from live", stages=(SFT,), reason="")
    plan = make_plan(200, DPO, challengers=(contender,))
    assert forecast_replay(runs.context, plan).examples == 20


def test_a_forecast_of_a_base_that_runs_dry_promises_no_more_than_there_is(runs: Runs) -> None:
    write_parts(runs.context.data_dir / "replay" / "base1", size=16)
    found = forecast_replay(runs.context, make_plan(1000, SFT))
    assert found == ReplayForecast(share=0.1, examples=16, is_written=True)


def test_a_forecast_says_why_nothing_is_mixed_in(runs: Runs, tmp_path: Path) -> None:
    for plan in (make_plan(4, SFT), make_plan(200, DPO)):
        assert "only SFT learns from it" in forecast_replay(runs.context, plan).why_not
    write_parts(runs.context.data_dir / "replay" / "base1", size=8)
    found = forecast_replay(runs.context, make_plan(200, SFT))
    assert (found.examples, found.why_not[:21]) == (0, "of 8 questions that t")
    for settings, why in (
        ({"task": "generation", "replay_share": 0}, "`replay_share` is 0"),
        ({"task": "classification"}, "the task is classification"),
    ):
        other = Runs(tmp_path / "other", NOWHERE, **settings)
        assert forecast_replay(other.context, make_plan(200, SFT)).why_not == why
        other.store.close()


def test_replay_stays_while_a_target_or_a_version_with_files_uses_its_base(runs: Runs) -> None:
    prune_replay(runs.settings, runs.store)
    write_replay(runs, "base1", "base2", "forgotten")
    snapshot = runs.snapshot(make_held_out(12))
    cycle = runs.train(snapshot, base="base1")
    runs.end(cycle, make_report(snapshot, str(cycle.version_id), right=9))
    runs.store.use_base("acme/routing", "base2", runs.now)
    prune_replay(runs.settings, runs.store)
    assert list_written(runs) == {"base1", "base2"}
    runs.store.mark_files_removed(str(cycle.version_id), runs.now)
    prune_replay(runs.settings, runs.store)
    assert list_written(runs) == {"base2"}


def test_the_replay_of_an_unfinished_cycle_stays_and_none_is_removed_before_it_has_a_plan(runs: Runs) -> None:
    write_replay(runs, "base1", "forgotten")
    cycle = runs.store.start_cycle("acme/routing", "operator", runs.now)
    prune_replay(runs.settings, runs.store)
    assert list_written(runs) == {"base1", "forgotten"}
    runs.context.move(cycle, CycleState.SKIPPED, reason="too few")
    runs.train(runs.snapshot(make_held_out(12)), base="base1")
    prune_replay(runs.settings, runs.store)
    assert list_written(runs) == {"base1"}


def test_replay_of_a_target_that_wants_none_is_removed(tmp_path: Path) -> None:
    runs = Runs(tmp_path, NOWHERE, task="generation", replay_share=0)
    write_replay(runs, "base1")
    runs.store.use_base("acme/routing", "base1", runs.now)
    prune_replay(runs.settings, runs.store)
    assert list_written(runs) == set()
    runs.store.close()


def test_a_daemon_removes_what_nothing_uses(runs: Runs) -> None:
    write_replay(runs, "forgotten")
    service = Service(runs.settings, runs.store)
    service.start()
    try:
        wait_until(lambda: not list_written(runs), 60, "the replay to be removed")
    finally:
        service.close()
