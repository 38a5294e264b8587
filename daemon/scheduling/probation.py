"""Versions on probation: promising, not proven, and judged again on traffic that came after their training.

Nothing waits for that but the version. Once enough newer traffic was reviewed, a cycle looks at it again,
and trains nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import ceil

from daemon.data.ingest import extract_target
from daemon.runtime.context import TargetContext
from daemon.settings.target import TargetSettings
from extractors.dataset.second_look import Reviewed, Seen, fresh_items, with_gold
from extractors.dataset.snapshot import SnapshotDamaged, read_manifest
from extractors.feedback.extract import Extraction
from extractors.values import Value
from registry.audit import DAEMON
from registry.cycles import CycleState
from registry.store.store import Store
from registry.targets import TargetState
from registry.versions import Version, VersionState

SECOND_LOOK = "second look"
"""The trigger of a cycle that looks at a version on probation again."""
MOST_FAILED = 3
"""Second looks of a version that may fail."""
RECOUNT_AFTER = timedelta(minutes=10)
"""One word on a whole session may have reviewed many calls."""


class Probation(Value):
    """How far a version is from its second look."""

    version: Version
    reviewed: int
    """Newer reviewed calls or searches with gold, of sessions and with prompts that it never saw."""
    needed: int

    @property
    def due(self) -> bool:
        return self.reviewed >= self.needed


def on_probation(store: Store, target: str) -> Version | None:
    """The target's version on probation, if there is one."""
    return next((v for v in store.versions(target) if v.state is VersionState.PROBATION), None)


def probation_of(context: TargetContext, version: Version, extraction: Extraction) -> Probation:
    """How far `version` is, by what `extraction` found. Raises SnapshotDamaged."""
    items = newer_items(context, version, extraction)
    return Probation(
        version=version, reviewed=with_gold(items), needed=needed(context.target, context.store, version)
    )


def newer_items(context: TargetContext, version: Version, extraction: Extraction) -> Sequence[Reviewed]:
    """What its second look judges by, as far as there is enough yet. Raises SnapshotDamaged."""
    return fresh_items(
        extraction,
        Seen.of(context.snapshot(version.snapshot_id)),
        need=needed(context.target, context.store, version),
        common_sessions=context.target.holdout.common_prompt_sessions,
    )


def needed(target: TargetSettings, store: Store, version: Version) -> int:
    """Newer items with gold that its second look takes: more than the first look had."""
    first_look = store.cycles(target.key, limit=1, trains=True, version_id=version.id)
    outcome = first_look[0].outcome if first_look else None
    first = outcome.gold_size if outcome else target.holdout.least
    return max(1, ceil(target.gate.fresh_items * first))


def gives_up_at(target: TargetSettings, version: Version) -> datetime:
    """When it has waited for too long."""
    return version.created_at + timedelta(days=target.gate.probation_days)


def end_probation(context: TargetContext, reason: str, *, but: str | None = None) -> None:
    """Reject what is on probation, except the version `but`."""
    for version in context.store.versions(context.target.key):
        if version.state is VersionState.PROBATION and version.id != but:
            context.store.judge(
                version.id, VersionState.REJECTED, now=context.clock(), actor=DAEMON, reason=reason
            )


@dataclass(frozen=True)
class _Count:
    """How far a version was when that was last counted, and what was known then."""

    found: Probation
    state: TargetState
    at: datetime

    def holds(self, state: TargetState, now: datetime) -> bool:
        """Whether to count anew could not bring the second look about, as far as one can tell."""
        if state.last_cycle_at != self.state.last_cycle_at:
            return False
        changes = state.feedback_changes - self.state.feedback_changes
        missing = self.found.needed - self.found.reviewed
        return not changes or (changes < missing and now < self.at + RECOUNT_AFTER)


@dataclass
class SecondLooks:
    """Notices when a version's second look is due, and does not extract everything anew to find that it
    is not.
    """

    _counts: dict[str, _Count] = field(default_factory=dict)
    """By target."""

    def reviewed(self, target: str) -> int | None:
        """Newer reviewed items for the version on probation, when last counted; None before that."""
        return self._counts[target].found.reviewed if target in self._counts else None

    def due(self, context: TargetContext) -> Version | None:
        """The version to look at again now. Raises RedactorUnusable, RedactionFailed.

        One whose second looks fail again and again, or that has waited for too long, is rejected.
        """
        version = on_probation(context.store, context.target.key)
        if version is None:
            self._counts.pop(context.target.key, None)
            return None
        if _rests(context, version):
            return None
        try:
            found = self._counted(context, version)
        except SnapshotDamaged as damaged:
            end_probation(context, f"what it was trained on is unknown: {damaged}")
            return None
        if found and found.due:
            return version
        if context.clock() >= gives_up_at(context.target, version):
            days = context.target.gate.probation_days
            had = f"{found.reviewed if found else 0} of {needed(context.target, context.store, version)}"
            end_probation(
                context,
                f"{had} newer reviewed items for a second look in the {days:g} days after its training "
                "(gate.probation_days)",
            )
        return None

    def _counted(self, context: TargetContext, version: Version) -> Probation | None:
        """How far it is; None while there are not even calls enough, reviewed or not. Raises
        SnapshotDamaged.
        """
        key = context.target.key
        state, now = context.store.target_state(key), context.clock()
        count = self._counts.get(key)
        if count and count.found.version.id == version.id and count.holds(state, now):
            return count.found
        if not _may_be_due(context, version):
            self._counts.pop(key, None)
            return None
        found = probation_of(context, version, extract_target(context))
        self._counts[key] = _Count(found, state, now)
        return found


def _rests(context: TargetContext, version: Version) -> bool:
    """Whether its second look failed and is not to be tried (yet); after several failures it is rejected."""
    failed = context.store.cycles(
        context.target.key, MOST_FAILED, CycleState.FAILED, trains=False, version_id=version.id
    )
    if len(failed) == MOST_FAILED:
        end_probation(
            context, f"its second look failed {MOST_FAILED} times, the last time so: {failed[0].reason}"
        )
        return True
    return bool(failed) and context.clock() < failed[0].updated_at + context.target.schedule.cooldown


def _may_be_due(context: TargetContext, version: Version) -> bool:
    """Whether there are calls enough, reviewed or not: this alone is cheap to ask."""
    watermark = read_manifest(context.snapshots / version.snapshot_id).watermark
    calls = context.store.mirrored_since(context.target.key, watermark or version.created_at)
    return calls >= needed(context.target, context.store, version)
