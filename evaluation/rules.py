"""What a candidate must show, and in how many looks: the verdict's thresholds, as the settings give them."""

from typing import Literal, Self

from pydantic import Field, model_validator

from extractors.values import Value
from trainers.planning.method_rules import Task

Look = Literal["first", "second"]
"""`second`: on reviewed traffic that came after the candidate's training."""
Rule = Literal["two-looks", "one-look"]
JUDGE = "judge"
"""The metric of a language model that compares answers."""
METRICS: dict[Task, tuple[str, ...]] = {
    "classification": ("accuracy",),
    "extraction": ("accuracy", "field_f1"),
    "generation": ("accuracy", "token_f1", "rouge_l", "chrf", JUDGE),
    "chat": ("accuracy", "token_f1", "rouge_l", "chrf", JUDGE),
    "embedding": ("accuracy", "recall@1", "recall@5", "recall@10", "mrr@10", "ndcg@10"),
}
"""What can gate, by task; all have a value for each item, 0 (worst) to 1."""
USUAL_METRICS: dict[Task, tuple[str, ...]] = {
    "classification": ("accuracy",),
    "extraction": ("accuracy", "field_f1"),
    # Hardly ever is a text exactly the gold one, so nearness decides.
    "generation": ("token_f1", "accuracy"),
    "chat": ("token_f1", "accuracy"),
    "embedding": ("accuracy", "ndcg@10"),
}
"""What gates where the settings do not say, the primary one first."""


class Gate(Value):
    """What a candidate must show to be promoted."""

    rule: Rule = "two-looks"
    """`one-look` decides at once, by `alpha`; it promotes sooner, and more that is no better."""
    alpha: float = Field(0.05, gt=0, lt=1)
    """Greatest p-value that counts as better in the second look or the only one, and as worse in any."""
    at_once: float = Field(0.005, gt=0, lt=1)
    """Greatest p-value that promotes in the first of two looks."""
    promising: float = Field(0.2, gt=0, lt=1)
    """Greatest p-value that earns a second look."""
    min_effect: float = Field(0.05, ge=0, lt=1)
    """Least measured gain in the primary metric."""
    metrics: tuple[str, ...] = ()
    """Gating metrics, the primary one first: by this a candidate must be better, and by none significantly
    worse, each p corrected for their number (Holm). Empty: those that are usual for the task."""
    golden_tolerance: int = Field(0, ge=0)
    """Golden cases that a candidate may break which what is live passes."""
    valid_margin: float = Field(0.05, ge=0, lt=1)
    """How much lower its share of valid answers may be, by the interval's lower end; where no valid answer
    was lost, nobody asks for that."""
    latency_margin: float = Field(2.0, ge=0)
    """How much longer it may take for the same work, as a share: 2 is three times as long. Generous, since
    a first adapter is always slower than the bare base: 1.3 times with a model of 135M, 1.9 with MiniLM."""
    fresh_items: float = Field(2.0, gt=0)
    """Newer reviewed items that a second look takes, as a multiple of those that the first had."""
    probation_days: float = Field(30, gt=0, le=3650)
    """How long after its training a version may wait for these; then it is rejected."""
    candidates_per_window: int = Field(5, ge=1)
    """Candidates that one window of held-out traffic judges; the next waits for newer traffic."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.rule == "two-looks" and not self.at_once <= self.alpha <= self.promising:
            raise ValueError(
                f"at_once ({self.at_once:g}) <= alpha ({self.alpha:g}) <= promising ({self.promising:g}) "
                "does not hold"
            )
        return self

    def gating(self, task: Task) -> tuple[str, ...]:
        """The metrics that decide for `task`, the primary one first."""
        return self.metrics or USUAL_METRICS[task]

    def primary(self, task: Task) -> str:
        """The first that has a value for every side. A judge compares with what is live alone: where it
        stands first, it decides there, and the next metric everywhere else."""
        return next((metric for metric in self.gating(task) if metric != JUDGE), "accuracy")

    def passing(self, look: Look) -> float:
        """Greatest p-value that promotes."""
        return self.at_once if self.rule == "two-looks" and look == "first" else self.alpha

    def telling(self, look: Look) -> float:
        """Greatest p-value that leads anywhere."""
        return self.promising if self.rule == "two-looks" and look == "first" else self.alpha

    def reach(self, look: Look, metrics: int) -> float:
        """P-value by which it is told what effect so many items could have shown, by one of `metrics`."""
        return self.telling(look) / metrics
