"""What the sides of an evaluation are asked, and having each of them answer it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.jobs.job import EvaluationJob
from evaluation.metrics.latency import Overhead, Timings, find_typical_length, time_sides
from evaluation.report import BASE
from evaluation.score_side import Logprobs, RawAnswer, SideAnswers
from extractors.dataset.snapshot import Snapshot
from extractors.examples.types import ReviewedItem, SFTExample
from extractors.values import Value
from trainers.job_folder import Progress, write_atomically
from trainers.models.chat_template import ChatTokens, TemplateUnusable, render
from trainers.planning.method_rules import Task

if TYPE_CHECKING:
    from evaluation.engine.generate import AnswerEngine

LABEL_SLACK = 8
"""Tokens that a classification may run past the longest label before it is cut off."""
MOST_LABELS = 500
"""Labels of an output space that are weighed one by one for each item."""


class EvaluationPrompts(Value):
    """All that the sides are asked."""

    held_out: tuple[ReviewedItem, ...]
    retention: tuple[ReviewedItem, ...]
    golden: tuple[SFTExample, ...]
    """Those that the template can express; nobody passes the others."""
    prompts: dict[str, tuple[int, ...]]
    """Tokens of each prompt by the id of its item or case."""
    references: dict[str, tuple[int, ...]]
    """Tokens of the gold answers of held-out items, where the template can express them."""

    def of(self, items: Sequence[ReviewedItem | SFTExample]) -> list[tuple[int, ...]]:
        """The tokens of their prompts."""
        return [self.prompts[item.id] for item in items]

    def answer_limit(self, task: Task, most: int, tokenizer: Any, labels: Sequence[str]) -> int:
        """As `find_answer_limit`, with the labels that are gold."""
        golds = [item.gold.content for item in self.held_out if item.gold]
        return find_answer_limit(task, most, tokenizer, [*labels, *golds])


def build_prompts(tokenizer: Any, snapshot: Snapshot, golden: Sequence[SFTExample] = ()) -> EvaluationPrompts:
    """The prompts that the chat template can express; the others could not be served either."""
    prompts: dict[str, tuple[int, ...]] = {}
    references: dict[str, tuple[int, ...]] = {}
    everything: tuple[ReviewedItem | SFTExample, ...] = (*snapshot.holdout, *snapshot.retention, *golden)
    for item in everything:
        if rendered := _rendered(tokenizer, item):
            prompts[item.id] = rendered.prompt_ids
    for item in snapshot.holdout:
        if item.gold and (rendered := _rendered(tokenizer, item.to_example(), with_completion=True)):
            references[item.id] = rendered.completion_ids
    return EvaluationPrompts(
        held_out=tuple(item for item in snapshot.holdout if item.id in prompts),
        retention=tuple(item for item in snapshot.retention if item.id in prompts),
        golden=tuple(case for case in golden if case.id in prompts),
        prompts=prompts,
        references=references,
    )


def _rendered(
    tokenizer: Any, item: ReviewedItem | SFTExample, *, with_completion: bool = False
) -> ChatTokens | None:
    completion = item.completion if with_completion and isinstance(item, SFTExample) else None
    try:
        return render(tokenizer, item.prompt, item.tools, completion)
    except TemplateUnusable:
        return None


def find_labels(
    task: Task, output_space: tuple[str, ...], trained_on: Snapshot, asked: EvaluationPrompts
) -> tuple[str, ...]:
    """The output space of a classification; without one, the labels that were trained or are gold."""
    if task != "classification":
        return ()
    trained = (example.completion for example in trained_on.train.sft)
    golds = (item.gold for item in asked.held_out if item.gold)
    return output_space or tuple(dict.fromkeys(said.content.strip() for said in (*trained, *golds)))


def find_answer_limit(task: Task, most: int, tokenizer: Any, labels: Sequence[str]) -> int:
    """Most tokens of an answer: no classification is longer than the longest label, with some slack."""
    if task != "classification" or not labels:
        return most
    longest = max(len(tokenizer(label, add_special_tokens=False)["input_ids"]) for label in labels)
    return min(most, longest + LABEL_SLACK)


def ask_sides(
    job: EvaluationJob,
    engine: "AnswerEngine",
    asked: EvaluationPrompts,
    labels: Sequence[str],
    folder: Path,
    progress: Progress,
) -> dict[str, SideAnswers]:
    """What each side answers, by its name; the base comes first, the candidate last."""
    limit = asked.answer_limit(job.task, job.max_new_tokens, engine.tokenizer, labels)
    return {
        name: _side(job, name, engine, asked, labels, limit, folder / f"side-{number}.json", progress)
        for number, name in enumerate([BASE, *job.adapters])
    }


def _side(
    job: EvaluationJob,
    name: str,
    engine: "AnswerEngine",
    asked: EvaluationPrompts,
    labels: Sequence[str],
    limit: int,
    kept: Path,
    progress: Progress,
) -> SideAnswers:
    """The side's answers to everything, from the file `kept` if an earlier run got that far."""
    from evaluation.engine.likelihood import tokenize_labels

    if kept.exists():
        return SideAnswers.model_validate_json(kept.read_text("utf-8"))
    # Older traffic and golden cases are for the candidate and what is live.
    compared = name in {job.live, job.candidate.name}
    parts: list[Sequence[ReviewedItem | SFTExample]] = [
        asked.held_out,
        asked.retention if compared else (),
        asked.golden if compared else (),
    ]
    prompts = [prompt for part in parts for prompt in asked.of(part)]
    first = next(iter(asked.held_out), None)
    weighed = labels if first and len(labels) <= MOST_LABELS else ()
    answers = engine.generate(
        name,
        prompts,
        max_new_tokens=limit,
        batch_size=job.batch_size,
        labels=tokenize_labels(engine.tokenizer, first.prompt, first.tools, weighed) if first else (),
        on_progress=lambda done: progress.write("answering", name, step=done, total=len(prompts)),
    )
    said = [RawAnswer(text=each.text, ended=each.ended) for each in answers]
    ends = [len(parts[0]), len(parts[0]) + len(parts[1])]
    heard = SideAnswers(
        held_out=said[: ends[0]],
        retention=said[ends[0] : ends[1]],
        golden=said[ends[1] :],
        labels=[each.label_logprobs for each in answers[: ends[0]]] if weighed else (),
        gold=() if job.task == "classification" else _score_gold(job, name, engine, asked),
    )
    write_atomically(kept, heard.model_dump_json())
    return heard


def _score_gold(
    job: EvaluationJob, name: str, engine: "AnswerEngine", asked: EvaluationPrompts
) -> tuple[Logprobs, ...]:
    """How likely the side calls the gold answers, token by token."""
    ids = list(asked.references)
    return tuple(
        engine.compute_logprobs(
            name,
            [asked.prompts[each] for each in ids if each in asked.prompts],
            [asked.references[each] for each in ids if each in asked.prompts],
            batch_size=job.batch_size,
        )
    )


def time_answers(
    engine: "AnswerEngine", names: Sequence[str], asked: EvaluationPrompts, progress: Progress
) -> Timings | None:
    """What the same work takes each side, all in turn; None without a held-out prompt."""
    if not asked.held_out:
        return None
    tokens = find_typical_length([len(each) for each in asked.references.values()])
    progress.write("timing", f"{len(names)} sides in turn")
    return time_sides(
        lambda side, prompt: engine.time_answer(side, prompt, tokens=tokens), names, asked.of(asked.held_out)
    )


def compute_overheads(timings: Timings | None, job: EvaluationJob) -> tuple[Overhead, ...]:
    """The candidate's latency over that of every other side."""
    if timings is None:
        return ()
    candidate = job.candidate.name
    return tuple(
        timings.compute_overhead(candidate, side, alpha=job.gate.alpha)
        for side in timings.seconds
        if side != candidate
    )
