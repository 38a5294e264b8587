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
from registry.versions import TRANSITIONS, Version, VersionState

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

    def add_candidate(
        self,
        cycle_id: str,
        *,
        path: str,
        files: dict[str, str],
        base_model: str,
        base_digest: str,
        rank: int,
        snapshot_id: str,
        plan_id: str,
        parent_id: str | None,
        code_version: str,
        now: datetime,
    ) -> Version:
        """The version that a cycle trained, under the next number of the cycle's target.

        A cycle has one version: added again, the first comes back unchanged. Fields as in
        `Version`. Raises UnknownCycle.
        """
        with self._writing() as connection:
            target = load_cycle(connection, cycle_id).target
            number = lock_target(connection, target).last_version_number + 1
            existing = connection.scalar(select(versions.c.id).where(versions.c.cycle_id == cycle_id))
            if existing is not None:
                return load_version(connection, existing)
            version = Version(
                id=f"{slug(target)}.v{number}",
                target=target,
                number=number,
                state=S.CANDIDATE,
                path=path,
                files=files,
                base_model=base_model,
                base_digest=base_digest,
                rank=rank,
                cycle_id=cycle_id,
                snapshot_id=snapshot_id,
                plan_id=plan_id,
                parent_id=parent_id,
                code_version=code_version,
                created_at=now,
            )
            connection.execute(insert(versions).values(version.model_dump()))
            connection.execute(
                update(targets).where(targets.c.target == target).values(last_version_number=number)
            )
            return version

    def version(self, version_id: str) -> Version:
        """Raises UnknownVersion."""
        found = self._where(versions.c.id == version_id)
        if not found:
            raise UnknownVersion(version_id)
        return found[0]

    def versions(self, target: str | None = None) -> list[Version]:
        """By number, of one target or, target by target, of all."""
        return self._where(*() if target is None else (versions.c.target == target,))

    def active(self, target: str) -> Version | None:
        """What the target's alias names; None is the base model."""
        return self.active_versions().get(target)

    def active_versions(self) -> dict[str, Version]:
        """The alias table: target to active version; a target without one runs on its base."""
        return {version.target: version for version in self._where(versions.c.state == S.ACTIVE)}

    def wanted(self, target: str | None = None) -> list[Version]:
        """What should be loaded on the replicas of one target, or of all: active, on its way in, draining."""
        mine = () if target is None else (versions.c.target == target,)
        return self._where(versions.c.wanted, *mine)

    def want(self, version_id: str) -> Version:
        """Have the replicas load it, so that it can be activated; a draining version stays loaded.

        Raises UnknownVersion, FilesRemoved, WrongBase.
        """
        with self._writing() as connection:
            version = load_version(connection, version_id)
            require_servable(connection, version)
            return change_version(connection, version_id, wanted=True, drain_until=None)

    def unwant(self, version_id: str, *, drain_until: datetime | None = None) -> Version:
        """Have the replicas unload it: its way in has failed. A draining one goes on until
        `drain_until`.

        Raises VersionInUse for the active one.
        """
        with self._writing() as connection:
            version = load_version(connection, version_id)
            if version.state == S.ACTIVE:
                raise VersionInUse(version)
            return change_version(
                connection, version_id, wanted=drain_until is not None, drain_until=drain_until
            )

    def drained(self, version_id: str, now: datetime) -> bool:
        """Have the replicas unload a retired version whose drain is over; says whether it does.

        It does not where the version was wanted or activated again in the meantime.
        """
        over = update(versions).where(
            versions.c.id == version_id, versions.c.state == S.RETIRED, versions.c.drain_until <= now
        )
        with self._writing() as connection:
            return connection.execute(over.values(wanted=False, drain_until=None)).rowcount == 1

    def judge(self, version_id: str, new: VersionState, *, now: datetime, actor: str, reason: str) -> Version:
        """Put a version on PROBATION, make it READY, or have it REJECTED (and unloaded).

        Judged the same again, nothing changes. Raises IllegalTransition and UnknownVersion.
        """
        with self._writing() as connection:
            version = load_version(connection, version_id)
            if new in JUDGEMENTS and version.state == new:
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

    def rollback_target(self, target: str) -> Version | None:
        """The version that was active before this one and can still be served; None is the base model."""
        with self._reading() as connection:
            return find_rollback_target(load_versions(connection, target), load_base(connection, target))

    def prunable(self, target: str, keep: int) -> list[Version]:
        """Versions whose files may go, oldest first, when the newest `keep` of them are to stay."""
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

    def files_removed(self, version_id: str, now: datetime) -> Version:
        """Rule out serving a version, before its files are removed; marked again, nothing changes.

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

    def _where(self, *conditions: Any) -> list[Version]:
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
    """All versions of a target, by id."""
    query = select(versions).where(versions.c.target == target)
    rows = connection.execute(query).mappings()
    return {row["id"]: Version.model_validate(dict(row)) for row in rows}


def load_base(connection: Connection, target: str) -> str | None:
    """Digest of the base model that the target uses; None where nobody has told."""
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
