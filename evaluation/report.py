"""The report of one evaluation: what was measured, the verdict, and why, as versioned JSON."""

from typing import Literal

from extractors.values import Value

Verdict = Literal["PROMOTE", "PROBATION", "REJECT", "INCONCLUSIVE"]


class Answer(Value):
    """What one side said to one held-out item."""

    item_id: str
    text: str
    correct: bool | None
    """None for items without gold."""
    valid: bool
    """Inside the output space (classification), or not empty and ended by itself (generation)."""


class Side(Value):
    """One side of the comparison: the base, the active version, or the candidate."""

    name: str
    """`base`, or the version's served name."""
    accuracy: float
    """Share of gold items answered right, 0 to 1; of a search, those that find a relevant document first."""
    valid_rate: float
    """Share of all items, 0 to 1."""
    latency_ms: float
    """Mean wall time of one answer, batched, in milliseconds."""
    repeated_rejected: int
    """Items without gold to which this side gave the rejected answer again."""
    answers: tuple[Answer, ...]
    measures: dict[str, float] = {}
    """Further means over the items, by name: for embeddings `recall@5`, `mrr@10`, `ndcg@10`, …"""


class Comparison(Value):
    """Paired comparison of the candidate with one other side, over the items with gold."""

    against: str
    n: int
    gained: int
    """Items that only the candidate got right."""
    lost: int
    """Items that only the other side got right."""
    p_value: float
    """One-sided exact McNemar: how often a candidate no better gains this much by chance."""
    p_worse: float
    """The same test in the other direction."""
    interval: tuple[float, float]
    """95% paired bootstrap interval of the change in accuracy."""
    smallest_effect: float
    """Smallest change that n items would show with power 0.8."""

    @property
    def effect(self) -> float:
        """Change in accuracy, -1 to 1."""
        return (self.gained - self.lost) / self.n if self.n else 0.0


class Report(Value):
    """Everything the verdict rests on."""

    schema_version: Literal[1] = 1
    snapshot_id: str
    holdout_size: int
    """Held-out items, with and without gold."""
    gold_size: int
    """Held-out items with gold; these decide."""
    rejected_without_correction: int
    unanswerable: int = 0
    """Held-out items left out of all this, because the chat template refuses their prompts."""
    sides: tuple[Side, ...]
    """Base first, then the active version if there is one, the candidate last."""
    comparisons: tuple[Comparison, ...]
    """Of the candidate: with the base, and with the active version if there is one."""
    live: str
    """The side that the verdict compares with: what is served now."""
    verdict: Verdict
    reason: str
    """The condition that decided, in words, with its numbers."""
    regression: bool
    """The candidate is significantly worse than what is live."""

    def side(self, name: str) -> Side:
        return next(side for side in self.sides if side.name == name)

    def against(self, name: str) -> Comparison:
        return next(comparison for comparison in self.comparisons if comparison.against == name)
