"""Receivers of notifications that would hold the daemon: webhooks that drip, commands that do not end."""

import os
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event

import psutil
import pytest
import tomli_w
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from daemon.demo.servers import find_free_port, run_server
from daemon.monitoring.webhooks import PostFailed, post
from daemon.runtime.child_process import Interrupted
from daemon.runtime.command import CommandTimedOut, run_command
from registry.store.store import Store
from tests.integration.daemon.monitoring.test_notifications import Outbox, fail_a_cycle, run_receiver
from tests.support.phoenix import wait_until
from tests.support.slow_peer import (
    SlowPeer,
    build_dripping_body,
    build_dripping_head,
    build_endless_body,
    serve_slowly,
)

ROOT = Path(__file__).resolve().parents[2]
LONG = 600.0
"""Seconds of a deadline that no test waits for."""


def send(url: str, seconds: float = LONG, stop: Event | None = None) -> int:
    return post(url, b"{}", {}, seconds=seconds, stop=stop or Event())


def run(script: str, seconds: float = LONG, stop: Event | None = None) -> tuple[int, str]:
    end = run_command(
        ["sh", "-c", script], given=b"{}", environment=os.environ, seconds=seconds, stop=stop or Event()
    )
    return end.status, end.complaint


# ---- webhooks

HOLDING = {
    "a head byte by byte": build_dripping_head,
    "early hints without an end": lambda: SlowPeer(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    "silence": lambda: SlowPeer(b"", b""),
}


@pytest.mark.parametrize("kind", HOLDING)
def test_one_deadline_is_for_the_whole_of_a_post(kind: str) -> None:
    with serve_slowly(HOLDING[kind]()) as peer:
        with pytest.raises(PostFailed, match=r"did not answer within 0\.5 s"):
            send(peer.url, seconds=0.5)
        assert peer.connected.is_set()
        if kind != "silence":
            assert peer.left.wait(20)


def test_a_tls_handshake_that_does_not_go_on_is_ended() -> None:
    with (
        serve_slowly(SlowPeer(b"", b"")) as peer,
        pytest.raises(PostFailed, match=r"did not answer within 0\.5 s"),
    ):
        send(peer.url.replace("http:", "https:"), seconds=0.5)


@pytest.mark.parametrize("kind", HOLDING)
def test_a_post_ends_with_the_daemon(kind: str) -> None:
    with serve_slowly(HOLDING[kind]()) as peer:
        stop = Event()
        threading.Thread(target=lambda: peer.connected.wait(20) and stop.set()).start()
        with pytest.raises(Interrupted):
            send(peer.url, stop=stop)


@pytest.mark.parametrize("build", [build_dripping_body, build_endless_body])
def test_the_body_of_an_answer_is_not_waited_for(build: object) -> None:
    assert callable(build)
    with serve_slowly(build()) as peer:
        assert send(peer.url) == 200
        assert peer.left.wait(20)


def test_a_head_without_an_end_is_refused() -> None:
    with (
        serve_slowly(SlowPeer(b"HTTP/1.1 200 OK\r\nX-Long: ", b"a" * 2**16, pause=0)) as peer,
        pytest.raises(PostFailed, match="RemoteProtocolError"),
    ):
        send(peer.url)


def test_a_receiver_that_moved_is_said_to_have(tmp_path: Path) -> None:
    with run_receiver() as receiver:
        receiver.statuses = [308]
        outbox = Outbox(tmp_path, url=f"{receiver.url}/T0K3N")
        fail_a_cycle(outbox.store)
        assert outbox.deliver() == 0
        outbox.store.close()
        assert len(receiver.got) == 1


@contextmanager
def serve_with_own_certificate(folder: Path) -> Iterator[str]:
    """A receiver with a certificate that nobody has signed; its CA's file is `folder / "cert.pem"`."""
    key, name = (
        ec.generate_private_key(ec.SECP256R1()),
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]),
    )
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    (folder / "cert.pem").write_bytes(certificate.public_bytes(encoding))
    (folder / "key.pem").write_bytes(
        key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"https://localhost:{server.server_port}/hook"
        server.shutdown()
        thread.join()


def test_a_certificate_that_nobody_signed_is_refused_and_one_of_an_own_ca_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve_with_own_certificate(tmp_path) as url:
        with pytest.raises(PostFailed, match=r"CERTIFICATE_VERIFY_FAILED.*SSL_CERT_FILE"):
            send(url)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        assert send(url) == 204


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://127.0.0.1:1/T0K3N", "Errno 111"),
        ("http://nobody.invalid/T0K3N", "Errno"),
        ("ftp://127.0.0.1/T0K3N", "unsupported protocol"),
    ],
)
def test_a_post_to_nobody_says_why_without_the_path(url: str, words: str) -> None:
    with pytest.raises(PostFailed, match=words) as failed:
        send(url)
    assert "T0K3N" not in str(failed.value)


# ---- commands


def is_running(pid_file: Path) -> bool:
    """Return whether the process whose number is in the file is at work."""
    try:
        return psutil.Process(int(pid_file.read_text())).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


LEFT_BEHIND = {
    "it ended": "sleep 300 & echo $! > {pid}",
    "it waits": "sleep 300 & echo $! > {pid}; wait",
    "it is deaf": "trap '' TERM; sh -c \"trap '' TERM; while :; do sleep 0.1; done\" & echo $! > {pid}; wait",
}


@pytest.mark.parametrize("kind", LEFT_BEHIND)
def test_what_a_command_started_ends_with_it(tmp_path: Path, kind: str) -> None:
    pid = tmp_path / "pid"
    script = LEFT_BEHIND[kind].format(pid=pid)
    if kind == "it ended":
        assert run(script) == (0, "")
    else:
        with pytest.raises(CommandTimedOut, match=r"within 1 s"):
            run(script, seconds=1)
    assert not is_running(pid)


def test_a_command_ends_with_the_daemon(tmp_path: Path) -> None:
    pid, stop = tmp_path / "pid", Event()

    def stop_once_it_runs() -> None:
        wait_until(lambda: pid.exists() and bool(pid.read_text()), 20, "the command to start")
        stop.set()

    threading.Thread(target=stop_once_it_runs).start()
    with pytest.raises(Interrupted):
        run(f"sleep 300 & echo $! > {pid}; wait", stop=stop)
    assert not is_running(pid)


def test_a_command_that_closes_its_output_is_waited_for() -> None:
    assert run("exec 2>&- >&-; sleep 0.3; exit 3") == (3, "")


def test_a_command_that_does_not_read_is_no_matter() -> None:
    end = run_command(["true"], given=b"x" * 2**22, environment={}, seconds=LONG, stop=Event())
    assert end.status == 0


@pytest.mark.parametrize("command", [["/nowhere/at-all"], ["/"]])
def test_a_command_that_is_not_there_is_an_attempt_like_any_other(tmp_path: Path, command: list[str]) -> None:
    outbox = Outbox(tmp_path, command=command)
    fail_a_cycle(outbox.store)
    assert outbox.deliver() == 0
    outbox.store.close()


WRITES_MUCH = """
import os, resource
from threading import Event
from daemon.runtime.command import run_command

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
end = run_command(["sh", "-c", {script!r}], given=b"", environment=os.environ, seconds=600, stop=Event())
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(end.status, len(end.complaint), end.complaint[-4:], (after - before) // 1024)
"""


@pytest.mark.parametrize("where", ["", " >&2"])
def test_of_what_a_command_writes_only_the_end_is_kept(where: str) -> None:
    script = f"(yes | head -c 300000000; echo; echo last){where}; exit 7"
    done = subprocess.run(
        [sys.executable, "-c", WRITES_MUCH.format(script=script)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    status, length, *last, megabytes = done.stdout.split()
    assert (status, last) == ("7", ["last"] if where else [])
    assert int(length) <= 4096
    assert int(megabytes) < 10


# ---- a daemon that is told to stop


def prepare(folder: Path, receiver: dict[str, object]) -> tuple[Path, int]:
    """Write settings with the receiver, and let an event wait for it; return the file and the port.

    Nobody listens where Phoenix should be.
    """
    port, config = find_free_port(), folder / "learnd.toml"
    target = {"tenant": "acme", "agent": "routing", "project": "p", "task": "generation"}
    settings = {
        "data_dir": str(folder / "data"),
        "daemon": {"port": port},
        "phoenix": {"url": f"http://127.0.0.1:{find_free_port()}"},
        "targets": [{**target, "base_model": "none"}],
        "notify": [{"name": "ops", "timeout_seconds": LONG, **receiver}],
    }
    config.write_text(tomli_w.dumps(settings), "utf-8")
    now = datetime.now(UTC)
    with Store.open(folder / "data", now) as store:
        store.add_receiver("ops")
        fail_a_cycle(store, now=now)
    return config, port


def test_a_receiver_that_holds_a_notice_does_not_hold_the_daemons_end(tmp_path: Path) -> None:
    with serve_slowly(build_dripping_head()) as peer:
        config, port = prepare(tmp_path, {"url": peer.url})
        log = tmp_path / "daemon.log"
        with run_server(
            [sys.executable, "-m", "learnd", "run", "--config", str(config)],
            health_url=f"http://127.0.0.1:{port}/healthz",
            log=log,
            env={"PYTHONPATH": str(ROOT)},
            start_seconds=120,
        ) as daemon:
            assert peer.connected.wait(60)
            daemon.send_signal(signal.SIGTERM)
            assert daemon.wait(30) == 0
        assert peer.left.wait(20)
    assert "Traceback" not in log.read_text()
    with Store.open(tmp_path / "data", datetime.now(UTC)) as store:
        now = datetime.now(UTC)
        (due,) = store.find_due_notices("ops", ["cycle.failed"], since=now - timedelta(days=1), now=now)
        assert due.attempts == 0


def test_a_command_that_hangs_ends_with_the_daemon_and_so_does_what_it_started(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    script = f"sleep 300 & echo $! > {pid}; wait"
    config, port = prepare(tmp_path, {"command": ["sh", "-c", script]})
    with run_server(
        [sys.executable, "-m", "learnd", "run", "--config", str(config)],
        health_url=f"http://127.0.0.1:{port}/healthz",
        log=tmp_path / "daemon.log",
        env={"PYTHONPATH": str(ROOT)},
        start_seconds=120,
    ) as daemon:
        wait_until(lambda: pid.exists() and bool(pid.read_text()), 60, "the command to start")
        assert is_running(pid)
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(30) == 0
    assert not is_running(pid)
