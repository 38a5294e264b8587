"""A replica that takes requests and answers none holds up no other replica, and no other target for long."""

import gzip
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.runtime.context import TargetContext
from daemon.serving.reconciler import reconcile_target
from daemon.serving.silent_replicas import REST_SECONDS, SilentReplicas
from daemon.settings.load import Settings
from registry.serving.replica import Replica, ReplicaRefused, ReplicaSilent
from registry.store.store import Store
from tests.security.test_handed_out_files import ReplicaStandIn
from tests.support.openai_stand_in import serving
from tests.support.slow_peer import SlowPeer, build_dripping_body, build_endless_body, serve_slowly
from tests.support.trained_version import TRAINED_AT, add_trained_version


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path, TRAINED_AT) as opened:
        yield opened


def build_contexts(folder: Path, store: Store, **urls: str) -> list[TargetContext]:
    """Two targets of the same replicas."""
    target = {"tenant": "acme", "project": "p", "task": "generation", "base_model": "none"}
    settings = Settings.model_validate(
        {
            "data_dir": folder,
            "replicas": [{"name": name, "url": url, "base_name": "base"} for name, url in urls.items()],
            "targets": [{**target, "agent": agent} for agent in ("routing", "billing")],
        }
    )
    return [TargetContext(settings, each, store, lambda: TRAINED_AT) for each in settings.targets]


def test_a_replica_that_hangs_delays_no_other_and_is_asked_once(tmp_path: Path, store: Store) -> None:
    version = add_trained_version(store, tmp_path)
    moment = {"drain_until": TRAINED_AT, "now": TRAINED_AT}
    store.activate(version.id, expected_active=None, actor="ann", reason="better", **moment)  # type: ignore[arg-type]
    good, now, silent = ReplicaStandIn(), 0.0, SilentReplicas(lambda: now)
    with serve_slowly(SlowPeer(b"", b"")) as hung, serving(good.app) as url:
        routing, billing = build_contexts(tmp_path, store, hangs=hung.url, works=url)
        found: dict[str, str] = {}
        thread = threading.Thread(target=lambda: found.update(reconcile_target(routing, silent)))
        thread.start()
        assert good.asked_to_load.wait(20)
        assert thread.is_alive()  # It waits for the other one.
        thread.join()
        assert found["works"] == "ok"
        assert "did not answer" in found["hangs"]

        hung.connected.clear()
        assert reconcile_target(billing, silent) == found
        assert not hung.connected.is_set()
        now = REST_SECONDS
        assert silent.find_problem("hangs") is None


def test_a_replica_that_is_not_there_is_asked_each_time(tmp_path: Path, store: Store) -> None:
    silent = SilentReplicas()
    (routing, _) = build_contexts(tmp_path, store, gone="http://127.0.0.1:1")
    assert "did not answer" in reconcile_target(routing, silent)["gone"]
    assert silent.find_problem("gone") is None


def test_an_answer_without_an_end_is_given_up_whether_it_comes_fast_or_slowly() -> None:
    for peer, kind, words in (
        (build_endless_body(), ReplicaRefused, "more than 32 MiB"),
        (build_dripping_body(), ReplicaSilent, "too slowly"),
    ):
        with serve_slowly(peer), Replica("one", peer.url) as replica, pytest.raises(kind, match=words):
            replica.list_models()


def test_an_answer_in_gzip_is_read() -> None:
    content = gzip.compress(b'{"data": [{"id": "base", "root": "/models/base"}]}')
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(content)
    with serve_slowly(SlowPeer(head + content, b"")) as peer, Replica("zipped", peer.url) as replica:
        assert replica.list_models() == {"base": "/models/base"}


def test_a_page_of_metrics_that_are_none_is_named_as_such() -> None:
    content = b'{"version": "0.32.0"}'
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content)
    with (
        serve_slowly(SlowPeer(head + content, b"")) as peer,
        Replica("one", peer.url) as replica,
        pytest.raises(ReplicaRefused, match="/metrics of replica one answered something else"),
    ):
        replica.read_max_loras()
