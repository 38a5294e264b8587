"""The influence of the seed: the runs of one plan answer the same validation side.

The holdout is kept for the run that is chosen: the best of several on it would look better than it is.
"""

from collections.abc import Iterator
from pathlib import Path

from evaluation.jobs.ask_sides import build_prompts, find_labels, to_raw_answers
from evaluation.jobs.job import BATCH_SIZE
from evaluation.metrics.scoring import build_scorer
from evaluation.report import SeedRuns, Side
from evaluation.score_side import SideAnswers, score_searches, score_side
from evaluation.validation_side import hold_out_validation
from extractors.dataset.snapshot import Snapshot, read_snapshot
from extractors.values import Value
from trainers.job_folder import Progress, run_job
from trainers.models.base_model import Device, Dtype, use_threads
from trainers.planning.method_rules import Task
from trainers.quick_imports import quick_imports


class SeedsJob(Value):
    """The work of a child that measures several runs."""

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
    """Score each run on the validation side. Raises LearndError as the evaluation does."""
    use_threads(job.threads)
    progress.write("loading", f"base model {job.base_model}")
    snapshot = hold_out_validation(read_snapshot(Path(job.snapshot)))
    adapters = {f"run {number}": Path(path) for number, path in enumerate(job.runs)}
    sides = (_search_validation if job.task == "embedding" else _answer_validation)(
        job, snapshot, adapters, progress
    )
    return SeedRuns(metric=job.metric, scores=tuple(side.average(job.metric) for side in sides))


def _answer_validation(
    job: SeedsJob, snapshot: Snapshot, adapters: dict[str, Path], progress: Progress
) -> Iterator[Side]:
    with quick_imports():
        from evaluation.engine.generate import open_engine

    engine = open_engine(job.base_model, adapters, device=job.device, dtype=job.dtype)
    prompts = build_prompts(engine.tokenizer, snapshot)
    labels = find_labels(job.task, job.output_space, snapshot, prompts)
    limit = prompts.find_answer_limit(job.task, job.max_new_tokens, engine.tokenizer, labels)
    scorer = build_scorer(job.task, job.output_space, labels)
    tokens = prompts.get_tokens(prompts.held_out)
    for name in adapters:
        generated = engine.generate(name, tokens, max_new_tokens=limit, batch_size=BATCH_SIZE)
        progress.write("answering", name)
        answers = SideAnswers(held_out=to_raw_answers(engine.tokenizer, tokens, generated))
        yield score_side(name, prompts.held_out, answers, scorer)


def _search_validation(
    job: SeedsJob, snapshot: Snapshot, adapters: dict[str, Path], progress: Progress
) -> Iterator[Side]:
    with quick_imports():
        from evaluation.engine.encode import open_encoder
    from evaluation.metrics.retrieval import build_library, search_side

    encoder = open_encoder(job.base_model, adapters, device=job.device, dtype=job.dtype)
    library = build_library(snapshot.retrievals)
    for name in adapters:
        progress.write("searching", name)
        yield score_searches(search_side(encoder, name, library))
