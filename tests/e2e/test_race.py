"""Races of really trained adapters: cut short, with contenders that fail or do harm."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from evaluation.race.job import RaceJob, RaceResult
from evaluation.race.language_track import open_language_track
from evaluation.race.run import race
from evaluation.race.track import AnswersTooSlow
from extractors.dataset.snapshot import read_snapshot
from tests.e2e.test_training import LABELS, make_case, make_examples, make_plan, read_progress
from tests.support.snapshots import make_item, make_snapshot
from trainers.job_folder import Progress
from trainers.planning.limits import Limits
from trainers.planning.method_rules import Thresholds
from trainers.planning.plan import Contender, Plan, TrainingStage

pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated:FutureWarning")


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty items to validate on, each of a session of its own."""
    return make_snapshot(
        tmp_path_factory.mktemp("snapshots"),
        make_examples(range(56)),
        make_examples(range(56, 96)),
        [make_item(number, make_case(number)) for number in range(96, 120)],
    )


def build_contender(plan: Plan, name: str, *stages: TrainingStage) -> Contender:
    return Contender(name=name, stages=stages or plan.stages, reason="a test")


def change(stage: TrainingStage, **hyperparameters: Any) -> TrainingStage:
    changed = stage.hyperparameters.model_copy(update=hyperparameters)
    return stage.model_copy(update={"hyperparameters": changed})


def build_job(snapshot: Path, challengers: Sequence[Contender], default: Plan, **changes: Any) -> RaceJob:
    plan = default.model_copy(
        update={"name": "sft", "challengers": tuple(challengers), "race_cost": 9.0, "counts": {"pairs": 56}}
    )
    return RaceJob(
        plan=plan,
        snapshot=str(snapshot),
        task="classification",
        output_space=LABELS,
        metric="accuracy",
        thresholds=Thresholds(pairs=1),
        max_new_tokens=8,
        **changes,
    )


def race_here(job: RaceJob, folder: Path) -> RaceResult:
    folder.mkdir(exist_ok=True)
    return race(job, folder, Progress(folder / "progress.jsonl", lambda: datetime.now(UTC)))


def test_the_default_stays_where_a_challenger_learns_nothing(
    tiny_model: Path, snapshot: Path, tmp_path: Path
) -> None:
    plan = make_plan(tiny_model, snapshot)
    lazy = build_contender(plan, "lazy", change(plan.stages[0], learning_rate=1e-9))
    found = race_here(build_job(snapshot, [lazy], plan), tmp_path)
    assert found.report.winner == "sft"
    default, challenger = found.report.contenders
    assert default.left == ""
    assert "not better than sft by enough" in challenger.left
    assert [score.rung for score in challenger.scores] == ["first", "last"]
    assert (tmp_path / found.adapter / "adapter_model.safetensors").exists()
    # One conversation ends with an item that is in no other example.
    assert found.report.items == 41
    told = [(line["contender"], line["stage"]) for line in read_progress(tmp_path)[-2:]]
    assert told == [("lazy", "left"), ("sft", "won")]


def test_a_challenger_displaces_a_default_that_learns_nothing(
    tiny_model: Path, snapshot: Path, tmp_path: Path
) -> None:
    plan = make_plan(tiny_model, snapshot, learning_rate=1e-9)
    keen = build_contender(plan, "keen", change(plan.stages[0], learning_rate=0.005))
    found = race_here(build_job(snapshot, [keen], plan), tmp_path)
    assert found.report.winner == "keen"
    assert found.report.find("sft").left == "beaten by keen"
    assert found.plan.stages == keen.stages
    assert found.plan.challengers == ()


def test_prompts_that_are_left_out_are_answered_by_no_contender(
    tiny_model: Path, snapshot: Path, tmp_path: Path
) -> None:
    plan = make_plan(tiny_model, snapshot, epochs=1)
    known = tuple(example.prompt_key for example in make_examples(range(56, 66)).sft)
    rival = build_contender(plan, "rival", change(plan.stages[0], seed=1))
    found = race_here(build_job(snapshot, [rival], plan, left_out=known), tmp_path)
    assert found.report.items == found.report.sessions == 41 - len(known)


def build_on_top(plan: Plan, **hyperparameters: Any) -> Contender:
    dpo = TrainingStage(
        method="dpo", data="pairs", hyperparameters=change(plan.stages[0], **hyperparameters).hyperparameters
    )
    return build_contender(plan, "sft+dpo", plan.stages[0], dpo)


def test_a_preference_stage_that_does_harm_is_left_out(tiny_model: Path, tmp_path: Path) -> None:
    """The pairs prefer the wrong labels, and DPO learns that."""
    pairs = [
        pair.model_copy(update={"chosen": pair.rejected, "rejected": pair.chosen})
        for pair in make_examples(range(56)).pairs
    ]
    harmful = make_snapshot(
        tmp_path / "snapshots",
        make_examples(range(56)).model_copy(update={"pairs": tuple(pairs)}),
        make_examples(range(56, 96)),
        [make_item(number, make_case(number)) for number in range(96, 120)],
    )
    plan = make_plan(tiny_model, harmful)
    job = build_job(harmful, [build_on_top(plan, beta=0.1)], plan)
    # Every validation pair is settled by SFT, so the stage is tried only because that is not asked.
    found = race_here(
        job.model_copy(update={"thresholds": Thresholds.model_construct(pairs=0, valid_share=0.5)}), tmp_path
    )
    assert found.report.winner == "sft"
    assert found.report.find("sft+dpo").left
    assert found.plan.method == "sft"


def test_a_contender_that_fails_leaves_and_the_others_go_on(
    tiny_model: Path, snapshot: Path, tmp_path: Path
) -> None:
    plan = make_plan(tiny_model, snapshot)
    wild = build_contender(plan, "wild", change(plan.stages[0], learning_rate=1e6))
    deaf = build_contender(plan, "deaf", change(plan.stages[0], max_length=16))
    found = race_here(build_job(snapshot, [wild, deaf], plan), tmp_path)
    assert found.report.winner == "sft"
    assert "NothingToLearn" in found.report.find("deaf").left
    assert found.report.find("wild").left
    assert found.report.find("deaf").fresh_effect is None
    assert found.report.seconds == sum(each.seconds for each in found.report.contenders)


def test_answers_that_take_too_long_are_cut_off(tiny_model: Path, snapshot: Path, tmp_path: Path) -> None:
    plan = make_plan(tiny_model, snapshot)
    found = race_here(build_job(snapshot, [], plan), tmp_path)
    track = open_language_track(build_job(snapshot, [], plan), tmp_path / "track", read_snapshot(snapshot))
    track, weights = replace(track, batch_size=8), tmp_path / found.adapter
    with pytest.raises(AnswersTooSlow, match="of 41 answers took more than 0 s"):
        track.score(weights, 0.0)
    # The base is given back whole: the next contender answers as ever.
    assert track.score(weights, 1e9).mean == found.report.find("sft").scores[-1].mean


def test_a_race_without_time_for_challengers_trains_the_default_alone(
    tiny_model: Path, snapshot: Path, tmp_path: Path
) -> None:
    plan = make_plan(tiny_model, snapshot)
    rival = build_contender(plan, "rival", change(plan.stages[0], seed=1))
    job = build_job(snapshot, [rival], plan, limits=Limits(max_minutes=0.01))
    found = race_here(job, tmp_path)
    assert found.report.winner == "sft"
    assert "no time left" in found.report.find("rival").left
    assert not found.report.find("rival").entered
    assert any("the time is up" in each for each in found.stages[0].metrics.recoveries)
