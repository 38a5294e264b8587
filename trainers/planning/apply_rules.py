"""The method, hyperparameters and start of a training, chosen for a snapshot by the table of method rules."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from extractors.dataset.snapshot import Snapshot
from extractors.values import Value, content_id
from trainers.planning.hyperparameters import Preset, choose_hyperparameters, select_overrides
from trainers.planning.limits import Limits
from trainers.planning.method_rules import (
    KIND_NAMES,
    METHOD_NAMES,
    RULES,
    MethodRule,
    Readiness,
    Task,
    Thresholds,
    count_for_rules,
)
from trainers.planning.plan import Plan, Quantization, Skip, TrainingStage


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


class ConsideredRule(Value):
    """A rule and whether the data meets its needs."""

    method: str
    needs: str
    """In words, with the counts that there are."""
    met: bool


class MethodChoice(Value):
    """The plan for a snapshot, and the rules that led to it."""

    plan: Plan | Skip
    considered: tuple[ConsideredRule, ...]
    """The rules for the task, in order, up to the one that decided."""


def choose_method(
    snapshot: Snapshot,
    settings: MethodSettings,
    *,
    live: LiveVersion | None,
    measure_live: Callable[[], Readiness],
) -> MethodChoice:
    """Choose how to train on `snapshot`, or whether to skip it.

    `measure_live` measures how the live model answers the pairs' prompts; it is called only where the
    choice depends on that. Raises OverridesInvalid.
    """
    counts, held_out = count_for_rules(snapshot.train), snapshot.manifest.held_out
    if not held_out.approved + held_out.corrected:
        reason = "nothing is held out to judge by; approve or correct more of the traffic"
        return MethodChoice(plan=Skip(reason=reason), considered=())
    rule, considered = _find_rule(settings.task, counts, settings.thresholds, measure_live)
    if rule is None:
        return MethodChoice(plan=Skip(reason=_explain_shortage(snapshot, considered)), considered=considered)
    start = live if rule.from_live else None
    reason = f"{considered[-1].method}: {considered[-1].needs}; {rule.because}"
    plan = _build_plan(snapshot.id, settings, rule, counts, reason, start)
    return MethodChoice(plan=plan, considered=considered)


def _build_plan(
    snapshot_id: str,
    settings: MethodSettings,
    rule: MethodRule,
    counts: dict[str, int],
    reason: str,
    start: LiveVersion | None,
) -> Plan:
    preferences = settings.preferences
    return Plan(
        stages=_build_stages(rule, counts, settings.base.bytes, preferences, start),
        reason=reason,
        counts=counts,
        thresholds=_dump_thresholds(settings.thresholds),
        snapshot_id=snapshot_id,
        base_model=settings.base.name,
        base_digest=settings.base.digest,
        start_version=start.version if start else None,
        # An encoder is small, and its trainer holds it in its own precision.
        quantization=None if settings.task == "embedding" else preferences.quantization,
        prefix_shared=preferences.prefix_shared,
        settings_id=settings.id,
    )


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


def _find_rule(
    task: Task, counts: Mapping[str, int], thresholds: Thresholds, measure_live: Callable[[], Readiness]
) -> tuple[MethodRule | None, tuple[ConsideredRule, ...]]:
    """Return the first rule for the task whose needs are met, and all rules that were considered."""
    considered: list[ConsideredRule] = []
    readiness: Readiness | None = None
    for rule in RULES:
        if task not in rule.tasks:
            continue
        met = all(counts[name] >= getattr(thresholds, least) for name, least in rule.needs.items())
        if met and rule.live_valid is not None:
            readiness = readiness or measure_live()
            met = _is_ready(rule, counts, thresholds, readiness)
        needs = _describe_needs(rule, counts, thresholds, readiness)
        considered.append(ConsideredRule(method=_name_method(rule), needs=needs, met=met))
        if met:
            return rule, tuple(considered)
    return None, tuple(considered)


def _is_ready(
    rule: MethodRule, counts: Mapping[str, int], thresholds: Thresholds, readiness: Readiness
) -> bool:
    mostly_valid = readiness.valid_share >= thresholds.valid_share
    if not rule.live_valid:
        return not mostly_valid
    return mostly_valid and readiness.estimate_unsettled(counts["pairs"]) >= thresholds.pairs


def _build_stages(
    rule: MethodRule,
    counts: Mapping[str, int],
    base_bytes: int,
    preferences: TrainingPreferences,
    start: LiveVersion | None,
) -> tuple[TrainingStage, ...]:
    stages: list[TrainingStage] = []
    for method, kind in rule.stages:
        examples = counts["liked"] + counts["disliked"] if kind == "votes" else counts[kind]
        chosen = choose_hyperparameters(
            method,
            examples,
            base_bytes,
            preset=preferences.preset,
            overrides=select_overrides(method, preferences.overrides),
            max_lora_rank=None if method == "embedding" else preferences.max_lora_rank,
        )
        if first := stages[0].hyperparameters if stages else start:
            # The stage continues with an adapter that already has its shape.
            shape = {"lora_rank": first.lora_rank, "lora_alpha": first.lora_alpha}
            chosen = chosen.model_copy(update=shape)
        stages.append(TrainingStage(method=method, data=kind, hyperparameters=chosen))
    return tuple(stages)


def _name_method(rule: MethodRule) -> str:
    return ", then ".join(METHOD_NAMES[method] for method, _ in rule.stages)


def _dump_thresholds(thresholds: Thresholds) -> dict[str, int]:
    return {name: getattr(thresholds, name) for name in Thresholds.model_fields if name != "valid_share"}


def _describe_needs(
    rule: MethodRule, counts: Mapping[str, int], thresholds: Thresholds, readiness: Readiness | None
) -> str:
    needs = [
        f"{counts[name]} {KIND_NAMES[name]} (needs {getattr(thresholds, least)})"
        for name, least in rule.needs.items()
    ]
    if rule.live_valid is not None:
        bound = "at least" if rule.live_valid else "less than"
        measured = f"{readiness}" if readiness else "the live model's answers not measured"
        needs.append(f"{measured} (needs {bound} {thresholds.valid_share:.0%})")
        if readiness and rule.live_valid:
            unsettled = readiness.estimate_unsettled(counts["pairs"])
            needs.append(
                f"about {unsettled} pairs whose chosen answer it does not give yet (needs {thresholds.pairs})"
            )
    return ", ".join(needs)


def _explain_shortage(snapshot: Snapshot, considered: Iterable[ConsideredRule]) -> str:
    lacking = "; ".join(f"{rule.method} has {rule.needs}" for rule in considered)
    return (
        f"too little to learn from: {lacking} (beside {sum(snapshot.manifest.validation.values())} examples "
        f"for validation and {snapshot.manifest.holdout} held out); approve, reject or correct more "
        "of the traffic"
    )
