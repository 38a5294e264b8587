"""Races on a base that only fits into memory in 4 bits."""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from evaluation.race.job import RaceJob
from evaluation.race.language_track import LanguageTrack, open_language_track
from extractors.dataset.snapshot import read_snapshot
from tests.e2e.test_guarded_training import pretend_weights
from tests.e2e.test_race import build_job
from tests.e2e.test_training import make_case, make_examples, make_plan
from tests.support.snapshots import make_item, make_snapshot
from trainers.job_folder import Progress
from trainers.jobs.job import TrainingMetrics
from trainers.jobs.legs import Leg
from trainers.models.quantization import find_quantization

pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated:FutureWarning")
MATRICES = 16
"""Only one of them is unpacked at a time."""


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_snapshot(
        tmp_path_factory.mktemp("snapshots"),
        make_examples(range(8)),
        make_examples(range(8, 12)),
        [make_item(12, make_case(12))],
    )


@pytest.fixture(scope="module")
def huge_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with matrices that loading it leaves on the disk: in float32, they exceed all memory."""
    import psutil
    from safetensors import safe_open

    base = shutil.copytree(tiny_model, tmp_path_factory.mktemp("huge-model") / "base")
    (base / "model.safetensors").rename(base / "used.safetensors")
    width = int((psutil.virtual_memory().total * 0.6 / 2 / MATRICES) ** 0.5)
    unused = {f"model.layers.0.unused.{n}.weight": [width, width] for n in range(MATRICES)}
    pretend_weights(base / "unused.safetensors", unused)
    with safe_open(base / "used.safetensors", framework="numpy") as weights:
        used = dict.fromkeys(weights.keys(), "used.safetensors")
    index = {"metadata": {}, "weight_map": used | dict.fromkeys(unused, "unused.safetensors")}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    return base


def build_huge_job(tiny_model: Path, huge_model: Path, snapshot: Path) -> RaceJob:
    plan = make_plan(tiny_model, snapshot, epochs=1).model_copy(update={"base_model": str(huge_model)})
    return build_job(snapshot, [], plan, dtype="float32")


def open_here(job: RaceJob, folder: Path) -> LanguageTrack:
    return open_language_track(job, folder, read_snapshot(Path(job.snapshot)))


def train_here(track: LanguageTrack, job: RaceJob, folder: Path) -> TrainingMetrics:
    folder.mkdir(parents=True)
    progress = Progress(folder / "progress.jsonl", lambda: datetime.now(UTC))
    training = job.build_training_job(job.plan, 0, None)
    found = track.train_leg(training, Leg(number=1, is_last=True), folder, progress)
    assert found.result is not None
    return found.result.metrics


def test_where_the_default_would_begin_in_4_bits_all_contenders_do_and_say_so(
    tiny_model: Path, huge_model: Path, snapshot: Path, tmp_path: Path
) -> None:
    job = build_huge_job(tiny_model, huge_model, snapshot)
    track = open_here(job, tmp_path)
    assert find_quantization(track.base) == "nf4"
    for name in ("default", "challenger"):
        metrics = train_here(track, job, tmp_path / "contenders" / name)
        assert metrics.quantization == "nf4"
        assert metrics.recoveries[0].startswith("beginning with")
        assert "the base in 4 bits" in metrics.recoveries[0]
    assert track.score(tmp_path / "contenders/default/adapter", seconds=600).values


def test_a_race_that_may_not_quantize_holds_its_base_whole(
    tiny_model: Path, huge_model: Path, snapshot: Path, tmp_path: Path
) -> None:
    job = build_huge_job(tiny_model, huge_model, snapshot).model_copy(update={"may_quantize": False})
    assert find_quantization(open_here(job, tmp_path).base) is None


def test_a_race_that_was_killed_goes_on_with_the_base_as_it_was(
    tiny_model: Path, huge_model: Path, snapshot: Path, tmp_path: Path
) -> None:
    small = build_job(snapshot, [], make_plan(tiny_model, snapshot, epochs=1))
    track = open_here(small, tmp_path)
    assert find_quantization(track.base) is None
    assert train_here(track, small, tmp_path / "contenders/default").recoveries == ()
    huge = build_huge_job(tiny_model, huge_model, snapshot)
    assert find_quantization(open_here(huge, tmp_path).base) is None
