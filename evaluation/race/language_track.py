"""The track of language models: contenders generate their answers, to the end of the turn."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from evaluation.engine.generate import build_engine
from evaluation.jobs.ask_sides import EvaluationPrompts, build_prompts, find_labels, to_raw_answers
from evaluation.jobs.job import BATCH_SIZE
from evaluation.metrics.scoring import Scorer, build_scorer
from evaluation.race.job import RaceJob
from evaluation.race.scores import ItemScores
from evaluation.race.track import AnswersTooSlow
from evaluation.score_side import score_answers
from evaluation.validation_side import hold_out_validation
from extractors.dataset.holdout_split import find_group
from extractors.dataset.snapshot import Snapshot
from trainers.job_folder import Progress
from trainers.jobs.first_attempt import choose_first_attempt
from trainers.jobs.job import TrainingJob
from trainers.jobs.language_model import train_language_model_leg
from trainers.jobs.legs import Leg, LegResult
from trainers.models.base_model import load_model, load_tokenizer
from trainers.models.shared_base import borrow_base
from trainers.planning.method_rules import Readiness
from trainers.planning.plan import Quantization
from trainers.recovery.guards import find_begun_attempt

SIDE = "contender"


@dataclass(frozen=True)
class LanguageTrack:
    """A language model with the validation side; see `evaluation.race.track.Track`."""

    base: Any
    tokenizer: Any
    snapshot: Snapshot
    prompts: EvaluationPrompts
    """The validation items that the chat template can express."""
    scorer: Scorer
    answer_limit: int
    """Most tokens of an answer."""
    metric: str
    batch_size: int = BATCH_SIZE
    """Answers that are generated at once."""

    @cached_property
    def item_ids(self) -> Sequence[str]:
        return [item.id for item in self.prompts.held_out]

    @cached_property
    def sessions(self) -> Sequence[str]:
        return [find_group(item) for item in self.prompts.held_out]

    def train_leg(self, job: TrainingJob, leg: Leg, folder: Path, progress: Progress) -> LegResult:
        return train_language_model_leg(job, leg, folder, progress, self.base)

    def score(self, weights: Path, seconds: float) -> ItemScores:
        began, items = time.monotonic(), self.prompts.held_out
        tokens = self.prompts.get_tokens(items)

        def stop_in_time(answered: int) -> None:
            if time.monotonic() - began > seconds and answered < len(items):
                raise AnswersTooSlow(f"{answered} of {len(items)} answers took more than {seconds:.0f} s")

        with borrow_base(self.base):
            engine = build_engine(self.tokenizer, self.base, {SIDE: weights})
            generated = engine.generate(
                SIDE,
                tokens,
                max_new_tokens=self.answer_limit,
                batch_size=self.batch_size,
                on_progress=stop_in_time,
            )
        answers = to_raw_answers(self.tokenizer, tokens, generated)
        scored = score_answers(items, answers, self.scorer)
        return ItemScores(
            values=tuple(answer.get_score(self.metric) or 0.0 for answer in scored),
            valid=tuple(answer.valid for answer in scored),
            correct=tuple(bool(answer.correct) for answer in scored),
            seconds=time.monotonic() - began,
        )

    def measure_readiness(self, scores: ItemScores) -> Readiness:
        asked = {pair.prompt_key for pair in self.snapshot.validation.pairs}
        of_pairs = [n for n, item in enumerate(self.prompts.held_out) if item.prompt_key in asked]
        return Readiness(
            asked=len(of_pairs),
            valid=sum(scores.valid[place] for place in of_pairs),
            settled=sum(scores.correct[place] for place in of_pairs),
        )


def open_language_track(job: RaceJob, folder: Path, snapshot: Snapshot) -> LanguageTrack:
    """Load the base and render the validation side, for the race in `folder`.

    Raises BaseModelUnusable, QuantizationUnavailable.
    """
    tokenizer = load_tokenizer(job.plan.base_model)
    base = load_model(
        job.plan.base_model,
        device=job.device,
        dtype=job.dtype,
        quantization=_choose_quantization(job, folder),
    )
    as_held_out = hold_out_validation(snapshot, job.left_out)
    prompts = build_prompts(tokenizer, as_held_out)
    labels = find_labels(job.task, job.output_space, as_held_out, prompts)
    return LanguageTrack(
        base=base,
        tokenizer=tokenizer,
        snapshot=snapshot,
        prompts=prompts,
        scorer=build_scorer(job.task, job.output_space, labels),
        answer_limit=prompts.find_answer_limit(job.task, job.max_new_tokens, tokenizer, labels),
        metric=job.metric,
    )


def _choose_quantization(job: RaceJob, folder: Path) -> Quantization | None:
    """Return how the base is held for all contenders: as the default would begin, were it trained alone."""
    # After a kill more memory may be free, but contenders have begun.
    begun = find_begun_attempt(folder)
    if begun is None:
        default = job.build_training_job(job.plan, len(job.plan.stages) - 1, None)
        begun, _ = choose_first_attempt(default)
    return begun.quantization
