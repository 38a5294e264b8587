"""The verdict's thresholds, as the settings give them: what a candidate must show, and in how many looks."""

from typing import Literal, Self

from pydantic import Field, model_validator

from extractors.values import Value
from trainers.planning.method_rules import Task

Look = Literal["first", "second"]
"""`second` judges on reviewed traffic that came after the candidate's training."""
Rule = Literal["two-looks", "one-look"]
JUDGE = "judge"
"""Name of the metric by which a language model compares answers."""
METRICS: dict[Task, tuple[str, ...]] = {
    "classification": ("accuracy",),
    "extraction": ("accuracy", "field_f1"),
    "generation": ("accuracy", "token_f1", "rouge_l", "chrf", JUDGE),
    "chat": ("accuracy", "token_f1", "rouge_l", "chrf", JUDGE),
    "embedding": ("accuracy", "recall@1", "recall@5", "recall@10", "mrr@10", "ndcg@10"),
}
"""Metrics that can gate, by task; each has a value for every item, 0 (worst) to 1."""
USUAL_METRICS: dict[Task, tuple[str, ...]] = {
    "classification": ("accuracy",),
    "extraction": ("accuracy", "field_f1"),
    # A text is hardly ever exactly the gold one, so nearness decides.
    "generation": ("token_f1", "accuracy"),
    "chat": ("token_f1", "accuracy"),
    "embedding": ("accuracy", "ndcg@10"),
}
"""Metrics that gate where the settings name none, the primary one first."""


class Gate(Value):
    """Thresholds that a candidate must reach to be promoted."""

    rule: Rule = "two-looks"
    """`one-look` decides at once, by `alpha`: it promotes sooner, and promotes more that is no better."""
    alpha: float = Field(0.05, gt=0, lt=1)
    """Greatest p-value that counts as better in the second or only look, and as worse in any look."""
    at_once: float = Field(0.005, gt=0, lt=1)
    """Greatest p-value that promotes in the first of two looks."""
    promising: float = Field(0.2, gt=0, lt=1)
    """Greatest p-value that earns a second look."""
    min_effect: float = Field(0.05, ge=0, lt=1)
    """Least measured gain in the primary metric."""
    metrics: tuple[str, ...] = ()
    """Gating metrics, the primary one first: a candidate must be better by the primary one and significantly
    worse by none, each p corrected for their number (Holm). Empty: those that are usual for the task."""
    golden_tolerance: int = Field(0, ge=0)
    """Golden cases passed by what is live that a candidate may break."""
    valid_margin: float = Field(0.05, ge=0, lt=1)
    """How much lower the candidate's share of valid answers may be, by the interval's lower end. It does not
    matter where no valid answer was lost."""
    latency_margin: float = Field(2.0, ge=0)
    """How much longer the candidate may take for the same work, as a share: 2 is three times as long. It is
    generous, since a first adapter is always slower than the bare base: 1.3 times with a model of 135M, 1.9
    with MiniLM."""
    general_margin: float | None = Field(None, ge=0, le=1)
    """How much further than what is live the candidate's answers to everyday questions may be from the base
    model's, by the interval's lower end: 0.2 lets an agreement of 0.9 fall to 0.7. Without it the agreement
    is reported and decides nothing. It holds for the tasks `generation`, `chat` and `extraction`."""
    fresh_items: float = Field(2.0, gt=0)
    """Newer reviewed items that a second look needs, as a multiple of those that the first look had."""
    probation_days: float = Field(30, gt=0, le=3650)
    """Days after its training for which a version waits for these items; then it is rejected."""
    candidates_per_window: int = Field(5, ge=1)
    """Candidates that one window of held-out traffic judges; the next waits for newer traffic."""

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.rule == "two-looks" and not self.at_once <= self.alpha <= self.promising:
            raise ValueError(
                f"at_once ({self.at_once:g}) <= alpha ({self.alpha:g}) <= promising ({self.promising:g}) "
                "does not hold"
            )
        return self

    def gating_metrics(self, task: Task) -> tuple[str, ...]:
        """Return the metrics that decide for `task`, the primary one first."""
        return self.metrics or USUAL_METRICS[task]

    def primary_metric(self, task: Task) -> str:
        """Return the first gating metric that has a value for every side.

        A judge compares the candidate only with what is live: where it stands first, it decides there, and
        the next metric decides everywhere else.
        """
        return next((metric for metric in self.gating_metrics(task) if metric != JUDGE), "accuracy")

    def promotion_level(self, look: Look) -> float:
        """Return the greatest p-value that promotes."""
        return self.at_once if self.rule == "two-looks" and look == "first" else self.alpha

    def promising_level(self, look: Look) -> float:
        """Return the greatest p-value that promotes or leads to a second look."""
        return self.promising if self.rule == "two-looks" and look == "first" else self.alpha

    def detection_level(self, look: Look, metrics: int) -> float:
        """Return the p-value at which an effect shows, by one of `metrics` gating metrics."""
        return self.promising_level(look) / metrics
