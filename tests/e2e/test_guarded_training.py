"""Trainings that run out of memory, diverge or take too long, on the tiny model, for real."""

import json
import math
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from extractors.examples.types import Examples, SFTExample
from tests.support.snapshots import make_example, make_snapshot
from tests.support.validations import find_best_validation, find_first_validation
from trainers.job_folder import CHILD_ENV, Progress
from trainers.jobs.job import TrainingJob, TrainingResult
from trainers.jobs.train import train
from trainers.models.base_model import compute_base_digest
from trainers.planning.hyperparameters import Hyperparameters
from trainers.planning.limits import Limits
from trainers.planning.plan import Plan, TrainingStage
from trainers.recovery.fallbacks import TrainingDiverged
from trainers.trials.estimate_job import JobEstimate, estimate_job
from trainers.trials.rate_range_test import RateTest, RateTestJob, run_rate_test

ROOT = Path(__file__).resolve().parents[2]
# TRL's own calls of transformers.
pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated:FutureWarning")
LEARNS = {"epochs": 4, "learning_rate": 0.005, "lora_rank": 8, "lora_alpha": 16}
LONG_ANSWER = " ".join(["we are sorry and look into it"] * 8)
"""About 65 tokens: their logits over a vocabulary of 49152 take most of a training's memory."""


def make_routing_example(number: int, length: int = 1) -> SFTExample:
    asked, answer = f"parcel {number} is late", "shipping"
    if number % 2:
        asked, answer = f"invoice {number} charges me twice", "billing"
    return make_example(number, (asked, f"{answer}: {LONG_ANSWER * length}"))


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    train, validation = (
        Examples(sft=tuple(map(make_routing_example, numbers))) for numbers in (range(32), range(32, 40))
    )
    return make_snapshot(tmp_path_factory.mktemp("snapshots"), train, validation)


def make_job(
    model: Path, snapshot: Path, *, limits: Limits | None = None, base: Path | None = None, **overrides: Any
) -> TrainingJob:
    """Make a job on `model`, as if it were `base` if given."""
    hyperparameters = Hyperparameters.model_validate(LEARNS | overrides)
    plan = Plan(
        stages=(TrainingStage(method="sft", data="sft", hyperparameters=hyperparameters),),
        reason="a test",
        snapshot_id=snapshot.name,
        base_model=str(base or model),
        base_digest=compute_base_digest(str(model)),
    )
    return TrainingJob(plan=plan, snapshot=str(snapshot), limits=limits or Limits())


def train_here(job: TrainingJob, folder: Path) -> TrainingResult:
    return train(job, folder, Progress(folder / "progress.jsonl", lambda: datetime.now(UTC)))


def read_recoveries(folder: Path) -> list[str]:
    lines = map(json.loads, (folder / "progress.jsonl").read_text().splitlines())
    return [line["message"] for line in lines if line["stage"] == "guarding"]


def train_limited(job: TrainingJob, folder: Path, megabytes: int, work: str = "train") -> int:
    """Do the job in a child with `megabytes` of memory; return its status."""
    (folder / "job.json").write_text(job.model_dump_json(), "utf-8")
    command = [sys.executable, "-m", "tests.e2e.limited_memory", work, str(folder), str(megabytes)]
    with (folder / "log.txt").open("wb") as log:
        child = subprocess.run(
            command, cwd=ROOT, env=os.environ | CHILD_ENV, stdout=log, stderr=log, check=False
        )
    return child.returncode


def test_a_training_with_too_little_memory_goes_on_with_smaller_batches_and_learns(
    tiny_model: Path, snapshot: Path, tmp_path: Path
) -> None:
    job = make_job(tiny_model, snapshot, batch_size=32)
    status = train_limited(job, tmp_path, megabytes=1200)
    assert status == 0, (tmp_path / "log.txt").read_text()[-3000:]
    result = TrainingResult.model_validate_json((tmp_path / "result.json").read_text())
    assert "can't allocate memory" in read_recoveries(tmp_path)[0]
    assert "32 × 1 examples a step: going on with 16 × 2 examples a step" in read_recoveries(tmp_path)[0]
    assert list(result.metrics.recoveries) == read_recoveries(tmp_path)
    assert result.metrics.steps == 4  # of 32 examples each, as planned
    assert find_best_validation(result.metrics).loss < find_first_validation(result.metrics).loss


def test_a_training_for_which_no_memory_is_enough_fails_with_advice(tiny_model: Path, tmp_path: Path) -> None:
    # One answer of about 900 tokens takes 700 MB, however small the batch is.
    snapshot = make_snapshot(
        tmp_path / "snapshots", Examples(sft=tuple(make_routing_example(n, 14) for n in range(8)))
    )
    assert train_limited(make_job(tiny_model, snapshot), tmp_path, megabytes=500) == 1
    failure = json.loads((tmp_path / "failure.json").read_text())
    assert failure["kind"] == "OutOfMemory"
    assert "1 × 8 examples a step, activation checkpointing, the base in 4 bits" in failure["error"]
    assert "take a smaller `base_model`" in failure["error"]
    assert len(read_recoveries(tmp_path)) == 5


def test_an_estimate_without_memory_for_a_few_steps_has_the_counted_memory_and_no_time(
    tiny_model: Path, snapshot: Path, tmp_path: Path
) -> None:
    long = make_snapshot(
        tmp_path / "snapshots", Examples(sft=tuple(make_routing_example(n, 14) for n in range(8)))
    )
    assert train_limited(make_job(tiny_model, long), tmp_path, megabytes=500, work="estimate") == 0
    found = JobEstimate.model_validate_json((tmp_path / "result.json").read_text())
    assert not found.fits
    assert (found.estimate.seconds, found.estimate.tokens_per_second) == (None, None)
    assert found.estimate.memory.needed > 1e9
    # A child that finds what one before it left takes it for killed, as the kernel does it for memory.
    again = estimate_here(make_job(tiny_model, snapshot), tmp_path)
    assert (again.fits, again.estimate.seconds, again.estimate.steps) == (False, None, 16)


def test_a_base_that_can_never_fit_is_estimated_without_being_loaded(
    tiny_model: Path, snapshot: Path, tmp_path: Path
) -> None:
    base = shutil.copytree(tiny_model, tmp_path / "base")
    pretend_weights(base / "model.safetensors", {"model.layers.0.mlp.gate_proj.weight": [10**6, 10**6]})
    found = estimate_here(make_job(tiny_model, snapshot, base=base), tmp_path)
    assert (found.fits, found.estimate.seconds) == (False, None)
    assert str(found.estimate.attempt).endswith("activation checkpointing, the base in 4 bits")
    assert found.estimate.memory.weights == pytest.approx(1e12 * 4.127 / 8, rel=0.01)


def estimate_here(job: TrainingJob, folder: Path) -> JobEstimate:
    return estimate_job(job, folder, Progress(folder / "progress.jsonl", lambda: datetime.now(UTC)))


def pretend_weights(path: Path, shapes: dict[str, list[int]]) -> None:
    """Write a file of zero weights in bfloat16 that takes no space on the disk."""
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


def test_a_training_at_an_absurd_rate_goes_back_twice_and_fails_with_the_reason(
    tiny_model: Path, snapshot: Path, tmp_path: Path
) -> None:
    with pytest.raises(TrainingDiverged, match="after 2 rollbacks; lower `learning_rate`"):
        train_here(make_job(tiny_model, snapshot, learning_rate=1e30), tmp_path)
    assert [said.rsplit(", at ", 1)[1] for said in read_recoveries(tmp_path)] == [
        "0.1 of the learning rate",
        "0.01 of the learning rate",
    ]
    assert not (tmp_path / "adapter").exists()


def test_a_training_that_loses_what_it_learned_goes_back_to_its_best_and_learns_on(
    tiny_model: Path, tmp_path: Path
) -> None:
    train, validation = (
        Examples(sft=tuple(make_routing_example(n, length=0) for n in numbers))
        for numbers in (range(32), range(32, 40))
    )
    snapshot = make_snapshot(tmp_path / "snapshots", train, validation)
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
    first = train_here(make_job(tiny_model, snapshot, epochs=2), tmp_path / "first")
    # Twenty times the rate at which it learns, after a slow start; no validation is to end it first.
    job = make_job(tiny_model, snapshot, learning_rate=0.1, warmup_share=0.5, epochs=8, patience=100)
    going_on = job.model_copy(update={"start_adapter": str(tmp_path / "first" / first.adapter)})
    result = train_here(going_on, tmp_path / "second")
    said, *_ = result.metrics.recoveries
    assert "the loss has risen from" in said
    assert ": back to checkpoint-" in said
    assert said.endswith("at 0.1 of the learning rate")
    assert find_best_validation(result.metrics).loss < find_first_validation(result.metrics).loss / 10


def test_a_training_whose_time_is_up_keeps_its_best_and_says_so(
    tiny_model: Path, snapshot: Path, tmp_path: Path
) -> None:
    result = train_here(
        make_job(tiny_model, snapshot, limits=Limits(max_minutes=1e-6), warmup_share=0), tmp_path
    )
    assert result.metrics.steps == 1
    assert result.metrics.recoveries == ("the time is up (max_minutes = 1e-06): stopping at step 1 of 16",)
    assert result.metrics.best_step == 1
    assert find_best_validation(result.metrics).loss < find_first_validation(result.metrics).loss
    assert (tmp_path / "adapter/adapter_model.safetensors").exists()


def test_a_range_test_finds_the_rate_at_which_the_tiny_model_learns(
    tiny_model: Path, snapshot: Path, tmp_path: Path
) -> None:
    job = RateTestJob(training=make_job(tiny_model, snapshot), lowest=1e-5, highest=10, steps=40)
    test = run_rate_test(job, tmp_path, Progress(tmp_path / "progress.jsonl", lambda: datetime.now(UTC)))
    assert 5e-4 <= test.suggested <= 1.5e-2  # it learns at 5e-3, and breaks from 2e-2 on
    assert test.planned == LEARNS["learning_rate"]
    assert RateTest.model_validate_json((tmp_path / "rates.json").read_text()) == test
    assert not list(tmp_path.rglob("*.safetensors"))
