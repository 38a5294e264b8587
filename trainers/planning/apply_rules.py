"""The contenders for a training, chosen for a snapshot by the table of method rules: the default, and those
that must beat it in a race.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from types import MappingProxyType
from typing import Any

from pydantic import Field

from extractors.dataset.snapshot import Snapshot
from extractors.values import Value, content_id
from trainers.planning.hyperparameters import Preset, TripletLoss, choose_hyperparameters, select_overrides
from trainers.planning.limits import Limits
from trainers.planning.method_rules import (
    KIND_NAMES,
    METHOD_NAMES,
    RULES,
    MethodRule,
    RaceMode,
    Readiness,
    Task,
    Thresholds,
    count_for_rules,
)
from trainers.planning.plan import Contender, Plan, Quantization, Skip, TrainingStage
from trainers.planning.triplet_batches import choose_batches

MIN_RACE_SESSIONS = 40
"""Sessions on the validation side whose answers can be scored, below which a race is not run: 30% of 40 items
that differ have a standard error of 9 points."""


class TrainingPreferences(Value):
    """The settings for a target's trainings."""

    preset: Preset = "efficient"
    overrides: dict[str, Any] = {}
    """Hyperparameters by name, for all methods, or under a method's name for that one."""
    max_lora_rank: int
    quantization: Quantization | None = None
    """Precision in which a base of any size is held; None: its own."""
    prefix_shared: bool = True
    """Compute the common beginning of examples once, where that gives the same gradients."""
    limits: Limits = Limits()
    """Limits of the trainings: under other limits, a training that was cut short may be worth repeating."""
    race: RaceMode = "cheap"
    """Whether other ways to train than the default are tried: none, one of each kind, or all."""
    race_cost: float = Field(1.85, gt=1)
    """Most seconds of a race, as a multiple of those of the default alone."""
    replay_share: float = Field(0.0, ge=0, le=1)
    """Examples that the base writes itself, as a share of those that SFT learns, for tasks that have them."""


class BaseModelInfo(Value):
    """The base model that would be trained."""

    name: str
    """Hub id or path."""
    digest: str
    bytes: int
    """Size of its weights."""


class MethodSettings(Value):
    """Everything but the data that a choice of method depends on and that people can set."""

    task: Task
    thresholds: Thresholds
    base: BaseModelInfo
    preferences: TrainingPreferences

    @property
    def id(self) -> str:
        """Digest of the settings; the name and size of the base follow from its digest."""
        values = [self.task, _dump_thresholds(self.thresholds), self.thresholds.valid_share, self.base.digest]
        return content_id([*values, self.preferences.model_dump(mode="json")])


class LiveVersion(Value):
    """The version that is live, with an adapter on this base."""

    version: str
    lora_rank: int
    lora_alpha: int
    new_sessions: int | None
    """Sessions on the validation side whose answers can be scored, without what it was trained on, and the
    versions that it went on from; None where what they were trained on is unknown."""

    def find_race_obstacle(self) -> str | None:
        """Return why what goes on from it cannot race, in words; None if it can."""
        if self.new_sessions is None:
            return f"what {self.version} was trained on is unknown"
        if self.new_sessions < MIN_RACE_SESSIONS:
            about = f"{self.new_sessions} sessions to validate on that {self.version} was not trained on"
            return f"{about} (needs {MIN_RACE_SESSIONS})"
        return None


class ConsideredRule(Value):
    """A rule and whether the data meets its needs."""

    method: str
    """Name of the rule."""
    needs: str
    """In words, with the counts that there are."""
    met: bool


class MethodChoice(Value):
    """The plan for a snapshot, and the rules that led to it."""

    plan: Plan | Skip
    considered: tuple[ConsideredRule, ...]
    """The rules for the task that were looked at, in order."""


def choose_method(
    snapshot: Snapshot,
    settings: MethodSettings,
    *,
    live: LiveVersion | None,
    measure_live: Callable[[], Readiness],
    sessions: int,
    no_scores: str | None = None,
    found_before: Mapping[str, float] = MappingProxyType({}),
) -> MethodChoice:
    """Choose how to train on `snapshot`, or whether to skip it.

    `measure_live` measures how the live model answers the pairs' prompts; it is called only where the
    choice depends on that. `sessions` are those on the validation side whose answers can be scored, and
    `no_scores` says why none can, in words; then there is no race. `found_before` has the mean gain over the
    default of contenders that raced for the same target before: it orders the challengers.
    Raises OverridesInvalid.
    """
    held_out = snapshot.manifest.held_out
    if not held_out.approved + held_out.corrected:
        reason = "nothing is held out to judge by; approve or correct more of the traffic"
        return MethodChoice(plan=Skip(reason=reason), considered=())
    choice = _Choice(snapshot, settings, live, cache(measure_live))
    default, tried = choice.find_default()
    if default is None:
        return MethodChoice(plan=Skip(reason=_explain_shortage(snapshot, tried)), considered=tried)
    obstacle = _find_race_obstacle(settings.preferences.race, sessions, no_scores)
    obstacle = obstacle or choice.find_memory(default)
    if obstacle is None:
        challengers, others = choice.find_challengers(default)
        obstacle = "" if challengers else "no other way to train has what it needs"
    else:
        challengers, others = (), ()
    first = choice.build_contender(default)
    plan = Plan(
        **{name: getattr(first, name) for name in Contender.model_fields},
        challengers=tuple(sorted(challengers, key=lambda each: -found_before.get(each.name, 0.0))),
        race_cost=settings.preferences.race_cost if challengers else None,
        no_race=obstacle,
        counts=choice.counts,
        thresholds=_dump_thresholds(settings.thresholds),
        snapshot_id=snapshot.id,
        base_model=settings.base.name,
        base_digest=settings.base.digest,
        # An encoder is small, and its trainer holds it in its own precision.
        quantization=None if settings.task == "embedding" else settings.preferences.quantization,
        prefix_shared=settings.preferences.prefix_shared,
        settings_id=settings.id,
    )
    return MethodChoice(plan=plan, considered=(*tried, *others))


def can_start(rule: MethodRule, *, has_live: bool) -> bool:
    """Return whether a challenger by this rule has something to begin with.

    The base itself serves where it need not answer sensibly, or where that is measured.
    """
    return has_live or rule.start == "base" or rule.asks_live


def may_race(
    counts: Mapping[str, int], task: Task, thresholds: Thresholds, mode: RaceMode, *, has_live: bool
) -> bool:
    """Return whether several ways to train have enough examples, whatever the live model answers."""

    def is_met(rule: MethodRule) -> bool:
        enough = all(counts[name] >= getattr(thresholds, least) for name, least in rule.needs.items())
        return enough and (rule.leads or can_start(rule, has_live=has_live))

    rules = [rule for rule in RULES if task in rule.tasks and is_met(rule)]
    return (
        mode != "off"
        and any(rule.leads for rule in rules)
        and sum(mode == "thorough" or not rule.thorough for rule in rules) > 1
    )


def _find_race_obstacle(mode: RaceMode, sessions: int, no_scores: str | None) -> str | None:
    """Return why a race could tell nothing, or must not be run, in words; None if it may be."""
    if mode == "off":
        return "`race` is off"
    if no_scores is not None:
        return no_scores
    if sessions < MIN_RACE_SESSIONS:
        about = f"{sessions} sessions to validate on whose answers can be scored"
        return f"{about}, and a race can tell nothing below {MIN_RACE_SESSIONS}"
    return None


@dataclass(frozen=True)
class _Choice:
    """One choice among the rules."""

    snapshot: Snapshot
    settings: MethodSettings
    live: LiveVersion | None
    measure_live: Callable[[], Readiness]
    """Measures once."""

    @cached_property
    def counts(self) -> dict[str, int]:
        return count_for_rules(self.snapshot.train)

    def find_default(self) -> tuple[MethodRule | None, tuple[ConsideredRule, ...]]:
        """Return the first leading rule whose needs are met, and the rules that were considered."""
        considered: list[ConsideredRule] = []
        for rule in self._list_rules():
            if not rule.leads:
                continue
            considered.append(self._consider(rule))
            if considered[-1].met:
                return rule, tuple(considered)
        return None, tuple(considered)

    def find_challengers(
        self, default: MethodRule
    ) -> tuple[tuple[Contender, ...], tuple[ConsideredRule, ...]]:
        """Return the contenders that may beat the default, and the rules that were considered."""
        challengers, considered = [], []
        for rule in self._list_rules():
            if rule is default or not _may_follow(rule, default) or not self._may_challenge(rule):
                continue
            considered.append(self._consider(rule, challenges=True))
            if considered[-1].met:
                challengers.append(self.build_contender(rule))
        return tuple(challengers), tuple(considered)

    def find_memory(self, rule: MethodRule) -> str | None:
        """Return why a contender by this rule would answer the validation side from memory, in words."""
        goes_on = self.live is not None and rule.start != "base"
        return self.live.find_race_obstacle() if self.live and goes_on else None

    def build_contender(self, rule: MethodRule) -> Contender:
        start = self.live if rule.start != "base" else None
        return Contender(
            name=rule.name,
            stages=_build_stages(rule, self.counts, self.settings, start),
            start_version=start.version if start else None,
            reason=f"{rule.name}: {self._consider(rule).needs}; {rule.because}",
        )

    def _list_rules(self) -> Iterator[MethodRule]:
        return (rule for rule in RULES if self.settings.task in rule.tasks)

    def _may_challenge(self, rule: MethodRule) -> bool:
        """Return whether the race's mode, the settings' own hyperparameters and the default let it in."""
        if "triplet_loss" in rule.variant and not self._is_other_loss(rule.variant["triplet_loss"]):
            return False
        overrides = self.settings.preferences.overrides
        pinned = select_overrides(rule.stages[-1][0], overrides)
        decided = rule.variant.keys() & pinned.keys()
        if decided:
            return all(pinned[name] == rule.variant[name] for name in decided)
        return self.settings.preferences.race == "thorough" or not rule.thorough

    def _is_other_loss(self, loss: TripletLoss) -> bool:
        """Return whether the triplets can be learned by `loss`, and would not be by default."""
        triplets, batch_size = self.snapshot.train.triplets, self._choose_batch_size()
        usual = choose_batches(triplets, batch_size).loss
        return usual != loss == choose_batches(triplets, batch_size, loss).loss

    def _choose_batch_size(self) -> int:
        preferences, count = self.settings.preferences, self.counts["triplets"]
        overrides = select_overrides("embedding", preferences.overrides)
        return choose_hyperparameters(
            "embedding", count, self.settings.base.bytes, preset=preferences.preset, overrides=overrides
        ).batch_size

    def _find_start_obstacle(self, rule: MethodRule) -> str | None:
        """Return why a challenger by this rule has nothing to begin with, in words; None if it has."""
        if not can_start(rule, has_live=self.live is not None):
            most = self.settings.preferences.max_lora_rank
            return f"no live version of this base, of a rank up to {most}, to go on from"
        return self.find_memory(rule)

    def _consider(self, rule: MethodRule, *, challenges: bool = False) -> ConsideredRule:
        thresholds, counts = self.settings.thresholds, self.counts
        needs = [
            f"{counts[name]} {KIND_NAMES[name]} (needs {getattr(thresholds, least)})"
            for name, least in rule.needs.items()
        ]
        met = all(counts[name] >= getattr(thresholds, least) for name, least in rule.needs.items())
        if challenges and (obstacle := self._find_start_obstacle(rule)):
            met = False
            needs.append(obstacle)
        if met and rule.asks_live:
            readiness = self.measure_live()
            unsettled = readiness.estimate_unsettled(counts["pairs"])
            met = readiness.valid_share >= thresholds.valid_share and unsettled >= thresholds.pairs
            needs.append(f"{readiness} (needs {thresholds.valid_share:.0%})")
            needs.append(
                f"about {unsettled} pairs whose chosen answer it does not give yet (needs {thresholds.pairs})"
            )
        return ConsideredRule(method=rule.name, needs=", ".join(needs), met=met)


def _may_follow(rule: MethodRule, default: MethodRule) -> bool:
    """Return whether the stages before the rule's last, which the race does not train, are the default's."""
    below = rule.stages[:-1]
    return not below or (below, rule.start) == (default.stages, default.start)


def find_reason_to_skip(
    stage: TrainingStage, plan: Plan, thresholds: Thresholds, readiness: Readiness
) -> str | None:
    """Return why `stage` is not worth training after the stage before it; None if it is.

    `readiness` is how the adapter of the stage before it answers the pairs' prompts.
    """
    name = METHOD_NAMES[stage.method]
    unsettled = readiness.estimate_unsettled(plan.counts["pairs"])
    if readiness.valid_share < thresholds.valid_share:
        return f"{name} left out: after the stage before it only {readiness}"
    if unsettled < thresholds.pairs:
        return (
            f"{name} left out: {readiness.settled} of {readiness.asked} answers to the pairs' prompts are "
            f"the chosen ones already, so about {unsettled} pairs have something left to teach, and "
            f"{thresholds.pairs} are needed"
        )
    return None


def _build_stages(
    rule: MethodRule, counts: Mapping[str, int], settings: MethodSettings, start: LiveVersion | None
) -> tuple[TrainingStage, ...]:
    stages: list[TrainingStage] = []
    preferences = settings.preferences
    for number, (method, kind) in enumerate(rule.stages, start=1):
        examples = counts["liked"] + counts["disliked"] if kind == "votes" else counts[kind]
        variant = rule.variant if number == len(rule.stages) else {}
        # The stage may continue with an adapter that already has its shape; its rate belongs to that rank.
        before = stages[0].hyperparameters if stages else start
        rank = {"lora_rank": before.lora_rank} if before else {}
        chosen = choose_hyperparameters(
            method,
            examples,
            settings.base.bytes,
            preset=preferences.preset,
            overrides={**variant, **select_overrides(method, preferences.overrides), **rank},
            max_lora_rank=None if method == "embedding" else preferences.max_lora_rank,
        )
        if before:
            chosen = chosen.model_copy(update={"lora_alpha": before.lora_alpha})
        stages.append(TrainingStage(method=method, data=kind, hyperparameters=chosen))
    return tuple(stages)


def _dump_thresholds(thresholds: Thresholds) -> dict[str, int]:
    return {name: getattr(thresholds, name) for name in Thresholds.model_fields if name != "valid_share"}


def _explain_shortage(snapshot: Snapshot, considered: Iterable[ConsideredRule]) -> str:
    lacking = "; ".join(f"{rule.method} has {rule.needs}" for rule in considered)
    return (
        f"too little to learn from: {lacking} (beside {sum(snapshot.manifest.validation.values())} examples "
        f"for validation and {snapshot.manifest.holdout} held out); approve, reject or correct more "
        "of the traffic"
    )
