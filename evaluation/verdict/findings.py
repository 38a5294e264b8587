"""Everything that an evaluation measured, before it is judged."""

from evaluation.metrics.llm_judge import Preferences
from evaluation.metrics.measures import Overhead
from evaluation.race_report import RaceReport
from evaluation.report import (
    GeneralAbility,
    GoldenResults,
    ScoredAnswer,
    SeedRuns,
    Side,
)
from evaluation.weighting.weighting import Weighting
from extractors.values import Value


class Findings(Value):
    """Everything that an evaluation measured, before it is judged."""

    sides: tuple[Side, ...]
    """Base first, the candidate last."""
    live: str
    waiting: str | None = None
    """The side on probation."""
    sessions: dict[str, str]
    """Item id to session; the items of a session are not independent."""
    weighting: Weighting | None = None
    rejected_without_correction: int = 0
    retention: tuple[tuple[ScoredAnswer, ...], tuple[ScoredAnswer, ...]] | None = None
    """Answers to the retention set: those of what is live, and the candidate's."""
    golden: GoldenResults | None = None
    general: GeneralAbility | None = None
    no_general: str = ""
    """Why there is none, in words; empty where it is not wanted."""
    overheads: tuple[Overhead, ...] = ()
    preferences: Preferences | None = None
    """A judge's, between the candidate's answers and those of what is live, in the order of the answers."""
    no_judge: str = ""
    """Why no judge has a say, in words; empty where one has, or none was asked for."""
    seeds: SeedRuns | None = None
    race: RaceReport | None = None

    def find_side(self, name: str) -> Side:
        return next(side for side in self.sides if side.name == name)
