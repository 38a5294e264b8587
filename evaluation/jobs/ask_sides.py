"""Ask every side of an evaluation the same prompts, and keep what each one answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.jobs.job import EvaluationJob
from evaluation.metrics.latency import Timings, find_typical_length, time_sides
from evaluation.metrics.measures import Overhead
from evaluation.report import BASE
from evaluation.score_side import Logprobs, RawAnswer, SideAnswers, build_raw_answer
from extractors.dataset.snapshot import Snapshot
from extractors.examples.thoughts import OPENING, get_answer
from extractors.examples.types import Message, ReviewedItem, SFTExample
from extractors.values import Value
from trainers.job_folder import Progress, write_atomically
from trainers.models.chat_template import ChatTokens, TemplateUnusable, render
from trainers.planning.method_rules import Task

if TYPE_CHECKING:
    from evaluation.engine.generate import AnswerEngine, GeneratedAnswer

LABEL_SLACK = 8
"""Tokens that a classification may run past the longest label before it is cut off."""
MOST_LABELS = 500
"""Labels of an output space whose likelihoods are computed one by one for each item."""


class EvaluationPrompts(Value):
    """The prompts that all sides answer: those that the chat template can express."""

    held_out: tuple[ReviewedItem, ...]
    retention: tuple[ReviewedItem, ...]
    golden: tuple[SFTExample, ...]
    """Cases that the template can express; no side passes the others."""
    prompts: dict[str, tuple[int, ...]]
    """Tokens of each prompt by the id of its item or case."""
    references: dict[str, tuple[int, ...]]
    """Tokens of the gold answers of held-out items, where the template can express them."""

    @property
    def has_thoughts(self) -> bool:
        """True if thoughts come before some gold answers."""
        return any(item.gold is not None and item.gold.reasoning is not None for item in self.held_out)

    def get_tokens(self, items: Sequence[ReviewedItem | SFTExample]) -> list[tuple[int, ...]]:
        """Return the tokens of the items' prompts."""
        return [self.prompts[item.id] for item in items]

    def find_answer_limit(self, task: Task, most: int, tokenizer: Any, labels: Sequence[str]) -> int:
        """Return the limit of `find_answer_limit` for `labels` and the labels that are gold.

        Where the gold answers were thought about, it is `most`.
        """
        if self.has_thoughts:
            return most
        golds = [get_answer(item.gold) for item in self.held_out if item.gold]
        return find_answer_limit(task, most, tokenizer, [*labels, *golds])


def build_prompts(tokenizer: Any, snapshot: Snapshot, golden: Sequence[SFTExample] = ()) -> EvaluationPrompts:
    """Render the prompts that the chat template can express; a server could not answer the others either."""
    prompts: dict[str, tuple[int, ...]] = {}
    references: dict[str, tuple[int, ...]] = {}
    everything: tuple[ReviewedItem | SFTExample, ...] = (*snapshot.holdout, *snapshot.retention, *golden)
    for item in everything:
        if rendered := render_if_possible(tokenizer, item.prompt, item.tools):
            prompts[item.id] = rendered.prompt_ids
    for item in snapshot.holdout:
        if item.gold and (rendered := render_if_possible(tokenizer, item.prompt, item.tools, item.gold)):
            references[item.id] = rendered.completion_ids
    return EvaluationPrompts(
        held_out=tuple(item for item in snapshot.holdout if item.id in prompts),
        retention=tuple(item for item in snapshot.retention if item.id in prompts),
        golden=tuple(case for case in golden if case.id in prompts),
        prompts=prompts,
        references=references,
    )


def render_if_possible(
    tokenizer: Any,
    prompt: Sequence[Message],
    tools: Sequence[dict[str, Any]],
    completion: Message | None = None,
) -> ChatTokens | None:
    """Return the tokens of the prompt and the completion; None where the chat template refuses them."""
    try:
        return render(tokenizer, prompt, tools, completion)
    except TemplateUnusable:
        return None


def find_labels(
    task: Task, output_space: tuple[str, ...], trained_on: Snapshot, prompts: EvaluationPrompts
) -> tuple[str, ...]:
    """Return the output space of a classification; without one, the labels that were trained or are gold."""
    if task != "classification":
        return ()
    trained = (example.completion for example in trained_on.train.sft)
    golds = (item.gold for item in prompts.held_out if item.gold)
    return output_space or tuple(dict.fromkeys(get_answer(answer).strip() for answer in (*trained, *golds)))


def find_answer_limit(task: Task, most: int, tokenizer: Any, labels: Sequence[str]) -> int:
    """Return the most tokens of an answer: for classification, those of the longest label and some slack."""
    if task != "classification" or not labels:
        return most
    longest = max(len(tokenizer(label, add_special_tokens=False)["input_ids"]) for label in labels)
    return min(most, longest + LABEL_SLACK)


def ask_sides(
    job: EvaluationJob,
    engine: "AnswerEngine",
    prompts: EvaluationPrompts,
    labels: Sequence[str],
    folder: Path,
    progress: Progress,
) -> dict[str, SideAnswers]:
    """Return the answers of each side, by its name; the base comes first, the candidate last.

    The answers of a side are written to `folder` once they are complete. A later run reads them from there.
    """
    questions = _Questions(job, engine, prompts, labels, progress)
    answers: dict[str, SideAnswers] = {}
    for number, side in enumerate([BASE, *job.adapters]):
        kept = folder / f"side-{number}.json"
        if kept.exists():
            answers[side] = SideAnswers.model_validate_json(kept.read_text("utf-8"))
        else:
            answers[side] = questions.ask(side)
            write_atomically(kept, answers[side].model_dump_json())
    return answers


@dataclass(frozen=True)
class _Questions:
    """The questions of one evaluation, which can be put to one side after another."""

    job: EvaluationJob
    engine: "AnswerEngine"
    prompts: EvaluationPrompts
    labels: Sequence[str]
    progress: Progress

    def ask(self, side: str) -> SideAnswers:
        """Return the side's answers, with the likelihoods of the labels or of the gold answers."""
        # Only the candidate and what is live answer older traffic and golden cases.
        compared = side in {self.job.live, self.job.candidate.name}
        retention = self.prompts.retention if compared else ()
        golden = self.prompts.golden if compared else ()
        items: list[ReviewedItem | SFTExample] = [*self.prompts.held_out, *retention, *golden]
        generated = self._generate(side, items)
        answers = to_raw_answers(self.engine.tokenizer, self.prompts.get_tokens(items), generated)
        older = len(self.prompts.held_out)
        cases = older + len(retention)
        return SideAnswers(
            held_out=answers[:older],
            retention=answers[older:cases],
            golden=answers[cases:],
            labels=tuple(each.label_logprobs for each in generated[:older]) if self._label_tokens else (),
            gold=() if self.job.task == "classification" else self._score_gold(side),
        )

    @cached_property
    def _limit(self) -> int:
        """Most tokens of an answer."""
        job = self.job
        return self.prompts.find_answer_limit(
            job.task, job.max_new_tokens, self.engine.tokenizer, self.labels
        )

    @cached_property
    def _label_tokens(self) -> tuple[tuple[int, ...], ...]:
        """Tokens of the labels whose likelihoods are computed: none where an answer begins with thoughts."""
        from evaluation.engine.likelihood import tokenize_labels

        first = next(iter(self.prompts.held_out), None)
        if first is None or len(self.labels) > MOST_LABELS or self.prompts.has_thoughts:
            return ()
        try:
            return tokenize_labels(self.engine.tokenizer, first.prompt, first.tools, self.labels)
        except TemplateUnusable:
            return ()

    def _generate(self, side: str, items: Sequence[ReviewedItem | SFTExample]) -> Sequence["GeneratedAnswer"]:
        return self.engine.generate(
            side,
            self.prompts.get_tokens(items),
            max_new_tokens=self._limit,
            batch_size=self.job.batch_size,
            labels=self._label_tokens,
            on_progress=lambda done: self.progress.write("answering", side, step=done, total=len(items)),
        )

    def _score_gold(self, side: str) -> tuple[Logprobs, ...]:
        """Return how likely the side finds the gold answers without thoughts, token by token."""
        prompts, references = self.prompts.prompts, self.prompts.references
        with_thoughts = {
            item.id for item in self.prompts.held_out if item.gold and item.gold.reasoning is not None
        }
        ids = [item_id for item_id in references if item_id in prompts and item_id not in with_thoughts]
        return tuple(
            self.engine.compute_logprobs(
                side,
                [prompts[item_id] for item_id in ids],
                [references[item_id] for item_id in ids],
                batch_size=self.job.batch_size,
            )
        )


def to_raw_answers(
    tokenizer: Any, prompts: Sequence[tuple[int, ...]], generated: Sequence["GeneratedAnswer"]
) -> tuple[RawAnswer, ...]:
    """Return the texts of the answers to `prompts`, without their thoughts and tokens."""
    return tuple(
        build_raw_answer(
            f"{OPENING}{each.text}" if _opens_thoughts(tokenizer, prompt) else each.text, ended=each.ended
        )
        for prompt, each in zip(prompts, generated, strict=True)
    )


def _opens_thoughts(tokenizer: Any, prompt: Sequence[int]) -> bool:
    """Return True if the prompt itself begins the thoughts that the answer then goes on with."""
    # A token has a character at least: these hold the tag, and white space behind it.
    return bool(tokenizer.decode(prompt[-2 * len(OPENING) :]).rstrip().endswith(OPENING))


def time_answers(
    engine: "AnswerEngine", sides: Sequence[str], prompts: EvaluationPrompts, progress: Progress
) -> Timings | None:
    """Time the same work on each side, all sides in turn; None without a held-out prompt."""
    if not prompts.held_out:
        return None
    tokens = find_typical_length([len(each) for each in prompts.references.values()])
    progress.write("timing", f"{len(sides)} sides in turn")
    return time_sides(
        lambda side, prompt: engine.time_answer(side, prompt, tokens=tokens),
        sides,
        prompts.get_tokens(prompts.held_out),
    )


def compute_overheads(timings: Timings | None, job: EvaluationJob) -> tuple[Overhead, ...]:
    """Return the candidate's latency over that of every other side."""
    if timings is None:
        return ()
    candidate = job.candidate.name
    return tuple(
        timings.compute_overhead(candidate, side, alpha=job.gate.alpha)
        for side in timings.seconds
        if side != candidate
    )
