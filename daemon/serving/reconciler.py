"""Keep every replica serving what the store says it should, and finish what a crash left behind."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import structlog

from daemon.runtime.context import TargetContext
from daemon.runtime.locks import Locked, promotion_lock
from daemon.runtime.paths import adapter_folder
from daemon.serving.promotion import open_replicas
from daemon.serving.silent_replicas import SilentReplicas
from registry.cycles import CycleState
from registry.serving.reconciler import DesiredAdapter, reconcile
from registry.serving.replica import Replica, ReplicaRefused, ReplicaSilent, ReplicaUnreachable
from registry.versions import VersionState

OK = "ok"
REPLICAS_AT_ONCE = 8
log = structlog.get_logger()


def reconcile_target(context: TargetContext, silent: SilentReplicas) -> dict[str, str]:
    """Bring each replica of the target to the desired adapters; return `ok` or a problem for each replica.

    A replica that does not answer delays no other, and is left alone while `silent` remembers it. Empty
    while a promotion is under way, since the promotion changes what is desired.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(promotion_lock(context.data_dir, context.target.key))
        except Locked:
            return {}
        _drop_leftovers(context)
        _end_drains(context)
        wanted = [
            DesiredAdapter(
                name=version.id, path=adapter_folder(context.data_dir, version), files=version.files
            )
            for version in context.store.find_wanted_versions(context.target.key)
        ]
        tried, target = _find_trials(context), context.target.key
        replicas = open_replicas(context.settings, context.target, stack)
        if len(replicas) < 2:
            return {each.name: _reconcile_one(each, wanted, tried, target, silent) for each in replicas}
        with ThreadPoolExecutor(min(len(replicas), REPLICAS_AT_ONCE), "replica") as pool:
            outcomes = pool.map(lambda each: _reconcile_one(each, wanted, tried, target, silent), replicas)
            return {replica.name: outcome for replica, outcome in zip(replicas, outcomes, strict=True)}


def _find_trials(context: TargetContext) -> set[str]:
    """Return the candidates that an evaluation has loaded on one replica: they stay there, and only there."""
    cycles = context.store.find_unfinished_cycles(context.target.key)
    judged = {cycle.version_id for cycle in cycles if cycle.state is CycleState.EVALUATING}
    wanted = context.store.find_wanted_versions(context.target.key)
    return {each.id for each in wanted if each.id in judged and each.state is not VersionState.ACTIVE}


def _reconcile_one(
    replica: Replica, wanted: list[DesiredAdapter], tried: set[str], target: str, silent: SilentReplicas
) -> str:
    known = silent.find_problem(replica.name)
    if known is not None:
        return known
    try:
        there = replica.list_adapters() if tried else {}
        wanted = [each for each in wanted if each.name not in tried or each.name in there]
        outcome = reconcile(replica, wanted, targets=[target])
    except ReplicaSilent as problem:
        silent.let_rest(replica.name, str(problem))
        return str(problem)
    except (ReplicaUnreachable, ReplicaRefused) as problem:
        return str(problem)
    if outcome.changed:
        log.info("reconciled", replica=replica.name, loaded=outcome.loaded, unloaded=outcome.unloaded)
    return "; ".join(outcome.refused.values()) or OK


def _drop_leftovers(context: TargetContext) -> None:
    """Let go of versions that a killed promotion has left loaded.

    This process holds the promotion lock, and a cycle that is still PROMOTING begins again anyway.
    """
    cycles = context.store.find_unfinished_cycles(context.target.key)
    promoting = {cycle.version_id for cycle in cycles}
    for version in context.store.find_wanted_versions(context.target.key):
        abandoned = version.state is not VersionState.ACTIVE and version.drain_until is None
        if abandoned and version.id not in promoting:
            context.store.unwant(version.id)


def _end_drains(context: TargetContext) -> None:
    """Let go of retired versions whose name no client knows any more; requests in flight still finish."""
    now = context.clock()
    for version in context.store.find_wanted_versions(context.target.key):
        if version.drain_until is not None and version.drain_until <= now:
            context.store.unload_drained(version.id, now)
