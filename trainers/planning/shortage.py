"""The kind of examples that a snapshot lacks least: a language model could write the rest."""

from collections.abc import Mapping
from typing import Literal

from extractors.values import Value
from trainers.planning.method_rules import KIND_NAMES, Task, Thresholds


class Shortage(Value):
    """A kind of examples of which there are too few."""

    kind: Literal["sft", "pairs", "triplets"]
    have: int
    threshold: int

    @property
    def missing(self) -> int:
        """Number of examples up to the threshold."""
        return self.threshold - self.have

    @property
    def words(self) -> str:
        """The kind in words."""
        return KIND_NAMES[self.kind]


def find_shortage(counts: Mapping[str, int], task: Task, thresholds: Thresholds) -> Shortage | None:
    """Find the kind of examples that is closest to its threshold and not at zero; None if there is none.

    Only kinds that can be synthesised are considered. Of equal ones it is `sft`: answers teach a
    beginner the most.
    """
    needs: Mapping[Literal["sft", "pairs", "triplets"], int] = (
        {"triplets": thresholds.triplets}
        if task == "embedding"
        else {"sft": thresholds.sft_examples, "pairs": thresholds.pairs}
    )
    shortages = [Shortage(kind=kind, have=counts[kind], threshold=least) for kind, least in needs.items()]
    begun = [shortage for shortage in shortages if shortage.have and shortage.missing > 0]
    return min(begun, key=lambda shortage: shortage.missing, default=None)
