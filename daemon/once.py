"""One cycle in the foreground: what `learnd once` does, and a Python call.

from daemon.once import run_once
cycle = run_once(load_settings(Path("learnd.toml")), "acme/routing")
"""

from collections.abc import Callable
from threading import Event
from typing import Any

from daemon.cycle import run_cycle
from daemon.locks import daemon_lock
from daemon.loop import Loop
from daemon.reconcile import reconcile_target
from daemon.retention import prune_target
from daemon.service import utc_now
from daemon.settings import Settings
from registry.cycles import Cycle
from registry.store.store import Store


def run_once(
    settings: Settings,
    target_key: str,
    *,
    on_progress: Callable[[dict[str, Any]], None] = lambda _line: None,
    stop: Event | None = None,
) -> Cycle:
    """Poll, and run one cycle of the target to its end; an unfinished one is finished instead.

    Starts whatever has come in and without regard to the cool-down. Raises Locked while a daemon
    works on the same data directory, and what stands in the way for now (PhoenixError,
    NotServedYet, Interrupted): an unfinished cycle stays where it is, the next call goes on with it.
    """
    target = settings.target(target_key)
    with daemon_lock(settings.data_dir):
        store = Store.open(settings.data_dir, utc_now())
        try:
            loop = Loop(settings, target, store, utc_now, stop or Event(), on_progress)
            cycle = run_cycle(loop, "operator")
            reconcile_target(loop)
            prune_target(loop)
            return cycle
        finally:
            store.close()
