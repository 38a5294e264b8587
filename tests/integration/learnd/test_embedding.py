"""The client's embedder against the daemon's own routes and a tiny sentence-transformer."""

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learnd import ActiveAdapter, Embedder
from learnd.embedding import VersionNotHere
from learnd.errors import BrokenAdapter, DaemonUnreachable
from tests.integration.learnd.test_client import Clock, Daemon
from tests.support.tiny_encoder import tiny_encoder
from trainers.models.encoder import add_encoder_lora, load_encoder, save_encoder_adapter
from trainers.planning.hyperparameters import Hyperparameters

TEXTS = ["where is my refund", "the app crashes", "cancel my plan"]
PROMPTS = {"query": "query: ", "document": "passage: "}
V1, V2, V3 = (f"acme.routing.v{number}" for number in (1, 2, 3))


class Bench:
    """A daemon with three versions, what each makes of the texts, and embedders that follow it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = Clock()
        self.daemon = Daemon()
        self.clients: list[ActiveAdapter] = []
        self.base = tiny_encoder(folder / "base", TEXTS, PROMPTS)
        plain = load_encoder(str(self.base), device="cpu", dtype="float32")
        self.expected = {"base": plain.encode_document(TEXTS)}
        for number, version in enumerate((V1, V2, V3)):
            self.expected[version] = self.add(version, self.base, seed=number)

    def add(self, version: str, base: Path, seed: int) -> Any:
        """Publish a random adapter of `base`; gives the vectors of the texts that it makes."""
        import torch

        encoder = load_encoder(str(base), device="cpu", dtype="float32")
        add_encoder_lora(encoder, Hyperparameters(lora_rank=4))
        torch.manual_seed(seed)
        with torch.no_grad():
            for parameter in encoder.parameters():
                if parameter.requires_grad:
                    parameter.normal_(std=0.2)
        save_encoder_adapter(encoder, self.folder / version, str(base))
        self.daemon.add(version, self.folder / version)
        return encoder.encode_document(TEXTS)

    def activate(self, version: str | None) -> None:
        self.daemon.version = version
        self.clock.seconds += 60

    def embedder(self, **options: Any) -> Embedder:
        active = ActiveAdapter(
            "acme/routing",
            url=self.daemon.url,
            token="acme-token",
            state_dir=self.folder / "state",
            clock=self.clock,
        )
        self.clients.append(active)
        return Embedder(active, self.base, self.folder / "fetched", **options)

    def close(self) -> None:
        while self.clients:
            self.clients.pop().close()

    def check(self, embedder: Embedder, version: str) -> None:
        """The embedder makes vectors of `version`, and says so."""
        vectors = embedder.encode_documents(TEXTS, version=version)
        assert vectors.version == version
        assert vectors.array.dtype == np.float32
        np.testing.assert_allclose(vectors.array, self.expected[version], atol=1e-6)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture
def made(published: Bench, tmp_path: Path) -> Iterator[Bench]:
    """The daemon down, with v1 active; nothing was downloaded yet."""
    published.folder = tmp_path
    published.activate(V1)
    yield published
    published.close()


@pytest.fixture
def bench(made: Bench) -> Iterator[Bench]:
    """The same with the daemon up."""
    with made.daemon.up():
        yield made


def test_queries_stay_with_the_version_of_the_index_until_the_hand_over(bench: Bench) -> None:
    embedder = bench.embedder()
    assert (embedder.version, embedder.pending()) == (V1, None)
    bench.check(embedder, V1)
    before = embedder.encode_queries(TEXTS)

    bench.activate(V2)
    assert embedder.pending() == V2
    assert embedder.version == V1
    bench.check(embedder, V2)  # the rebuild
    between = embedder.encode_queries(TEXTS)
    assert between.version == V1
    np.testing.assert_array_equal(between.array, before.array)

    embedder.hand_over(V2)
    assert (embedder.version, embedder.pending()) == (V2, None)
    assert embedder.encode_queries(TEXTS).version == V2
    bench.check(embedder, V2)
    with pytest.raises(VersionNotHere, match=f"{V1} is not loaded"):
        embedder.encode_documents(TEXTS, version=V1)


def test_an_index_of_the_base_model_is_handed_over_and_back(bench: Bench) -> None:
    bench.activate(None)
    embedder = bench.embedder()
    assert embedder.version == "base"
    for version in (V1, None, V2, V3, None):
        bench.activate(version)
        newer = embedder.pending()
        assert newer == (version or "base")
        bench.check(embedder, newer)
        embedder.hand_over(newer)
        bench.check(embedder, newer)
        assert embedder.pending() is None


def test_a_version_that_is_replaced_during_a_rebuild_can_still_be_handed_over_to(bench: Bench) -> None:
    embedder = bench.embedder()
    bench.activate(V2)
    assert embedder.pending() == V2
    bench.check(embedder, V2)
    bench.activate(V3)
    assert embedder.pending() == V3
    bench.check(embedder, V2)
    embedder.hand_over(V2)
    assert embedder.pending() == V3
    bench.check(embedder, V3)


def test_of_versions_that_no_index_was_begun_with_only_the_newest_stays_loaded(bench: Bench) -> None:
    embedder = bench.embedder()
    for version in (V2, V3):
        bench.activate(version)
        assert embedder.pending() == version
    with pytest.raises(VersionNotHere, match=f"{V2} is not loaded"):
        embedder.encode_documents(TEXTS, version=V2)
    bench.check(embedder, V1)
    bench.check(embedder, V3)


def test_an_agent_that_restarts_goes_on_with_the_version_of_its_index(bench: Bench) -> None:
    bench.embedder()
    bench.activate(V2)
    restarted = bench.embedder(index_version=V1)
    bench.check(restarted, V1)
    assert restarted.pending() == V2


def test_an_agent_that_restarts_needs_no_daemon(made: Bench) -> None:
    with made.daemon.up():
        made.embedder()
    made.clock.seconds += 60
    restarted = made.embedder(index_version=V1)
    made.check(restarted, V1)
    assert restarted.pending() is None


def test_an_index_whose_version_cannot_be_had_must_be_built_anew(bench: Bench) -> None:
    bench.activate(V2)
    with pytest.raises(VersionNotHere, match="build the index anew"):
        bench.embedder(index_version=V1)


def test_without_a_daemon_an_index_of_the_base_can_be_searched(made: Bench) -> None:
    made.check(made.embedder(index_version="base"), "base")
    with pytest.raises(DaemonUnreachable):
        made.embedder()


def test_queries_and_documents_have_the_models_own_prompts(bench: Bench) -> None:
    embedder = bench.embedder(index_version="base")
    plain = load_encoder(str(bench.base), device="cpu", dtype="float32")
    queries = embedder.encode_queries(TEXTS).array
    np.testing.assert_allclose(queries, plain.encode_query(TEXTS), atol=1e-6)
    assert np.abs(queries - embedder.encode_documents(TEXTS).array).max() > 0.01


def test_many_texts_come_in_their_order_and_none_give_none(bench: Bench) -> None:
    embedder = bench.embedder(batch_size=2)
    np.testing.assert_allclose(embedder.encode_documents(TEXTS).array, bench.expected[V1], atol=1e-6)
    assert embedder.encode_documents([]).array.shape == (0, 32)


def test_a_version_that_does_not_fit_leaves_the_index_as_it_is(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    other = tiny_encoder(bench.folder / "other", TEXTS, hidden=48)
    bench.add("acme.routing.v9", other, seed=9)
    embedder = bench.embedder()
    bench.activate("acme.routing.v9")
    with caplog.at_level(logging.WARNING, "learnd.embedding"):
        assert embedder.pending() is None
        assert embedder.pending() is None  # it is not tried again
    assert len([record for record in caplog.records if "does not fit" in record.getMessage()]) == 1
    bench.check(embedder, V1)
    with pytest.raises(VersionNotHere, match="not loaded"):
        embedder.hand_over("acme.routing.v9")
    with pytest.raises(BrokenAdapter, match="does not fit"):
        bench.embedder(index_version="acme.routing.v9")
    bench.activate(V2)
    assert embedder.pending() == V2
    bench.check(embedder, V2)


def test_threads_that_search_during_a_rebuild_and_a_hand_over_never_get_mixed_vectors(bench: Bench) -> None:
    embedder = bench.embedder(batch_size=1)
    queries = {V1: embedder.encode_queries(TEXTS).array}
    bench.activate(V2)
    assert embedder.pending() == V2
    done = threading.Event()
    seen: list[Any] = []

    def search() -> None:
        while not done.is_set():
            seen.append(embedder.encode_queries(TEXTS))

    with ThreadPoolExecutor(3) as pool:
        searching = [pool.submit(search) for _ in range(3)]
        try:
            for _ in range(5):
                bench.check(embedder, V2)
            embedder.hand_over(V2)
            queries[V2] = embedder.encode_queries(TEXTS).array
        finally:
            # Without it a failure above would wait for ever for the threads that search.
            done.set()
        for each in searching:
            each.result()
    assert {vectors.version for vectors in seen} >= {V1}
    for vectors in seen:
        np.testing.assert_allclose(vectors.array, queries[vectors.version], atol=1e-6)
