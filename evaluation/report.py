"""The report of one evaluation: what was measured, the verdict, and why, as versioned JSON."""

from statistics import mean, stdev
from typing import Literal

from evaluation.metrics.labels import ConfidenceMeasures, LabelMeasures
from evaluation.metrics.latency import Overhead
from evaluation.metrics.llm_judge import Preferences
from evaluation.rules import Gate, Look
from evaluation.weighting.weights import Weighting
from extractors.values import Value

Verdict = Literal["PROMOTE", "PROBATION", "REJECT", "INCONCLUSIVE"]
Condition = Literal[
    "unfair holdout",
    "regression",
    "forgetting",
    "broken guard",
    "better",
    "open guard",
    "promising",
    "another is on probation",
    "nothing to improve",
    "too few items",
    "not better",
    "engines disagree",
    "no replica",
]
"""What decides."""


class Guard(Value):
    """Something that must not get worse, beside the gating metrics."""

    name: str
    state: Literal["kept", "open", "broken"]
    """`open`: so many items show neither that it is kept nor that it is not."""
    words: str
    """What was found, with its numbers."""


class Answer(Value):
    """What one side said to one held-out item."""

    item_id: str
    text: str
    correct: bool | None
    """None for items without gold."""
    valid: bool
    """Inside the output space (classification), or not empty and ended by itself (generation)."""
    scores: dict[str, float] = {}
    """How near it comes to gold by graded metrics, 0 to 1: `field_f1`, `token_f1`, `ndcg@10`, …"""

    def by(self, metric: str) -> float | None:
        """The answer's score, 0 to 1; None for items without gold.

        Where nothing can be near to gold (a tool call), right counts as 1 and wrong as 0.
        """
        return None if self.correct is None else self.scores.get(metric, float(self.correct))


class Side(Value):
    """One side of the comparison: the base, the active version, one on probation, or the candidate."""

    name: str
    """`base`, or the version's served name."""
    accuracy: float
    """Share of gold items answered right, 0 to 1; of a search, those that find a relevant document first."""
    valid_rate: float
    """Share of all items, 0 to 1."""
    latency_ms: float
    """Median wall time of the same work (an answer of so many tokens, asked alone; the vector of a query),
    all sides in turn, in milliseconds."""
    repeated_rejected: int
    """Items without gold to which this side gave the rejected answer again."""
    answers: tuple[Answer, ...]
    measures: dict[str, float] = {}
    """Further figures over the items, by name: `token_f1`, `bleu`, `macro_f1`, `ndcg@10`, …"""
    labels: LabelMeasures | None = None
    """Of a classification: class by class."""
    confidence: ConfidenceMeasures | None = None
    """Of a classification: how sure it is, and how rightly so."""

    def mean(self, metric: str) -> float:
        """The mean of a gating metric over the items with gold, each counting once; 0 to 1."""
        if metric == "accuracy":
            return self.accuracy
        scores = [score for answer in self.answers if (score := answer.by(metric)) is not None]
        return mean(scores) if scores else 0.0


class Comparison(Value):
    """Paired comparison of the candidate with one other side by one metric, over the items with gold."""

    against: str
    metric: str = "accuracy"
    n: int
    effective_n: float
    """As how many independent items of equal weight they count; turns of one session count as one."""
    gained: int
    """Items that only the candidate got right, or did better."""
    lost: int
    """Items that only the other side got right, or did better."""
    effect: float
    """Mean difference, -1 to 1, weighted as the items are."""
    means: tuple[float, float] | None = None
    """Of the candidate and of the other side, 0 to 1, weighted as the items are, so that `effect` is their
    difference. None in reports of before."""
    p_value: float
    """One-sided and exact: how often a candidate no better gains this much by chance."""
    p_worse: float
    """The same test in the other direction."""
    interval: tuple[float, float]
    """95% bootstrap interval of the effect, resampling whole sessions."""
    smallest_effect: float
    """Smallest difference that so many items would show with power 0.8, at p <= `level`."""
    level: float | None = None
    """What the verdict goes by where it says that items are too few; None in reports of before."""


class GoldenAnswer(Value):
    """A golden case that the candidate or what is live does not pass."""

    number: int
    """Its place among the cases, from 1."""
    asked: str
    """The last message of its prompt."""
    refused: bool = False
    """By the chat template, which cannot express its prompt: nobody passes what nobody can be asked."""
    expected: str
    live: str
    candidate: str
    live_passes: bool
    candidate_passes: bool

    @property
    def broken(self) -> bool:
        return self.live_passes and not self.candidate_passes


class Golden(Value):
    """How the golden cases went."""

    cases: int
    failed: tuple[GoldenAnswer, ...]
    """Those that one of the two does not pass."""

    @property
    def broken(self) -> tuple[GoldenAnswer, ...]:
        """Those that only what is live passes."""
        return tuple(case for case in self.failed if case.broken)


class SeedRuns(Value):
    """How the runs of one plan with several seeds do on the holdout."""

    metric: str
    scores: tuple[float, ...]
    """Mean over the items with gold, one a run, 0 to 1."""

    @property
    def median(self) -> int:
        """The run in the middle; the lower of the two of an even number."""
        return sorted(range(len(self.scores)), key=lambda run: (self.scores[run], run))[
            (len(self.scores) - 1) // 2
        ]

    @property
    def mean(self) -> float:
        return mean(self.scores)

    @property
    def deviation(self) -> float:
        """Standard deviation of a run, from two runs on."""
        return stdev(self.scores) if len(self.scores) > 1 else 0.0


class Served(Value):
    """What comes of a replica's answers to the held-out prompts."""

    verdict: Verdict
    reason: str
    agreement: float
    """Share of the candidate's answers that are those of the evaluation's own engine, 0 to 1."""
    comparison: Comparison
    """The candidate with what is live, by the primary metric."""


class Report(Value):
    """Everything the verdict rests on."""

    schema_version: Literal[2] = 2
    snapshot_id: str
    gate: Gate
    """The thresholds that it was judged by."""
    look: Look = "first"
    holdout_size: int
    """Held-out items, with and without gold."""
    gold_size: int
    """Held-out items with gold; these decide."""
    rejected_without_correction: int
    unanswerable: int = 0
    """Held-out items left out of all this, because the chat template refuses their prompts; 0 of searches."""
    weighting: Weighting | None = None
    """Whether the holdout is a fair picture of the traffic, and what each item counts for."""
    sides: tuple[Side, ...]
    """Base first, then the active version and one on probation where there are such, the candidate last."""
    comparisons: tuple[Comparison, ...]
    """Of the candidate with every other side by the primary metric, then with what is live by the others, and
    with the base by accuracy where that gates."""
    live: str
    """The side that the verdict compares with: what is served now."""
    retention: Comparison | None = None
    """The candidate with what is live, on older traffic that was reserved for this."""
    golden: Golden | None = None
    overheads: tuple[Overhead, ...] = ()
    """The candidate's latency over that of every other side."""
    preferences: Preferences | None = None
    """What a judge preferred, between the candidate's answers and those of what is live."""
    no_judge: str = ""
    """Why a judge that the settings name has no say, in words."""
    seeds: SeedRuns | None = None
    """Where the plan was trained with several seeds; the candidate is the median run."""
    served: Served | None = None
    """The same by a replica's answers, where that was asked for."""
    guards: tuple[Guard, ...] = ()
    verdict: Verdict
    condition: Condition
    reason: str
    """The condition that decided, in words, with its numbers."""

    @property
    def candidate(self) -> Side:
        return self.sides[-1]

    def side(self, name: str) -> Side:
        return next(side for side in self.sides if side.name == name)

    def against(self, name: str, metric: str | None = None) -> Comparison:
        """By the primary metric, or by `metric`. Raises StopIteration where that was not compared."""
        return next(
            each for each in self.comparisons if each.against == name and metric in {None, each.metric}
        )
