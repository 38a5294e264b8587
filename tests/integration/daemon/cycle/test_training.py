"""A cycle's training, where its race has ended."""

from daemon.cycle.training import train_candidate
from daemon.views.run_files import RACE
from evaluation.race.job import RaceResult
from tests.support.runs import DPO, ON_TOP, SFT, Runs, make_held_out, make_race
from trainers.job_folder import RESULT
from trainers.jobs.job import TrainingMetrics, TrainingResult
from trainers.planning.plan import Contender, Plan


def test_the_plan_names_the_winner_of_the_race(runs: Runs) -> None:
    context = runs.context
    snapshot = runs.snapshot(make_held_out(12))
    plan = Plan(
        name="sft",
        stages=(SFT,),
        reason="30 answers to imitate",
        challengers=(Contender(name=ON_TOP, stages=(SFT, DPO), reason="10 pairs"),),
        race_cost=1.85,
        snapshot_id=snapshot.id,
        base_model="tiny",
        base_digest="base1",
    )
    cycle = runs.store.start_cycle(context.target.key, "new examples", runs.now)
    adapter = context.run_folder(cycle) / RACE / "adapter"
    adapter.mkdir(parents=True)
    runs.write_adapter(adapter)
    stages = tuple(
        TrainingResult(
            adapter="adapter",
            files={},
            rank=8,
            metrics=TrainingMetrics(
                method=each.method,
                examples=30,
                tokens=900,
                steps=12,
                train_loss=0.5,
                best_step=12,
                device="cpu",
                dtype="float32",
                seconds=60.0,
                tokens_per_second=15.0,
                peak_memory_bytes=2**31,
            ),
        )
        for each in (SFT, DPO)
    )
    won = RaceResult(
        report=make_race(), plan=plan.choose(plan.challengers[0]), adapter="adapter", stages=stages
    )
    (adapter.parent / RESULT).write_text(won.model_dump_json(), "utf-8")

    trained = train_candidate(context, cycle, plan)
    assert (trained.plan.winner, trained.plan.stages) == (ON_TOP, (SFT, DPO))
