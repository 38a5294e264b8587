"""Operators who decide at the same moment: whoever is told that it was done stands in the audit log."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from registry.versions import VersionState
from tests.integration.daemon.api.test_operators import Daemon
from tests.integration.registry.store.store_support import NOW
from tests.support.trained_version import add_trained_version

PEOPLE = [f"person-{number}" for number in range(8)]


@pytest.fixture
def daemon(tmp_path: Path) -> Daemon:
    return Daemon(
        tmp_path,
        users={name: {"role": "operator"} for name in PEOPLE},
        tokens={f"{name}-token": name for name in PEOPLE},
    )


def post_at_once(daemon: Daemon, path: str, body: dict[str, Any]) -> Counter[int]:
    """Let everybody post at once; returns how often each status came, and checks it against the log."""

    def post(name: str) -> int:
        headers = {"authorization": f"Bearer {name}-token"}
        return httpx.post(f"{url}{path}", json=body, headers=headers, timeout=60).status_code

    with daemon.up() as url, ThreadPoolExecutor(len(PEOPLE)) as pool:
        answers = dict(zip(PEOPLE, pool.map(post, PEOPLE), strict=True))
    told = sorted(name for name, status in answers.items() if status == 200)
    assert told == sorted(entry.actor for entry in daemon.store.audit() if entry.actor in PEOPLE)
    return Counter(answers.values())


def test_of_those_who_saw_the_base_model_one_activates_and_the_others_lost(
    daemon: Daemon, tmp_path: Path
) -> None:
    version = add_trained_version(daemon.store, tmp_path)
    path = f"/api/v1/versions/{version.id}/activate"
    answers = post_at_once(daemon, path, {"reason": "better", "instead_of": None})
    assert answers == {200: 1, 409: len(PEOPLE) - 1}
    assert daemon.store.version(version.id).wanted


def test_those_who_did_not_say_what_they_saw_are_all_in_the_log(daemon: Daemon, tmp_path: Path) -> None:
    version = add_trained_version(daemon.store, tmp_path)
    answers = post_at_once(daemon, f"/api/v1/versions/{version.id}/activate", {"reason": "better"})
    assert answers[200] >= 1
    assert answers.keys() <= {200, 409}


def test_a_version_is_rejected_by_one_person(daemon: Daemon, tmp_path: Path) -> None:
    version = add_trained_version(daemon.store, tmp_path)
    daemon.store.judge(version.id, VersionState.READY, now=NOW, actor="learnd", reason="better")
    answers = post_at_once(daemon, f"/api/v1/versions/{version.id}/reject", {"reason": "wrong tone"})
    assert answers == {200: 1, 409: len(PEOPLE) - 1}
