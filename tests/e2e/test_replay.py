"""What a base model writes itself: written in a child, mixed into SFT alone, and asked in evaluations."""

from pathlib import Path

import pytest

from daemon.cycle.replay import add_replay
from daemon.demo.model import prepare_smollm2
from evaluation.jobs.evaluate import evaluate
from evaluation.jobs.job import AdapterSide, EvaluationJob
from evaluation.report import Report
from evaluation.rules import Gate
from extractors.values import file_digest
from tests.e2e.test_race import build_contender, build_job, change, race_here
from tests.e2e.test_training import (
    DyingProgress,
    Killed,
    make_case,
    make_examples,
    make_plan,
    train_here,
)
from tests.support.replay import write_parts
from tests.support.runs import NOWHERE, Runs
from tests.support.snapshots import make_item, make_snapshot
from tests.support.tiny_model import CACHE
from trainers.job_folder import RESULT, write_atomically
from trainers.jobs.job import TrainingJob
from trainers.planning.plan import Plan, ReplayMix
from trainers.replay.examples import (
    HELD_OUT,
    PART_SIZE,
    ReplayGone,
    compute_digest,
    find_part,
    read_part,
)
from trainers.replay.job import ENOUGH_TRIED, WRITTEN, ReplayJob, write_replay

MIXED = 6
pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated:FutureWarning")


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_snapshot(
        tmp_path_factory.mktemp("snapshots"),
        make_examples(range(56)),
        make_examples(range(56, 96)),
        [make_item(number, make_case(number)) for number in range(96, 120)],
    )


def mix(plan: Plan, folder: Path) -> Plan:
    """Return the plan with a little of the replay in `folder` mixed into each SFT."""
    mixed = ReplayMix(examples=MIXED, digest=compute_digest(write_parts(folder)[:MIXED]))
    return plan.change_stages(
        lambda stage: stage.model_copy(update={"replay": mixed if stage.method == "sft" else None})
    )


def test_sft_learns_replay_beside_the_targets_examples_and_counts_it_apart(
    tiny_model: Path, snapshot: Path, tmp_path: Path
) -> None:
    plan = mix(make_plan(tiny_model, snapshot, epochs=1), tmp_path / "replay")
    job = TrainingJob(plan=plan, snapshot=str(snapshot), replay=str(tmp_path / "replay"))
    first, again = train_here(job, tmp_path / "first"), train_here(job, tmp_path / "again")
    assert (first.metrics.examples, first.metrics.replay) == (56, MIXED)
    assert first.metrics.steps == -(-(56 + MIXED) // 8)
    weights = "adapter_model.safetensors"
    assert first.files[weights] == again.files[weights]
    alone = TrainingJob(plan=make_plan(tiny_model, snapshot, epochs=1), snapshot=str(snapshot))
    without = train_here(alone, tmp_path / "without")
    assert (without.metrics.examples, without.metrics.replay) == (56, 0)
    assert without.files[weights] != first.files[weights]
    assert without.metrics.validated == first.metrics.validated


def test_other_replay_than_the_plans_trains_nothing(tiny_model: Path, snapshot: Path, tmp_path: Path) -> None:
    plan = mix(make_plan(tiny_model, snapshot), tmp_path / "replay")
    job = TrainingJob(plan=plan, snapshot=str(snapshot), replay=str(tmp_path / "other"))
    with pytest.raises(ReplayGone):
        train_here(job, tmp_path / "run")


def test_every_contender_of_a_race_that_is_trained_by_sft_mixes_replay_in(
    tiny_model: Path, snapshot: Path, tmp_path: Path
) -> None:
    plan = make_plan(tiny_model, snapshot)
    lazy = build_contender(plan, "lazy", change(plan.stages[0], learning_rate=1e-9))
    job = build_job(snapshot, [lazy], plan, replay=str(tmp_path / "replay"))
    job = job.model_copy(update={"plan": mix(job.plan, tmp_path / "replay")})
    found = race_here(job, tmp_path / "race")
    assert found.plan.stages[0].replay is not None
    assert [stage.metrics.replay for stage in found.stages] == [MIXED]


def write_here(job: ReplayJob, dies_at: int | None = None) -> Path:
    """Write a part in this process; return the file that holds the batches."""
    folder = find_part(Path(job.folder), job.part)
    folder.mkdir(parents=True, exist_ok=True)
    found = write_replay(job, folder, DyingProgress(folder, dies_at))
    write_atomically(folder / RESULT, found.model_dump_json())
    return folder / WRITTEN


def test_a_base_that_writes_rubbish_is_given_up_and_a_killed_child_loses_no_batch(
    tiny_model: Path, tmp_path: Path
) -> None:
    whole = ReplayJob(base_model=str(tiny_model), folder=str(tmp_path / "whole"), part=HELD_OUT)
    killed = whole.model_copy(update={"folder": str(tmp_path / "killed")})
    expected = write_here(whole).read_text("utf-8")
    with pytest.raises(Killed):
        write_here(killed, dies_at=0)
    assert (find_part(tmp_path / "killed", HELD_OUT) / WRITTEN).read_text("utf-8") == expected
    assert write_here(killed).read_text("utf-8") == expected
    assert f'"tried":{ENOUGH_TRIED}' in expected


def test_a_plan_of_a_base_that_writes_rubbish_says_why_nothing_is_mixed_in(
    tiny_model: Path, snapshot: Path, tmp_path: Path
) -> None:
    runs = Runs(tmp_path, NOWHERE, task="generation", base_model=str(tiny_model))
    plan = make_plan(tiny_model, snapshot).model_copy(update={"counts": {"sft": 56}})
    found = add_replay(runs.context, plan)
    assert "questions that the base model wrote 0 are usable" in found.no_replay
    assert found.stages == plan.stages


def test_a_plan_says_how_many_examples_are_mixed_into_sft_and_which(
    tiny_model: Path, snapshot: Path, tmp_path: Path
) -> None:
    runs = Runs(tmp_path, NOWHERE, task="generation", base_model=str(tiny_model))
    plan = make_plan(tiny_model, snapshot, ("sft", "sft"), ("dpo", "pairs"))
    plan = plan.model_copy(update={"counts": {"sft": 56, "pairs": 56}})
    written = write_parts(runs.context.data_dir / "replay" / plan.base_digest)
    found = add_replay(runs.context, plan)
    assert found.stages[0].replay == ReplayMix(examples=MIXED, digest=compute_digest(written[:MIXED]))
    assert found.stages[1].replay is None
    assert found.no_replay == ""
    assert found.id != plan.id


def test_a_target_without_a_share_or_of_another_task_has_nothing_written(
    tiny_model: Path, snapshot: Path, tmp_path: Path
) -> None:
    plan = make_plan(tiny_model, snapshot).model_copy(update={"counts": {"sft": 56}})
    off = Runs(tmp_path / "off", NOWHERE, task="generation", base_model=str(tiny_model), replay_share=0)
    routing = Runs(tmp_path / "routing", NOWHERE, task="classification", base_model=str(tiny_model))
    for runs in (off, routing):
        assert add_replay(runs.context, plan) == plan
        assert not (runs.context.data_dir / "replay").exists()


def test_a_report_says_how_far_the_candidate_moved_from_the_base_and_gates_only_by_a_margin(
    tiny_model: Path, snapshot: Path, tmp_path: Path
) -> None:
    write_parts(tmp_path / "replay", parts=1, size=12)
    trained = train_here(
        TrainingJob(plan=make_plan(tiny_model, snapshot), snapshot=str(snapshot)), tmp_path / "train"
    )
    job = EvaluationJob(
        snapshot=str(snapshot),
        base_model=str(tiny_model),
        task="generation",
        active=None,
        candidate=AdapterSide(name="candidate", path=str(tmp_path / "train" / trained.adapter)),
        gate=Gate(latency_margin=20),
        replay=str(tmp_path / "replay"),
        max_new_tokens=12,
    )
    report = evaluate_here(job, tmp_path / "free")
    assert report.general is not None
    assert (report.general.items, [side.name for side in report.general.sides]) == (12, ["candidate"])
    assert report.general.candidate.divergence > 0
    assert report.general.change == pytest.approx(report.general.candidate.agreement - 1)
    assert report.general.interval[0] <= report.general.change <= report.general.interval[1]
    assert "general ability" not in {guard.name for guard in report.guards}
    strict = job.model_copy(update={"gate": Gate(latency_margin=20, general_margin=0.0)})
    kept = file_digest(tmp_path / "free" / "general.json")
    broken = evaluate_here(strict, tmp_path / "free")
    assert broken.guards[-1].name == "general ability"
    assert (broken.condition, broken.guards[-1].state) == ("broken guard", "broken")
    assert file_digest(tmp_path / "free" / "general.json") == kept


def evaluate_here(job: EvaluationJob, folder: Path) -> Report:
    folder.mkdir(exist_ok=True)
    evaluate(job, folder, DyingProgress(folder))
    return Report.model_validate_json((folder / "report.json").read_text("utf-8"))


@pytest.mark.slow
def test_a_real_base_writes_questions_and_answers_them(tmp_path: Path) -> None:
    base = prepare_smollm2(CACHE / "smollm2")
    write_here(ReplayJob(base_model=str(base), folder=str(tmp_path), part=HELD_OUT))
    written = read_part(tmp_path, HELD_OUT)
    assert len(written.examples) == PART_SIZE
    assert len({each.question for each in written.examples}) == PART_SIZE
    assert written.tried < 3 * PART_SIZE, written.refused
