"""Training and evaluation as they run in production: child processes on a folder, killed and run again."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from daemon.demo.corpus import build_system_prompt, list_labels, load_corpus
from daemon.demo.model import prepare_smollm2
from evaluation.engine.probe_record import ProbeRecord
from evaluation.jobs.job import AdapterSide, EvaluationJob
from evaluation.report import Report
from evaluation.rules import Gate
from extractors.errors import LearndError
from extractors.examples.types import Examples
from extractors.values import Value, file_digest
from tests.support.snapshots import (
    RoutingCase,
    make_conversation,
    make_example,
    make_item,
    make_pair,
    make_snapshot,
    make_vote,
)
from tests.support.tiny_model import CACHE
from tests.support.validations import find_best_validation, find_first_validation
from trainers.job_folder import CHILD_ENV, Progress
from trainers.jobs.job import TrainingJob, TrainingResult
from trainers.jobs.train import run, train
from trainers.models.base_model import compute_base_digest
from trainers.planning.hyperparameters import Hyperparameters, Method
from trainers.planning.plan import ExampleKind, Plan, TrainingStage

ROOT = Path(__file__).resolve().parents[2]
LABELS = ("billing", "shipping")
TEMPLATES = ("invoice {} charges me twice, I want the refund", "parcel {} is late, where is the courier")
LEARNS = {"epochs": 4, "learning_rate": 0.005, "lora_rank": 8, "lora_alpha": 16}
"""With these the tiny model learns its two labels."""
METHODS: list[tuple[Method, ExampleKind]] = [
    ("sft", "sft"),
    ("sft", "trajectories"),
    ("dpo", "pairs"),
    ("kto", "votes"),
]
# TRL's own calls of transformers, which a training child prints into its log.
pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated:FutureWarning")


def make_case(number: int) -> RoutingCase:
    return TEMPLATES[number % 2].format(number), LABELS[number % 2]


def make_examples(numbers: Sequence[int]) -> Examples:
    """Make examples of every kind; of three votes, two are thumbs up."""
    return Examples(
        sft=tuple(make_example(number, make_case(number)) for number in numbers),
        pairs=tuple(make_pair(number, make_case(number), LABELS[1 - number % 2]) for number in numbers),
        votes=tuple(
            make_vote(number, make_case(number), LABELS[1 - number % 2], desirable=number % 3 != 0)
            for number in numbers
        ),
        trajectories=tuple(
            make_conversation(number, [make_case(number), make_case(number + 1)]) for number in numbers
        ),
    )


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    held_out = [make_item(number, make_case(number)) for number in range(64, 96)]
    unanswered = [make_item(number, make_case(number), outcome="rejected") for number in range(96, 100)]
    return make_snapshot(
        tmp_path_factory.mktemp("snapshots"),
        make_examples(range(56)),
        make_examples(range(56, 64)),
        held_out + unanswered,
    )


def make_plan(model: Path, snapshot: Path, *stages: tuple[Method, ExampleKind], **overrides: Any) -> Plan:
    hyperparameters = Hyperparameters.model_validate(LEARNS | overrides)
    return Plan(
        stages=tuple(
            TrainingStage(method=method, data=data, hyperparameters=hyperparameters)
            for method, data in stages or [("sft", "sft")]
        ),
        reason="a test",
        snapshot_id=snapshot.name,
        base_model=str(model),
        base_digest=compute_base_digest(str(model)),
    )


class Killed(BaseException):
    """Raised by a test in the middle of a training."""


class DyingProgress(Progress):
    """Kills the training when it reports the step `dies_at`."""

    def __init__(self, folder: Path, dies_at: int | None = None) -> None:
        super().__init__(folder / "progress.jsonl", lambda: datetime.now(UTC))
        self._dies_at = dies_at

    def write(self, stage: str, message: str = "", **values: Any) -> None:
        super().write(stage, message, **values)
        if self._dies_at is not None and values.get("step") == self._dies_at:
            raise Killed


def train_here(job: TrainingJob, folder: Path, dies_at: int | None = None) -> TrainingResult:
    folder.mkdir(exist_ok=True)
    return train(job, folder, DyingProgress(folder, dies_at))


def start(work: str, folder: Path, job: Value) -> "subprocess.Popen[bytes]":
    folder.mkdir(exist_ok=True)
    (folder / "job.json").write_text(job.model_dump_json(), "utf-8")
    with (folder / "log.txt").open("ab") as log:
        command = [sys.executable, "-m", "learnd", "work", work, str(folder)]
        return subprocess.Popen(command, cwd=ROOT, env=os.environ | CHILD_ENV, stdout=log, stderr=log)


def finish(work: str, folder: Path, job: Value) -> Any:
    """Do the job in a child; return its result."""
    status = start(work, folder, job).wait(1200)
    assert status == 0, (folder / "log.txt").read_text()[-3000:]
    return json.loads((folder / "result.json").read_text())


def read_progress(folder: Path) -> list[dict[str, Any]]:
    path = folder / "progress.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture(scope="module")
def finished_training(
    tiny_model: Path, snapshot: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, TrainingResult]:
    """The folder of a training that ended well, and its result."""
    folder = tmp_path_factory.mktemp("train")
    job = TrainingJob(plan=make_plan(tiny_model, snapshot), snapshot=str(snapshot))
    return folder, TrainingResult.model_validate(finish("train", folder, job))


def test_a_training_leaves_an_adapter_and_nothing_else(
    finished_training: tuple[Path, TrainingResult], tiny_model: Path
) -> None:
    folder, result = finished_training
    adapter = folder / result.adapter
    assert {path.name: file_digest(path) for path in adapter.iterdir()} == result.files
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(tiny_model)
    assert config["r"] == result.rank == 8  # what the replicas serve, not the usual 16
    adapted = {name.split(".")[-1] for name in config["target_modules"]}
    assert adapted == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    metrics = result.metrics
    assert metrics.prefix_shared
    assert (metrics.examples, metrics.validated) == (56, 8)
    assert metrics.epochs == pytest.approx(metrics.steps * 8 / 56)
    assert find_first_validation(metrics).step == 0
    assert find_best_validation(metrics).loss < find_first_validation(metrics).loss / 10
    curves = [json.loads(line) for line in (adapter / "training.jsonl").read_text().splitlines()]
    steps = [line for line in curves if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, metrics.steps + 1))
    for line in steps:
        assert line["learning_rate"] >= 0
        assert min(line["grad_norm"], line["tokens_per_second"], line["memory_bytes"]) > 0
    assert [line["step"] for line in curves if "validation_loss" in line] == [
        validation.step for validation in metrics.validation
    ]


def test_a_training_that_is_killed_after_its_last_step_ends_without_another(
    finished_training: tuple[Path, TrainingResult], tmp_path: Path
) -> None:
    folder, result = finished_training
    again = Path(shutil.copytree(folder, tmp_path / "again"))
    (again / "result.json").unlink()
    shutil.rmtree(again / result.adapter)
    with (again / "progress.jsonl").open("a") as progress:
        progress.write('{"at": "2026-0')  # it was writing a line
    job = TrainingJob.model_validate_json((again / "job.json").read_text())
    ended = TrainingResult.model_validate(finish("train", again, job))
    assert ended.files == result.files
    assert (ended.metrics.steps, ended.metrics.epochs) == (result.metrics.steps, result.metrics.epochs)
    assert ended.metrics.best_step == result.metrics.best_step
    assert ended.metrics.seconds > result.metrics.seconds


def test_a_finished_job_is_not_done_again(finished_training: tuple[Path, TrainingResult]) -> None:
    folder, _ = finished_training
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    run(folder)
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert before == after


def test_a_killed_training_goes_on_from_its_checkpoint_and_ends_the_same(
    finished_training: tuple[Path, TrainingResult], tmp_path: Path
) -> None:
    undisturbed, expected = finished_training
    job = TrainingJob.model_validate_json((undisturbed / "job.json").read_text())
    child = start("train", tmp_path, job)
    while not list(tmp_path.glob("checkpoints/*/whole")):
        assert child.poll() is None, (tmp_path / "log.txt").read_text()
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not (tmp_path / "result.json").exists()
    result = TrainingResult.model_validate(finish("train", tmp_path, job))
    assert any("resuming from checkpoint" in line.get("message", "") for line in read_progress(tmp_path))
    assert result.metrics.validation == expected.metrics.validation
    assert digest_weights(result) == digest_weights(expected)


def digest_weights(result: TrainingResult) -> str:
    """Return the digest of the adapter's weights."""
    return result.files["adapter_model.safetensors"]


@pytest.fixture(scope="module")
def trainings(
    tiny_model: Path, snapshot: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[ExampleKind, tuple[TrainingJob, Path, TrainingResult]]:
    """A training by each method."""
    finished = {}
    for method, data in METHODS:
        shorter = {} if method == "sft" else {"epochs": 2}
        plan = make_plan(tiny_model, snapshot, (method, data), **shorter)
        job = TrainingJob(plan=plan, snapshot=str(snapshot))
        folder = tmp_path_factory.mktemp(data)
        finished[data] = job, folder, train_here(job, folder)
    return finished


def test_one_seed_gives_the_same_bytes_in_another_process(
    finished_training: tuple[Path, TrainingResult],
    trainings: dict[ExampleKind, tuple[TrainingJob, Path, TrainingResult]],
) -> None:
    _, in_child = finished_training
    _, _, here = trainings["sft"]
    names = {"adapter_config.json", "adapter_model.safetensors"}
    assert {name: in_child.files[name] for name in names} == {name: here.files[name] for name in names}


@pytest.mark.parametrize("data", ["pairs", "votes", "trajectories"])
def test_each_method_moves_its_own_figure(
    trainings: dict[ExampleKind, tuple[TrainingJob, Path, TrainingResult]], data: ExampleKind
) -> None:
    _, _, result = trainings[data]
    before, best = find_first_validation(result.metrics), find_best_validation(result.metrics)
    # In so small a model, attention is most of the work: short conversations are not worth packing.
    assert result.metrics.prefix_shared == (data != "trajectories")
    assert (result.metrics.batches_padded > 0) == (data == "trajectories")
    assert best.loss < before.loss / 2
    if data == "pairs":
        assert before.figures == {"reward_accuracy": 0.0, "reward_margin": 0.0}
        assert best.figures["reward_accuracy"] == 1.0
        assert best.figures["reward_margin"] > 1
    if data == "votes":
        assert before.figures["separation"] == 0
        assert best.figures["liked_reward"] > 1 > -1 > best.figures["disliked_reward"]
        assert result.metrics.desirable_weight == 1.0
        assert result.metrics.undesirable_weight == pytest.approx(37 / 19)
    if data == "trajectories":
        assert best.figures["token_accuracy"] > before.figures["token_accuracy"]


@pytest.mark.parametrize(("method", "data"), METHODS[1:])
def test_a_training_that_dies_goes_on_and_ends_with_the_same_bytes(
    trainings: dict[ExampleKind, tuple[TrainingJob, Path, TrainingResult]],
    tmp_path: Path,
    method: Method,
    data: ExampleKind,
) -> None:
    job, _, expected = trainings[data]
    with pytest.raises(Killed):
        train_here(job, tmp_path, dies_at=5)
    assert not (tmp_path / "adapter").exists()
    result = train_here(job, tmp_path)
    assert result.metrics.method == method
    assert any("resuming from checkpoint-3" in line.get("message", "") for line in read_progress(tmp_path))
    assert digest_weights(result) == digest_weights(expected)


def test_a_second_stage_goes_on_from_the_first_which_is_its_reference_and_survives_a_kill(
    tiny_model: Path,
    snapshot: Path,
    trainings: dict[ExampleKind, tuple[TrainingJob, Path, TrainingResult]],
    tmp_path: Path,
) -> None:
    _, first, _ = trainings["sft"]
    plan = make_plan(tiny_model, snapshot, ("sft", "sft"), ("dpo", "pairs"), epochs=1)
    job = TrainingJob(plan=plan, stage=1, snapshot=str(snapshot), start_adapter=str(first / "adapter"))
    result = train_here(job, tmp_path / "undisturbed")
    # Against the base, an adapter that learned the labels would have rewards before the first step.
    assert find_first_validation(result.metrics).figures == {"reward_accuracy": 0.0, "reward_margin": 0.0}
    assert find_best_validation(result.metrics).figures["reward_accuracy"] == 1.0
    adapter = tmp_path / "undisturbed/adapter"
    assert sorted(path.name for path in adapter.iterdir()) == sorted(result.files)
    before, after = (load_file(each / "adapter_model.safetensors") for each in (first / "adapter", adapter))
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    with pytest.raises(Killed):
        train_here(job, tmp_path / "killed", dies_at=5)
    assert digest_weights(train_here(job, tmp_path / "killed")) == digest_weights(result)


def test_a_second_stage_over_4_bits_begins_exactly_at_its_reference(
    tiny_model: Path,
    snapshot: Path,
    trainings: dict[ExampleKind, tuple[TrainingJob, Path, TrainingResult]],
    tmp_path: Path,
) -> None:
    _, first, _ = trainings["sft"]
    plan = make_plan(tiny_model, snapshot, ("sft", "sft"), ("dpo", "pairs"), epochs=1)
    job = TrainingJob(
        plan=plan.model_copy(update={"quantization": "nf4"}),
        stage=1,
        snapshot=str(snapshot),
        start_adapter=str(first / "adapter"),
    )
    result = train_here(job, tmp_path)
    assert result.metrics.quantization == "nf4"
    # TRL rounds an adapter over 4 bits to bfloat16, after copying it for the reference.
    assert find_first_validation(result.metrics).figures == {"reward_accuracy": 0.0, "reward_margin": 0.0}


def test_a_base_in_4_bits_trains_by_preference_too(tiny_model: Path, snapshot: Path, tmp_path: Path) -> None:
    plan = make_plan(tiny_model, snapshot, ("dpo", "pairs"), epochs=2)
    job = TrainingJob(plan=plan.model_copy(update={"quantization": "nf4"}), snapshot=str(snapshot))
    result = train_here(job, tmp_path)
    assert (result.metrics.quantization, result.metrics.prefix_shared) == ("nf4", True)
    assert find_best_validation(result.metrics).figures["reward_accuracy"] == 1.0


def build_evaluation_job(
    finished_training: tuple[Path, TrainingResult],
    snapshot: Path,
    *,
    active: bool = False,
    labels: Sequence[str] = LABELS,
) -> EvaluationJob:
    folder, result = finished_training
    job = TrainingJob.model_validate_json((folder / "job.json").read_text())
    adapter = str(folder / result.adapter)
    return EvaluationJob(
        snapshot=str(snapshot),
        base_model=job.plan.base_model,
        task="classification",
        output_space=tuple(labels),
        active=AdapterSide(name="acme.routing.v1", path=adapter) if active else None,
        candidate=AdapterSide(name="acme.routing.v2", path=adapter),
        # An adapter on so small a base takes long, and a busy machine makes that vary.
        gate=Gate(latency_margin=20),
        max_new_tokens=8,
    )


def test_a_candidate_that_learned_is_promoted_over_the_base_with_probes_that_tell_them_apart(
    finished_training: tuple[Path, TrainingResult], snapshot: Path, tmp_path: Path
) -> None:
    assert (
        finish("evaluate", tmp_path, build_evaluation_job(finished_training, snapshot))["verdict"]
        == "PROMOTE"
    )
    report = Report.model_validate_json((tmp_path / "report.json").read_text())
    assert (report.holdout_size, report.gold_size, report.rejected_without_correction) == (36, 32, 4)
    assert [side.name for side in report.sides] == ["base", "acme.routing.v2"]
    assert report.find_side("acme.routing.v2").accuracy > report.find_side("base").accuracy + 0.5
    assert report.find_side("acme.routing.v2").valid_rate == 1.0
    probes = ProbeRecord.model_validate_json((tmp_path / "probes.json").read_text()).probes
    assert len(probes) == 8
    assert {probe.answer for probe in probes} == set(LABELS)
    for probe in probes:
        assert len(probe.answer_ids) == len(probe.adapter_logprobs) == len(probe.base_logprobs)
        assert sum(probe.adapter_logprobs) > sum(probe.base_logprobs) + 1


def test_a_candidate_that_is_what_is_live_already_is_not_promoted(
    finished_training: tuple[Path, TrainingResult], snapshot: Path, tmp_path: Path
) -> None:
    finish("evaluate", tmp_path, build_evaluation_job(finished_training, snapshot, active=True))
    report = Report.model_validate_json((tmp_path / "report.json").read_text())
    assert [side.name for side in report.sides] == ["base", "acme.routing.v1", "acme.routing.v2"]
    assert report.live == "acme.routing.v1"
    assert report.verdict != "PROMOTE"
    assert report.find_comparison("base").gained > 16
    assert (
        report.find_comparison("acme.routing.v1").gained,
        report.find_comparison("acme.routing.v1").lost,
    ) == (0, 0)


@pytest.mark.parametrize(
    ("overrides", "failure", "advice"),
    [
        ({"lora_targets": ["no_such_layer"]}, "LoraMatchesNothing", "lora_targets"),
        ({"learning_rate": 1e30}, "TrainingDiverged", "lower `learning_rate`"),
        ({"max_length": 16}, "NothingToLearn", "max_length"),
    ],
)
def test_a_training_that_cannot_be_done_says_why_and_leaves_no_adapter(
    tiny_model: Path, snapshot: Path, tmp_path: Path, overrides: dict[str, Any], failure: str, advice: str
) -> None:
    job = TrainingJob(plan=make_plan(tiny_model, snapshot, **overrides), snapshot=str(snapshot))
    with pytest.raises(LearndError, match=advice) as raised:
        train_here(job, tmp_path)
    assert type(raised.value).__name__ == failure
    assert not (tmp_path / "adapter").exists()


def test_a_child_that_fails_leaves_its_reason_for_the_parent(
    tiny_model: Path, snapshot: Path, tmp_path: Path
) -> None:
    plan = make_plan(tiny_model, snapshot).model_copy(update={"base_digest": "another"})
    job = TrainingJob(plan=plan, snapshot=str(snapshot))
    (tmp_path / "job.json").write_text(job.model_dump_json(), "utf-8")
    with pytest.raises(SystemExit, match="1"):
        run(tmp_path)
    failure = json.loads((tmp_path / "failure.json").read_text())
    assert failure["kind"] == "BaseChanged"
    assert "start the cycle again" in failure["error"]
    assert not (tmp_path / "result.json").exists()


@pytest.fixture(scope="module")
def smollm2() -> Path:
    return prepare_smollm2(CACHE / "smollm2")


@pytest.fixture(scope="module")
def corpus() -> list[RoutingCase]:
    return [(request.text, request.label) for request in load_corpus()]


def pick_worse_label(number: int, labels: Sequence[str], asked: RoutingCase) -> str:
    """Pick another destination."""
    others = [label for label in labels if label != asked[1]]
    return others[number % len(others)]


def train_on(
    smollm2: Path,
    folder: Path,
    stage: tuple[Method, ExampleKind],
    sides: Sequence[Examples],
    **overrides: Any,
) -> Any:
    """Train the 135M model, which never sees the second of `sides`; return the metrics."""
    snapshot = make_snapshot(folder, *sides)
    hyperparameters = Hyperparameters.model_validate({"epochs": 1, "evaluations_per_epoch": 2} | overrides)
    plan = make_plan(smollm2, snapshot, stage)
    plan = plan.model_copy(
        update={"stages": (plan.stages[0].model_copy(update={"hyperparameters": hyperparameters}),)}
    )
    job = TrainingJob(plan=plan, snapshot=str(snapshot))
    return TrainingResult.model_validate(finish("train", folder / "train", job)).metrics


@pytest.mark.slow
def test_a_real_model_learns_to_route(smollm2: Path, corpus: list[RoutingCase], tmp_path: Path) -> None:
    system = build_system_prompt(list_labels(load_corpus()))
    labels = list_labels(load_corpus())
    numbered = list(enumerate(corpus[:430]))
    train_side, validation = (
        Examples(sft=tuple(make_example(number, each, system=system) for number, each in side))
        for side in (numbered[:300], numbered[300:330])
    )
    held_out = [make_item(number, each, system=system) for number, each in numbered[330:]]
    snapshot = make_snapshot(tmp_path, train_side, validation, held_out)
    usual = Hyperparameters().model_dump()
    job = TrainingJob(plan=make_plan(smollm2, snapshot, **usual), snapshot=str(snapshot))
    folder = tmp_path / "train"
    result = TrainingResult.model_validate(finish("train", folder, job))
    finish("evaluate", tmp_path / "evaluate", build_evaluation_job((folder, result), snapshot, labels=labels))
    report = Report.model_validate_json((tmp_path / "evaluate/report.json").read_text())
    assert report.verdict == "PROMOTE"
    assert report.find_side("acme.routing.v2").accuracy >= 0.7


@pytest.mark.slow
def test_a_real_model_learns_what_people_prefer(
    smollm2: Path, corpus: list[RoutingCase], tmp_path: Path
) -> None:
    labels = list_labels(load_corpus())
    system = build_system_prompt(labels)
    pairs = [
        make_pair(number, each, pick_worse_label(number, labels, each), system=system)
        for number, each in enumerate(corpus[:240])
    ]
    sides = [Examples(pairs=tuple(side)) for side in (pairs[:200], pairs[200:])]
    metrics = train_on(smollm2, tmp_path, ("dpo", "pairs"), sides, learning_rate=5e-4, epochs=2)
    assert find_best_validation(metrics).figures["reward_accuracy"] >= 0.75
    assert find_best_validation(metrics).figures["reward_margin"] > 0.5
    assert find_best_validation(metrics).loss < find_first_validation(metrics).loss


@pytest.mark.slow
def test_a_real_model_tells_liked_from_disliked_answers(
    smollm2: Path, corpus: list[RoutingCase], tmp_path: Path
) -> None:
    labels = list_labels(load_corpus())
    system = build_system_prompt(labels)
    votes = [
        make_vote(
            number, each, pick_worse_label(number, labels, each), desirable=number % 2 == 0, system=system
        )
        for number, each in enumerate(corpus[:240])
    ]
    sides = [Examples(votes=tuple(side)) for side in (votes[:200], votes[200:])]
    metrics = train_on(smollm2, tmp_path, ("kto", "votes"), sides, learning_rate=5e-4, epochs=2)
    assert find_first_validation(metrics).figures["separation"] == pytest.approx(0, abs=1e-6)
    assert find_best_validation(metrics).figures["separation"] > 0.5


@pytest.mark.slow
def test_a_real_model_learns_every_turn_of_conversations(
    smollm2: Path, corpus: list[RoutingCase], tmp_path: Path
) -> None:
    system = build_system_prompt(list_labels(load_corpus()))
    conversations = [
        make_conversation(begin, corpus[begin : begin + 3], system=system) for begin in range(0, 270, 3)
    ]
    sides = [Examples(trajectories=tuple(side)) for side in (conversations[:80], conversations[80:])]
    metrics = train_on(smollm2, tmp_path, ("sft", "trajectories"), sides, epochs=2)
    assert metrics.label_tokens > 3 * len(sides[0].trajectories)
    assert find_best_validation(metrics).loss < find_first_validation(metrics).loss / 2
    assert (
        find_best_validation(metrics).figures["token_accuracy"]
        > find_first_validation(metrics).figures["token_accuracy"]
    )
