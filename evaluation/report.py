"""The report of one evaluation, as versioned JSON: what was measured, the verdict and its reason."""

from statistics import mean, stdev
from typing import Literal

from evaluation.metrics.llm_judge import Preferences
from evaluation.metrics.measures import ConfidenceMeasures, LabelMeasures, Overhead
from evaluation.race_report import RaceReport
from evaluation.rules import Gate, Look
from evaluation.weighting.weighting import Weighting
from extractors.values import Value

BASE = "base"
"""Name of the side without an adapter."""
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
"""The condition that decided the verdict."""


class PromotionGuard(Value):
    """Something besides the gating metrics that must not get worse."""

    name: str
    state: Literal["kept", "open", "broken"]
    """`open`: the items are too few to tell."""
    words: str
    """The finding with its numbers."""


class ScoredAnswer(Value):
    """One side's answer to one held-out item, with its scores."""

    item_id: str
    text: str
    correct: bool | None
    """None for items without gold."""
    valid: bool
    """True for an answer inside the output space (classification), or one that is not empty and was not cut
    off (generation)."""
    scores: dict[str, float] = {}
    """Nearness to gold by graded metrics, 0 to 1: `field_f1`, `token_f1`, `ndcg@10`, …"""

    def get_score(self, metric: str) -> float | None:
        """Return the answer's score by `metric`, 0 to 1; None for items without gold.

        Where an answer cannot be near to gold (a tool call), right counts as 1 and wrong as 0.
        """
        return None if self.correct is None else self.scores.get(metric, float(self.correct))


class Side(Value):
    """One side of the comparison: the base, the active version, one on probation, or the candidate."""

    name: str
    """`BASE`, or the version's served name."""
    accuracy: float
    """Share of the items with gold that are answered right, 0 to 1. A search is right if it finds a relevant
    document first."""
    valid_rate: float
    """Share of all items, 0 to 1."""
    latency_ms: float
    """Median wall time of the same work in milliseconds, all sides in turn: an answer of a fixed number of
    tokens, asked alone, or the vector of one query."""
    repeated_rejected: int
    """Items without gold to which this side gave the rejected answer again."""
    answers: tuple[ScoredAnswer, ...]
    measures: dict[str, float] = {}
    """Further figures over the items, by name: `token_f1`, `bleu`, `macro_f1`, `ndcg@10`, …"""
    labels: LabelMeasures | None = None
    """For classification: the figures by class."""
    confidence: ConfidenceMeasures | None = None
    """For classification: how sure the side is, and how rightly so."""

    def average(self, metric: str) -> float:
        """Return the mean of a gating metric over the items with gold, each counting once; 0 to 1."""
        if metric == "accuracy":
            return self.accuracy
        scores = [score for answer in self.answers if (score := answer.get_score(metric)) is not None]
        return mean(scores) if scores else 0.0


class PairedComparison(Value):
    """Paired comparison of the candidate with one other side by one metric, over the items with gold."""

    against: str
    metric: str = "accuracy"
    n: int
    effective_n: float
    """The number of independent items of equal weight that these are worth, a session counting as one."""
    gained: int
    """Items that only the candidate got right, or did better."""
    lost: int
    """Items that only the other side got right, or did better."""
    effect: float
    """Mean difference, -1 to 1, weighted as the items are."""
    means: tuple[float, float] | None = None
    """Means of the candidate and of the other side, 0 to 1, weighted as the items are: `effect` is their
    difference. None in reports of earlier versions."""
    p_value: float
    """Exact one-sided p-value: how often a candidate that is no better gains this much by chance."""
    p_worse: float
    """The same test in the other direction."""
    interval: tuple[float, float]
    """95% bootstrap interval of the effect, resampling whole sessions."""
    smallest_effect: float
    """Smallest difference that the items would show with power 0.8, at p <= `level`."""
    level: float | None = None
    """The p-value by which the verdict tells that items are too few; None in reports of earlier versions."""


class FailedGoldenCase(Value):
    """A golden case that the candidate or what is live does not pass."""

    number: int
    """Position among the cases, from 1."""
    asked: str
    """The last message of its prompt."""
    refused: bool = False
    """True where the chat template cannot express the prompt: then neither side passes."""
    expected: str
    live: str
    candidate: str
    live_passes: bool
    candidate_passes: bool

    @property
    def broken(self) -> bool:
        return self.live_passes and not self.candidate_passes


class GoldenResults(Value):
    """The golden cases, and the ones that a side does not pass."""

    cases: int
    failed: tuple[FailedGoldenCase, ...]
    """Cases that the candidate or what is live does not pass."""

    @property
    def broken(self) -> tuple[FailedGoldenCase, ...]:
        """The cases that only what is live passes."""
        return tuple(case for case in self.failed if case.broken)


class SideAbility(Value):
    """One side's answers to everyday questions, beside the base model's."""

    name: str
    divergence: float
    """Mean KL divergence of the side from the base in nats a token: how far its probabilities of the next
    token are from the base's, at every token of answers that the base wrote. 0 for the base itself."""
    agreement: float
    """Mean nearness of its greedy answers to the base's own, 0 to 1: the F1 of the words in common."""
    same: int
    """Answers that are the base's word for word."""


class GeneralAbility(Value):
    """What the candidate can still do of what the base model could before: its answers to questions that the
    base wrote itself, and that no training learns."""

    items: int
    tokens: int
    """Tokens of the base's answers, over which the divergence is averaged."""
    sides: tuple[SideAbility, ...]
    """What is live unless that is the base, then the candidate."""
    change: float
    """The candidate's agreement minus that of what is live; the base agrees with itself by 1."""
    interval: tuple[float, float]
    """95% bootstrap interval of the change."""

    @property
    def candidate(self) -> SideAbility:
        return self.sides[-1]


class SeedRuns(Value):
    """Scores on the validation side of the runs of one plan with several seeds."""

    metric: str
    scores: tuple[float, ...]
    """Mean over the items with gold, one a run, 0 to 1."""

    @property
    def median(self) -> int:
        """Index of the run in the middle; the lower of the two of an even number."""
        return sorted(range(len(self.scores)), key=lambda run: (self.scores[run], run))[
            (len(self.scores) - 1) // 2
        ]

    @property
    def mean(self) -> float:
        return mean(self.scores)

    @property
    def deviation(self) -> float:
        """Standard deviation of the runs' scores; 0 for one run."""
        return stdev(self.scores) if len(self.scores) > 1 else 0.0


class ReplicaVerdict(Value):
    """The verdict on a replica's answers to the held-out prompts."""

    verdict: Verdict
    reason: str
    agreement: float
    """Share of the candidate's answers that equal those of the evaluation's own engine, 0 to 1."""
    comparison: PairedComparison
    """The candidate with what is live, by the primary metric."""


class Report(Value):
    """Everything that the verdict rests on."""

    schema_version: Literal[2] = 2
    snapshot_id: str
    gate: Gate
    """The thresholds that the candidate was judged by."""
    look: Look = "first"
    holdout_size: int
    """Held-out items, with and without gold."""
    gold_size: int
    """Held-out items with gold; these decide."""
    rejected_without_correction: int
    unanswerable: int = 0
    """Held-out items left out because the chat template refuses their prompts; 0 for searches."""
    weighting: Weighting | None = None
    """How fairly the holdout represents the traffic, and the weight of each item."""
    sides: tuple[Side, ...]
    """The base first, then the active version and one on probation if there are any, the candidate last."""
    comparisons: tuple[PairedComparison, ...]
    """The candidate with every other side by the primary metric, then with what is live by the other metrics,
    and with the base by accuracy where that gates."""
    live: str
    """Name of the side that the verdict compares with: the one that is served."""
    retention: PairedComparison | None = None
    """The candidate compared with what is live, on older traffic that was reserved for this."""
    golden: GoldenResults | None = None
    general: GeneralAbility | None = None
    """What the candidate can still do beside the target's task; None where that is not asked."""
    no_general: str = ""
    """Why that could not be asked, in words; empty where it was, or is not wanted."""
    overheads: tuple[Overhead, ...] = ()
    """The candidate's latency over that of every other side."""
    preferences: Preferences | None = None
    """A judge's preferences between the candidate's answers and those of what is live."""
    no_judge: str = ""
    """Why a judge that the settings name has no say, in words; empty where it has one."""
    seeds: SeedRuns | None = None
    """The runs of a plan that was trained with several seeds; the candidate is the median run."""
    race: RaceReport | None = None
    """The race that the candidate's way to train won; None where there was none."""
    served: ReplicaVerdict | None = None
    """The verdict on a replica's answers, where the settings ask for it."""
    guards: tuple[PromotionGuard, ...] = ()
    verdict: Verdict
    condition: Condition
    reason: str
    """The condition that decided, in words, with its numbers."""

    @property
    def candidate(self) -> Side:
        return self.sides[-1]

    def find_side(self, name: str) -> Side:
        return next(side for side in self.sides if side.name == name)

    def find_comparison(self, name: str, metric: str | None = None) -> PairedComparison:
        """Return the comparison with side `name` by the primary metric, or by `metric`.

        Raises StopIteration where there is none.
        """
        return next(
            each for each in self.comparisons if each.against == name and metric in {None, each.metric}
        )
