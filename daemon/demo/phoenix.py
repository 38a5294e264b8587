"""A Phoenix of one's own, for the demo and the tests: started in a folder, stopped at the end."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from daemon.demo.servers import find_free_port, run_server

START_SECONDS = 120
"""A cold start takes about 10 s; a machine under load has needed much longer."""


@dataclass(frozen=True)
class PhoenixServer:
    url: str
    """Base URL, without a slash at the end."""
    pid: int
    log: Path


@contextmanager
def run_phoenix(
    directory: Path,
    python: str = sys.executable,
    port: int | None = None,
    auth_secret: str | None = None,
    first_password: str | None = None,
) -> Iterator[PhoenixServer]:
    """Run `phoenix serve` on 127.0.0.1 with its database in `directory`, until the block ends.

    `python` is the interpreter of the environment that has Phoenix. With `auth_secret` (32
    characters or more, a digit and a lower-case letter among them) sign-in is on, and the same
    secret, sent as a bearer token, is an administrator's key. `first_password` is the one with
    which admin@localhost signs in for the first time.
    Raises ServerDidNotStart.
    """
    directory.mkdir(parents=True, exist_ok=True)
    port = port or find_free_port()
    url = f"http://127.0.0.1:{port}"
    log = directory / "phoenix.log"
    with run_server(
        [python, "-m", "phoenix.server.main", "serve"],
        health_url=f"{url}/healthz",
        log=log,
        env={**_build_environment(directory, port), **_build_authentication(auth_secret, first_password)},
        start_seconds=START_SECONDS,
    ) as process:
        yield PhoenixServer(url=url, pid=process.pid, log=log)


def _build_environment(directory: Path, port: int) -> dict[str, str]:
    return {
        "PHOENIX_WORKING_DIR": str(directory),
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": str(port),
        "PHOENIX_GRPC_PORT": "0",
        "PHOENIX_TELEMETRY_ENABLED": "false",
        "PHOENIX_ALLOW_EXTERNAL_RESOURCES": "false",
        "PHOENIX_DISABLE_AGENT_ASSISTANT": "true",
        "PHOENIX_ENABLE_MCP_SERVER": "false",
    }


def _build_authentication(secret: str | None, first_password: str | None) -> dict[str, str]:
    if secret is None:
        return {"PHOENIX_ENABLE_AUTH": "false"}
    # Phoenix refuses one value for both; the signing secret never leaves the server.
    return {
        "PHOENIX_ENABLE_AUTH": "true",
        "PHOENIX_SECRET": f"{secret}-signing-1a",
        "PHOENIX_ADMIN_SECRET": secret,
        **({"PHOENIX_DEFAULT_ADMIN_INITIAL_PASSWORD": first_password} if first_password else {}),
    }
