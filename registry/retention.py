"""Versions whose files may be removed, and the version that a rollback returns to. Pure functions."""

from collections.abc import Collection, Mapping

from registry.versions import Version, VersionState

S = VersionState
SETTLED = frozenset({S.CANDIDATE, S.REJECTED, S.RETIRED})
"""States in which a version serves nobody and waits for no decision."""


def is_servable(version: Version, base_digest: str | None) -> bool:
    """Return True if the version has its files and was trained on the base in use (None: unknown)."""
    return version.files_removed_at is None and base_digest in {None, version.base_digest}


def find_rollback_target(versions: Mapping[str, Version], base_digest: str | None) -> Version | None:
    """Return the version to go back to from the active one; None is the base model.

    `versions` are all versions of one target, by id. The search follows what each version replaced when it
    was last activated, to the first one that can still be served.
    """
    active = next((version for version in versions.values() if version.state == S.ACTIVE), None)
    seen = {active.id} if active else set()
    before = active.replaced_id if active else None
    # After an operator has gone back to an old version by hand, the chain may be a circle.
    while before is not None and before not in seen:
        if is_servable(versions[before], base_digest):
            return versions[before]
        seen.add(before)
        before = versions[before].replaced_id
    return None


def find_prunable(
    versions: Mapping[str, Version],
    *,
    base_digest: str | None,
    held: bool,
    unfinished_cycles: Collection[str],
    keep: int,
) -> list[Version]:
    """Return the versions of one target whose files may be removed, oldest first, without the newest `keep`.

    A version keeps its files while it is active, wanted on a replica, on probation, ready, of an unfinished
    cycle, or the last good one. While the target is held, every version that was once live keeps them: the
    operator is still deciding.
    """
    last_good = find_rollback_target(versions, base_digest)
    retired = [version for version in versions.values() if version.retired_at is not None]
    last_retired = max(retired, key=lambda v: (v.retired_at, v.number), default=None)
    settled = [
        version
        for version in sorted(versions.values(), key=lambda v: v.number)
        if version.state in SETTLED
        and not version.wanted
        and version.files_removed_at is None
        and version.cycle_id not in unfinished_cycles
        and version not in (last_good, last_retired)
        and not (held and version.state == S.RETIRED)
    ]
    return settled[: max(len(settled) - keep, 0)]
