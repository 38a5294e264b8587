"""Keep every replica serving what the store says it should, and finish what a crash left behind."""

from contextlib import ExitStack

import structlog

from daemon.cycle import Loop
from daemon.locks import Locked, promotion_lock
from daemon.promotion import adapter_folder, open_replicas
from registry.serving.reconciler import Wanted, reconcile
from registry.serving.replica import Replica, ReplicaUnreachable
from registry.serving.swap import take_down
from registry.versions import Version, VersionState

log = structlog.get_logger()


def reconcile_target(loop: Loop) -> dict[str, str]:
    """Bring each replica of the target to what is wanted; returns replica to `ok` or its problem.

    A replica that does not answer keeps nobody else waiting.
    """
    health: dict[str, str] = {}
    with ExitStack() as stack:
        replicas = open_replicas(loop.settings, loop.target, stack)
        try:
            with promotion_lock(loop.data_dir, loop.target.slug):
                _drop_leftovers(loop)
                for version in loop.store.wanted(loop.target.key):
                    _drain(loop, replicas, version)
                wanted = [
                    Wanted(version.id, adapter_folder(loop.data_dir, version))
                    for version in loop.store.wanted(loop.target.key)
                ]
                for replica in replicas:
                    health[replica.name] = _reconcile_one(replica, wanted, loop.target.slug)
        except Locked:
            # A promotion is loading right now; it knows better what is wanted than we do.
            return {}
    return health


def _reconcile_one(replica: Replica, wanted: list[Wanted], slug: str) -> str:
    try:
        outcome = reconcile(replica, wanted, owned_prefix=f"{slug}.v")
    except ReplicaUnreachable as down:
        return str(down)
    if outcome.loaded or outcome.unloaded:
        log.info("reconciled", replica=replica.name, loaded=outcome.loaded, unloaded=outcome.unloaded)
    return "; ".join(outcome.problems) or "ok"


def _drop_leftovers(loop: Loop) -> None:
    """Let a version drain that a promotion, killed in the middle, left loaded.

    The promotion lock is ours, and a cycle that is still PROMOTING begins again by itself.
    """
    promoting = {cycle.version_id for cycle in loop.store.unfinished_cycles()}
    for version in loop.store.wanted(loop.target.key):
        abandoned = version.state is not VersionState.ACTIVE and version.drain_until is None
        if abandoned and version.id not in promoting:
            loop.store.unwant(version.id)


def _drain(loop: Loop, replicas: list[Replica], version: Version) -> None:
    """Unload a retired version once no client may still know its name and no request is in flight."""
    if (
        version.state is VersionState.ACTIVE
        or version.drain_until is None
        or loop.clock() < version.drain_until
    ):
        return
    try:
        if all([take_down(replica, version.id) for replica in replicas]):
            loop.store.drained(version.id, loop.clock())
            log.info("drained", version=version.id)
    except ReplicaUnreachable as down:
        # It has nothing loaded when it comes back; but it may be cut off and still serving.
        log.info("drain waits", version=version.id, replica=str(down))
