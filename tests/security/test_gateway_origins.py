"""Web pages that a browser on the same machine shows, against a gateway without tokens."""

import sys
from collections.abc import Iterator

import httpx
import pytest
import tomli_w

from daemon.demo.servers import find_free_port, run_server


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder, port = tmp_path_factory.mktemp("gateway"), find_free_port()
    target = {
        "tenant": "acme",
        "agent": "routing",
        "project": "p",
        "task": "generation",
        "base_model": "none",
    }
    settings = {"data_dir": "data", "gateway": {"port": port, "trace": False}, "targets": [target]}
    config = folder / "learnd.toml"
    config.write_text(tomli_w.dumps(settings), "utf-8")
    command = [sys.executable, "-m", "learnd", "gateway", "--config", str(config)]
    address = f"http://127.0.0.1:{port}"
    with run_server(command, health_url=f"{address}/healthz", log=folder / "log", env={}, start_seconds=60):
        yield address


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 503),
        ({"Host": "localhost:8700"}, 503),
        ({"Host": "evil.example.com"}, 421),
        ({"Origin": "https://evil.example.com"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Content-Type": "text/plain"}, 403),
    ],
    ids=["a program", "localhost", "DNS rebinding", "another site", "a sandbox", "no-cors"],
)
def test_a_page_calls_no_model_and_a_program_does(url: str, headers: dict[str, str], status: int) -> None:
    asked = {"model": "acme/routing", "messages": [{"role": "user", "content": "hi"}]}
    assert httpx.post(f"{url}/v1/chat/completions", json=asked, headers=headers).status_code == status
    listed = httpx.get(f"{url}/v1/models", headers=headers).status_code
    assert listed == (200 if status == 503 else status)
