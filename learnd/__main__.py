"""`learnd`, the command. Makes the stages importable, then starts the command line.

In a checkout the stages are beside this package; in a wheel they are in `learnd/_app`, so that
names like `daemon` stay out of other people's environments (PyPI has a `daemon` too).
"""

import sys
from pathlib import Path

OURS = frozenset({"daemon", "evaluation", "extractors", "registry", "trainers"})
"""Packages whose absence is a fault of ours."""


def find_stages_folder() -> Path:
    """Return the folder that holds `daemon`, `extractors`, … in this installation."""
    here = Path(__file__).resolve().parent
    bundled = here / "_app"
    return bundled if bundled.is_dir() else here.parent


def main() -> None:
    """Run the command line, or say which extra to install where the daemon's libraries are missing."""
    sys.path.insert(0, str(find_stages_folder()))
    try:
        from daemon import cli
    except ModuleNotFoundError as missing:
        if missing.name is None or missing.name.split(".")[0] in OURS:
            raise
        sys.exit(
            f"learnd: the command line needs `{missing.name}`, which is not installed. "
            "Install it with: pip install 'learnd[daemon]'"
        )
    cli.main()


if __name__ == "__main__":
    main()
