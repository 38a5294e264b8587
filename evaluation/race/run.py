"""A race in a child process: contenders are trained leg by leg on one loaded base, and compared by their
answers to the validation side. The winner's adapter is the result.

<race>/contenders/<name>/leg-1.json  scores-first.json  left.json  checkpoints/  adapter/  progress.jsonl

Each of these files is written once. A race that was killed is run again from its beginning, and what has
its file is not done again.
"""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import fmean

from evaluation.race.job import RaceJob, RaceResult
from evaluation.race.racer import LAST, LegProgress, Racer
from evaluation.race.rungs import (
    compare,
    count_entrants,
    find_level,
    pick_better,
    plan_rungs,
    share_time,
)
from evaluation.race.scores import ItemScores
from evaluation.race.track import AnswersTooSlow, Track
from evaluation.race_report import WON, RaceReport
from extractors.dataset.snapshot import Snapshot, read_snapshot
from trainers.batching.tokenise import NothingToLearn
from trainers.job_folder import Progress, run_job, write_atomically
from trainers.jobs.legs import LegResult, find_leg_file
from trainers.jobs.train import BaseChanged
from trainers.memory import is_out_of_memory, release_memory
from trainers.models.adapter_files import AdapterUnusable
from trainers.models.base_model import compute_base_digest, use_threads
from trainers.planning.apply_rules import find_reason_to_skip
from trainers.planning.plan import Contender
from trainers.quick_imports import quick_imports
from trainers.recovery.checkpoints import remove_checkpoints
from trainers.recovery.fallbacks import OutOfMemory, TrainingDiverged
from trainers.recovery.guards import DEATHS_FOR_MEMORY, count_deaths, read_seconds

CONTENDERS = "contenders"
"""Folder of the contenders in the race's folder."""
RUNG_NAMES = ("first", "second", "third", "fourth", "fifth")
ANSWER_TIMES = 3
"""Most time of a challenger's answers, as a multiple of the default's: one that has not learned to end its
turns would answer for ever."""
LEAST_ANSWER_SECONDS = 10.0
"""Time that they may take in any case: that of a few answers varies too much to tell."""
FAILURES = (AdapterUnusable, AnswersTooSlow, NothingToLearn, OutOfMemory, TrainingDiverged)
"""Errors of a contender that end its race, and not everybody's."""


def run(folder: Path) -> None:
    """Do the RaceJob in `folder`: `learnd work race FOLDER`."""
    run_job(folder, RaceJob, race)


def race(job: RaceJob, folder: Path, progress: Progress) -> RaceResult:
    """Train the plan's default and its challengers as far as each comes, into `folder`.

    Raises LearndError as a training of the default does.
    """
    if compute_base_digest(job.plan.base_model) != job.plan.base_digest:
        raise BaseChanged(f"{job.plan.base_model} has changed since the plan was made; start the cycle again")
    use_threads(job.threads)
    progress.write("loading", f"base model {job.plan.base_model}")
    snapshot = read_snapshot(Path(job.snapshot))
    return _Race(job, folder, progress, snapshot, _open_track(job, folder, snapshot)).run()


def _open_track(job: RaceJob, folder: Path, snapshot: Snapshot) -> Track:
    with quick_imports():
        if job.task == "embedding":
            from evaluation.race.encoder_track import open_encoder_track

            return open_encoder_track(job, snapshot)
        from evaluation.race.language_track import open_language_track

        return open_language_track(job, folder, snapshot)


@dataclass
class _Race:
    """A race under way."""

    job: RaceJob
    folder: Path
    progress: Progress
    snapshot: Snapshot
    track: Track
    racers: list[Racer] = field(default_factory=list)
    """All contenders, the default first."""

    def run(self) -> RaceResult:
        plan = self.job.plan
        default = self._enter(plan.default)
        challengers = [self._enter(each) for each in plan.challengers]
        self._run_leg(default, LAST)
        entrants = self._admit(default, challengers) if self._has_scored(default) else []
        best = self._halve(entrants)
        winner = best if best and self._displaces(best, default) else default
        return self._finish(default, winner)

    def _enter(self, contender: Contender) -> Racer:
        plan, name = self.job.plan.choose(contender), re.sub(r"[^a-z0-9+]+", "-", contender.name)
        start = self.job.start_adapters[contender.start_version] if contender.start_version else None
        stage = len(contender.stages) - 1
        racer = Racer(
            contender=contender,
            folder=self.folder / CONTENDERS / name.strip("-"),
            job=self.job.build_training_job(plan, stage, start),
            progress=self.progress,
        )
        self.racers.append(racer)
        return racer

    # ---- who enters

    def _has_scored(self, default: Racer) -> bool:
        """Let the default answer the validation side; return False where it has no time for that."""
        try:
            self._score(default, LAST, self._find_time_left())
        except AnswersTooSlow as slow:
            for each in self.racers[1:]:
                each.leave(f"did not enter: {slow} ({self._bound})")
        return LAST in default.scores

    def _admit(self, default: Racer, challengers: Sequence[Racer]) -> list[Racer]:
        """Return the challengers that are worth a try and for which there is time, in their order."""
        worthwhile = [each for each in challengers if self._is_worthwhile(default, each)]
        entrants = count_entrants(
            len(worthwhile), default=self._alone, answers=self._answer_seconds, left=self._find_time_left()
        )
        for each in worthwhile[entrants:]:
            each.leave(f"did not enter: there is no time left for it ({self._bound})")
        return worthwhile[:entrants]

    def _is_worthwhile(self, default: Racer, challenger: Racer) -> bool:
        """Return whether to try the challenger; one that goes on from the default is placed on it."""
        if not _is_on_top(challenger.contender, default.contender):
            return True
        readiness = self.track.measure_readiness(default.scores[LAST])
        why_not = find_reason_to_skip(
            challenger.contender.stages[-1], self.job.plan, self.job.thresholds, readiness
        )
        if why_not:
            challenger.leave(why_not)
            return False
        start = str(default.folder / default.result.adapter)
        challenger.job = challenger.job.model_copy(update={"start_adapter": start})
        challenger.shared = (default.result,)
        return True

    # ---- the challengers among themselves

    def _halve(self, challengers: list[Racer]) -> Racer | None:
        """Train the challengers rung by rung, the better half of them in the next; return the last one.

        Returns None where none came to its end.
        """
        running, rungs = challengers, plan_rungs(len(challengers)) if challengers else []
        for number, _ in enumerate(rungs[:-1]):
            shared = share_time(rungs[number:], answers=self._answer_seconds, left=self._find_time_left())
            # What comes around the steps takes its part of the time, as it does for the default.
            seconds = shared * self._default.step_seconds / self._alone
            rung = RUNG_NAMES[number]
            for each in running:
                self._advance(each, rung, seconds=seconds)
            running = self._keep_better(running, rung, rungs[number + 1])
        for each in running:
            self._advance(each, LAST, until=self._find_last_step(each))
        return next((each for each in running if LAST in each.scores), None)

    def _keep_better(self, running: Sequence[Racer], rung: str, count: int) -> list[Racer]:
        """Return the `count` best racers at `rung`; the others leave."""
        scored = {each.name: each for each in running if rung in each.scores}
        means = {name: each.scores[rung].mean for name, each in scored.items()}
        better = pick_better(means, count)
        for name in scored.keys() - set(better):
            scored[name].leave(
                f"behind {better[0]} at the {rung} rung: {self.job.metric} {means[name]:.3f} "
                f"against {means[better[0]]:.3f}"
            )
        return [scored[name] for name in better]

    def _find_last_step(self, racer: Racer) -> int:
        """Return the step at which the racer ends: that of its plan, or sooner for lack of time."""
        answering = [found.seconds for found in racer.scores.values()]
        left = self._find_time_left() - max(self._answer_seconds, *answering)
        affordable = int(left / (racer.training_seconds / racer.step))
        return min(racer.planned_steps, racer.step + max(1, affordable))

    def _displaces(self, challenger: Racer, default: Racer) -> bool:
        """Test the challenger against the default; it leaves where it is not better by enough."""
        gain = compare(
            challenger.scores[LAST].values, default.scores[LAST].values, self.track.sessions, self.job.metric
        )
        challenger.effect, challenger.p_value = gain.effect, gain.p_better
        if gain.p_better <= self._level:
            return True
        challenger.leave(
            f"not better than {default.name} by enough: {gain.effect:+.3f} {self.job.metric}, "
            f"p = {gain.p_better:.2g} (needs {self._level:.2g})"
        )
        return False

    # ---- legs and scores

    def _advance(
        self, racer: Racer, rung: str, *, until: int | None = None, seconds: float | None = None
    ) -> None:
        """Bring a challenger to the end of `rung`, and score it there; an error of its own makes it leave."""
        if racer.departure is None or _find_scores_file(racer, rung).exists():
            began_answering = None
            try:
                self._run_leg(racer, rung, until=until, seconds=seconds)
                began_answering = time.monotonic()
                self._score(racer, rung, max(LEAST_ANSWER_SECONDS, ANSWER_TIMES * self._answer_seconds))
            except FAILURES as failure:
                racer.legs.pop(rung, None)
                answering = time.monotonic() - began_answering if began_answering else 0.0
                lost = read_seconds(racer.folder) - racer.training_seconds + answering
                racer.leave(f"{type(failure).__name__}: {failure}", lost)
        if racer.departure:
            racer.lost_seconds = racer.departure.lost_seconds

    def _run_leg(
        self, racer: Racer, rung: str, *, until: int | None = None, seconds: float | None = None
    ) -> None:
        racer.folder.mkdir(parents=True, exist_ok=True)
        leg = racer.build_leg(rung, until=until, seconds=seconds)
        kept = find_leg_file(racer.folder, leg.number)
        if not kept.exists():
            others = self.job.spent + self._spent - racer.training_seconds
            found = self.track.train_leg(
                racer.job.model_copy(update={"spent": others}),
                leg,
                racer.folder,
                LegProgress(
                    racer.folder / "progress.jsonl", racer.name, self.progress, timed=leg.seconds is not None
                ),
            )
            write_atomically(kept, found.model_dump_json(indent=2))
        racer.legs[rung] = LegResult.model_validate_json(kept.read_text("utf-8"))

    def _score(self, racer: Racer, rung: str, seconds: float) -> None:
        """Let a contender that has come to the end of `rung` answer the validation side within `seconds`.

        Raises AnswersTooSlow, and OutOfMemory.
        """
        kept = _find_scores_file(racer, rung)
        if not kept.exists():
            found = self._answer(racer, seconds)
            write_atomically(kept, found.model_dump_json())
            scored = f"{self.job.metric} {found.mean:.3f} at the {rung} rung"
            self.progress.write("scored", scored, contender=racer.name)
        racer.scores[rung] = ItemScores.model_validate_json(kept.read_text("utf-8"))

    def _answer(self, racer: Racer, seconds: float) -> ItemScores:
        if seconds <= 0:
            raise AnswersTooSlow("there is no time left for answers")
        try:
            with count_deaths(racer.folder / "deaths.json") as deaths:
                # Without the default there is no race: the daemon gives one up that keeps dying.
                if deaths >= DEATHS_FOR_MEMORY and racer is not self._default:
                    raise OutOfMemory(f"killed {deaths} times while it answered, as if for memory")
                items = f"{len(self.track.item_ids)} validation items"
                self.progress.write("answering", items, contender=racer.name)
                return self.track.score(racer.weights, seconds)
        except (RuntimeError, MemoryError, OSError) as error:
            if not is_out_of_memory(error):
                raise
            message = f"{racer.name} runs out of memory while it answers: {error}"
        release_memory()
        raise OutOfMemory(message)

    # ---- time

    @property
    def _default(self) -> Racer:
        return self.racers[0]

    @property
    def _level(self) -> float:
        return find_level(len(self.job.plan.challengers))

    @property
    def _spent(self) -> float:
        return sum(racer.spent for racer in self.racers)

    @property
    def _alone(self) -> float:
        """Seconds of the default alone, which needs no answers to the validation side."""
        return self._default.training_seconds

    @property
    def _answer_seconds(self) -> float:
        """Seconds of the default's answers to the validation side."""
        return self._default.scores[LAST].seconds

    @property
    def _bound(self) -> str:
        """The bounds of the race's time, in words."""
        return f"race_cost = {self.job.plan.race_cost:g}, {self.job.limits}"

    def _find_time_left(self) -> float:
        """Return the seconds that the race may still take."""
        bound = (self.job.plan.race_cost or 1.0) * self._alone
        return min(bound, self.job.limits.seconds - self.job.spent) - self._spent

    # ---- the end

    def _finish(self, default: Racer, winner: Racer) -> RaceResult:
        if winner is not default:
            default.leave(f"beaten by {winner.name}")
        self.progress.write(WON, contender=winner.name)
        for racer in self.racers[1:]:
            racer.fresh_effect = self._measure_fresh_effect(default, racer)
        report = RaceReport(
            metric=self.job.metric,
            items=len(self.track.item_ids),
            sessions=len(set(self.track.sessions)),
            level=self._level,
            contenders=tuple(racer.describe() for racer in self.racers),
            winner=winner.name,
            seconds=self._spent,
            default_seconds=self._alone,
            cost_bound=self.job.plan.race_cost or 1.0,
            item_ids=tuple(self.track.item_ids),
            fresh_items=len(self._fresh_places),
        )
        for racer in self.racers:
            remove_checkpoints(racer.folder)
        return RaceResult(
            report=report,
            plan=winner.describe_training(self.job.plan),
            adapter=str((winner.folder / winner.result.adapter).relative_to(self.folder)),
            stages=(*winner.shared, winner.result),
        )

    @cached_property
    def _fresh_places(self) -> list[int]:
        """The places of the items that no earlier race scored."""
        seen = set(self.job.seen_items)
        return [place for place, item in enumerate(self.track.item_ids) if item not in seen]

    def _measure_fresh_effect(self, default: Racer, racer: Racer) -> float | None:
        """Return the mean difference of a challenger's last scores from the default's, on fresh items.

        None where it did not come to its end: less training would count against it.
        """
        if LAST not in racer.scores or not self._fresh_places:
            return None
        own, theirs = racer.scores[LAST].values, default.scores[LAST].values
        return fmean(own[place] - theirs[place] for place in self._fresh_places)


def _find_scores_file(racer: Racer, rung: str) -> Path:
    return racer.folder / f"scores-{rung}.json"


def _is_on_top(contender: Contender, default: Contender) -> bool:
    """Return True if the contender goes on from what the default makes."""
    return (
        len(contender.stages) > len(default.stages)
        and contender.stages[: len(default.stages)] == default.stages
        and contender.start_version == default.start_version
    )
