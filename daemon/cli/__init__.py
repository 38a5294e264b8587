"""The command line. Every listing has `--json`; every error says what happened and what to do."""

import sys

from daemon.cli.commands import app
from daemon.cli.output import plain
from extractors.errors import LearndError


def main() -> None:
    """Run the command line; a LearndError becomes one line on stderr and exit code 1."""
    try:
        app()
    except LearndError as problem:
        print(plain(f"learnd: {problem}"), file=sys.stderr)  # noqa: T201
        sys.exit(1)
