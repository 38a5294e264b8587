"""How much the seed matters: the runs of one plan answer the same held-out traffic."""

from collections.abc import Iterator
from pathlib import Path

from evaluation.jobs.ask_sides import build_prompts, find_labels
from evaluation.jobs.job import BATCH_SIZE
from evaluation.metrics.scoring import build_scorer
from evaluation.report import SeedRuns, Side
from evaluation.score_side import RawAnswer, SideAnswers, score_searches, score_side
from extractors.dataset.snapshot import Snapshot, read_snapshot
from extractors.values import Value
from trainers.job_folder import Progress, run_job
from trainers.models.base_model import Device, Dtype, use_threads
from trainers.planning.method_rules import Task


class SeedsJob(Value):
    """What a child is asked to measure."""

    snapshot: str
    """Folder of the snapshot that the runs were trained on."""
    base_model: str
    task: Task
    output_space: tuple[str, ...] = ()
    runs: tuple[str, ...]
    """Folders of their adapters."""
    metric: str
    max_new_tokens: int
    device: Device = "auto"
    dtype: Dtype = "auto"
    threads: int | None = None
    """CPU threads; None takes what torch would."""


def run(folder: Path) -> None:
    """Do the SeedsJob in `folder`: `learnd work seeds FOLDER`."""
    run_job(folder, SeedsJob, measure)


def measure(job: SeedsJob, _folder: Path, progress: Progress) -> SeedRuns:
    """Have each run answer the holdout. Raises LearndError as the evaluation does."""
    use_threads(job.threads)
    progress.write("loading", f"base model {job.base_model}")
    snapshot = read_snapshot(Path(job.snapshot))
    adapters = {f"run {number}": Path(path) for number, path in enumerate(job.runs)}
    sides = (_search_holdout if job.task == "embedding" else _answer_holdout)(
        job, snapshot, adapters, progress
    )
    return SeedRuns(metric=job.metric, scores=tuple(side.average(job.metric) for side in sides))


def _answer_holdout(
    job: SeedsJob, snapshot: Snapshot, adapters: dict[str, Path], progress: Progress
) -> Iterator[Side]:
    from evaluation.engine.generate import open_engine

    engine = open_engine(job.base_model, adapters, device=job.device, dtype=job.dtype)
    asked = build_prompts(engine.tokenizer, snapshot)
    labels = find_labels(job.task, job.output_space, snapshot, asked)
    limit = asked.answer_limit(job.task, job.max_new_tokens, engine.tokenizer, labels)
    scoring = build_scorer(job.task, job.output_space, labels)
    for name in adapters:
        answers = engine.generate(name, asked.of(asked.held_out), max_new_tokens=limit, batch_size=BATCH_SIZE)
        progress.write("answering", name)
        said = tuple(RawAnswer(text=each.text, ended=each.ended) for each in answers)
        yield score_side(name, asked.held_out, SideAnswers(held_out=said), scoring)


def _search_holdout(
    job: SeedsJob, snapshot: Snapshot, adapters: dict[str, Path], progress: Progress
) -> Iterator[Side]:
    from evaluation.engine.encode import open_encoder
    from evaluation.metrics.retrieval import build_library, search_side

    encoder = open_encoder(job.base_model, adapters, device=job.device, dtype=job.dtype)
    shelf = build_library(snapshot.retrievals)
    for name in adapters:
        progress.write("searching", name)
        yield score_searches(search_side(encoder, name, shelf))
