"""Versions on probation: promising, not proven, and judged again on traffic that came after their training.

Only the version waits. Once enough newer traffic has been reviewed, a cycle looks at the version again and
trains nothing (`second_looks.py`).
"""

from datetime import datetime, timedelta
from math import ceil

from daemon.settings.target import TargetSettings
from registry.store.store import Store
from registry.versions import Version, VersionState

SECOND_LOOK = "second look"
"""The trigger of a cycle that looks at a version on probation again."""


def find_on_probation(store: Store, target: str) -> Version | None:
    """Return the target's version on probation, if there is one."""
    return next((v for v in store.versions(target) if v.state is VersionState.PROBATION), None)


def count_required_items(target: TargetSettings, store: Store, version: Version) -> int:
    """Return how many newer items with gold the second look takes: more than the first look had."""
    first_look = store.cycles(target.key, limit=1, trains=True, version_id=version.id)
    outcome = first_look[0].outcome if first_look else None
    first = outcome.gold_size if outcome else target.holdout.least
    return max(1, ceil(target.gate.fresh_items * first))


def end_of_probation(target: TargetSettings, version: Version) -> datetime:
    """Return when the version has waited for too long."""
    return version.created_at + timedelta(days=target.gate.probation_days)
