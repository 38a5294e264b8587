"""`learnd operators`: accounts for the console and the operators' API."""

import secrets
from typing import Annotated

import typer

from daemon.access.accounts import hash_password
from daemon.cli.options import AsJson, find_actor
from daemon.cli.output import print_json, print_line

app = typer.Typer(no_args_is_help=True)
Name = Annotated[str | None, typer.Argument(help="The person's name; by default your user on this machine.")]


@app.command("hash")
def hash_(
    name: Name = None,
    viewer: Annotated[
        bool, typer.Option("--viewer", help="The account may read and decide nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Ask for a password, and print a line for `operators.users_file`: name, role and argon2 hash."""
    password = typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    who, role, hashed = name or find_actor(), "viewer" if viewer else "operator", hash_password(password)
    if as_json:
        print_json({"name": who, "role": role, "password_hash": hashed})
    else:
        # rich would break the long line.
        typer.echo(f"{who} {role} {hashed}")


@app.command()
def token(name: Name = None, as_json: AsJson = False) -> None:
    """Print a line for `operators.tokens_file`: a new token that acts for one of the users."""
    who, made = name or find_actor(), secrets.token_urlsafe(32)
    if as_json:
        print_json({"name": who, "token": made})
    else:
        print_line(f"{made} {who}")
