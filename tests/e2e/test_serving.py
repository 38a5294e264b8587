"""Loading, probing, swapping and reconciling adapters on a real vLLM."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from daemon.demo.servers import find_free_port
from daemon.demo.vllm import VllmServer, run_vllm
from evaluation.engine.probe_record import ProbeRecord
from registry.serving.inspection import RenderedChat, inspect
from registry.serving.probing import ENGINE_NOISE
from registry.serving.reconciler import DesiredAdapter, ReconcileResult, reconcile
from registry.serving.replica import RefusalReason, Replica, ReplicaRefused, ReplicaUnreachable
from registry.serving.swap import NotServed, bring_up, take_down
from tests.e2e.adapters import record, save_adapter
from tests.e2e.conftest import MAX_LORAS

# PEFT 0.21 asks transformers 5.23 by an old name.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")

FOREIGN = "somebody.elses"
CHAT = [{"role": "user", "content": "where is my parcel"}]


@pytest.fixture
def replica(vllm: VllmServer) -> Iterator[Replica]:
    """The shared server, without adapters before and after."""
    with Replica("one", vllm.url) as replica:
        for name in replica.list_adapters():
            replica.unload(name)
        yield replica
        for name in replica.list_adapters():
            replica.unload(name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("adapters")


@pytest.fixture(scope="module")
def first(folder: Path, tiny_model: Path) -> Path:
    return save_adapter(folder / "first", tiny_model, says=" shipping")


@pytest.fixture(scope="module")
def second(folder: Path, tiny_model: Path) -> Path:
    return save_adapter(folder / "second", tiny_model, says=" order")


@pytest.fixture(scope="module")
def of_first(first: Path, tiny_model: Path) -> ProbeRecord:
    return record(first, tiny_model)


@pytest.fixture(scope="module")
def of_second(second: Path, tiny_model: Path) -> ProbeRecord:
    return record(second, tiny_model)


def test_a_served_adapter_answers_as_it_was_trained(
    replica: Replica, first: Path, of_first: ProbeRecord
) -> None:
    result = bring_up([replica], "acme.routing.v1", first, of_first)["one"]

    assert result.from_trained < ENGINE_NOISE < result.from_base
    assert replica.list_adapters() == {"acme.routing.v1": str(first)}
    assert take_down(replica, "acme.routing.v1")
    assert replica.list_adapters() == {}


@pytest.mark.parametrize(
    ("says", "found"), [(None, "the base model answers"), (" account", "another adapter")]
)
def test_what_was_not_trained_fails_the_probe_and_is_unloaded(
    says: str | None, found: str, replica: Replica, folder: Path, tiny_model: Path, of_first: ProbeRecord
) -> None:
    wrong = save_adapter(folder / f"wrong-{says}", tiny_model, says=says)

    with pytest.raises(NotServed, match=found):
        bring_up([replica], "acme.routing.v1", wrong, of_first)

    assert replica.list_adapters() == {}


def test_loading_and_unloading_twice_changes_nothing(replica: Replica, first: Path, second: Path) -> None:
    replica.load("acme.routing.v1", first)
    replica.load("acme.routing.v1", first)
    with pytest.raises(ReplicaRefused, match="unload it first"):
        replica.load("acme.routing.v1", second)
    replica.unload("acme.routing.v1")
    replica.unload("acme.routing.v1")


def test_a_refused_load_says_what_to_change(replica: Replica, folder: Path, tiny_model: Path) -> None:
    large = save_adapter(folder / "large", tiny_model, says=None, rank=32)
    with pytest.raises(ReplicaRefused, match="max-lora-rank") as rank:
        replica.load("acme.routing.v1", large)
    with pytest.raises(ReplicaRefused, match="path mapping") as path:
        replica.load("acme.routing.v1", folder / "missing")
    with pytest.raises(ReplicaRefused) as unknown:
        replica.answer("acme.routing.v1", CHAT)
    whys = [error.value.why for error in (rank, path, unknown)]
    assert whys == [RefusalReason.RANK, RefusalReason.INVISIBLE, RefusalReason.UNKNOWN_MODEL]


def test_a_full_replica_is_left_as_it_was(replica: Replica, first: Path, of_first: ProbeRecord) -> None:
    replica.answer("base", CHAT, max_tokens=1)
    for n in range(MAX_LORAS):
        replica.load(f"{FOREIGN}{n}", first)

    with pytest.raises(NotServed, match=f"--max-loras {MAX_LORAS}"):
        bring_up([replica], "acme.routing.v1", first, of_first)

    assert len(replica.list_adapters()) == MAX_LORAS


def test_requests_during_a_swap_are_all_answered(
    replica: Replica, first: Path, second: Path, of_first: ProbeRecord, of_second: ProbeRecord
) -> None:
    bring_up([replica], "acme.routing.v1", first, of_first)
    active, done = ["acme.routing.v1"], Event()

    def ask_steadily() -> list[str]:
        asked = []
        while not done.is_set():
            asked.append(active[0])
            replica.answer(asked[-1], CHAT, max_tokens=8)
        return asked

    with ThreadPoolExecutor() as pool:
        agents = [pool.submit(ask_steadily) for _ in range(3)]
        try:
            bring_up([replica], "acme.routing.v2", second, of_second)
            active[0] = "acme.routing.v2"
            time.sleep(1)
            _take_down_when_idle(replica, "acme.routing.v1")
        finally:
            done.set()
        asked = [name for agent in agents for name in agent.result()]

    assert set(asked) == {"acme.routing.v1", "acme.routing.v2"}
    assert list(replica.list_adapters()) == ["acme.routing.v2"]


def test_an_adapter_is_not_taken_down_while_it_answers(replica: Replica, first: Path) -> None:
    replica.load("acme.routing.v1", first)
    with ThreadPoolExecutor() as pool:
        answering = pool.submit(replica.answer, "acme.routing.v1", CHAT, max_tokens=400)
        while "acme.routing.v1" not in (replica.list_busy_adapters() or ()):
            assert not answering.done()
            time.sleep(0.02)
        assert not take_down(replica, "acme.routing.v1")
        assert reconcile(replica, [], ["acme/routing"]).busy == ("acme.routing.v1",)
        answering.result()
    _take_down_when_idle(replica, "acme.routing.v1")
    assert replica.list_adapters() == {}


def test_only_versions_of_our_targets_are_reconciled(replica: Replica, first: Path, second: Path) -> None:
    replica.load(FOREIGN, first)
    replica.load("acme.routing.v1", first)
    wanted = [
        DesiredAdapter(name="acme.routing.v2", path=second, files={}),
        DesiredAdapter(name="acme.routing.v3", path=Path("/missing"), files={}),
    ]

    outcome = reconcile(replica, wanted, ["acme/routing"])

    assert (outcome.unloaded, outcome.loaded) == (("acme.routing.v1",), ("acme.routing.v2",))
    assert list(outcome.refused) == ["acme.routing.v3"]
    assert set(replica.list_adapters()) == {FOREIGN, "acme.routing.v2"}


def test_a_healthy_replica_passes_inspection(replica: Replica, tmp_path: Path, of_first: ProbeRecord) -> None:
    chats = [RenderedChat(messages=each.messages, prompt_ids=each.prompt_ids) for each in of_first.probes]
    checks = list(inspect(replica, adapters=tmp_path, rank=16, max_loras=MAX_LORAS, chats=chats))
    assert [check for check in checks if not check.ok] == []
    assert list(tmp_path.iterdir()) == []
    assert replica.list_adapters() == {}


def test_inspection_says_what_to_change(vllm: VllmServer, tmp_path: Path, of_first: ProbeRecord) -> None:
    chat = of_first.probes[0]
    other = RenderedChat(messages=chat.messages, prompt_ids=chat.prompt_ids[:-1])
    with Replica("one", vllm.url, base_name="llama") as misnamed:
        checks = list(inspect(misnamed, adapters=tmp_path, rank=64, max_loras=MAX_LORAS + 1, chats=[other]))
    failed = {check.name: check.what_to_do for check in checks if not check.ok}
    assert "--served-model-name llama" in failed["base model"]
    assert "larger --max-lora-rank" in failed["LoRA at run time"]

    with Replica("one", vllm.url) as replica:
        checks = list(inspect(replica, adapters=tmp_path, rank=8, max_loras=MAX_LORAS + 1, chats=[other]))
    failed = {check.name: check.what_to_do for check in checks if not check.ok}
    assert set(failed) == {"chat template", "room for adapters"}


def test_a_restarted_replica_gets_everything_back(
    replica: Replica, first: Path, of_first: ProbeRecord, tiny_model: Path, vllm_python: str, tmp_path: Path
) -> None:
    port = find_free_port()
    wanted = [DesiredAdapter(name="acme.routing.v1", path=first, files={})]
    with Replica("two", f"http://127.0.0.1:{port}") as other:
        with pytest.raises(ReplicaUnreachable):
            reconcile(other, wanted, ["acme/routing"])
        # While it is away nothing new goes live anywhere.
        with pytest.raises(NotServed, match="two"):
            bring_up([replica, other], "acme.routing.v2", first, of_first)
        assert replica.list_adapters() == {}

        log = tmp_path / "vllm.log"
        with run_vllm(tiny_model, python=vllm_python, log=log, port=port, eager=True):
            assert reconcile(other, wanted, ["acme/routing"]).loaded == ("acme.routing.v1",)
            assert reconcile(other, wanted, ["acme/routing"]) == ReconcileResult()
            assert other.answer("acme.routing.v1", CHAT, max_tokens=1).prompt_tokens > 0


def _take_down_when_idle(replica: Replica, name: str) -> None:
    deadline = time.monotonic() + 30
    while not take_down(replica, name):
        assert time.monotonic() < deadline
        time.sleep(0.05)
