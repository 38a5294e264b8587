"""A contender's record: the plan that trains it as far again, and the time of what failed."""

from pathlib import Path

from daemon.runtime.clock import utc_now
from evaluation.race.racer import LAST, Racer
from trainers.job_folder import Progress
from trainers.jobs.job import TrainingJob
from trainers.jobs.legs import LegResult
from trainers.planning.hyperparameters import Hyperparameters
from trainers.planning.plan import Plan, TrainingStage


def build_plan() -> Plan:
    stages = [
        TrainingStage(method=method, data=data, hyperparameters=Hyperparameters(epochs=4))
        for method, data in (("sft", "sft"), ("dpo", "pairs"))
    ]
    return Plan(
        name="sft+dpo",
        stages=tuple(stages),
        reason="a test",
        snapshot_id="s",
        base_model="m",
        base_digest="d",
    )


def build_racer(folder: Path, plan: Plan) -> Racer:
    return Racer(
        contender=plan.default,
        folder=folder,
        job=TrainingJob(plan=plan, stage=1, snapshot="s"),
        progress=Progress(folder / "progress.jsonl", utc_now),
    )


def build_leg(number: int, step: int, end: int) -> LegResult:
    return LegResult(number=number, step=step, end=end, planned=40, seconds=1.0, spent=2.0 * number)


def test_the_plan_of_a_winner_has_the_epochs_that_the_race_had_time_for(tmp_path: Path) -> None:
    plan = build_plan()
    racer = build_racer(tmp_path, plan)
    racer.legs = {"first": build_leg(1, 10, 20), LAST: build_leg(2, 30, 30)}
    assert [stage.hyperparameters.epochs for stage in racer.describe_training(plan).stages] == [4, 3]


def test_a_training_that_ended_early_by_itself_keeps_its_plan(tmp_path: Path) -> None:
    plan = build_plan()
    racer = build_racer(tmp_path, plan)
    racer.legs = {LAST: build_leg(1, 12, 40)}
    assert racer.describe_training(plan).stages == plan.stages


def test_what_came_to_nothing_took_its_time(tmp_path: Path) -> None:
    racer = build_racer(tmp_path, build_plan())
    racer.legs = {"first": build_leg(1, 10, 20)}
    racer.leave("OutOfMemory", lost_seconds=3.0)
    again = build_racer(tmp_path, build_plan())
    assert again.departure
    again.legs, again.lost_seconds = racer.legs, again.departure.lost_seconds
    assert (again.left, again.spent) == ("OutOfMemory", 5.0)
    assert '"message":"OutOfMemory"' in (tmp_path / "progress.jsonl").read_text()
