"""The first poll of a target, for commands that show its data before a daemon or a cycle has polled."""

from daemon.data.ingest import open_phoenix, poll_target
from daemon.runtime.context import TargetContext
from daemon.runtime.locks import Locked, daemon_lock
from extractors.phoenix.http import PhoenixError

PATIENCE = 2.0
"""Seconds for all tries to reach Phoenix: somebody waits."""
TIMEOUT = 10.0
"""Seconds for the first answer, from a Phoenix that accepts requests and does not answer."""


def poll_at_first(context: TargetContext) -> str | None:
    """Poll a target whose mirror is still empty; return why that could not be done, in words, else None.

    A mirror that has been read into is left to the daemon.
    """
    state = context.store.target_state(context.target.key)
    polled = state.last_poll_at is not None and state.last_poll_error is None
    if polled or context.store.mirror(context.target.key).read_state().source is not None:
        return None
    context.report_stage("polling")
    try:
        # A running daemon polls by itself, and two polls at once would read everything twice.
        with daemon_lock(context.data_dir):
            with open_phoenix(context.settings, timeout=TIMEOUT, patience=PATIENCE) as client:
                client.version()
            with open_phoenix(context.settings) as client:
                poll_target(context, client)
    except Locked:
        return "the daemon's first poll has not ended yet"
    except PhoenixError as problem:
        return str(problem)
    return None
