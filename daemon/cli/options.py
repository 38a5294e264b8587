"""The options and arguments that commands share, and how to open what they name."""

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from daemon.runtime.clock import utc_now
from daemon.runtime.data_dir import prepare_data_dir
from daemon.settings.load import Settings, load_settings
from daemon.settings.target import TargetSettings
from extractors.errors import LearndError
from registry.store.store import Store

Config = Annotated[Path, typer.Option("--config", "-c", envvar="LEARND_CONFIG", help="The settings file.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Run = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="The run's id, a unique beginning of it, or the id of the version that it trained.",
    ),
]
TargetKey = Annotated[
    str | None,
    typer.Option(
        "--target", "-t", metavar="TENANT/AGENT", help="The target. May be left out where there is only one."
    ),
]
DEFAULT_CONFIG = Path("learnd.toml")


@contextmanager
def open_store(config: Path) -> Iterator[tuple[Settings, Store]]:
    """Load the settings and open the store that they name. Raises SettingsError and DataDirUnusable."""
    settings = load_settings(config)
    prepare_data_dir(settings)
    with Store.open(settings.data_dir, utc_now()) as store:
        yield settings, store


def choose_target(settings: Settings, key: str | None) -> TargetSettings:
    """Return the target named `key`, or the only one there is. Raises LearndError where that is not clear."""
    if key is not None:
        return settings.find_target(key)
    if len(settings.targets) != 1:
        known = ", ".join(target.key for target in settings.targets) or "none"
        raise LearndError(f"which target? Name one with --target (there are: {known})")
    return settings.targets[0]


def find_actor() -> str:
    """Return the user of this machine who runs the command, for the audit log."""
    return getpass.getuser()
