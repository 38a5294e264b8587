"""Training and evaluation as they run in production: child processes on a folder, killed and run again."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from daemon.demo.corpus import labels_of, load_corpus, system_prompt
from daemon.demo.model import prepare_smollm2
from evaluation.probes import ProbeRecord
from evaluation.report import Report
from evaluation.run import AdapterSide, EvaluationJob
from extractors.snapshot import read_snapshot
from extractors.values import LearndError, Value, file_digest
from tests.snapshots import Asked, reviewed, snapshot_in
from tests.tiny_model import CACHE
from trainers.base_model import base_digest, model_bytes
from trainers.child import CHILD_ENV, Progress
from trainers.plan import Plan, select_plan
from trainers.sft import TrainingJob, TrainingResult, train_sft

ROOT = Path(__file__).resolve().parents[2]
LABELS = ("billing", "shipping")
TEMPLATES = ("invoice {} charges me twice, I want the refund", "parcel {} is late, where is the courier")
LEARNS = {"epochs": 4, "learning_rate": 0.005}
"""With these the tiny model learns its two labels."""


def asked(number: int) -> Asked:
    return TEMPLATES[number % 2].format(number), LABELS[number % 2]


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    items = [reviewed(number, asked(number)) for number in range(96)]
    unanswered = [reviewed(number, asked(number), outcome="rejected") for number in range(96, 100)]
    folder = tmp_path_factory.mktemp("snapshots")
    return snapshot_in(folder, items[:56], items[56:64], items[64:] + unanswered)


def plan_for(model: Path, snapshot: Path, **overrides: Any) -> Plan:
    plan = select_plan(
        read_snapshot(snapshot),
        threshold=1,
        base_model=str(model),
        base_digest=base_digest(str(model)),
        base_bytes=model_bytes(str(model)),
        max_lora_rank=8,
        overrides=overrides,
    )
    assert isinstance(plan, Plan)
    return plan


def start(work: str, folder: Path, job: Value) -> "subprocess.Popen[bytes]":
    folder.mkdir(exist_ok=True)
    (folder / "job.json").write_text(job.model_dump_json(), "utf-8")
    with (folder / "log.txt").open("ab") as log:
        command = [sys.executable, "-m", "learnd", "work", work, str(folder)]
        return subprocess.Popen(command, cwd=ROOT, env=os.environ | CHILD_ENV, stdout=log, stderr=log)


def finish(work: str, folder: Path, job: Value) -> Any:
    """Have the job done; returns its result."""
    status = start(work, folder, job).wait(300)
    assert status == 0, (folder / "log.txt").read_text()[-3000:]
    return json.loads((folder / "result.json").read_text())


def progress_of(folder: Path) -> list[dict[str, Any]]:
    path = folder / "progress.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture(scope="module")
def trained(
    tiny_model: Path, snapshot: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, TrainingResult]:
    """The folder of a training that ended well, and its result."""
    folder = tmp_path_factory.mktemp("train")
    job = TrainingJob(plan=plan_for(tiny_model, snapshot, **LEARNS), snapshot=str(snapshot))
    return folder, TrainingResult.model_validate(finish("train", folder, job))


def test_a_training_leaves_an_adapter_and_nothing_else(
    trained: tuple[Path, TrainingResult], tiny_model: Path
) -> None:
    folder, result = trained
    adapter = folder / result.adapter
    assert {path.name: file_digest(path) for path in adapter.iterdir()} == result.files
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(tiny_model)
    assert config["r"] == result.rank == 8  # what the replicas serve, not the usual 16
    adapted = {name.split(".")[-1] for name in config["target_modules"]}
    assert adapted == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert not (folder / "checkpoints").exists()
    metrics = result.metrics
    assert metrics.prefix_shared
    assert metrics.validation_losses[-1].loss < metrics.validation_losses[0].loss / 10
    steps = [line["step"] for line in progress_of(folder) if "loss" in line]
    assert steps == list(range(1, metrics.steps + 1))


def test_a_finished_job_is_not_done_again(trained: tuple[Path, TrainingResult]) -> None:
    folder, _ = trained
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    job = TrainingJob.model_validate_json((folder / "job.json").read_text())
    finish("train", folder, job)
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert before.keys() == after.keys()
    assert after[folder / "result.json"] == before[folder / "result.json"]


def test_a_killed_training_goes_on_from_its_checkpoint_and_ends_the_same(
    trained: tuple[Path, TrainingResult], tmp_path: Path
) -> None:
    undisturbed, expected = trained
    job = TrainingJob.model_validate_json((undisturbed / "job.json").read_text())
    child = start("train", tmp_path, job)
    while not list(tmp_path.glob("checkpoints/*/whole")):
        assert child.poll() is None, (tmp_path / "log.txt").read_text()
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not (tmp_path / "result.json").exists()
    result = TrainingResult.model_validate(finish("train", tmp_path, job))
    assert any("resuming from checkpoint" in line.get("message", "") for line in progress_of(tmp_path))
    assert result.metrics.steps == expected.metrics.steps
    assert result.metrics.validation_losses[-1].loss == pytest.approx(
        expected.metrics.validation_losses[-1].loss, rel=0.05
    )


def evaluation(
    trained: tuple[Path, TrainingResult],
    snapshot: Path,
    *,
    active: bool = False,
    labels: Sequence[str] = LABELS,
) -> EvaluationJob:
    folder, result = trained
    job = TrainingJob.model_validate_json((folder / "job.json").read_text())
    adapter = str(folder / result.adapter)
    return EvaluationJob(
        snapshot=str(snapshot),
        base_model=job.plan.base_model,
        task="classification",
        output_space=tuple(labels),
        active=AdapterSide(name="acme.routing.v1", path=adapter) if active else None,
        candidate=AdapterSide(name="acme.routing.v2", path=adapter),
        alpha=0.05,
        min_effect=0.05,
        max_new_tokens=8,
    )


def test_a_candidate_that_learned_is_promoted_over_the_base_with_probes_that_tell_them_apart(
    trained: tuple[Path, TrainingResult], snapshot: Path, tmp_path: Path
) -> None:
    assert finish("evaluate", tmp_path, evaluation(trained, snapshot))["verdict"] == "PROMOTE"
    report = Report.model_validate_json((tmp_path / "report.json").read_text())
    assert (report.holdout_size, report.gold_size, report.rejected_without_correction) == (36, 32, 4)
    assert [side.name for side in report.sides] == ["base", "acme.routing.v2"]
    assert report.side("acme.routing.v2").accuracy > report.side("base").accuracy + 0.5
    assert report.side("acme.routing.v2").valid_rate == 1.0
    probes = ProbeRecord.model_validate_json((tmp_path / "probes.json").read_text()).probes
    assert len(probes) == 8
    assert {probe.answer for probe in probes} == set(LABELS)
    for probe in probes:
        assert len(probe.answer_ids) == len(probe.adapter_logprobs) == len(probe.base_logprobs)
        assert sum(probe.adapter_logprobs) > sum(probe.base_logprobs) + 1


def test_a_candidate_that_is_what_is_live_already_is_not_promoted(
    trained: tuple[Path, TrainingResult], snapshot: Path, tmp_path: Path
) -> None:
    finish("evaluate", tmp_path, evaluation(trained, snapshot, active=True))
    report = Report.model_validate_json((tmp_path / "report.json").read_text())
    assert [side.name for side in report.sides] == ["base", "acme.routing.v1", "acme.routing.v2"]
    assert report.live == "acme.routing.v1"
    assert report.verdict != "PROMOTE"
    assert report.against("base").gained > 16
    assert (report.against("acme.routing.v1").gained, report.against("acme.routing.v1").lost) == (0, 0)


@pytest.mark.filterwarnings("default")  # TRL's own, which a training child prints into its log
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
    job = TrainingJob(plan=plan_for(tiny_model, snapshot, **overrides), snapshot=str(snapshot))
    progress = Progress(tmp_path / "progress.jsonl", lambda: datetime.now(UTC))
    with pytest.raises(LearndError, match=advice) as raised:
        train_sft(job, tmp_path, progress)
    assert type(raised.value).__name__ == failure
    assert not (tmp_path / "adapter").exists()


def test_a_child_that_fails_leaves_its_reason_for_the_parent(
    tiny_model: Path, snapshot: Path, tmp_path: Path
) -> None:
    plan = plan_for(tiny_model, snapshot).model_copy(update={"base_digest": "another"})
    assert start("train", tmp_path, TrainingJob(plan=plan, snapshot=str(snapshot))).wait(300) == 1
    failure = json.loads((tmp_path / "failure.json").read_text())
    assert failure["kind"] == "BaseChanged"
    assert "start the cycle again" in failure["error"]
    assert not (tmp_path / "result.json").exists()


@pytest.mark.slow
def test_a_real_model_learns_to_route(tmp_path: Path) -> None:
    model = prepare_smollm2(CACHE / "smollm2")
    corpus = load_corpus()
    labels = labels_of(corpus)
    items = [
        reviewed(number, (request.text, request.label), system=system_prompt(labels))
        for number, request in enumerate(corpus[:430])
    ]
    snapshot = snapshot_in(tmp_path, items[:300], items[300:330], items[330:])
    job = TrainingJob(plan=plan_for(model, snapshot), snapshot=str(snapshot))
    folder = tmp_path / "train"
    result = TrainingResult.model_validate(finish("train", folder, job))
    finish("evaluate", tmp_path / "evaluate", evaluation((folder, result), snapshot, labels=labels))
    report = Report.model_validate_json((tmp_path / "evaluate/report.json").read_text())
    assert report.verdict == "PROMOTE"
    assert report.side("acme.routing.v2").accuracy >= 0.7
