"""Change the version that a target's agents get: load and probe everywhere, flip, and drain the old one.

The cycle, the command line, the API and the console all use this module. The order makes a crash at
any point harmless: until the flip the old version serves, and the flip is one transaction.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from daemon.runtime.locks import promotion_lock
from daemon.runtime.paths import adapter_folder
from daemon.settings.load import Settings
from daemon.settings.target import TargetSettings
from evaluation.engine.probe_record import ProbeRecord
from extractors.errors import LearndError
from registry.adapter_files import AdapterChanged, check_adapter_files
from registry.serving.replica import Replica
from registry.serving.swap import bring_up
from registry.store.activation import ActiveChanged
from registry.store.store import Store
from registry.store.versions import VersionInUse
from registry.versions import Version, VersionState

PROBES = "probes.json"
LOCK_PATIENCE = 60.0
"""Seconds to wait for the reconciler, which may be held up by a replica that hangs."""
SERVING_PATIENCE = timedelta(hours=1)
"""How long a cycle waits for replicas that do not answer, before it ends without them."""
GATEWAY_SECONDS = 2.0
"""Time in which gateways that reach the daemon hear of another version, with room."""
MAY_BE_REJECTED = frozenset({VersionState.PROBATION, VersionState.READY})
"""States in which a version waits: for its second look, or for an operator."""
OVERRULE = "`learnd adapters activate` overrules that"
UNREADY: dict[VersionState, str] = {
    VersionState.CANDIDATE: f"it is still being judged; {OVERRULE}",
    VersionState.PROBATION: f"it waits for its second look, which `learnd status` follows; {OVERRULE}",
    VersionState.ACTIVE: "it is live already",
    VersionState.RETIRED: "it was live before; `learnd adapters activate` brings it back",
    VersionState.REJECTED: f"it did not pass every gate; {OVERRULE}",
}
"""Why a version cannot be promoted."""
UNSEEN = ""
"""In place of a version's id: whoever activates another one has not seen which one is active."""


class NotReady(LearndError):
    """No version, or not this one, passed every gate."""


class NotWaiting(LearndError):
    """A version cannot be rejected, since it waits for nothing."""


class NotServable(LearndError):
    """A version cannot be made active: its files are gone or have changed."""


def open_replicas(settings: Settings, target: TargetSettings, stack: ExitStack) -> list[Replica]:
    """Open clients of the target's replicas, closed with `stack`. Raises SettingsError for a bad key file."""
    return [
        stack.enter_context(
            Replica(
                name=replica.name,
                url=replica.url,
                api_key=replica.read_key(),
                base_name=replica.base_name,
                path_map=(replica.path_map.local, replica.path_map.remote) if replica.path_map else None,
            )
        )
        for replica in settings.find_replicas(target)
    ]


@dataclass(frozen=True)
class Promoter:
    """Changes which version a target's replicas serve."""

    settings: Settings
    store: Store
    clock: Callable[[], datetime]
    """Aware UTC."""

    def promote(
        self,
        version: Version,
        *,
        expected_active: str | None,
        actor: str,
        reason: str,
        unless_held: bool = False,
    ) -> Version:
        """Serve `version` on every replica and make it the active one.

        Raises NotServed where a replica does not serve it as it was trained (NotServedYet where one
        does not answer), NotServable where its files are not what they were, ActiveChanged where
        something else than `expected_active` is live by now, and with `unless_held` TargetHeld. In
        each case the old version goes on serving.
        """
        target = self.settings.find_target(version.target)
        with promotion_lock(self.settings.data_dir, target.key, LOCK_PATIENCE), ExitStack() as stack:
            replicas = open_replicas(self.settings, target, stack)
            self.store.want(version.id)
            try:
                _bring_up(self.settings, replicas, version)
                now = self.clock()  # The old version drains from the flip on, however long the probes took.
                return self.store.activate(
                    version.id,
                    expected_active=expected_active,
                    drain_until=now + drain_time(self.settings),
                    now=now,
                    actor=actor,
                    reason=reason,
                    unless_held=unless_held,
                )
            except LearndError:
                _withdraw(self.store, version)
                raise

    def activate(
        self,
        version_id: str,
        *,
        actor: str,
        reason: str,
        instead_of: str | None = UNSEEN,
        ready_only: bool = False,
    ) -> Version:
        """Make a version the active one because an operator decides so, whatever its verdict.

        `instead_of` is the version that they saw as active (None: the base model); left out, it is the
        active one. `ready_only` is for those who do not want to overrule a verdict. Raises NotReady,
        UnknownVersion, and what `promote` raises.
        """
        version = self.store.version(version_id)
        if ready_only and version.state is not VersionState.READY:
            raise NotReady(f"{version.id} is {version.state}, not READY: {UNREADY[version.state]}")
        active = self.store.find_active_version(version.target)
        return self.promote(
            version,
            expected_active=(active.id if active else None) if instead_of == UNSEEN else instead_of,
            actor=actor,
            reason=reason,
        )

    def roll_back(
        self, target: TargetSettings, *, actor: str, reason: str, instead_of: str | None = UNSEEN
    ) -> Version | None:
        """Go back to the version that was active before, or to the base model (None), and hold the target.

        `instead_of` is the version that the operator saw as active; left out, it is the active one.
        While a target is on hold nothing is promoted automatically, until `release`. A replica that
        does not answer keeps nobody on a bad version: the reconciler brings it along later.
        Raises NotServable, NotServed, ActiveChanged.
        """
        with promotion_lock(self.settings.data_dir, target.key, LOCK_PATIENCE), ExitStack() as stack:
            active = self.store.find_active_version(target.key)
            if active is None:
                raise NotServable(
                    f"{target.key} serves the base model already: there is nothing to roll back"
                )
            if instead_of not in {UNSEEN, active.id}:
                raise ActiveChanged(target.key, instead_of, active.id)
            previous = self.store.find_rollback_target(target.key)
            if previous is not None:
                self._bring_back(target, previous, stack)
            now = self.clock()
            self.store.rollback(
                target.key,
                to=previous.id if previous else None,
                expected_active=active.id,
                drain_until=now + drain_time(self.settings),
                now=now,
                actor=actor,
                reason=reason,
            )
            return previous

    def _bring_back(self, target: TargetSettings, version: Version, stack: ExitStack) -> None:
        """Load and probe `version` on the replicas that answer."""
        self.store.want(version.id)
        try:
            replicas = [r for r in open_replicas(self.settings, target, stack) if r.is_healthy()]
            _bring_up(self.settings, replicas, version)
        except LearndError:
            _withdraw(self.store, version)
            raise


def find_newest_ready(store: Store, target: str) -> Version:
    """Return the newest version of the target that passed every gate. Raises NotReady."""
    ready = [version for version in store.versions(target) if version.state is VersionState.READY]
    if not ready:
        raise NotReady(
            f"{target}: no version is READY; `learnd adapters list` shows them, "
            "`learnd adapters activate` overrules a verdict"
        )
    return ready[-1]


def reject(store: Store, version_id: str, *, actor: str, reason: str, now: datetime) -> Version:
    """Reject a version that is READY or on PROBATION, because an operator decides so.

    Raises NotWaiting for a version in another state, and UnknownVersion.
    """
    version = store.version(version_id)
    if version.state not in MAY_BE_REJECTED:
        raise NotWaiting(
            f"{version.id} is {version.state}: only a version that is READY or on PROBATION can be rejected; "
            "`learnd adapters rollback` goes back from the active one"
        )
    return store.judge(version.id, VersionState.REJECTED, now=now, actor=actor, reason=reason)


def drain_time(settings: Settings) -> timedelta:
    """Return how long clients and gateways may still ask for the old version by its name."""
    return timedelta(seconds=max(settings.agents.cache_seconds, GATEWAY_SECONDS))


def _withdraw(store: Store, version: Version) -> None:
    """Undo `want`: what was live stays, what was draining goes on with that, the rest is unloaded."""
    if version.state is not VersionState.ACTIVE:
        # Whoever was quicker may have activated this very version: it stays.
        with suppress(VersionInUse):
            store.unwant(version.id, drain_until=version.drain_until)


def _bring_up(settings: Settings, replicas: Sequence[Replica], version: Version) -> None:
    folder = adapter_folder(settings.data_dir, version)
    verify_files(folder, version)
    if not replicas:
        # An embedding model: agents fetch its files and load it themselves.
        return
    record = ProbeRecord.model_validate_json((folder / PROBES).read_text("utf-8"))
    bring_up(replicas, version.id, folder, record)


def verify_files(folder: Path, version: Version) -> None:
    """Check the version's files against their digests. Raises NotServable for a changed file or a link."""
    if version.files_removed_at is not None:
        raise NotServable(
            f"{version.id} was removed by the retention policy on {version.files_removed_at:%Y-%m-%d}"
        )
    try:
        check_adapter_files(folder, version.files)
    except AdapterChanged as changed:
        raise NotServable(f"{version.id} cannot be served: {changed}") from changed
