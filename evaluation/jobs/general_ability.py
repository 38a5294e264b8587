"""What an adapter can still do of what its base could before: answers to questions that the base wrote."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

from evaluation.jobs.job import EvaluationJob
from evaluation.metrics.text import compute_token_f1, split_words
from evaluation.report import BASE, GeneralAbility, SideAbility
from evaluation.verdict.paired_tests import PairedScores, bootstrap_interval
from trainers.job_folder import Progress, write_atomically
from trainers.replay.examples import HELD_OUT, read_part
from trainers.replay.tokens import render_replay

if TYPE_CHECKING:
    from evaluation.engine.generate import AnswerEngine

GENERAL = "general.json"
"""File in the run's folder, so that a run that was killed measures nothing twice."""
COMPARED_TOKENS = 64
"""Tokens of a greedy answer that are compared with the base's: the rest depends on where the two parted."""


class _Questions(NamedTuple):
    """The base's own questions and answers, as tokens."""

    prompts: list[tuple[int, ...]]
    answers: list[tuple[int, ...]]


def measure_general_ability(
    job: EvaluationJob, engine: "AnswerEngine", folder: Path, progress: Progress
) -> GeneralAbility | None:
    """Measure the candidate and what is live on the held-out replay; None where the job names none.

    The divergence of a side is KL(base‖side), computed from both sides' logits over the whole vocabulary at
    every token of the answers that the base wrote. Its agreement compares the beginnings of greedy answers.
    Raises ReplayGone.
    """
    if job.replay is None:
        return None
    kept = folder / GENERAL
    if kept.exists():
        return GeneralAbility.model_validate_json(kept.read_text("utf-8"))
    questions = _read_questions(engine, Path(job.replay))
    names = [name for name in dict.fromkeys((job.live, job.candidate.name)) if name != BASE]
    progress.write("answering", f"{len(questions.prompts)} questions of the base model")
    base = _answer(job, engine, BASE, questions)
    texts = {name: _answer(job, engine, name, questions) for name in names}
    agreements = {name: list(map(compute_token_f1, texts[name], base)) for name in names}
    sides = [
        SideAbility(
            name=name,
            divergence=_measure_divergence(job, engine, name, questions),
            agreement=fmean(agreements[name]),
            same=sum(
                split_words(said) == split_words(was) for said, was in zip(texts[name], base, strict=True)
            ),
        )
        for name in names
    ]
    found = _compare(agreements[names[-1]], agreements.get(job.live, [1.0] * len(base)), sides, questions)
    write_atomically(kept, found.model_dump_json())
    return found


def _read_questions(engine: "AnswerEngine", replay: Path) -> _Questions:
    rendered = [render_replay(engine.tokenizer, each) for each in read_part(replay, HELD_OUT).examples]
    return _Questions([each.prompt_ids for each in rendered], [each.completion_ids for each in rendered])


def _answer(job: EvaluationJob, engine: "AnswerEngine", side: str, questions: _Questions) -> list[str]:
    said = engine.generate(side, questions.prompts, max_new_tokens=COMPARED_TOKENS, batch_size=job.batch_size)
    return [each.text for each in said]


def _measure_divergence(
    job: EvaluationJob, engine: "AnswerEngine", side: str, questions: _Questions
) -> float:
    """Return the mean divergence of `side` from the base in nats a token."""
    found = engine.compute_divergences(side, *questions, batch_size=job.batch_size)
    return fmean(nats for answer in found for nats in answer)


def _compare(
    candidate: Sequence[float], live: Sequence[float], sides: Sequence[SideAbility], questions: _Questions
) -> GeneralAbility:
    scores = PairedScores(candidate, live, range(len(candidate)))
    return GeneralAbility(
        items=len(candidate),
        tokens=sum(map(len, questions.answers)),
        sides=tuple(sides),
        change=float(scores.differences.mean()),
        interval=bootstrap_interval(scores),
    )
