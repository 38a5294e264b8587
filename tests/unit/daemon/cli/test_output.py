"""Facts on the terminal: a name and its value a line."""

import pytest

from daemon.cli.output import print_facts


def test_what_is_empty_is_shown_as_a_dash(capsys: pytest.CaptureFixture[str]) -> None:
    print_facts({"dropped": {}, "origins": {"sft": {}, "pairs": {}}, "warnings": (), "last_poll": None})
    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()] == ["–"] * 4


def test_values_are_joined_with_commas(capsys: pytest.CaptureFixture[str]) -> None:
    print_facts({"origins": {"sft": {"telemetry": 3}, "pairs": {}}, "warnings": ("one", "two")})
    assert [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()] == [
        "origins sft telemetry 3",
        "warnings one, two",
    ]
