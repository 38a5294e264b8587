"""The jobs that a cycle's trainings get, as their children find them."""

from pathlib import Path

import pytest

from daemon.cycle.training import train_candidate
from daemon.runtime.child_process import JobFailed
from daemon.runtime.context import TargetContext
from evaluation.race.job import RaceJob
from tests.support.runs import SFT, Runs, make_held_out
from trainers.planning.plan import Contender, Plan


@pytest.mark.parametrize(("quantization", "allowed"), [("auto", True), ("never", False)])
def test_a_race_may_hold_its_base_in_4_bits_where_a_training_alone_may(
    runs: Runs, tmp_path: Path, quantization: str, allowed: bool
) -> None:
    snapshot = runs.snapshot(make_held_out(4))
    training = runs.settings.training.model_copy(update={"quantization": quantization})
    settings = runs.settings.model_copy(update={"training": training})
    context = TargetContext(settings, runs.context.target, runs.store, runs.context.clock)
    cycle = runs.train(snapshot)
    plan = Plan(
        name="sft",
        stages=(SFT,),
        reason="a test",
        challengers=(Contender(name="rival", stages=(SFT,), reason="a test"),),
        race_cost=2.0,
        snapshot_id=snapshot.id,
        base_model=str(tmp_path / "no model"),
        base_digest="",
    )
    with pytest.raises(JobFailed, match="neither a folder here nor a model on the hub"):
        train_candidate(context, cycle, plan)
    job = RaceJob.model_validate_json((context.run_folder(cycle) / "race/job.json").read_text("utf-8"))
    assert job.may_quantize == allowed
