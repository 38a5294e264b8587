"""One cycle in the foreground: what `learnd once` does, and a Python call.

from daemon.run_once import run_once
cycle = run_once(load_settings(Path("learnd.toml")), "acme/routing")
"""

from threading import Event

from daemon.cycle.replay import prune_replay
from daemon.cycle.steps import run_cycle
from daemon.data.ingest import open_phoenix
from daemon.publishing.publish import NotPublished, publish_target
from daemon.route_server import serve_routes
from daemon.runtime.child_process import Interrupted, OnProgress
from daemon.runtime.clock import utc_now
from daemon.runtime.context import TargetContext
from daemon.runtime.data_dir import prepare_data_dir
from daemon.runtime.locks import daemon_lock
from daemon.serving.pruning import prune_target
from daemon.serving.reconciler import reconcile_target
from daemon.serving.silent_replicas import SilentReplicas
from daemon.settings.load import Settings
from extractors.phoenix.http import PhoenixError
from registry.cycles import Cycle
from registry.store.store import Store

FOREGROUND_PATIENCE = 5.0
"""Seconds for all tries of a request that publishes: somebody waits, and what fails is published later."""


def run_once(
    settings: Settings,
    target_key: str,
    *,
    on_progress: OnProgress = lambda _line: None,
    stop: Event | None = None,
) -> Cycle:
    """Poll, and run one cycle of the target to its end; an unfinished cycle is finished instead.

    The cycle starts even without new feedback, and does not wait for the cool-down. Raises Locked while a
    daemon works on the same data directory, and PhoenixError, NotServedYet or Interrupted: then the
    unfinished cycle stays where it is, and the next call goes on with it. Meanwhile gateways are told which
    version is active, as a daemon would. Raises DataDirUnusable, TokensMissing.
    """
    target = settings.find_target(target_key)
    prepare_data_dir(settings)
    with daemon_lock(settings.data_dir):
        store = Store.open(settings.data_dir, utc_now())
        try:
            context = TargetContext(settings, target, store, utc_now, stop or Event(), on_progress)
            with serve_routes(settings, store):
                cycle = run_cycle(context, "operator")
                reconcile_target(context, SilentReplicas())
                _publish(context)
                prune_target(context)
                prune_replay(settings, store)
            return store.cycle(cycle.id)
        finally:
            store.close()


def _publish(context: TargetContext) -> None:
    """Publish the cycle to Phoenix; a failure is reported, and the next call or a daemon tries again."""
    context.report_stage("publishing")
    try:
        with open_phoenix(context.settings, patience=FOREGROUND_PATIENCE) as client:
            publish_target(context, client)
    except (PhoenixError, NotPublished, Interrupted) as problem:
        words = f"not all of it is in Phoenix yet; the next call, or a daemon, goes on with it: {problem}"
        context.report_stage("publishing", words)
