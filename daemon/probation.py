"""Versions on probation: promising, not proven, and judged again on traffic that came after their training.

Nothing waits for that but the version. Once enough newer traffic was reviewed, a cycle looks at it again,
and trains nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil

from daemon.loop import Loop
from daemon.settings import TargetSettings
from daemon.traffic import extract_target
from extractors.extraction import Extraction
from extractors.fresh import Reviewed, Seen, fresh_items, with_gold
from extractors.snapshot import SnapshotDamaged, read_manifest
from extractors.values import Value
from registry.audit import DAEMON
from registry.store.store import Store
from registry.versions import Version, VersionState

SECOND_LOOK = "second look"
"""The trigger of a cycle that looks at a version on probation again."""


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


def probation_of(loop: Loop, version: Version, extraction: Extraction) -> Probation:
    """How far `version` is, by what `extraction` found. Raises SnapshotDamaged."""
    items = newer_items(loop, version, extraction)
    return Probation(
        version=version, reviewed=with_gold(items), needed=needed(loop.target, loop.store, version)
    )


def newer_items(loop: Loop, version: Version, extraction: Extraction) -> Sequence[Reviewed]:
    """What its second look judges by, as far as there is enough yet. Raises SnapshotDamaged."""
    return fresh_items(
        extraction,
        Seen.of(loop.snapshot(version.snapshot_id)),
        need=needed(loop.target, loop.store, version),
        common_sessions=loop.target.holdout.common_prompt_sessions,
    )


def needed(target: TargetSettings, store: Store, version: Version) -> int:
    """Newer items with gold that its second look takes: more than the first look had."""
    report = store.cycle(version.cycle_id).report
    first = report.gold_size if report else target.holdout.least
    return max(1, ceil(target.gate.fresh_items * first))


def end_probation(loop: Loop, reason: str, *, but: str | None = None) -> None:
    """Reject what is on probation, except the version `but`."""
    for version in loop.store.versions(loop.target.key):
        if version.state is VersionState.PROBATION and version.id != but:
            loop.store.judge(version.id, VersionState.REJECTED, now=loop.clock(), actor=DAEMON, reason=reason)


@dataclass
class SecondLooks:
    """Notices when a version's second look is due, and does not extract everything anew to find that it
    is not.
    """

    found: dict[str, Probation] = field(default_factory=dict)
    """By target: how far the version was when that was last counted."""
    _looked: dict[str, tuple[object, ...]] = field(default_factory=dict)
    """By target: the version, and what was known when it was found not due."""

    def due(self, loop: Loop) -> Version | None:
        """The version to look at again now. Raises RedactorUnusable, RedactionFailed."""
        version = on_probation(loop.store, loop.target.key)
        if version is None:
            self.found.pop(loop.target.key, None)
            return None
        state = loop.store.target_state(loop.target.key)
        known = (version.id, state.feedback_changes, state.last_cycle_at)
        if self._looked.get(loop.target.key) == known:
            return None
        try:
            if not self._may_be_due(loop, version):
                return None
            found = probation_of(loop, version, extract_target(loop))
        except SnapshotDamaged as damaged:
            end_probation(loop, f"what it was trained on is unknown: {damaged}")
            return None
        self.found[loop.target.key] = found
        if found.due:
            return version
        self._looked[loop.target.key] = known
        return None

    def _may_be_due(self, loop: Loop, version: Version) -> bool:
        """Whether there are calls enough, reviewed or not: this alone is cheap to ask."""
        watermark = read_manifest(loop.snapshots / version.snapshot_id).watermark
        calls = loop.store.mirrored_since(loop.target.key, watermark or version.created_at)
        return calls >= needed(loop.target, loop.store, version)
