"""A promising version waits on probation, and is judged again on traffic that came after its training."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from daemon.demo.phoenix import PhoenixServer
from registry.versions import VersionState
from tests.e2e.team import HELD_OUT, ITEMS, Team, fill, make_cases, new_team

FRESH = 20
"""Newer items that the second look takes here."""


@pytest.fixture
def team(tmp_path: Path, phoenix: PhoenixServer, tiny_model: Path) -> Team:
    """Nothing is so surely better that it goes live at once, and people promote."""
    gate = {"at_once": 1e-300, "fresh_items": FRESH / HELD_OUT, "latency_margin": 20.0}
    return new_team(
        tmp_path,
        f"t{uuid4().hex[:8]}",
        phoenix=phoenix.url,
        vllm="http://127.0.0.1:9",
        model=tiny_model,
        gate=gate,
        promotion="manual",
        seeds=3,
    )


def test_a_promising_version_is_proven_on_newer_traffic_and_the_cycles_wait_for_nothing(
    team: Team, phoenix: PhoenixServer
) -> None:
    first = team.ask("once")
    assert (first["state"], first["verdict"]) == ("DONE", "PROBATION"), first["reason"]
    assert "traffic that comes after its training" in first["reason"]
    assert [stage["run"] for stage in first["training"]] == [0, 1, 2]
    seeds = first["report"]["seeds"]["scores"]
    assert first["report"]["sides"][-1]["accuracy"] == sorted(seeds)[1]
    [status] = team.ask("status")
    waiting = status["probation"]
    assert (waiting["version"], waiting["needs"]) == (first["version_id"], FRESH)
    assert datetime.fromisoformat(waiting["until"]) > datetime.now(UTC) + timedelta(days=29)
    assert team.ask("once")["state"] == "SKIPPED", "nothing new: it does not look again"

    # Some of it asks what was asked before, which proves nothing.
    fill(
        phoenix.url,
        team.project,
        [*make_cases(range(8)), *make_cases(range(ITEMS, ITEMS + FRESH))],
        first=ITEMS,
    )
    second = team.ask("once")

    assert (second["trigger"], second["state"], second["verdict"]) == ("second look", "DONE", "PROMOTE")
    assert second["reason"].startswith("better on newer traffic, too")
    assert second["version_id"] == first["version_id"]
    assert (second["report"]["look"], second["report"]["holdout_size"]) == ("second", FRESH)
    assert second["plan"] is None
    with team.store() as store:
        [version] = store.versions(team.key)
        assert version.state is VersionState.READY
        held_out = {item["item_id"] for item in first["report"]["sides"][0]["answers"]}
        assert held_out.isdisjoint(item["item_id"] for item in second["report"]["sides"][0]["answers"])
    shown = [team.ask("experiments", "open", look["id"])["url"] for look in (first, second)]
    assert all(httpx.get(url).is_success for url in shown), shown
    assert shown[0].split("?")[0] == shown[1].split("?")[0], "one dataset, of which each look has a version"
    card = (team.settings.data_dir / version.path / "README.md").read_text()
    assert "What was measured, second look" in card
    assert first["reason"] in card
    [status] = team.ask("status")
    assert status["probation"] is None
    assert status["held_out"]["has"] == HELD_OUT, "the counts are those of the last training"
