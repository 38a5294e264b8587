"""What all contenders of a race share: one loaded base, on which each is trained and scored in turn."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from evaluation.race.scores import ItemScores
from extractors.errors import LearndError
from trainers.job_folder import Progress
from trainers.jobs.job import TrainingJob
from trainers.jobs.legs import Leg, LegResult
from trainers.planning.method_rules import Readiness


class AnswersTooSlow(LearndError):
    """A contender's answers to the validation side take longer than they may."""


class Track(Protocol):
    """A loaded base with the validation side."""

    @property
    def item_ids(self) -> Sequence[str]:
        """Ids of the validation items, in the order of all scores."""
        ...

    @property
    def sessions(self) -> Sequence[str]:
        """The session of each item, or its trace."""
        ...

    def train_leg(self, job: TrainingJob, leg: Leg, folder: Path, progress: Progress) -> LegResult:
        """Train one leg into `folder`. Raises as a training does."""
        ...

    def score(self, weights: Path, seconds: float) -> ItemScores:
        """Score the answers of the contender whose adapter, or checkpoint, lies in the folder `weights`.

        Raises AnswersTooSlow where they take more than so many `seconds`.
        """
        ...

    def measure_readiness(self, scores: ItemScores) -> Readiness:
        """Return how the answers with these scores meet the validation pairs."""
        ...
