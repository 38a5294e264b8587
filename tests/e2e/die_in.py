"""Run a cycle, or go on with one, until it is in a state; begin its step, and die of SIGKILL in the middle.

python -m tests.e2e.die_in CONFIG STATE SECONDS
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path

from daemon.cycle.steps import advance, begin_cycle, find_unfinished_cycle
from daemon.runtime.clock import utc_now
from daemon.runtime.context import TargetContext
from daemon.runtime.locks import daemon_lock
from daemon.settings.load import load_settings
from registry.store.store import Store


def main(config: Path, state: str, seconds: float) -> None:
    settings = load_settings(config)
    with daemon_lock(settings.data_dir), Store.open(settings.data_dir, utc_now()) as store:
        context = TargetContext(settings, settings.targets[0], store, utc_now)
        cycle = find_unfinished_cycle(context) or begin_cycle(context, "operator")
        while cycle.state != state:
            assert not cycle.ended, f"the cycle ended {cycle.state} before {state}: {cycle.reason}"
            cycle = advance(context, cycle)
        threading.Thread(target=advance, args=(context, cycle), daemon=True).start()
        time.sleep(seconds)
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
