"""The second look at a version on probation: when it is due, on which items, and when it is given up."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from daemon.data.ingest import extract_target
from daemon.runtime.clock import is_within
from daemon.runtime.context import TargetContext
from daemon.scheduling.probation import count_required_items, end_of_probation, find_on_probation
from extractors.dataset.second_look import KnownTraffic, count_with_gold, select_fresh_items
from extractors.dataset.snapshot import SnapshotDamaged, read_manifest
from extractors.examples.types import Reviewed
from extractors.feedback.extract import Extraction
from extractors.values import Value
from registry.audit import DAEMON
from registry.cycles import CycleState
from registry.targets import TargetState
from registry.versions import Version, VersionState

MOST_FAILED = 3
"""Second looks of a version that may fail."""
RECOUNT_AFTER = timedelta(minutes=10)
"""One annotation of a whole session may have reviewed many calls."""


class Probation(Value):
    """Progress of a version towards its second look."""

    version: Version
    reviewed: int
    """Newer reviewed calls or searches with gold, of sessions and with prompts that it never saw."""
    required: int

    @property
    def due(self) -> bool:
        return self.reviewed >= self.required


def measure_probation(context: TargetContext, version: Version, extraction: Extraction) -> Probation:
    """Count how far `version` is from its second look. Raises SnapshotDamaged."""
    return Probation(
        version=version,
        reviewed=count_with_gold(select_newer_items(context, version, extraction)),
        required=count_required_items(context.target, context.store, version),
    )


def select_newer_items(
    context: TargetContext, version: Version, extraction: Extraction
) -> Sequence[Reviewed]:
    """Return the items that the second look judges by: enough of them, or all that there are so far.

    Raises SnapshotDamaged.
    """
    return select_fresh_items(
        extraction,
        KnownTraffic.from_snapshot(context.snapshot(version.snapshot_id)),
        need=count_required_items(context.target, context.store, version),
        common_sessions=context.target.holdout.common_prompt_sessions,
    )


def end_probation(context: TargetContext, reason: str, *, except_for: str | None = None) -> None:
    """Reject the versions on probation, except `except_for`."""
    for version in context.store.versions(context.target.key):
        if version.state is VersionState.PROBATION and version.id != except_for:
            context.store.judge(
                version.id, VersionState.REJECTED, now=context.clock(), actor=DAEMON, reason=reason
            )


@dataclass(frozen=True)
class _Count:
    """The last count for a version, and what was known then."""

    found: Probation
    state: TargetState
    at: datetime

    def still_holds(self, state: TargetState, now: datetime) -> bool:
        """Return whether a new count could not make the second look due, as far as one can tell."""
        if state.last_cycle_at != self.state.last_cycle_at:
            return False
        changes = state.feedback_changes - self.state.feedback_changes
        missing = self.found.required - self.found.reviewed
        return not changes or (changes < missing and is_within(RECOUNT_AFTER, self.at, now))


@dataclass
class SecondLooks:
    """Notices when a version's second look is due, without extracting everything each time it is asked."""

    _counts: dict[str, _Count] = field(default_factory=dict)
    """By target."""

    def last_count(self, target: str) -> int | None:
        """Return the newer reviewed items for the version on probation, as last counted; None before that."""
        return self._counts[target].found.reviewed if target in self._counts else None

    def find_due(self, context: TargetContext) -> Version | None:
        """Return the version to look at again now. Raises RedactorUnusable, RedactionFailed.

        A version whose second looks fail again and again, or that has waited for too long, is rejected.
        """
        version = find_on_probation(context.store, context.target.key)
        if version is None:
            self._counts.pop(context.target.key, None)
            return None
        if _rejects_or_pauses(context, version):
            return None
        try:
            found = self._count(context, version)
        except SnapshotDamaged as damaged:
            end_probation(context, f"what it was trained on is unknown: {damaged}")
            return None
        if found and found.due:
            return version
        if context.clock() >= end_of_probation(context.target, version):
            _end_for_lack_of_feedback(context, version, found.reviewed if found else 0)
        return None

    def _count(self, context: TargetContext, version: Version) -> Probation | None:
        """Return how far the version is; None while there are too few calls, reviewed or not.

        Raises SnapshotDamaged.
        """
        key = context.target.key
        state, now = context.store.target_state(key), context.clock()
        count = self._counts.get(key)
        if count and count.found.version.id == version.id and count.still_holds(state, now):
            return count.found
        if not _may_be_due(context, version):
            self._counts.pop(key, None)
            return None
        found = measure_probation(context, version, extract_target(context.store, context.target))
        self._counts[key] = _Count(found, state, now)
        return found


def _end_for_lack_of_feedback(context: TargetContext, version: Version, reviewed: int) -> None:
    required = count_required_items(context.target, context.store, version)
    days = context.target.gate.probation_days
    end_probation(
        context,
        f"{reviewed} of {required} newer reviewed items for a second look in the {days:g} days after its "
        "training (gate.probation_days)",
    )


def _rejects_or_pauses(context: TargetContext, version: Version) -> bool:
    """Return whether failed second looks keep the version from another one now.

    After several failures it is rejected.
    """
    failed = context.store.cycles(
        context.target.key, MOST_FAILED, CycleState.FAILED, trains=False, version_id=version.id
    )
    if len(failed) == MOST_FAILED:
        end_probation(
            context, f"its second look failed {MOST_FAILED} times, the last time with: {failed[0].reason}"
        )
        return True
    cooldown = context.target.schedule.cooldown
    return bool(failed) and is_within(cooldown, failed[0].updated_at, context.clock())


def _may_be_due(context: TargetContext, version: Version) -> bool:
    """Return whether there are enough newer calls, reviewed or not: counting them alone is cheap."""
    watermark = read_manifest(context.snapshots / version.snapshot_id).watermark
    calls = context.store.count_spans_since(context.target.key, watermark or version.created_at)
    return calls >= count_required_items(context.target, context.store, version)
