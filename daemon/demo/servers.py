"""Start a server as a child process, wait until it answers, stop it. For the demo and the tests."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from extractors.errors import LearndError


class ServerDidNotStart(LearndError):
    """A server that the demo or a test needs ended early or never answered."""


def find_free_port() -> int:
    """Return a TCP port on 127.0.0.1 on which nobody listens right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def run_server(
    command: Sequence[str],
    *,
    health_url: str,
    log: Path,
    env: Mapping[str, str],
    start_seconds: float,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `command` until the block ends; entered once `health_url` answers 200.

    Output goes to `log`; `env` is added to this process's environment. The server leads a
    process group of its own, and the whole group is stopped at the end.
    Raises ServerDidNotStart with the end of the log when it exits or stays silent.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(
            list(command),
            env={**os.environ, **env},
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    try:
        _wait_until_healthy(process, health_url, log, start_seconds)
        yield process
    finally:
        stop(process)


def _wait_until_healthy(process: subprocess.Popen[bytes], url: str, log: Path, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServerDidNotStart(
                f"{process.args!r} ended with {process.returncode}; its log {log} ends:\n{_read_end(log)}"
            )
        try:
            if httpx.get(url, timeout=2).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise ServerDidNotStart(
        f"{url} did not answer within {seconds:.0f} s; the log {log} ends:\n{_read_end(log)}"
    )


def stop(process: subprocess.Popen[bytes], grace_seconds: float = 15) -> None:
    """End the server's whole process group: SIGTERM, then SIGKILL after `grace_seconds`."""
    try:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(grace_seconds)
    except subprocess.TimeoutExpired:
        pass
    except ProcessLookupError:
        process.wait()
        return
    # Children of the server may outlive it (vLLM's engine does when its parent is killed).
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _read_end(log: Path, lines: int = 30) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
