"""The command line. Every listing has `--json`; every error says what happened and what to do."""

import sys

from daemon.cli.commands import app
from extractors.errors import LearndError


def main() -> None:
    """Run the command line; a LearndError or an unusable file becomes one line on stderr, exit code 1."""
    try:
        app(prog_name="learnd")
    except (LearndError, OSError) as problem:
        from daemon.cli.output import remove_control_characters

        print(remove_control_characters(f"learnd: {problem}"), file=sys.stderr)  # noqa: T201
        sys.exit(1)
