"""The reference is written from the code: nothing is missing from it, and everything in it says something."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from daemon.cli.commands import COMMANDS
from daemon.settings.load import Settings
from registry.audit import Action
from registry.notices import Event

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "docs"))

from hooks import find_foreign_load
from reference_pages.commands_page import commands_page
from reference_pages.events_page import events_page
from reference_pages.http_page import describe_daemon, http_page
from reference_pages.metrics_page import metrics_page
from reference_pages.settings_page import settings_page


@pytest.fixture(scope="module")
def settings() -> str:
    return settings_page()


def iterate_keys(model: type[BaseModel], path: str = "") -> Iterator[str]:
    """Every key that the settings have, in their own words: `targets.gate.min_effect`."""
    for name, field in model.model_fields.items():
        key = f"{path}.{name}" if path else name
        nested = [each for each in (field.annotation, *get_args(field.annotation)) if isinstance(each, type)]
        models = [each for each in nested if issubclass(each, BaseModel)]
        yield from iterate_keys(models[0], key) if models else [key]


def test_every_setting_has_a_line_with_an_anchor(settings: str) -> None:
    keys = list(iterate_keys(Settings))
    assert len(keys) > 120
    assert [key for key in keys if f"{{ #{key} }}" not in settings] == []


def test_every_line_of_the_settings_says_what_the_key_means(settings: str) -> None:
    rows = [line.split(" | ") for line in settings.splitlines() if re.match(r"\| (\[)?`", line)]
    meanings = {row[0]: re.sub(r"\*.*\*", "", row[-1]).strip(" |") for row in rows}
    assert [key for key, meaning in meanings.items() if not meaning] == []


def test_every_command_is_described_with_its_options() -> None:
    page = commands_page()
    assert [name for name, *_ in COMMANDS if f"`learnd {name}`" not in page] == []
    for below in ("learnd data export", "learnd adapters rollback", "learnd approvals edit"):
        assert f"`{below}`" in page
    assert "--target TENANT/AGENT" in page
    assert "learnd work" not in page  # the inside of a child process


def test_every_route_of_the_daemon_and_of_the_gateway_is_described() -> None:
    page = http_page()
    for path, operations in describe_daemon()["paths"].items():
        for method in operations:
            assert f"`{method.upper()} {path}`" in page
    assert "`POST /v1/chat/completions`" in page


def test_every_metric_is_described() -> None:
    page = metrics_page()
    for metric in ("learnd_poll_seconds", "learnd_gateway_requests", "learnd_gateway_untraced_calls"):
        assert f"`{metric}`" in page
    assert "`target`, `version`, `status`" in page


def test_every_event_and_every_act_is_described() -> None:
    page = events_page()
    for name in (*get_args(Event), *get_args(Action), "cycle ended", "notice not delivered"):
        assert f"`{name}`" in page


@pytest.mark.parametrize(
    "tag",
    [
        '<script src="https://cdn.example.com/mermaid.js"></script>',
        "<link rel='stylesheet' href='//fonts.example.com/css'>",
        '<img alt="" src=https://example.com/badge.svg>',
    ],
)
def test_a_tag_that_loads_from_another_site_is_found(tag: str) -> None:
    assert find_foreign_load(f"<p>{tag}</p>") in tag


def test_links_to_follow_and_files_of_the_site_are_no_such_tags() -> None:
    assert find_foreign_load('<a href="https://example.com">there</a> <img src="../console.png">') is None


@pytest.mark.parametrize(
    "page", ["CONTRIBUTING.md", "docs/contribute/architecture.md", "docs/contribute/cycle.md"]
)
def test_every_file_that_contributors_are_sent_to_is_there(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    named = re.findall(r"`((?:extractors|trainers|evaluation|registry|daemon|tests|docs)/[\w/.]*)`", text)
    assert len(named) > 3
    assert [path for path in named if not (ROOT / path).exists()] == []
