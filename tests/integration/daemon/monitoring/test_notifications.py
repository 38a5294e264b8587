"""People are told what happened: by a real HTTP receiver or a real program, over crashes and failures."""

import base64
import hashlib
import hmac
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from daemon.demo.servers import find_free_port
from daemon.monitoring.notifications import GIVE_UP, Notifier, compute_pause
from daemon.service import Service
from daemon.settings.load import Settings
from daemon.settings.servers import NotifySettings
from daemon.settings.types import SettingsError
from extractors.errors import LearndError
from registry.cycles import CycleState
from registry.store.store import Store
from tests.integration.registry.store.batch_support import TARGET, a_batch
from tests.integration.registry.store.store_support import NOW, a_candidate, promote, roll_back

SECRET = "a secret of this test"


@dataclass
class Receiver:
    """A webhook's other end."""

    url: str
    statuses: list[int] = field(default_factory=list)
    """Statuses of its next answers, in this order; then 204."""
    seconds: float = 0.0
    """Seconds that it takes for an answer."""
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    @property
    def told(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.got]


@contextmanager
def run_receiver() -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            receiver.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
            time.sleep(receiver.seconds)
            self.send_response(receiver.statuses.pop(0) if receiver.statuses else 204)
            self.send_header("location", "/elsewhere")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver = Receiver(f"http://127.0.0.1:{server.server_port}/hook")
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield receiver
        server.shutdown()
        thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with run_receiver() as made:
        yield made


class Outbox:
    """A store, and a notifier at a time that a test can move."""

    def __init__(self, folder: Path, **receiver: Any) -> None:
        self.folder, self.now = folder, NOW
        self.receiver = NotifySettings.model_validate({"name": "ops", **receiver})
        self.store = Store.open(folder, NOW)
        self.notifier = Notifier(self.receiver, self.store, self.clock)
        self.notifier.register()

    def clock(self) -> datetime:
        return self.now

    def restart(self) -> None:
        self.store.close()
        self.store = Store.open(self.folder, self.now)
        self.notifier = Notifier(self.receiver, self.store, self.clock)
        self.notifier.register()

    def deliver(self, after: timedelta = timedelta()) -> int:
        self.now += after
        return self.notifier.deliver()


@pytest.fixture
def outbox(tmp_path: Path, receiver: Receiver) -> Iterator[Outbox]:
    made = Outbox(tmp_path, url=receiver.url, secret=SECRET)
    yield made
    made.store.close()


def fail_a_cycle(store: Store, reason: str = "out of memory", now: datetime = NOW) -> str:
    cycle = store.start_cycle(TARGET, "operator", now)
    store.advance_cycle(cycle.id, cycle.state, CycleState.FAILED, now, reason=reason)
    return cycle.id


def test_people_are_told_when_a_batch_waits_a_cycle_fails_and_a_version_comes_or_goes(
    outbox: Outbox, receiver: Receiver
) -> None:
    store = outbox.store
    batch = a_batch(store, "what a customer said", "and another")
    failed = fail_a_cycle(store, reason="the customer said: give me my money")
    first = a_candidate(store, TARGET)  # whose cycle ends FAILED, too
    promote(store, first, None)
    roll_back(store, first)
    assert outbox.deliver() == 5
    assert [(told["type"], told["data"]) for told in receiver.told] == [
        (
            "batch.waiting",
            {"target": TARGET, "batch": batch.id, "kind": "sft", "cycle": batch.cycle_id, "items": 2},
        ),
        ("cycle.failed", {"target": TARGET, "cycle": failed, "state": "EXTRACTING"}),
        ("cycle.failed", {"target": TARGET, "cycle": first.cycle_id, "state": "EXTRACTING"}),
        (
            "version.promoted",
            {"target": TARGET, "version": first.id, "previous_version": None, "actor": "learnd"},
        ),
        (
            "version.rolled_back",
            {"target": TARGET, "version": None, "previous_version": first.id, "actor": "ann"},
        ),
    ]
    assert {told["timestamp"] for told in receiver.told} == {"2026-03-01T12:00:00Z"}
    everything = b"".join(body for _, body in receiver.got)
    assert b"customer" not in everything
    assert b"wrong tone" not in everything
    assert outbox.deliver() == 0


def test_what_did_not_happen_is_not_told(outbox: Outbox, receiver: Receiver) -> None:
    first, second = a_candidate(outbox.store, TARGET), a_candidate(outbox.store, TARGET)
    promote(outbox.store, first, None)
    outbox.deliver()
    receiver.got.clear()
    with pytest.raises(LearndError):
        promote(outbox.store, second, None)
    promote(outbox.store, first, first)  # It is active already.
    a_batch(outbox.store, "one")
    with pytest.raises(LearndError):
        a_batch(outbox.store, "one")
    outbox.deliver()
    assert [told["type"] for told in receiver.told] == ["batch.waiting"]


@pytest.mark.parametrize(
    ("secret", "key"),
    [(SECRET, SECRET.encode()), (f"whsec_{base64.b64encode(b'key').decode()}", b"key"), (None, None)],
)
def test_what_is_posted_is_signed_over_id_time_and_body(
    tmp_path: Path, receiver: Receiver, secret: str | None, key: bytes | None
) -> None:
    outbox = Outbox(tmp_path, url=receiver.url, secret=secret)
    fail_a_cycle(outbox.store)
    outbox.deliver(after=timedelta(seconds=30))
    ((headers, body),) = receiver.got
    assert headers["webhook-timestamp"] == str(int(NOW.timestamp()) + 30)
    assert headers["content-type"] == "application/json"
    if key is None:
        assert "webhook-signature" not in headers
    else:
        # As https://www.standardwebhooks.com has a receiver check it.
        signed = b".".join([headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), body])
        version, _, said = headers["webhook-signature"].partition(",")
        expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        assert (version, said) == ("v1", expected)
    outbox.store.close()


def test_a_receiver_that_fails_is_tried_again_with_growing_pauses_under_the_same_id(
    outbox: Outbox, receiver: Receiver
) -> None:
    receiver.statuses = [500, 302, 429]
    fail_a_cycle(outbox.store)
    assert outbox.deliver() == 0
    assert outbox.deliver(after=timedelta(seconds=9)) == 0
    assert len(receiver.got) == 1
    outbox.deliver(after=timedelta(seconds=1))
    outbox.deliver(after=timedelta(seconds=20))
    assert outbox.deliver(after=timedelta(seconds=40)) == 1
    assert outbox.deliver(after=timedelta(days=1)) == 0
    assert len(receiver.got) == 4
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1
    assert len({headers["webhook-timestamp"] for headers, _ in receiver.got}) == 4


def test_pauses_grow_to_an_hour() -> None:
    assert [compute_pause(n).total_seconds() for n in (0, 1, 2, 8, 9, 1000)] == [10, 20, 40, 2560, 3600, 3600]


def test_one_notice_that_is_refused_keeps_no_other_back(outbox: Outbox, receiver: Receiver) -> None:
    receiver.statuses = [400]
    fail_a_cycle(outbox.store)
    a_batch(outbox.store, "one")
    assert outbox.deliver() == 0
    assert outbox.deliver() == 1
    assert receiver.told[-1]["type"] == "batch.waiting"


def test_what_could_not_be_told_is_told_after_a_restart(outbox: Outbox, receiver: Receiver) -> None:
    receiver.statuses = [503]
    fail_a_cycle(outbox.store)
    outbox.deliver()
    outbox.restart()
    assert outbox.deliver(after=timedelta(seconds=10)) == 1
    outbox.restart()
    assert outbox.deliver(after=timedelta(hours=1)) == 0


ACT_AND_DIE = """
import os, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from registry.store.store import Store

now = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
with Store.open(Path(sys.argv[1]), now) as store:
    store.activate(
        "acme.routing.v1", expected_active=None, drain_until=now, now=now, actor="ann", reason=""
    )
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_an_act_is_told_of_though_its_process_died_right_after_it(
    outbox: Outbox, receiver: Receiver, pytestconfig: pytest.Config
) -> None:
    a_candidate(outbox.store, TARGET)
    outbox.deliver()
    receiver.got.clear()
    child = subprocess.run(
        [sys.executable, "-c", ACT_AND_DIE, str(outbox.folder)],
        env={"PYTHONPATH": str(pytestconfig.rootpath)},
        timeout=60,
        check=False,
    )
    assert child.returncode == -9
    assert outbox.deliver() == 1
    assert receiver.told[0]["data"]["version"] == "acme.routing.v1"


def test_a_new_receiver_is_told_of_what_happens_from_now_on(outbox: Outbox, receiver: Receiver) -> None:
    fail_a_cycle(outbox.store)
    with run_receiver() as other:
        late = Notifier(NotifySettings(name="late", url=other.url), outbox.store, outbox.clock)
        late.register()
        batch = a_batch(outbox.store, "one")
        late.register()  # as after a restart
        assert late.deliver() == 1
        assert other.told[0]["data"]["batch"] == batch.id
    outbox.deliver()
    assert len(receiver.told) == 2


def test_a_receiver_is_told_only_of_the_events_it_asked_for(tmp_path: Path, receiver: Receiver) -> None:
    outbox = Outbox(tmp_path, url=receiver.url, events=["version.rolled_back"])
    first = a_candidate(outbox.store, TARGET)
    promote(outbox.store, first, None)
    roll_back(outbox.store, first)
    assert outbox.deliver() == 1
    assert receiver.told[0]["type"] == "version.rolled_back"
    outbox.store.close()


def test_after_a_week_nobody_is_told_any_more_and_after_more_it_is_forgotten(
    outbox: Outbox, receiver: Receiver
) -> None:
    receiver.statuses = [500]
    fail_a_cycle(outbox.store)
    outbox.deliver()
    assert outbox.deliver(after=GIVE_UP) == 0
    outbox.store.prune_notices(outbox.now)
    # Numbers are not given again: what happens next is news.
    fail_a_cycle(outbox.store, now=outbox.now)
    assert outbox.deliver() == 1


def test_a_receiver_that_is_not_there_or_hangs_is_an_attempt_like_any_other(
    tmp_path: Path, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.seconds = 1
    for name, url in (("gone", f"http://127.0.0.1:{find_free_port()}/T0K3N"), ("slow", receiver.url)):
        outbox = Outbox(tmp_path / name, name=name, url=url, timeout_seconds=0.2)
        fail_a_cycle(outbox.store)
        assert outbox.deliver() == 0
        outbox.store.close()
    assert "T0K3N" not in caplog.text


def test_a_command_finds_the_notice_on_its_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEARND_PHOENIX__API_KEY", "not for commands")
    script = (
        "import json, os, sys, pathlib\n"
        "said = {**json.load(sys.stdin), 'environment': [n for n in os.environ if n.startswith('LEARND_')]}\n"
        "pathlib.Path(sys.argv[1]).write_text(json.dumps(said))\n"
    )
    outbox = Outbox(tmp_path / "data", command=[sys.executable, "-c", script, str(tmp_path / "told")])
    failed = fail_a_cycle(outbox.store)
    assert outbox.deliver() == 1
    told = json.loads((tmp_path / "told").read_text())
    assert (told["type"], told["data"]["cycle"]) == ("cycle.failed", failed)
    assert told["environment"] == ["LEARND_NOTICE_ID"]
    outbox.store.close()


@pytest.mark.parametrize("code", ["import sys; sys.exit('no paper')", "import time; time.sleep(60)"])
def test_a_command_that_fails_or_hangs_is_run_again(tmp_path: Path, code: str) -> None:
    outbox = Outbox(tmp_path, command=[sys.executable, "-c", code], timeout_seconds=2)
    fail_a_cycle(outbox.store)
    assert outbox.deliver() == 0
    (due,) = outbox.store.find_due_notices(
        "ops", ["cycle.failed"], since=NOW - GIVE_UP, now=NOW + timedelta(seconds=10)
    )
    assert due.attempts == 1
    outbox.store.close()


def test_a_secret_that_cannot_be_one_stops_the_daemon(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no base64") as refused:
        Outbox(tmp_path, url="http://127.0.0.1:1", secret="whsec_&&&")
    assert "&&&" not in str(refused.value)


def test_the_daemon_tells_and_a_receiver_that_hangs_holds_nothing_up(
    tmp_path: Path, receiver: Receiver
) -> None:
    with run_receiver() as hanging:
        hanging.seconds = 5
        target = {"tenant": "acme", "agent": "routing", "project": "p", "task": "generation"}
        settings = Settings.model_validate(
            {
                "data_dir": tmp_path,
                "phoenix": {"url": f"http://127.0.0.1:{find_free_port()}"},
                "targets": [{**target, "base_model": "none"}],
                "notify": [{"name": "hangs", "url": hanging.url}, {"name": "ops", "url": receiver.url}],
            }
        )
        with Store.open(tmp_path, NOW) as store:
            service = Service(settings, store)
            service.start()
            try:
                began = time.monotonic()
                a_batch(store, "one", now=datetime.now(NOW.tzinfo))
                fail_a_cycle(store, now=datetime.now(NOW.tzinfo))
                assert time.monotonic() - began < 2
                while len(receiver.told) < 2 or not hanging.told:
                    assert time.monotonic() - began < 30
                    time.sleep(0.1)
            finally:
                service.close()
    assert [told["type"] for told in receiver.told] == ["batch.waiting", "cycle.failed"]
