"""Races whose process is killed, or has too little memory, for real."""

import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from daemon.runtime.child_process import MOST_STARTS
from evaluation.race.job import RaceJob, RaceResult
from evaluation.race.run import run
from evaluation.race_report import RacedContender
from extractors.values import file_digest
from tests.e2e.limited_memory import work_limited
from tests.e2e.test_race import build_contender, build_job, change, race_here
from tests.e2e.test_training import finish, make_case, make_examples, make_plan, read_progress
from tests.support.snapshots import make_conversation, make_item, make_snapshot
from trainers.jobs.legs import LegResult
from trainers.planning.plan import Contender, Plan
from trainers.recovery.guards import describe_progress

pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated:FutureWarning")
CHILDREN = multiprocessing.get_context("forkserver")
"""Children of a process that has loaded the libraries, which takes most of a short race's time."""
CHILDREN.set_forkserver_preload(["tests.e2e.limited_memory"])
Line = dict[str, Any]
Moment = Callable[[Line], bool]
"""True for the progress line at which to kill."""


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Short questions and answers, and conversations with an answer of about 900 tokens.

    A training on one of these takes 700 MB, however small its batches are.
    """
    question, label = make_case(0)
    long = make_conversation(0, [(question, " ".join([label] * 900))])
    return make_snapshot(
        tmp_path_factory.mktemp("snapshots"),
        make_examples(range(56)).model_copy(update={"trajectories": (long,) * 8}),
        make_examples(range(56, 72)),
        [make_item(number, make_case(number)) for number in range(96, 104)],
    )


def build_unhurried_job(snapshot: Path, challengers: Sequence[Contender], default: Plan) -> RaceJob:
    """Build the job of a race with so much time that no leg's end depends on this machine's speed."""
    job = build_job(snapshot, challengers, default)
    return job.model_copy(update={"plan": job.plan.model_copy(update={"race_cost": 1000.0})})


def write_job(folder: Path, job: RaceJob) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "job.json").write_text(job.model_dump_json(), "utf-8")


def kill_at(moment: Moment, folder: Path) -> bool:
    """Do the race in `folder` in a child, and kill it at the moment; return False if it ends before that."""
    before = len(read_progress(folder))
    child = CHILDREN.Process(target=run, args=[folder])
    child.start()
    while not any(map(moment, read_progress(folder)[before:])):
        if not child.is_alive():
            assert child.exitcode == 0
            return False
        time.sleep(0.005)
    child.kill()
    child.join()
    return True


def trains(name: str, step: int) -> Moment:
    return lambda line: (line["stage"], line.get("contender"), line.get("step")) == ("training", name, step)


def answers(name: str) -> Moment:
    return lambda line: (line["stage"], line.get("contender")) == ("answering", name)


def read_finished(folder: Path) -> dict[Path, tuple[str, int]]:
    """Return the digest of each finished leg and score, and of a leg, how many steps were made to its end."""
    finished = {}
    for kept in folder.glob("contenders/*/*-*.json"):
        made = 0
        if kept.name.startswith("leg-"):
            end = LegResult.model_validate_json(kept.read_text()).step
            made = sum("loss" in line and line["step"] <= end for line in read_progress(kept.parent))
        finished[kept] = file_digest(kept), made
    return finished


def digest_adapters(folder: Path) -> dict[str, str]:
    """Return the digest of the weights of each contender that came to its end."""
    found = folder.glob("contenders/*/adapter/adapter_model.safetensors")
    return {path.parts[-3]: file_digest(path) for path in found}


def leave_out_time(contenders: Sequence[RacedContender]) -> list[RacedContender]:
    return [each.model_copy(update={"seconds": 0.0}) for each in contenders]


def read_result(folder: Path) -> RaceResult:
    return RaceResult.model_validate_json((folder / "result.json").read_text("utf-8"))


def test_a_race_that_is_killed_in_every_rung_repeats_no_leg_and_ends_as_one_that_was_not(
    tiny_model: Path, snapshot: Path, tmp_path: Path
) -> None:
    plan = make_plan(tiny_model, snapshot, learning_rate=1e-9, epochs=2)
    challengers = [
        build_contender(plan, name, change(plan.stages[0], learning_rate=rate))
        for name, rate in (("keen", 0.005), ("slow", 1e-9))
    ]
    job = build_unhurried_job(snapshot, challengers, plan)
    undisturbed = race_here(job, tmp_path / "undisturbed")
    folder = tmp_path / "killed"
    write_job(folder, job)
    finished: dict[Path, tuple[str, int]] = {}
    for moment, under_way in (
        (trains("sft", 5), "sft/leg-1.json"),
        (trains("slow", 5), "slow/leg-1.json"),
        (trains("keen", 9), "keen/leg-2.json"),
        (answers("keen"), "keen/scores-last.json"),
    ):
        assert kill_at(moment, folder)
        assert not (folder / "contenders" / under_way).exists()
        before, finished = finished, read_finished(folder)
        assert before.items() <= finished.items()
    result = RaceResult.model_validate(finish("race", folder, job))
    assert finished.items() <= read_finished(folder).items()
    assert result.report.winner == undisturbed.report.winner == "keen"
    assert leave_out_time(result.report.contenders) == leave_out_time(undisturbed.report.contenders)
    assert digest_adapters(folder) == digest_adapters(tmp_path / "undisturbed")
    assert not list(folder.glob("contenders/*/checkpoints"))
    assert race_here(job, folder) == result


def test_a_contender_for_which_no_memory_is_enough_leaves_and_the_others_are_trained_as_without_it(
    tiny_model: Path, snapshot: Path, tmp_path: Path
) -> None:
    plan = make_plan(tiny_model, snapshot, epochs=1)
    conversations = plan.stages[0].model_copy(update={"data": "trajectories"})
    greedy = build_contender(plan, "greedy", change(conversations, max_length=2048, batch_size=2))
    modest = build_contender(plan, "modest", change(plan.stages[0], seed=1))
    folder = tmp_path / "race"
    write_job(folder, build_unhurried_job(snapshot, [greedy, modest], plan))
    child = CHILDREN.Process(target=work_limited, args=["race", folder, 500])
    child.start()
    child.join()
    assert child.exitcode == 0
    report = read_result(folder).report
    reason = report.find("greedy").left
    assert reason.startswith("OutOfMemory: out of memory (")
    assert "can't allocate memory" in reason
    assert "with 1 × 2 examples a step, activation checkpointing, and nothing is left to try" in reason
    assert report.winner == "sft"
    assert "not better than sft by enough" in report.find("modest").left
    race_here(build_unhurried_job(snapshot, [modest], plan), tmp_path / "without")
    assert digest_adapters(folder) == digest_adapters(tmp_path / "without")


@pytest.mark.parametrize(
    ("moment", "deaths", "reason"),
    [
        (trains("greedy", 1), 4, "killed 2 times without a new checkpoint, as if for memory, with 1 × 1 "),
        (answers("greedy"), 2, "killed 2 times while it answered, as if for memory"),
    ],
    ids=["training", "answering"],
)
def test_a_contender_that_kills_the_process_again_and_again_leaves(
    tiny_model: Path, snapshot: Path, tmp_path: Path, moment: Moment, deaths: int, reason: str
) -> None:
    """As the kernel does it where memory runs out: without a word."""
    plan = make_plan(tiny_model, snapshot, epochs=1)
    greedy = build_contender(plan, "greedy", change(plan.stages[0], batch_size=1, seed=1))
    write_job(tmp_path, build_unhurried_job(snapshot, [greedy], plan))
    starts = Counter[str]()
    while kill_at(moment, tmp_path):
        starts[describe_progress(tmp_path)] += 1
        assert starts.total() <= deaths
    assert starts.total() == deaths
    # The daemon gives a job up that was started so often where it was.
    assert max(starts.values()) < MOST_STARTS
    report = read_result(tmp_path).report
    assert report.winner == "sft"
    assert reason in report.find("greedy").left
