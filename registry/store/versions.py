"""Adapter versions: made once per cycle, numbered for ever, judged, and loaded where wanted."""

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select, update

from extractors.errors import LearndError
from registry.audit import DAEMON
from registry.cycles import IllegalTransition
from registry.retention import find_prunable, find_rollback_target, is_servable
from registry.store.audit import write_audit
from registry.store.cycles import load_cycle
from registry.store.database import Database, lock_target
from registry.store.tables import UNFINISHED, cycles, targets, versions
from registry.targets import slug
from registry.versions import TRANSITIONS, Candidate, Version, VersionState

S = VersionState
JUDGEMENTS = frozenset({S.PROBATION, S.READY, S.REJECTED})


class UnknownVersion(LearndError):
    """No version has this id."""

    def __init__(self, version_id: str) -> None:
        super().__init__(f"there is no version {version_id}; `learnd adapters list` names them")


class WrongBase(LearndError):
    """A version was to be served on a base model other than the one it was trained on."""

    def __init__(self, version: Version, base_digest: str) -> None:
        super().__init__(
            f"{version.id} was trained on {version.base_model} with digest {version.base_digest}, and "
            f"{version.target} now runs on digest {base_digest}; go back to that base, or train again"
        )


class FilesRemoved(LearndError):
    """A version was to be served whose files the retention policy has removed."""

    def __init__(self, version: Version) -> None:
        super().__init__(
            f"the files of {version.id} were removed at {version.files_removed_at}; "
            "activate a version that has its files, or keep more of them"
        )


class VersionInUse(LearndError):
    """A version that replicas should have loaded was to be unloaded or removed."""

    def __init__(self, version: Version) -> None:
        super().__init__(
            f"{version.id} is {version.state} and wanted on the replicas; let it drain before it is removed"
        )


class VersionRecords(Database):
    """Every adapter version of every target."""

    def add_candidate(self, cycle_id: str, candidate: Candidate, now: datetime) -> Version:
        """Register the adapter that a cycle trained, under the next number of the cycle's target.

        A cycle has one version: added again, the first comes back unchanged. Raises UnknownCycle.
        """
        with self._writing() as connection:
            target = load_cycle(connection, cycle_id).target
            number = lock_target(connection, target).last_version_number + 1
            existing = connection.scalar(select(versions.c.id).where(versions.c.cycle_id == cycle_id))
            if existing is not None:
                return load_version(connection, existing)
            version = Version(
                **candidate.model_dump(),
                id=f"{slug(target)}.v{number}",
                target=target,
                number=number,
                state=S.CANDIDATE,
                cycle_id=cycle_id,
                created_at=now,
            )
            connection.execute(insert(versions).values(version.model_dump()))
            connection.execute(
                update(targets).where(targets.c.target == target).values(last_version_number=number)
            )
            return version

    def version(self, version_id: str) -> Version:
        """Return the version. Raises UnknownVersion."""
        found = self._find(versions.c.id == version_id)
        if not found:
            raise UnknownVersion(version_id)
        return found[0]

    def versions(self, target: str | None = None) -> list[Version]:
        """Return the versions by number, of one target or, target by target, of all."""
        return self._find(*() if target is None else (versions.c.target == target,))

    def find_active_version(self, target: str) -> Version | None:
        """Return the version that the target's alias names; None is the base model."""
        found = self._find(versions.c.state == S.ACTIVE, versions.c.target == target)
        return found[0] if found else None

    def find_active_versions(self) -> dict[str, Version]:
        """Return the active version by target; a target without one runs on its base model."""
        return {version.target: version for version in self._find(versions.c.state == S.ACTIVE)}

    def find_active_ids(self) -> dict[str, str]:
        """Return the id of the active version by target, without reading all of it: it is asked often."""
        query = select(versions.c.target, versions.c.id).where(versions.c.state == S.ACTIVE)
        with self._reading() as connection:
            return {row.target: row.id for row in connection.execute(query)}

    def find_wanted_versions(self, target: str | None = None) -> list[Version]:
        """Return the versions to load on replicas, of one target or all: active, coming up or draining."""
        mine = () if target is None else (versions.c.target == target,)
        return self._find(versions.c.wanted, *mine)

    def want(self, version_id: str) -> Version:
        """Make the replicas load a version, so that it can be activated; a draining one stays loaded.

        Raises UnknownVersion, FilesRemoved, WrongBase.
        """
        with self._writing() as connection:
            version = load_version(connection, version_id)
            require_servable(connection, version)
            return change_version(connection, version_id, wanted=True, drain_until=None)

    def unwant(self, version_id: str, *, drain_until: datetime | None = None) -> Version:
        """Make the replicas unload a version that could not be brought up.

        A draining one goes on until `drain_until`.

        Raises VersionInUse for the active one.
        """
        with self._writing() as connection:
            version = load_version(connection, version_id)
            if version.state == S.ACTIVE:
                raise VersionInUse(version)
            return change_version(
                connection, version_id, wanted=drain_until is not None, drain_until=drain_until
            )

    def unload_drained(self, version_id: str, now: datetime) -> bool:
        """Make the replicas unload a retired version whose drain is over.

        Returns False where the version was wanted or activated again in the meantime.
        """
        over = update(versions).where(
            versions.c.id == version_id, versions.c.state == S.RETIRED, versions.c.drain_until <= now
        )
        with self._writing() as connection:
            return connection.execute(over.values(wanted=False, drain_until=None)).rowcount == 1

    def judge(self, version_id: str, new: VersionState, *, now: datetime, actor: str, reason: str) -> Version:
        """Put a version on PROBATION, make it READY, or have it REJECTED (and unloaded).

        learnd judges again after a crash: where it judged the same, nothing changes. Raises
        IllegalTransition and UnknownVersion.
        """
        with self._writing() as connection:
            version = load_version(connection, version_id)
            if actor == DAEMON and new in JUDGEMENTS and version.state == new:
                return version
            if new not in JUDGEMENTS or new not in TRANSITIONS[version.state]:
                raise IllegalTransition(f"version {version_id}", version.state, new)
            wanted = version.wanted and new != S.REJECTED
            write_audit(
                connection,
                now=now,
                actor=actor,
                action="judge",
                target=version.target,
                subject=version_id,
                detail=f"{version.state} -> {new}: {reason}",
            )
            return change_version(connection, version_id, state=new, wanted=wanted)

    def find_rollback_target(self, target: str) -> Version | None:
        """Return the version that was active before and can still be served; None is the base model."""
        with self._reading() as connection:
            return find_rollback_target(load_versions(connection, target), load_base(connection, target))

    def find_prunable(self, target: str, keep: int) -> list[Version]:
        """Return the versions whose files may be removed, oldest first, without the newest `keep`."""
        with self._reading() as connection:
            held = connection.scalar(select(targets.c.held).where(targets.c.target == target))
            running = select(cycles.c.id).where(cycles.c.target == target, cycles.c.state.in_(UNFINISHED))
            return find_prunable(
                load_versions(connection, target),
                base_digest=load_base(connection, target),
                held=bool(held),
                unfinished_cycles=set(connection.scalars(running)),
                keep=keep,
            )

    def mark_files_removed(self, version_id: str, now: datetime) -> Version:
        """Mark a version whose files will be removed: it cannot be served. A second call changes nothing.

        Raises VersionInUse where it is active or wanted after all, and UnknownVersion.
        """
        with self._writing() as connection:
            version = load_version(connection, version_id)
            if version.files_removed_at is not None:
                return version
            if version.wanted or version.state == S.ACTIVE:
                raise VersionInUse(version)
            write_audit(
                connection,
                now=now,
                actor=DAEMON,
                action="remove files",
                target=version.target,
                subject=version_id,
                detail=f"retention policy: {version.path}",
            )
            return change_version(connection, version_id, files_removed_at=now)

    def _find(self, *conditions: Any) -> list[Version]:
        query = select(versions).where(*conditions).order_by(versions.c.target, versions.c.number)
        with self._reading() as connection:
            return [Version.model_validate(dict(row)) for row in connection.execute(query).mappings()]


def load_version(connection: Connection, version_id: str) -> Version:
    """The version, to be changed in this transaction. Raises UnknownVersion."""
    query = select(versions).where(versions.c.id == version_id).with_for_update()
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        raise UnknownVersion(version_id)
    return Version.model_validate(dict(row))


def load_versions(connection: Connection, target: str) -> dict[str, Version]:
    """Return all versions of a target, by id."""
    query = select(versions).where(versions.c.target == target)
    rows = connection.execute(query).mappings()
    return {row["id"]: Version.model_validate(dict(row)) for row in rows}


def load_base(connection: Connection, target: str) -> str | None:
    """Return the digest of the base model that the target uses; None where it is unknown."""
    return connection.scalar(select(targets.c.base_digest).where(targets.c.target == target))


def change_version(connection: Connection, version_id: str, **changes: Any) -> Version:
    connection.execute(update(versions).where(versions.c.id == version_id).values(**changes))
    return load_version(connection, version_id)


def require_servable(connection: Connection, version: Version) -> None:
    base_digest = load_base(connection, version.target)
    if is_servable(version, base_digest):
        return
    if version.files_removed_at is not None:
        raise FilesRemoved(version)
    raise WrongBase(version, str(base_digest))
