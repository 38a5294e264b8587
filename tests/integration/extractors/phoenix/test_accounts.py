"""Keys for programs, from a real Phoenix with sign-in: what a member's key may do, and what it may not."""

import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from daemon.demo.phoenix import PhoenixServer, run_phoenix
from daemon.gateway import Tracing
from extractors.phoenix.accounts import create_member_key, is_accepted
from extractors.phoenix.client import PhoenixClient
from extractors.phoenix.http import PhoenixHttp, PhoenixRefused
from tests.support.gateway import ASK, RouteSource, gateway, route
from tests.support.openai_stand_in import StandIn, serving
from tests.support.phoenix import chat_span, new_project, send_spans, wait_for_spans

ADMIN = "0123456789abcdef0123456789abcdef"
FIRST_PASSWORD = "a1-the-first-password-of-the-admin"
ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture(scope="module")
def phoenix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PhoenixServer]:
    folder = tmp_path_factory.mktemp("phoenix")
    with run_phoenix(folder, auth_secret=ADMIN, first_password=FIRST_PASSWORD) as running:
        yield running


def test_the_admin_s_first_password_is_the_given_one(phoenix: PhoenixServer) -> None:
    def can_sign_in(password: str) -> bool:
        known = {"email": "admin@localhost", "password": password}
        return httpx.post(f"{phoenix.url}/auth/login", json=known, timeout=60).is_success

    assert not can_sign_in("admin")
    assert can_sign_in(FIRST_PASSWORD)


def test_a_member_writes_traces_and_manages_nobody(phoenix: PhoenixServer) -> None:
    key, project = create_member_key(phoenix.url, ADMIN, "learnd-gateway", patience=20), new_project()
    with serving(StandIn()) as url:
        store = RouteSource(route(url, project=project))
        with gateway(store, tracing=Tracing(phoenix.url, key)) as client:
            assert client.post("/v1/chat/completions", json=ASK).status_code == 200
    wait_for_spans(phoenix.url, project, 1, api_key=ADMIN)
    with closing(PhoenixHttp(phoenix.url, key, timeout=60, patience=0)) as http:
        for method, path in (("GET", "/v1/users"), ("GET", "/v1/system/api_keys"), ("DELETE", "/v1/users/x")):
            with pytest.raises(PhoenixRefused, match="403"):
                http.json(method, path)


def test_a_viewer_may_not_write_traces_so_a_member_is_the_least(phoenix: PhoenixServer) -> None:
    user = {"email": "v@example.com", "username": "v", "role": "VIEWER", "auth_method": "LOCAL"}
    known = {**user, "password": "a1-look-only"}
    with httpx.Client(base_url=phoenix.url, timeout=60) as browser:
        by = {"authorization": f"Bearer {ADMIN}"}
        browser.post("/v1/users", json={"user": known, "send_welcome_email": False}, headers=by)
        browser.post("/auth/login", json={"email": user["email"], "password": known["password"]})
        key = browser.post("/v1/user/api_keys", json={"data": {"name": "look"}}).json()["data"]["key"]
    answer = httpx.post(
        f"{phoenix.url}/v1/traces",
        content=b"",
        headers={"authorization": f"Bearer {key}", "content-type": "application/x-protobuf"},
        timeout=60,
    )
    assert answer.status_code == 403


def test_a_new_key_ends_the_one_before(phoenix: PhoenixServer) -> None:
    first = create_member_key(phoenix.url, ADMIN, "learnd", patience=20)
    assert is_accepted(phoenix.url, first, 20)
    second = create_member_key(phoenix.url, ADMIN, "learnd", patience=20)
    assert not is_accepted(phoenix.url, first, 20)
    assert is_accepted(phoenix.url, second, 20)


def test_a_member_s_key_is_all_that_the_daemon_needs(phoenix: PhoenixServer) -> None:
    key, project = create_member_key(phoenix.url, ADMIN, "learnd-daemon", patience=20), new_project()
    span = chat_span()
    send_spans(phoenix.url, project, [span], api_key=key)
    wait_for_spans(phoenix.url, project, 1, api_key=key)
    with PhoenixClient(phoenix.url, key) as client:
        found = client.project(project)
        assert client.spans.count(found) == 1
        client.annotations.offer(found, "approval", ("approved", "rejected"))
        assert client.datasets.find_dataset("none") is None


def create_by_command(
    phoenix_url: str, folder: Path, *more: str, file: str = "key"
) -> "subprocess.CompletedProcess[str]":
    (folder / "learnd.toml").write_text(f'[phoenix]\nurl = "{phoenix_url}"\n', "utf-8")
    (folder / "admin").write_text(f"{ADMIN}\n", "utf-8")
    command = [
        "phoenix",
        "create-key",
        "by-command",
        str(folder / file),
        "--admin-secret",
        str(folder / "admin"),
    ]
    return subprocess.run(
        [sys.executable, "-m", "learnd", *command, "-c", str(folder / "learnd.toml"), *more],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_command_writes_a_key_once_and_again_where_phoenix_has_forgotten_it(
    phoenix: PhoenixServer, tmp_path: Path
) -> None:
    made, file = create_by_command(phoenix.url, tmp_path), tmp_path / "key"
    assert made.returncode == 0, made.stderr
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    key = file.read_text("utf-8").strip()
    assert key not in made.stdout + made.stderr
    assert "accepts" in create_by_command(phoenix.url, tmp_path).stdout
    assert file.read_text("utf-8").strip() == key

    file.write_text("forgotten\n", "utf-8")
    assert create_by_command(phoenix.url, tmp_path).returncode == 0
    assert is_accepted(phoenix.url, file.read_text("utf-8").strip(), 20)


def test_a_key_stays_while_phoenix_is_down_and_without_one_that_is_an_error(tmp_path: Path) -> None:
    nowhere = "http://127.0.0.1:9"
    failed = create_by_command(nowhere, tmp_path, "--wait", "0")
    assert (failed.returncode, "does not answer" in failed.stderr) == (1, True)
    (tmp_path / "key").write_text("known\n", "utf-8")
    kept = create_by_command(nowhere, tmp_path)
    assert (kept.returncode, "stays as it is" in kept.stdout) == (0, True)
    assert (tmp_path / "key").read_text("utf-8") == "known\n"


def test_no_key_is_made_that_could_not_be_written(tmp_path: Path) -> None:
    # A Phoenix that is down would be the next thing to be noticed.
    refused = create_by_command("http://127.0.0.1:9", tmp_path, "--wait", "0", file="nowhere/key")
    assert (refused.returncode, "create it first" in refused.stderr.replace("\n", " ")) == (1, True)
