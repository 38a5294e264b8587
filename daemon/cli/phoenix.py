"""`learnd phoenix`: an API key of Phoenix for the daemon and for the gateway, so that neither is an admin."""

import os
from pathlib import Path
from typing import Annotated

import typer

from daemon.cli.options import DEFAULT_CONFIG, Config
from daemon.cli.output import print_line
from daemon.settings.load import load_settings
from daemon.settings.types import read_secret
from extractors.errors import LearndError
from extractors.phoenix.accounts import create_member_key, is_accepted
from extractors.phoenix.http import PhoenixError

app = typer.Typer(no_args_is_help=True)
CHECK_PATIENCE = 5.0
"""Seconds to wait for Phoenix where there is a key already."""


@app.callback()
def phoenix() -> None:
    """Create API keys of Phoenix for the daemon and the gateway."""


@app.command("create-key")
def create_key(
    name: Annotated[str, typer.Argument(help="The account in Phoenix, such as `learnd-gateway`.")],
    file: Annotated[Path, typer.Argument(help="The file for the key; only your user can read it.")],
    admin_secret: Annotated[
        Path, typer.Option("--admin-secret", help="A file with Phoenix's PHOENIX_ADMIN_SECRET.")
    ],
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for a Phoenix that starts.")] = 120,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Write an API key of a Phoenix account that is a member, the least role that may write traces.

    A file with a key that Phoenix accepts stays as it is, and so does any key while Phoenix does not answer.
    """
    url = load_settings(config).phoenix.url
    if file.exists():
        try:
            if is_accepted(url, read_secret(file), CHECK_PATIENCE):
                print_line(f"{file}: Phoenix accepts this key")
                return
        except PhoenixError as problem:
            print_line(f"{file} stays as it is, not checked: {problem}")
            return
    if not file.absolute().parent.is_dir():
        raise LearndError(f"the folder of {file} does not exist; create it first")
    key = create_member_key(url, read_secret(admin_secret), name, patience=wait)
    _write(file, key)
    print_line(f"wrote {file}: a key of Phoenix's member {name}")


def _write(file: Path, key: str) -> None:
    """Replace the file in one step."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as written:
        written.write(f"{key}\n")
    temporary.replace(file)
