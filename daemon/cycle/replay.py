"""Examples that the base model of a target wrote itself: made once a base, before something first needs them,
and removed when nothing uses that base any more.
"""

import shutil
from collections.abc import Iterator
from itertools import count, takewhile
from pathlib import Path
from typing import NamedTuple

import structlog

from daemon.runtime.context import TargetContext
from daemon.runtime.paths import replay_folder, replays_folder
from daemon.runtime.work import Work
from daemon.settings.load import Settings
from daemon.settings.target import TargetSettings
from extractors.values import Value
from registry.store.store import Store
from trainers.job_folder import RESULT
from trainers.planning.method_rules import REPLAY_TASKS
from trainers.planning.plan import Plan, ReplayMix, TrainingStage
from trainers.replay.examples import (
    HELD_OUT,
    MOST_MIXED,
    PART_SIZE,
    ReplayExample,
    ReplayPart,
    compute_digest,
    count_parts,
    find_part,
    read_part,
)
from trainers.replay.job import ReplayJob

log = structlog.get_logger()
LEAST_HELD_OUT = 16
"""Held-out examples below which a base counts as one that writes nothing usable."""
NOTHING_BEYOND = "the base model wrote nothing usable beyond what is held out"


class ReplayForecast(Value):
    """Examples that the base model wrote itself, as the next training would mix them in."""

    share: float
    """The target's `replay_share`; 0 for a task that mixes in nothing."""
    examples: int = 0
    """The most that one SFT of the plan, or of a challenger, mixes in."""
    is_written: bool = False
    """True where the base has nothing more to write first."""
    why_not: str = ""
    """Why nothing is mixed in, in words; empty where something is."""


class _Base(NamedTuple):
    """A base model: its name and its digest."""

    name: str
    digest: str


def add_replay(context: TargetContext, plan: Plan) -> Plan:
    """Return `plan` with what the base wrote itself mixed into every SFT, or with the reason why not.

    Has the base write what is missing. Raises JobFailed, Interrupted.
    """
    share = find_replay_share(context.target)
    if not share:
        return plan
    base = _Base(plan.base_model, plan.base_digest)
    if why_not := prepare_held_out(context, *base):
        return plan.model_copy(update={"no_replay": why_not})
    wanted = _count_most_wanted(plan, share)
    written = _write_examples(context, base, wanted) if wanted else ()
    if wanted and not written:
        return plan.model_copy(update={"no_replay": NOTHING_BEYOND})

    def mix(stage: TrainingStage) -> TrainingStage:
        chosen = written[: _count_wanted(plan, stage, share)]
        mixed = ReplayMix(examples=len(chosen), digest=compute_digest(chosen)) if chosen else None
        return stage.model_copy(update={"replay": mixed})

    return plan.change_stages(mix)


def forecast_replay(context: TargetContext, plan: Plan) -> ReplayForecast:
    """Return what `add_replay` would mix into `plan`, as far as that is known without writing anything.

    Raises ReplayGone where a part that is written cannot be read.
    """
    target, share = context.target, find_replay_share(context.target)
    if not share:
        why_not = "`replay_share` is 0" if target.task in REPLAY_TASKS else f"the task is {target.task}"
        return ReplayForecast(share=share, why_not=why_not)
    wanted = _count_most_wanted(plan, share)
    written = _read_written(replay_folder(context.data_dir, plan.base_digest))
    learned = written[HELD_OUT + 1 :]
    found = sum(len(part.examples) for part in learned)
    runs_dry = any(len(part.examples) < PART_SIZE for part in learned)
    if not wanted:
        why_not = "only SFT learns from it, and the share of its examples is less than one"
    elif written and (unusable := _explain_unusable(written[HELD_OUT])):
        why_not = unusable
    else:
        why_not = NOTHING_BEYOND if runs_dry and not found else ""
    return ReplayForecast(
        share=share,
        examples=0 if why_not else min(found, wanted) if runs_dry else wanted,
        is_written=bool(written) and (runs_dry or found >= wanted),
        why_not=why_not,
    )


def _read_written(folder: Path) -> list[ReplayPart]:
    """Return the parts that are written, the held-out one first."""
    numbers = takewhile(lambda number: (find_part(folder, number) / RESULT).exists(), count(HELD_OUT))
    return [read_part(folder, number) for number in numbers]


def find_replay_share(target: TargetSettings) -> float:
    """Return the target's share of replay; 0 for a task that has none."""
    return target.replay_share if target.task in REPLAY_TASKS else 0.0


def measures_ability(target: TargetSettings) -> bool:
    """Return whether evaluations ask the candidate what the base can do beside the target's task."""
    wanted = target.replay_share > 0 or target.gate.general_margin is not None
    return wanted and target.task in REPLAY_TASKS


def prepare_held_out(context: TargetContext, base_model: str, base_digest: str) -> str:
    """Have the base write the held-out part, unless it is there; return why it cannot, in words.

    Empty where it can. Raises JobFailed, Interrupted.
    """
    return _explain_unusable(_write_part(context, _Base(base_model, base_digest), HELD_OUT))


def _explain_unusable(found: ReplayPart) -> str:
    """Return why the held-out part is of no use, in words; empty where it is."""
    if found.why_not:
        return f"the base model cannot write questions: {found.why_not}"
    if len(found.examples) < LEAST_HELD_OUT:
        reasons = sorted(found.refused.items(), key=lambda each: -each[1])
        named = ", ".join(f"{reason} ({count})" for reason, count in reasons)
        return (
            f"of {found.tried} questions that the base model wrote {len(found.examples)} are usable: {named}"
        )
    return ""


def prune_replay(settings: Settings, store: Store) -> None:
    """Remove what bases wrote that no target, no version with files and no unfinished cycle uses any more."""
    unfinished = [cycle.plan for cycle in store.find_unfinished_cycles()]
    if None in unfinished:
        # Without a plan yet, its base may be another one than before, and be writing right now.
        return
    used = {plan.base_digest for plan in unfinished if plan}
    used |= {version.base_digest for version in store.versions() if version.files_removed_at is None}
    used |= {
        digest
        for target in settings.targets
        if measures_ability(target) and (digest := store.target_state(target.key).base_digest)
    }
    for folder in replays_folder(settings.data_dir).glob("[!.]*"):
        if folder.name not in used:
            shutil.rmtree(folder)
            log.info("removed replay", base_digest=folder.name)


def _count_most_wanted(plan: Plan, share: float) -> int:
    stages = (stage for each in (plan.default, *plan.challengers) for stage in each.stages)
    return max((_count_wanted(plan, stage, share) for stage in stages), default=0)


def _count_wanted(plan: Plan, stage: TrainingStage, share: float) -> int:
    return min(MOST_MIXED, round(share * plan.counts[stage.data])) if stage.method == "sft" else 0


def _write_examples(context: TargetContext, base: _Base, wanted: int) -> tuple[ReplayExample, ...]:
    """Return the first examples that trainings learn; fewer than `wanted` where the base runs dry."""
    return tuple(_list_examples(context, base, wanted))[:wanted]


def _list_examples(context: TargetContext, base: _Base, wanted: int) -> Iterator[ReplayExample]:
    found = 0
    for number in range(1, 1 + count_parts(MOST_MIXED)):
        if found >= wanted:
            return
        examples = _write_part(context, base, number).examples
        yield from examples
        found += len(examples)
        if len(examples) < PART_SIZE:
            return


def _write_part(context: TargetContext, base: _Base, number: int) -> ReplayPart:
    training, folder = context.settings.training, replay_folder(context.data_dir, base.digest)
    job = ReplayJob(
        base_model=base.name,
        folder=str(folder),
        part=number,
        device=training.device,
        dtype=training.dtype,
        threads=training.threads,
    )
    return context.run_job(Work.REPLAY, find_part(folder, number), job, ReplayPart)
