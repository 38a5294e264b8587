"""The rules by which a training method is chosen: a table, read from the top, and its thresholds.

`apply_rules.py` applies the table to a snapshot.
"""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from extractors.examples.types import Examples
from extractors.values import Value
from trainers.planning.hyperparameters import Method
from trainers.planning.plan import ExampleKind

Task = Literal["classification", "generation", "extraction", "chat", "embedding"]
LANGUAGE_TASKS = frozenset[Task]({"classification", "generation", "extraction", "chat"})
"""Tasks of a language model."""


class Thresholds(Value):
    """Number of training examples that each method needs."""

    pairs: int = Field(20, ge=1)
    """Preference pairs, for DPO."""
    votes: int = Field(50, ge=1)
    """Answers that people liked, and as many that they did not, for KTO."""
    sft_examples: int = Field(50, ge=1)
    """Approved or corrected answers, for SFT."""
    trajectories: int = Field(20, ge=1)
    """Approved conversations, for the task `chat`."""
    triplets: int = Field(100, ge=1)
    """Triplets of query, relevant and irrelevant document, for embeddings."""
    valid_share: float = Field(0.5, ge=0, le=1)
    """Least share of valid answers at which the live model can learn from preferences alone."""


class Readiness(Value):
    """Measured answers of a model to the prompts of preference pairs: is it ready for preferences?"""

    asked: int
    """Prompts in the sample of the pairs."""
    valid: int
    """Valid answers to them."""
    settled: int
    """Answers that already equal the chosen one of their pair."""

    @property
    def valid_share(self) -> float:
        """Share of valid answers, 0 to 1."""
        return self.valid / self.asked if self.asked else 0.0

    def estimate_unsettled(self, pairs: int) -> int:
        """Estimate how many of `pairs` pairs the model does not answer with the chosen answer yet."""
        return round(pairs * (1 - self.settled / self.asked)) if self.asked else 0

    def __str__(self) -> str:
        return f"{self.valid} of {self.asked} answers to their prompts are valid"


class MethodRule(Value):
    """One row of the table: its needs, and the stages that are trained when they are met."""

    tasks: frozenset[Task]
    needs: Mapping[str, str]
    """A count (see `count_for_rules`) to the threshold that it must reach."""
    live_valid: bool | None = None
    """True: the live model must give mostly valid answers to the pairs' prompts, and pairs whose chosen
    answer it already gives do not count. False: it must not. None: its answers do not matter."""
    from_live: bool = False
    """Continue with the live version's adapter, if there is one."""
    stages: tuple[tuple[Method, ExampleKind], ...]
    because: str


RULES = (
    MethodRule(
        tasks=frozenset({"embedding"}),
        needs={"triplets": "triplets"},
        stages=(("embedding", "triplets"),),
        because="triplets are what an embedding model learns from",
    ),
    MethodRule(
        tasks=frozenset({"chat"}),
        needs={"trajectories": "trajectories"},
        stages=(("sft", "trajectories"),),
        because="whole conversations teach every turn in its place",
    ),
    MethodRule(
        tasks=LANGUAGE_TASKS,
        needs={"pairs": "pairs"},
        live_valid=True,
        from_live=True,
        stages=(("dpo", "pairs"),),
        because="preferences teach most where the live model has sensible answers to choose between",
    ),
    MethodRule(
        tasks=LANGUAGE_TASKS,
        needs={"pairs": "pairs", "sft": "sft_examples"},
        live_valid=False,
        stages=(("sft", "sft"), ("dpo", "pairs")),
        because="the live model has to learn valid answers before it can choose between them",
    ),
    MethodRule(
        tasks=LANGUAGE_TASKS,
        needs={"liked": "votes", "disliked": "votes"},
        from_live=True,
        stages=(("kto", "votes"),),
        because="votes teach even where no two answers to one prompt can be compared",
    ),
    MethodRule(
        tasks=LANGUAGE_TASKS,
        needs={"sft": "sft_examples"},
        stages=(("sft", "sft"),),
        because="approved and corrected answers can be imitated",
    ),
)
"""The first rule of the task whose needs are met decides."""

KIND_NAMES = {
    "sft": "approved or corrected answers",
    "pairs": "preference pairs",
    "liked": "answers that people liked",
    "disliked": "answers that people did not like",
    "trajectories": "approved conversations",
    "triplets": "triplets",
}
METHOD_NAMES = {"sft": "SFT", "dpo": "DPO", "kto": "KTO", "embedding": "embedding training"}


def count_for_rules(examples: Examples) -> dict[str, int]:
    """Count the training examples under the names that the rules' needs use."""
    liked = sum(vote.desirable for vote in examples.votes)
    return {
        "sft": len(examples.sft),
        "pairs": len(examples.pairs),
        "liked": liked,
        "disliked": len(examples.votes) - liked,
        "trajectories": len(examples.trajectories),
        "triplets": len(examples.triplets),
    }
