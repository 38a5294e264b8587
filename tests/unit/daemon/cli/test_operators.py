"""`learnd operators`: lines for the settings' files."""

import json

import pytest
from argon2 import PasswordHasher
from typer.testing import CliRunner

from daemon.access.accounts import hash_password
from daemon.cli.commands import app
from extractors.errors import LearndError


def test_a_password_becomes_a_line_of_the_users_file_and_is_never_shown() -> None:
    done = CliRunner().invoke(app, ["operators", "hash", "ann", "--viewer"], input="s3cret\ns3cret\n")
    assert done.exit_code == 0
    name, role, hashed = done.stdout.split()
    assert (name, role) == ("ann", "viewer")
    assert PasswordHasher().verify(hashed, "s3cret")
    assert "s3cret" not in done.output
    as_json = CliRunner().invoke(app, ["operators", "hash", "ann", "--json"], input="s3cret\ns3cret\n")
    assert json.loads(as_json.stdout)["role"] == "operator"


def test_a_token_is_new_each_time() -> None:
    made = [CliRunner().invoke(app, ["operators", "token", "ci"]).stdout.split() for _ in range(2)]
    assert [name for _, name in made] == ["ci", "ci"]
    assert made[0][0] != made[1][0]


@pytest.mark.parametrize("password", ["", "   ", "x" * 2000])
def test_what_is_no_password_is_not_hashed(password: str) -> None:
    with pytest.raises(LearndError, match="1 to 1024 characters"):
        hash_password(password)
