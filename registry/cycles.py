"""A cycle of a target, from its data to its verdict, and the steps it may legally take."""

from datetime import datetime
from enum import StrEnum
from typing import Any, Self

from pydantic import ConfigDict, SerializerFunctionWrapHandler, model_serializer

from evaluation.report import Report, Verdict
from extractors.errors import LearndError
from extractors.values import Value
from trainers.estimate.estimates import TrainingEstimate
from trainers.jobs.job import TrainingMetrics, Validation
from trainers.planning.plan import Plan


class CycleState(StrEnum):
    EXTRACTING = "EXTRACTING"
    SELECTING = "SELECTING"
    TRAINING = "TRAINING"
    EVALUATING = "EVALUATING"
    PROMOTING = "PROMOTING"
    DONE = "DONE"
    SKIPPED = "SKIPPED"
    FAILED = "FAILED"


S = CycleState
TRANSITIONS: dict[CycleState, frozenset[CycleState]] = {
    # A second look trains nothing.
    S.EXTRACTING: frozenset({S.SELECTING, S.EVALUATING, S.SKIPPED, S.FAILED}),
    S.SELECTING: frozenset({S.TRAINING, S.SKIPPED, S.FAILED}),
    S.TRAINING: frozenset({S.EVALUATING, S.FAILED}),
    S.EVALUATING: frozenset({S.PROMOTING, S.DONE, S.FAILED}),
    S.PROMOTING: frozenset({S.DONE, S.FAILED}),
    S.DONE: frozenset(),
    S.SKIPPED: frozenset(),
    S.FAILED: frozenset(),
}
MOST_PUBLISH_TRIES = 20
"""Attempts to publish a run to a Phoenix that does not accept it."""
ENDED = frozenset(state for state, following in TRANSITIONS.items() if not following)


class IllegalTransition(LearndError):
    """A cycle or version was asked to take a step that its state does not allow."""

    def __init__(self, what: str, old: str, new: str) -> None:
        super().__init__(f"{what} is {old} and cannot become {new}; reload it and look again")


class _StoredRecord(Value):
    """A part of a cycle's row, as it was stored: keys may be missing, and a key without a field stays.

    It is written with the keys that it was read or made with, and no others.
    """

    model_config = ConfigDict(extra="allow")

    @model_serializer(mode="wrap")
    def _write_known_keys(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in write(self).items() if name in self.model_fields_set}


class ReviewedCounts(_StoredRecord):
    """Reviewed calls or searches by what people said."""

    approved: int = 0
    corrected: int = 0
    rejected: int = 0
    """Without a correction."""

    @property
    def total(self) -> int:
        return self.approved + self.corrected + self.rejected


class CycleCounts(_StoredRecord):
    """Counts of the extracted data; None where a cycle did not count it, as a second look for training."""

    train: dict[str, int] | None = None
    """Training examples by kind (`sft`, `pairs`, `votes`, `triplets`, `trajectories`)."""
    validation: dict[str, int] | None = None
    """Validation examples by kind."""
    holdout: int | None = None
    """Held-out calls or searches."""
    retention: int | None = None
    """Older reviewed calls or searches that stay reserved."""
    reviewed: ReviewedCounts | None = None
    left_out: dict[str, int] | None = None
    """Reviewed items that are on no side of the snapshot, by reason in words."""
    dropped: dict[str, int] = {}
    """Spans that could not be used, by reason in words."""

    @property
    def is_empty(self) -> bool:
        """True where the cycle extracted nothing."""
        return not self.model_fields_set


class TrainingFigures(_StoredRecord):
    """Figures of a training: the fields of `trainers.jobs.job.TrainingMetrics` that learnd shows.

    None where a row of an older version lacks the figure, or nothing was trained.
    """

    examples: int | None = None
    replay: int | None = None
    steps: int | None = None
    epochs: float | None = None
    train_loss: float | None = None
    validation: tuple[Validation, ...] = ()
    validated: int | None = None
    best_step: int | None = None
    quantization: str | None = None
    recoveries: tuple[str, ...] = ()
    seconds: float | None = None
    tokens_per_second: float | None = None
    peak_memory_bytes: int | None = None
    estimated: TrainingEstimate | None = None

    @classmethod
    def from_metrics(cls, metrics: TrainingMetrics) -> Self:
        return cls.model_validate(metrics.model_dump(mode="json"))

    @property
    def kept_validation(self) -> Validation | None:
        """The validation after the step whose weights were kept; None without one."""
        return next((each for each in self.validation if each.step == self.best_step), None)


class StageResult(Value):
    """The result of one stage of the plan."""

    method: str
    run: int = 0
    """Which of several runs of the plan, each with a seed of its own."""
    left_out: str = ""
    """Why it was not worth training, in words; empty where it was trained."""
    figures: TrainingFigures = TrainingFigures()


class ReportSummary(Value):
    """The part of a report that lists show; the report itself is large, since it has every answer."""

    live_version: str
    """The side that the candidate was compared with: `base` where no version was live."""
    metric: str
    """The primary metric, by which all other figures are."""
    base: float
    live: float
    candidate: float
    effect: float
    interval: tuple[float, float]
    p_value: float
    n: int
    effective_n: float
    gold_size: int
    guards: dict[str, str] = {}
    """States of the guards that are not kept, by name."""

    @classmethod
    def from_report(cls, report: Report) -> "ReportSummary":
        """Summarise `report`; shares are weighted as the items are, where the report has weighted means."""
        compared = report.find_comparison(report.live)
        means = {each.against: each.means for each in reversed(report.comparisons) if each.means}
        candidate, live = means.get(report.live) or (
            report.candidate.average(compared.metric),
            report.find_side(report.live).average(compared.metric),
        )
        base = report.sides[0]
        return cls(
            **compared.model_dump(include=cls.model_fields.keys() & type(compared).model_fields.keys()),
            live_version=report.live,
            base=means[base.name][1] if base.name in means else base.average(compared.metric),
            live=live,
            candidate=candidate,
            gold_size=report.gold_size,
            guards={guard.name: guard.state for guard in report.guards if guard.state != "kept"},
        )


class Cycle(Value):
    """One cycle of a target, as the store holds it."""

    id: str
    target: str
    """`tenant/agent`."""
    state: CycleState
    started_at: datetime
    updated_at: datetime
    trigger: str
    """The reason why it began: `new examples`, `schedule`, `operator`, `batch decided`, `second look`."""
    reason: str = ""
    """The reason why it ended as it did, or what it waits for, in words."""
    verdict: Verdict | None = None
    counts: CycleCounts = CycleCounts()
    snapshot_id: str | None = None
    plan: Plan | None = None
    training: tuple[StageResult, ...] = ()
    """One result a stage of the plan, for each of its runs."""
    version_id: str | None = None
    """The candidate that it trained, or judges again."""
    report: Report | None = None
    """None in lists, and before the evaluation."""
    outcome: ReportSummary | None = None
    """The report in short; lists have it, too."""
    published_at: datetime | None = None
    """When its results were published to Phoenix."""
    publish_tries: int = 0
    """How often Phoenix answered and did not accept them."""
    publish_problem: str = ""
    """Why Phoenix did not accept them, the last time."""
    compare_path: str | None = None
    """Phoenix's page that compares the sides."""

    @property
    def ended(self) -> bool:
        return self.state in ENDED
