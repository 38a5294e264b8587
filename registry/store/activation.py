"""Changes of the live version, each in one transaction with its audit entry.

activate    the alias moves to a version          ┐ the old one is retired, and stays
deactivate  the alias moves to the base model     │ loaded until it has drained
rollback    the alias moves back, and is held     ┘
use_base    the base model changed: its adapters go at once
"""

from datetime import datetime

from sqlalchemy import Connection, select, update

from extractors.errors import LearndError
from registry.audit import DAEMON, Action
from registry.cycles import IllegalTransition
from registry.store.audit import write_audit
from registry.store.database import Database, lock_target
from registry.store.notices import write_notice
from registry.store.tables import targets, versions
from registry.store.targets import TargetHeld, write_hold
from registry.store.versions import UnknownVersion, change_version, load_version, require_servable
from registry.versions import TRANSITIONS, Version, VersionState

BASE_IN_WORDS = "the base model"


class VersionRejected(LearndError):
    """A rejected version was to be promoted automatically."""

    def __init__(self, version: Version) -> None:
        super().__init__(f"{version.id} was rejected; `learnd adapters activate {version.id}` overrules that")


class ActiveChanged(LearndError):
    """Another process or person moved the alias first."""

    def __init__(self, target: str, expected: str | None, found: str | None) -> None:
        super().__init__(
            f"{target} was expected to serve {expected or BASE_IN_WORDS} and serves "
            f"{found or BASE_IN_WORDS}; look again and decide anew"
        )


class ActivationRecords(Database):
    """Moves of the aliases.

    Each move names what it expects to be active (None: the base model) and raises ActiveChanged
    where something else is. The version that it retires stays wanted until `drain_until` at least.
    """

    def activate(
        self,
        version_id: str,
        *,
        expected_active: str | None,
        drain_until: datetime,
        now: datetime,
        actor: str,
        reason: str,
        unless_held: bool = False,
    ) -> Version:
        """Make a version the active one.

        One that is active already stays as it is: for a person only where they expected just that, and in
        the audit log, so that nobody is told of a success that was another's. `unless_held` is for
        automatic promotion: a hold raises TargetHeld, and VersionRejected says that an operator was
        quicker. Raises ActiveChanged, WrongBase, FilesRemoved, UnknownVersion.
        """
        with self._writing() as connection:
            version = load_version(connection, version_id)
            target = lock_target(connection, version.target)
            if version.state == VersionState.ACTIVE:
                if actor != DAEMON:
                    _require_active(connection, version.target, expected_active)
                    _audit_move(
                        connection, "activate", version.target, version_id, version_id, now, actor, reason
                    )
                return version
            if unless_held and target.held:
                raise TargetHeld(target)
            if unless_held and version.state == VersionState.REJECTED:
                raise VersionRejected(version)
            _retire_active(connection, version.target, expected_active, drain_until, now)
            _put_live(connection, version, now)
            _audit_move(
                connection, "activate", version.target, expected_active, version_id, now, actor, reason
            )
            write_notice(
                connection,
                "version.promoted",
                version.target,
                now,
                version=version_id,
                previous_version=expected_active,
                actor=actor,
            )
            return change_version(connection, version_id, replaced_id=expected_active)

    def deactivate(
        self,
        target: str,
        *,
        expected_active: str,
        drain_until: datetime,
        now: datetime,
        actor: str,
        reason: str,
    ) -> None:
        """Serve the base model. Raises ActiveChanged."""
        with self._writing() as connection:
            lock_target(connection, target)
            _retire_active(connection, target, expected_active, drain_until, now)
            _audit_move(connection, "deactivate", target, expected_active, None, now, actor, reason)

    def rollback(
        self,
        target: str,
        *,
        to: str | None,
        expected_active: str,
        drain_until: datetime,
        now: datetime,
        actor: str,
        reason: str,
    ) -> None:
        """Go back to the version `to` (see `rollback_target`; None: the base) and hold the target.

        Raises ActiveChanged, WrongBase, FilesRemoved, UnknownVersion.
        """
        with self._writing() as connection:
            lock_target(connection, target)
            _retire_active(connection, target, expected_active, drain_until, now)
            if to is not None:
                _put_live(connection, _load_version_of(connection, to, target), now)
            write_hold(connection, target, actor, reason, now)
            _audit_move(connection, "rollback", target, expected_active, to, now, actor, reason)
            write_notice(
                connection,
                "version.rolled_back",
                target,
                now,
                version=to,
                previous_version=expected_active,
                actor=actor,
            )

    def use_base(self, target: str, base_digest: str, now: datetime) -> Version | None:
        """Record the base model that the target runs on; returns the active version that this retires.

        Versions of another base are unloaded without a drain, since they would answer wrongly on
        this one, and cannot be activated while it is in use.
        """
        with self._writing() as connection:
            before = lock_target(connection, target).base_digest
            if before == base_digest:
                return None
            connection.execute(
                update(targets).where(targets.c.target == target).values(base_digest=base_digest)
            )
            retired = _retire_other_base(connection, target, base_digest, now)
            moved = f"; {retired.id} -> {BASE_IN_WORDS}" if retired else ""
            write_audit(
                connection,
                now=now,
                actor=DAEMON,
                action="change base",
                target=target,
                subject=retired.id if retired else target,
                detail=f"{before or 'unknown'} -> {base_digest}{moved}",
            )
            return retired


def _active_id(connection: Connection, target: str) -> str | None:
    return connection.scalar(
        select(versions.c.id).where(versions.c.target == target, versions.c.state == VersionState.ACTIVE)
    )


def _require_active(connection: Connection, target: str, expected_active: str | None) -> None:
    found = _active_id(connection, target)
    if found != expected_active:
        raise ActiveChanged(target, expected_active, found)


def _retire_active(
    connection: Connection, target: str, expected_active: str | None, drain_until: datetime, now: datetime
) -> None:
    _require_active(connection, target, expected_active)
    if expected_active is not None:
        change_version(
            connection, expected_active, state=VersionState.RETIRED, retired_at=now, drain_until=drain_until
        )


def _retire_other_base(
    connection: Connection, target: str, base_digest: str, now: datetime
) -> Version | None:
    """Unload every version of another base; the active one among them comes back, retired."""
    others = (versions.c.target == target, versions.c.base_digest != base_digest)
    active = select(versions.c.id).where(*others, versions.c.state == VersionState.ACTIVE)
    active_id = connection.scalar(active)
    connection.execute(update(versions).where(*others).values(wanted=False, drain_until=None))
    if active_id is None:
        return None
    return change_version(connection, active_id, state=VersionState.RETIRED, retired_at=now)


def _put_live(connection: Connection, version: Version, now: datetime) -> None:
    if VersionState.ACTIVE not in TRANSITIONS[version.state]:
        raise IllegalTransition(f"version {version.id}", version.state, VersionState.ACTIVE)
    require_servable(connection, version)
    change_version(
        connection,
        version.id,
        state=VersionState.ACTIVE,
        wanted=True,
        activated_at=now,
        retired_at=None,
        drain_until=None,
    )


def _load_version_of(connection: Connection, version_id: str, target: str) -> Version:
    version = load_version(connection, version_id)
    if version.target != target:
        raise UnknownVersion(version_id)
    return version


def _audit_move(
    connection: Connection,
    action: Action,
    target: str,
    old: str | None,
    new: str | None,
    now: datetime,
    actor: str,
    reason: str,
) -> None:
    write_audit(
        connection,
        now=now,
        actor=actor,
        action=action,
        target=target,
        subject=new or target,
        detail=f"{old or BASE_IN_WORDS} -> {new or BASE_IN_WORDS}: {reason}",
    )
