"""A model's readiness to learn from preferences: its answers to the prompts of preference pairs.

An adapter is asked about pairs of the validation side alone, without those that are left out since it was
trained on them: there it would show its memory. The base was trained on none of them.
"""

from pathlib import Path

from evaluation.jobs.ask_sides import find_answer_limit, render_if_possible, to_raw_answers
from evaluation.jobs.job import AdapterSide
from evaluation.metrics.scoring import build_scorer
from evaluation.report import BASE
from extractors.dataset.snapshot import Snapshot, read_snapshot
from extractors.examples.thoughts import get_answer
from extractors.examples.types import PreferencePair
from extractors.values import Value
from trainers.job_folder import Progress, run_job
from trainers.models.base_model import Device, Dtype, use_threads
from trainers.planning.method_rules import Readiness, Task
from trainers.quick_imports import quick_imports

MOST_ASKED = 64
"""Most prompts of pairs that are asked: they give the share of valid answers to about 0.12 (95%)."""


class ReadinessJob(Value):
    """The work of a child that measures readiness."""

    snapshot: str
    """Folder of the snapshot."""
    base_model: str
    adapter: AdapterSide | None
    """The adapter that answers; None for the base itself."""
    left_out: tuple[str, ...] = ()
    """Normalised prompts of the validation side that the adapter was trained on."""
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
    with quick_imports():
        from evaluation.engine.generate import open_engine

    use_threads(job.threads)
    snapshot = read_snapshot(Path(job.snapshot))
    progress.write("loading", f"base model {job.base_model}")
    adapters = {job.adapter.name: Path(job.adapter.path)} if job.adapter else {}
    engine = open_engine(job.base_model, adapters, device=job.device, dtype=job.dtype)
    asked = [
        (pair, prompt)
        for pair in sample_pairs(list_untrained_pairs(snapshot, job), MOST_ASKED)
        if (prompt := render_if_possible(engine.tokenizer, pair.prompt, pair.tools)) is not None
    ]
    trained_on = [
        *(get_answer(pair.chosen) for pair in snapshot.train.pairs),
        *(get_answer(example.completion) for example in snapshot.train.sft),
    ]
    scorer = build_scorer(job.task, job.output_space, tuple(trained_on))
    labels = [*scorer.labels, *trained_on]
    has_thoughts = any(pair.chosen.reasoning is not None for pair, _ in asked)
    most = job.max_new_tokens
    prompts = [prompt.prompt_ids for _, prompt in asked]
    generated = engine.generate(
        job.adapter.name if job.adapter else BASE,
        prompts,
        max_new_tokens=most if has_thoughts else find_answer_limit(job.task, most, engine.tokenizer, labels),
        batch_size=job.batch_size,
        on_progress=lambda done: progress.write("asking", "pairs' prompts", step=done, total=len(asked)),
    )
    answers = to_raw_answers(engine.tokenizer, prompts, generated)
    return Readiness(
        asked=len(answers),
        valid=sum(scorer.is_valid(answer.text, ended=answer.ended) for answer in answers),
        settled=sum(
            scorer.is_correct(answer.text, ended=answer.ended, gold=pair.chosen)
            for (pair, _), answer in zip(asked, answers, strict=True)
        ),
    )


def list_untrained_pairs(snapshot: Snapshot, job: ReadinessJob) -> tuple[PreferencePair, ...]:
    """Return the pairs whose prompts the model was not trained on."""
    if job.adapter is None:
        return (*snapshot.validation.pairs, *snapshot.train.pairs)
    return tuple(pair for pair in snapshot.validation.pairs if pair.prompt_key not in job.left_out)


def sample_pairs(pairs: tuple[PreferencePair, ...], most: int) -> list[PreferencePair]:
    """Return at most `most` pairs, one a prompt, chosen by content: the same pairs give the same sample."""
    one_a_prompt = {pair.prompt_key: pair for pair in pairs}
    return sorted(one_a_prompt.values(), key=lambda pair: pair.id)[:most]
