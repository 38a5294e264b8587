"""Whether a model is ready to learn from preferences: how it answers the prompts of preference pairs."""

from pathlib import Path

from evaluation.jobs.ask_sides import find_answer_limit
from evaluation.jobs.job import AdapterSide
from evaluation.metrics.scoring import build_scorer
from evaluation.report import BASE
from extractors.dataset.snapshot import read_snapshot
from extractors.examples.types import PreferencePair
from extractors.values import Value
from trainers.job_folder import Progress, run_job
from trainers.models.base_model import Device, Dtype, use_threads
from trainers.models.chat_template import ChatTokens, TemplateUnusable, render
from trainers.planning.method_rules import Readiness, Task

MOST_ASKED = 64
"""Prompts of pairs that are tried: the share of valid answers is then known to about 0.12 (95%)."""


class ReadinessJob(Value):
    """What a measuring child is asked to do."""

    snapshot: str
    """Folder of the snapshot."""
    base_model: str
    adapter: AdapterSide | None
    """What answers; None: the base itself."""
    task: Task
    output_space: tuple[str, ...] = ()
    max_new_tokens: int
    batch_size: int = 16
    device: Device = "auto"
    dtype: Dtype = "auto"
    threads: int | None = None
    """CPU threads; None takes what torch would."""


def run(folder: Path) -> None:
    """Do the ReadinessJob in `folder`: `learnd work measure FOLDER`."""
    run_job(folder, ReadinessJob, measure)


def measure(job: ReadinessJob, _folder: Path, progress: Progress) -> Readiness:
    """Ask the model a sample of the pairs' prompts. Raises LearndError as the evaluation does."""
    from evaluation.engine.generate import open_engine

    use_threads(job.threads)
    snapshot = read_snapshot(Path(job.snapshot))
    progress.write("loading", f"base model {job.base_model}")
    adapters = {job.adapter.name: Path(job.adapter.path)} if job.adapter else {}
    engine = open_engine(job.base_model, adapters, device=job.device, dtype=job.dtype)
    asked = [
        (pair, prompt)
        for pair in sample_pairs(snapshot.train.pairs, MOST_ASKED)
        if (prompt := _rendered(engine.tokenizer, pair)) is not None
    ]
    taught = [
        *(pair.chosen.content for pair in snapshot.train.pairs),
        *(example.completion.content for example in snapshot.train.sft),
    ]
    scoring = build_scorer(job.task, job.output_space, tuple(taught))
    labels = [*scoring.labels, *taught]
    answers = engine.generate(
        job.adapter.name if job.adapter else BASE,
        [prompt.prompt_ids for _, prompt in asked],
        max_new_tokens=find_answer_limit(job.task, job.max_new_tokens, engine.tokenizer, labels),
        batch_size=job.batch_size,
        on_progress=lambda done: progress.write("asking", "pairs' prompts", step=done, total=len(asked)),
    )
    said = list(zip(asked, answers, strict=True))
    return Readiness(
        asked=len(said),
        valid=sum(scoring.valid(answer.text, ended=answer.ended) for _, answer in said),
        settled=sum(
            scoring.correct(answer.text, ended=answer.ended, gold=pair.chosen) for (pair, _), answer in said
        ),
    )


def sample_pairs(pairs: tuple[PreferencePair, ...], most: int) -> list[PreferencePair]:
    """At most so many pairs, one a prompt, chosen by content: the same pairs give the same sample."""
    one_a_prompt = {pair.prompt_key: pair for pair in pairs}
    return sorted(one_a_prompt.values(), key=lambda pair: pair.id)[:most]


def _rendered(tokenizer: object, pair: PreferencePair) -> ChatTokens | None:
    try:
        return render(tokenizer, pair.prompt, pair.tools)
    except TemplateUnusable:
        return None
