"""The ways to train and what each needs: a table, read from the top, and its thresholds.

`apply_rules.py` applies the table to a snapshot.
"""

from collections.abc import Mapping
from typing import Any, Literal, get_args

from pydantic import Field

from extractors.examples.types import Examples
from extractors.values import Value
from trainers.planning.hyperparameters import Method, TripletLoss
from trainers.planning.plan import ExampleKind

Task = Literal["classification", "generation", "extraction", "chat", "embedding"]
RaceMode = Literal["off", "cheap", "thorough"]
"""Which rows challenge the default: none, those of any race, or also those of thorough races."""
LANGUAGE_TASKS = frozenset[Task]({"classification", "generation", "extraction", "chat"})
"""Tasks of a language model."""
REPLAY_TASKS = frozenset[Task]({"generation", "extraction", "chat"})
"""Tasks whose SFT mixes in what the base wrote itself: their answers are texts as everyday ones are, and a
model that is to classify need not write any."""


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
    """Least share of valid answers at which a model can learn from preferences."""


class Readiness(Value):
    """Measured answers of a model to the prompts of preference pairs that it was not trained on."""

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
    """One row of the table: a way to train, and what it needs."""

    name: str
    """Name of the contender that the row yields; no two rows have the same."""
    tasks: frozenset[Task]
    needs: Mapping[str, str]
    """A count (see `count_for_rules`) to the threshold that it must reach."""
    stages: tuple[tuple[Method, ExampleKind], ...]
    start: Literal["base", "live", "live or base"] = "base"
    """What the first stage begins with. `live` asks for a live version; `live or base` takes one if there is
    one."""
    asks_live: bool = False
    """True: the model that it starts from must give mostly valid answers to the pairs' prompts, and pairs
    whose chosen answer it already gives do not count."""
    leads: bool = False
    """True: the row may be the default."""
    variant: Mapping[str, Any] = {}
    """Hyperparameters of the last stage that differ from the table of hyperparameters."""
    thorough: bool = False
    """True: it enters thorough races only."""
    because: str


_LOSSES: tuple[tuple[str, Mapping[str, Any], bool, str], ...] = (
    ("sigmoid+sft", {"dpo_loss": "sigmoid+sft"}, False, "the imitated answer holds its likelihood up"),
    ("sigmoid", {"dpo_loss": "sigmoid"}, True, "DPO as published"),
    # beta 5 as for the length-normalised DPO of Tülu 3 (Lambert et al. 2024, arXiv 2411.15124, table 20).
    ("sigmoid-norm", {"dpo_loss": "sigmoid_norm", "beta": 5.0}, True, "long answers do not weigh more"),
    ("apo-zero", {"dpo_loss": "apo_zero"}, True, "the chosen answer is pulled up where the model is worse"),
)
"""Losses for preference pairs: name, hyperparameters, whether thorough races only try it, and the reason."""


_SFT: tuple[tuple[str, frozenset[Task], ExampleKind, str], ...] = (
    ("sft", LANGUAGE_TASKS, "sft", "sft_examples"),
    ("sft on conversations", frozenset({"chat"}), "trajectories", "trajectories"),
)
"""The rows of SFT on which DPO goes on: name, tasks, examples and their threshold."""


def _build_pair_rules() -> tuple[MethodRule, ...]:
    """Return the rows that learn from pairs, one for each loss: on top of SFT, and from what is live."""
    on_top = tuple(
        MethodRule(
            name=f"{below}+dpo ({loss})",
            tasks=tasks,
            needs={"pairs": "pairs", kind: least},
            stages=(("sft", kind), ("dpo", "pairs")),
            variant=variant,
            thorough=thorough,
            because=f"preferences refine what was imitated; {why}",
        )
        for below, tasks, kind, least in _SFT
        for loss, variant, thorough, why in _LOSSES
    )
    from_live = tuple(
        MethodRule(
            name=f"dpo ({loss})",
            tasks=LANGUAGE_TASKS,
            needs={"pairs": "pairs"},
            stages=(("dpo", "pairs"),),
            start="live or base",
            asks_live=True,
            leads=loss == "sigmoid",
            variant=variant,
            thorough=thorough,
            because=f"preferences teach most where there are sensible answers to choose between; {why}",
        )
        for loss, variant, thorough, why in _LOSSES
    )
    return (*on_top, *from_live)


RULES: tuple[MethodRule, ...] = (
    MethodRule(
        name="embedding",
        tasks=frozenset({"embedding"}),
        needs={"triplets": "triplets"},
        stages=(("embedding", "triplets"),),
        leads=True,
        because="triplets are what an embedding model learns from",
    ),
    *(
        MethodRule(
            name=f"embedding ({loss})",
            tasks=frozenset({"embedding"}),
            needs={"triplets": "triplets"},
            stages=(("embedding", "triplets"),),
            variant={"triplet_loss": loss},
            because="the other loss may rank better than the one that the triplets suggest",
        )
        for loss in get_args(TripletLoss)
    ),
    MethodRule(
        name="sft on conversations",
        tasks=frozenset({"chat"}),
        needs={"trajectories": "trajectories"},
        stages=(("sft", "trajectories"),),
        leads=True,
        because="whole conversations teach every turn in its place",
    ),
    MethodRule(
        name="sft",
        tasks=LANGUAGE_TASKS,
        needs={"sft": "sft_examples"},
        stages=(("sft", "sft"),),
        leads=True,
        because="approved and corrected answers can be imitated",
    ),
    MethodRule(
        name="sft from live",
        tasks=LANGUAGE_TASKS,
        needs={"sft": "sft_examples"},
        stages=(("sft", "sft"),),
        start="live",
        because="what the live version knows need not be learned again",
    ),
    *_build_pair_rules(),
    MethodRule(
        name="kto",
        tasks=LANGUAGE_TASKS,
        needs={"liked": "votes", "disliked": "votes"},
        stages=(("kto", "votes"),),
        start="live or base",
        leads=True,
        because="votes teach even where no two answers to one prompt can be compared",
    ),
)
"""Every way to train. Of the rows that lead, the first whose needs are met is the default; the others
whose needs are met may challenge it, those of several stages where they go on from the default."""

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
