"""`learnd run` under a clock that a test sets: `python -m tests.support.stepped_daemon SETTINGS OFFSET`.

OFFSET is a file with the seconds by which the clock is ahead, read whenever the daemon asks for the time.
"""

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from daemon.runtime.logs import configure_logging
from daemon.service import serve
from daemon.settings.load import load_settings


def main(config: Path, offset: Path) -> None:
    """Run the daemon until it is told to stop."""
    settings = load_settings(config)
    configure_logging(settings.daemon.log_format)
    serve(settings, lambda: datetime.now(UTC) + timedelta(seconds=float(offset.read_text())))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
