"""The share of the traffic that is set apart to validate on: more only where a race can tell something."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from daemon.data.ingest import assemble_snapshot
from daemon.runtime.context import TargetContext
from daemon.settings.load import Settings
from extractors.examples.types import ReviewedItem
from extractors.feedback.extract import Extraction
from registry.store.store import Store
from tests.support.runs import NOWHERE
from tests.support.traffic import NOON, item
from tests.support.trained_version import add_trained_version

HELD_OUT = 10


def build_context(folder: Path, *, has_live: bool = True, **changes: Any) -> TargetContext:
    target = {
        "tenant": "acme",
        "agent": "routing",
        "project": "routing",
        "task": "generation",
        "base_model": "tiny",
        "holdout": {"share": 0.01, "least": HELD_OUT},
    }
    settings = Settings.model_validate(
        {"data_dir": folder, "phoenix": {"url": NOWHERE}, "targets": [target | changes]}
    )
    context = TargetContext(settings, settings.targets[0], Store.open(folder, NOON), lambda: NOON)
    if has_live:
        version = add_trained_version(context.store, folder)
        context.store.activate(
            version.id, expected_active=None, drain_until=NOON, now=NOON, actor="ann", reason="a test"
        )
    return context


def extract_items(count: int, *, sessions: int | None = None) -> Extraction:
    """Return so many approved answers older than the holdout, of a session each or of `sessions`."""
    items: Sequence[ReviewedItem] = [
        item(number, session_id=f"session-{number % (sessions or count)}") for number in range(count)
    ] + [item(number) for number in range(10_000, 10_000 + HELD_OUT)]
    return Extraction(items=tuple(items))


def find_share(context: TargetContext, extraction: Extraction) -> float:
    """Return the share that is set apart to validate on."""
    return assemble_snapshot(context, extraction).manifest.rules.validation_share


def test_where_a_race_can_tell_something_a_fifth_is_set_apart(tmp_path: Path) -> None:
    assert find_share(build_context(tmp_path), extract_items(300)) == 0.2


def test_a_race_never_takes_the_answers_away_that_its_default_needs(tmp_path: Path) -> None:
    context = build_context(
        tmp_path, holdout={"share": 0.01, "least": HELD_OUT, "race_validation_share": 0.5}
    )
    assert find_share(context, extract_items(90)) == 0.1, "the half of them is less than the rules need"


@pytest.mark.parametrize(
    ("extraction", "changes"),
    [
        (extract_items(150), {}),
        (extract_items(300, sessions=100), {}),
        (extract_items(300), {"gate": {"metrics": ["judge"]}, "judge": {"url": NOWHERE, "model": "judge"}}),
        (extract_items(300), {"race": "off"}),
    ],
    ids=["30 items", "20 sessions", "only a judge can compare", "no race"],
)
def test_where_no_race_can_follow_training_loses_nothing_for_it(
    extraction: Extraction, changes: dict[str, Any], tmp_path: Path
) -> None:
    assert find_share(build_context(tmp_path, **changes), extraction) == 0.1
