"""One contender in a race: its folder, its legs, its scores, and why it left. Everything is kept in files, so
that a race that was killed is run again from its beginning and repeats nothing.
"""

from dataclasses import dataclass, field
from pathlib import Path

from evaluation.race.scores import ItemScores
from evaluation.race_report import LEFT, RacedContender, RungScore
from extractors.values import Value
from trainers.job_folder import Progress, write_atomically
from trainers.jobs.job import TrainingJob, TrainingResult
from trainers.jobs.legs import Leg, LegResult
from trainers.planning.plan import Contender, Plan

LAST = "last"
DEPARTURE = "left.json"
"""File in a contender's folder."""


class LegProgress(Progress):
    """Writes a contender's progress to its own file, and under its name to the race's.

    Where the leg is `timed`, nobody knows its steps: lines of the race have no total then.
    """

    def __init__(self, own: Path, name: str, race: Progress, *, timed: bool) -> None:
        super().__init__(own, race.clock)
        self._name = name
        self._race = race
        self._timed = timed

    def write(self, stage: str, message: str = "", **values: object) -> None:
        """Append one line to both files."""
        super().write(stage, message, **values)
        unknown = {"total": None} if self._timed else {}
        self._race.write(stage, message, contender=self._name, **values | unknown)


class Departure(Value):
    """The content of left.json."""

    reason: str
    lost_seconds: float
    """Time of the work that came to nothing."""


@dataclass
class Racer:
    """One contender and how far it has come. It trains the last stage of its plan."""

    contender: Contender
    folder: Path
    job: TrainingJob
    progress: Progress
    """The race's."""
    shared: tuple[TrainingResult, ...] = ()
    """Results of the stages before the one that it trains, which it shares with another contender."""
    legs: dict[str, LegResult] = field(default_factory=dict)
    """By the rung that each one led to, in order."""
    scores: dict[str, ItemScores] = field(default_factory=dict)
    """By rung."""
    effect: float | None = None
    p_value: float | None = None
    fresh_effect: float | None = None
    lost_seconds: float = 0.0
    """Time of work that came to nothing: a leg that failed, answers that were cut off."""

    @property
    def name(self) -> str:
        return self.contender.name

    @property
    def step(self) -> int:
        """The step that it has reached."""
        return self.last_leg.step if self.last_leg else 0

    @property
    def step_seconds(self) -> float:
        """Seconds of its steps so far."""
        return sum(leg.seconds for leg in self.legs.values())

    @property
    def spent(self) -> float:
        """Seconds of its training and of its answers so far, with what came to nothing."""
        answering = sum(found.seconds for found in self.scores.values())
        return self.training_seconds + answering + self.lost_seconds

    @property
    def training_seconds(self) -> float:
        """Seconds of its training so far, with everything around its steps."""
        return self.last_leg.spent if self.last_leg else 0.0

    @property
    def last_leg(self) -> LegResult | None:
        """The newest of its legs."""
        return next(reversed(self.legs.values()), None)

    @property
    def result(self) -> TrainingResult:
        """The result of its training. Raises LookupError before the last leg."""
        if self.last_leg is None or self.last_leg.result is None:
            raise LookupError(f"{self.name} has not come to the end of its training")
        return self.last_leg.result

    @property
    def weights(self) -> Path:
        """Folder of its adapter as it is now. Raises LookupError before the first leg."""
        if self.last_leg is None:
            raise LookupError(f"{self.name} was not trained yet")
        last = self.last_leg
        return self.folder / (last.result.adapter if last.result else last.checkpoint)

    @property
    def planned_steps(self) -> int:
        """The steps of its whole training. Raises LookupError before the first leg."""
        if self.last_leg is None:
            raise LookupError(f"{self.name} was not trained yet")
        return self.last_leg.planned

    def describe_training(self, plan: Plan) -> Plan:
        """Return the plan that trains it alone as far as the time of the race let it be trained.

        Raises LookupError before the first leg.
        """
        chosen, leg = plan.choose(self.contender), self.last_leg
        if leg is None:
            raise LookupError(f"{self.name} was not trained yet")
        share = min(1.0, leg.end / leg.planned)
        *shared, last = chosen.stages
        epochs = {"epochs": last.hyperparameters.epochs * share}
        trained = last.model_copy(update={"hyperparameters": last.hyperparameters.model_copy(update=epochs)})
        return chosen.model_copy(update={"stages": (*shared, trained)})

    def build_leg(self, rung: str, *, until: int | None = None, seconds: float | None = None) -> Leg:
        """Return its next leg, up to the end of `rung`."""
        return Leg(
            number=len(self.legs) + 1,
            begin=self.step,
            until=until,
            seconds=seconds,
            is_last=rung == LAST,
        )

    def leave(self, reason: str, lost_seconds: float = 0.0) -> None:
        """Record that it leaves, for a reason in words, and the seconds of its work that came to nothing."""
        if not self.left:
            self.folder.mkdir(parents=True, exist_ok=True)
            departure = Departure(reason=reason, lost_seconds=lost_seconds)
            write_atomically(self.folder / DEPARTURE, departure.model_dump_json())
            self.progress.write(LEFT, reason, contender=self.name)

    @property
    def departure(self) -> Departure | None:
        """Its departure; None while it is in the race."""
        kept = self.folder / DEPARTURE
        return Departure.model_validate_json(kept.read_text("utf-8")) if kept.exists() else None

    @property
    def left(self) -> str:
        """Why it left, in words; empty while it is in the race."""
        return self.departure.reason if self.departure else ""

    def describe(self) -> RacedContender:
        """Return how far it came."""
        return RacedContender(
            name=self.name,
            reason=self.contender.reason,
            steps=self.step,
            seconds=self.spent,
            scores=tuple(
                RungScore(rung=rung, step=leg.step, mean=self.scores[rung].mean)
                for rung, leg in self.legs.items()
                if rung in self.scores
            ),
            effect=self.effect,
            p_value=self.p_value,
            fresh_effect=self.fresh_effect,
            left=self.left,
        )
