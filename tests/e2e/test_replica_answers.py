"""A real vLLM is asked for a candidate's verdict: prompts that it refuses, and what may happen meanwhile."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.demo.vllm import VllmServer
from daemon.runtime.child_process import Interrupted
from daemon.runtime.locks import promotion_lock
from daemon.runtime.paths import adapter_folder
from daemon.serving.promotion import PROBES
from daemon.serving.replica_answers import confirm
from evaluation.report import Report
from extractors.dataset.snapshot import Snapshot
from extractors.examples.types import Message, ReviewedItem
from registry.serving.replica import Replica
from registry.versions import Version
from tests.e2e.adapters import record, save_adapter
from tests.support.phoenix import wait_until
from tests.support.runs import NOWHERE, Runs, make_held_out, make_report

# PEFT 0.21 asks transformers 5.23 by an old name.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")


class Judged(Runs):
    """A target whose candidate answers ` shipping`, whatever it is asked."""

    def __init__(self, folder: Path, vllm: VllmServer, adapter: Path, base: Path) -> None:
        replicas = [{"name": "one", "url": vllm.url}]
        super().__init__(
            folder,
            NOWHERE,
            "served",
            replicas,
            base_model=str(base),
            evaluate_with="replica",
            max_new_tokens=8,
        )
        self.adapter, self.base = adapter, base

    def write_adapter(self, folder: Path) -> None:
        """Write the files of the adapter that answers ` shipping`."""
        for file in self.adapter.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())

    def train_and_judge(self, items: list[ReviewedItem]) -> tuple[Version, Report, Snapshot]:
        snapshot = self.snapshot(items)
        cycle = self.train(snapshot)
        version = self.store.version(str(cycle.version_id))
        folder = adapter_folder(self.context.data_dir, version)
        (folder / PROBES).write_text(record(self.adapter, self.base).model_dump_json(), "utf-8")
        return version, make_report(snapshot, version.id, right=20, base_right=0), snapshot


@pytest.fixture(scope="module")
def shipping(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    return save_adapter(tmp_path_factory.mktemp("adapter") / "shipping", tiny_model, says=" shipping")


@pytest.fixture
def runs(tmp_path: Path, vllm: VllmServer, shipping: Path, tiny_model: Path) -> Iterator[Judged]:
    made = Judged(tmp_path, vllm, shipping, tiny_model)
    yield made
    made.store.close()


def test_a_prompt_that_is_too_long_for_the_replica_counts_for_neither_side(
    runs: Judged, tmp_path: Path
) -> None:
    first, *others = make_held_out(20)
    endless = Message(role="user", content="where is my parcel " * 5000)
    version, report, snapshot = runs.train_and_judge(
        [first.model_copy(update={"prompt": (endless,)}), *others]
    )
    found = confirm(runs.context, version, report, runs.context.snapshots / snapshot.id, tmp_path)
    assert found.served is not None
    words = "refuses 1 of 20 held-out prompts, which counts as wrong for both sides (replica one refused"
    assert words in found.served.reason
    assert found.served.comparison.n == report.gold_size
    assert runs.store.version(version.id).wanted is False


def test_while_a_replica_is_asked_an_operator_can_act_and_the_daemon_stop(
    runs: Judged, tmp_path: Path, vllm: VllmServer
) -> None:
    version, report, snapshot = runs.train_and_judge(make_held_out(400))
    ended: list[BaseException | None] = []

    def ask() -> None:
        try:
            confirm(runs.context, version, report, runs.context.snapshots / snapshot.id, tmp_path)
        except Interrupted as stopped:
            ended.append(stopped)

    asking = threading.Thread(target=ask)
    with Replica("one", vllm.url) as replica:
        asking.start()
        wait_until(lambda: version.id in replica.list_adapters(), 60, "the candidate on the replica")
        with promotion_lock(runs.context.data_dir, runs.context.target.key, 30):
            assert asking.is_alive(), "all was asked before the lock was free"
            runs.context.stop.set()
        asking.join(30)
        assert len(ended) == 1
        assert not asking.is_alive()
        assert version.id not in replica.list_adapters()
