"""The agent's client against the daemon's own routes, stand-in replicas, and a tiny PEFT model."""

import hashlib
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from fastapi import FastAPI

from daemon.api.agents import ActiveVersion, AdapterFiles, build_agents_router
from daemon.demo.servers import find_free_port
from learnd import ActiveAdapter, AdapterMixin
from learnd.errors import BrokenAdapter, DaemonUnreachable, NoActiveAdapter, NoReplicaAnswers, RequestRefused
from tests.support.openai_stand_in import StandIn, serving

HELLO = [{"role": "user", "content": "I was charged twice"}]
TOKENS = {"acme-token": "acme", "globex-token": "globex"}


class Daemon:
    """The daemon's routes for agents over a store that a test can change."""

    def __init__(self, replica_urls: tuple[str, ...] = ()) -> None:
        self.port = find_free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.replica_urls = replica_urls
        self.version: str | None = None
        self.adapters: dict[str, AdapterFiles] = {}
        self.asked = 0

    def add(self, version: str, folder: Path) -> None:
        digests = {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())
        }
        self.adapters[version] = AdapterFiles(tenant="acme", folder=folder, files=digests)

    def claim(self, files: Mapping[str, str]) -> None:
        """Let the active version's manifest say something else than its files are."""
        assert self.version is not None
        self.adapters[self.version] = self.adapters[self.version].model_copy(update={"files": dict(files)})

    def active(self, target: str) -> ActiveVersion | None:
        self.asked += 1
        if target != "acme/routing":
            return None
        files = self.adapters[self.version].files if self.version in self.adapters else {}
        return ActiveVersion(
            target=target,
            version=self.version,
            model=self.version or "base",
            replica_urls=self.replica_urls,
            files=files,
        )

    @contextmanager
    def up(self, tokens: Mapping[str, str] = TOKENS, cache_seconds: float = 30) -> Iterator[None]:
        app = FastAPI()
        router = build_agents_router(
            find_active=self.active, find_files=self.adapters.get, tokens=tokens, cache_seconds=cache_seconds
        )
        app.include_router(router)
        with serving(app, self.port):
            yield


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def daemon(tmp_path: Path) -> Daemon:
    """A daemon (not up yet) with one active version of two files."""
    daemon = Daemon()
    folder = tmp_path / "v1"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(bytes(range(256)) * 1000)
    daemon.add("acme.routing.v1", folder)
    daemon.version = "acme.routing.v1"
    return daemon


@pytest.fixture
def client(daemon: Daemon, tmp_path: Path, stack: ExitStack) -> ActiveAdapter:
    return stack.enter_context(_client(daemon, tmp_path))


def _client(daemon: Daemon, tmp_path: Path, **changes: Any) -> ActiveAdapter:
    fields = {"token": "acme-token", "state_dir": tmp_path / "state", "url": daemon.url, **changes}
    return ActiveAdapter("acme/routing", **fields)


def test_an_answer_is_kept_for_the_shorter_of_both_cache_times(daemon: Daemon, tmp_path: Path) -> None:
    clock = Clock()
    with daemon.up(cache_seconds=10), _client(daemon, tmp_path, clock=clock) as client:
        assert client.resolve().version == "acme.routing.v1"
        daemon.version = None
        clock.seconds = 9.9
        assert client.resolve().version == "acme.routing.v1"
        assert daemon.asked == 1
        clock.seconds = 10
        assert client.resolve().model == "base"


def test_the_last_known_version_survives_a_daemon_that_is_down(daemon: Daemon, tmp_path: Path) -> None:
    clock = Clock()
    with _client(daemon, tmp_path, clock=clock) as client:
        with pytest.raises(DaemonUnreachable, match="does not answer"):
            client.resolve()
        with daemon.up():
            known = client.resolve()
        clock.seconds = 1000
        assert client.resolve() == known
        with _client(daemon, tmp_path) as restarted:
            assert restarted.resolve() == known
        with daemon.up():
            daemon.version = None
            clock.seconds += 5
            assert client.resolve().version is None


def test_what_is_no_answer_of_the_daemons_is_as_good_as_none(daemon: Daemon, tmp_path: Path) -> None:
    async def other(scope: Any, _: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b'{"hello": "world"}'})

    with (
        _client(daemon, tmp_path) as client,
        serving(other, daemon.port),
        pytest.raises(DaemonUnreachable, match="is it learnd's daemon"),
    ):
        client.resolve()


@pytest.mark.parametrize("token", ["wrong", "globex-token", ""])
def test_another_tenants_token_learns_nothing(daemon: Daemon, tmp_path: Path, token: str) -> None:
    with daemon.up(), _client(daemon, tmp_path, token=token) as client:
        with pytest.raises(RequestRefused):
            client.resolve()
        headers = {"authorization": f"Bearer {token}"} if token else {}
        file = httpx.get(
            f"{daemon.url}/v1/adapters/acme.routing.v1/files/adapter_config.json", headers=headers
        )
        assert file.status_code == (404 if token in TOKENS else 401)


def test_only_files_of_the_manifest_are_served(daemon: Daemon, tmp_path: Path) -> None:
    folder = daemon.adapters["acme.routing.v1"].folder
    (folder / "optimizer.pt").write_text("private")
    (folder / "link").symlink_to(tmp_path)
    (tmp_path / "secret").write_text("secret")
    listed = {**daemon.adapters["acme.routing.v1"].files, "link": "0" * 64, "../secret": "0" * 64}
    daemon.claim(listed)
    with daemon.up({}), httpx.Client(base_url=f"{daemon.url}/v1/adapters/acme.routing.v1/files/") as client:
        assert client.get("adapter_config.json").content == b"{}"
        for name in ("optimizer.pt", "link", "..%2Fsecret", "%2e%2e/secret", "", "."):
            url = httpx.URL(str(client.base_url), raw_path=client.base_url.raw_path + name.encode())
            assert client.get(url).status_code == 404, name


def test_a_version_that_a_replica_no_longer_serves_is_resolved_anew(
    daemon: Daemon, client: ActiveAdapter, stack: ExitStack
) -> None:
    replica = StandIn(models={"acme.routing.v1"})
    gone = f"http://127.0.0.1:{find_free_port()}"
    daemon.replica_urls = (gone, stack.enter_context(serving(replica)))
    with daemon.up():
        assert client.chat(HELLO)["choices"][0]["message"]["content"] == replica.answer
        daemon.version = "acme.routing.v2"
        replica.models = {"acme.routing.v2"}
        assert client.chat(HELLO, max_tokens=3)["model"] == "acme.routing.v2"
        assert replica.seen[-1] == {"model": "acme.routing.v2", "messages": HELLO, "max_tokens": 3}
        replica.models = set()
        with pytest.raises(NoReplicaAnswers, match="does not serve"):
            client.chat(HELLO)


def test_an_openai_client_streams_from_the_replica_itself(
    daemon: Daemon, client: ActiveAdapter, stack: ExitStack
) -> None:
    replica = StandIn(models={"acme.routing.v2"})
    daemon.replica_urls = (stack.enter_context(serving(replica)),)
    with daemon.up():
        client.resolve()
        daemon.version = "acme.routing.v2"

        def ask(live: Any) -> str:
            with openai.OpenAI(base_url=live.base_url, api_key="none", max_retries=0) as agent:
                stream = agent.chat.completions.create(model=live.model, messages=HELLO, stream=True)  # type: ignore[arg-type]
                return "".join(chunk.choices[0].delta.content or "" for chunk in stream)

        assert client.call(ask, not_found=openai.NotFoundError) == replica.answer


def test_the_files_arrive_whole_and_only_once(daemon: Daemon, client: ActiveAdapter, tmp_path: Path) -> None:
    source = daemon.adapters["acme.routing.v1"].folder
    with daemon.up(), ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(lambda _: client.fetch(tmp_path / "fetched"), range(8)))
    (folder,) = folders
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        path.name: path.read_bytes() for path in source.iterdir()
    }
    assert list((tmp_path / "fetched").iterdir()) == [folder]
    assert client.fetch(tmp_path / "fetched") == folder  # with the daemon down


def test_a_file_that_changed_on_disk_is_fetched_again(
    daemon: Daemon, client: ActiveAdapter, tmp_path: Path
) -> None:
    with daemon.up():
        folder = client.fetch(tmp_path / "fetched")
        (folder / "adapter_config.json").write_text("changed")
        assert client.fetch(tmp_path / "fetched") == folder
    assert (folder / "adapter_config.json").read_text() == "{}"
    assert sorted(path.name for path in folder.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert list((tmp_path / "fetched").iterdir()) == [folder]


def test_a_file_that_is_not_what_the_manifest_says_leaves_nothing(
    daemon: Daemon, client: ActiveAdapter, tmp_path: Path
) -> None:
    files = daemon.adapters["acme.routing.v1"].files
    daemon.claim({**files, "adapter_model.safetensors": "0" * 64})
    with daemon.up(), pytest.raises(BrokenAdapter, match="SHA-256"):
        client.fetch(tmp_path / "fetched")
    assert list((tmp_path / "fetched").iterdir()) == []


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/b", "..", ".hidden", "c:evil", "a\\b", ""])
def test_a_file_name_that_leads_out_of_the_folder_is_refused(
    daemon: Daemon, client: ActiveAdapter, tmp_path: Path, name: str
) -> None:
    daemon.claim({name: "0" * 64})
    with daemon.up(), pytest.raises(BrokenAdapter, match="no plain file name"):
        client.fetch(tmp_path / "fetched")


def test_the_base_model_has_no_files_to_fetch(daemon: Daemon, client: ActiveAdapter, tmp_path: Path) -> None:
    daemon.version = None
    with daemon.up(), pytest.raises(NoActiveAdapter):
        client.fetch(tmp_path / "fetched")


def test_importing_learnd_loads_neither_httpx_nor_torch() -> None:
    check = (
        "import sys, learnd; assert not {'httpx', 'torch', 'peft', 'pydantic', 'daemon'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", check], check=True)
    check = "import sys; from learnd import ActiveAdapter, AdapterMixin; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", check], check=True)


class Agent(AdapterMixin):
    """An agent that runs its model in-process."""

    def __init__(self, active: ActiveAdapter, model: Any, folder: Path) -> None:
        self.follow(active, model, folder)

    def logits(self) -> Any:
        import torch

        with self.live_model() as model, torch.no_grad():
            return model(torch.tensor([[1, 2, 3]])).logits


def _tiny_llama(hidden: int = 32) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        vocab_size=64,
    )
    return LlamaForCausalLM(config).eval()


def _train_adapter(folder: Path, seed: int, hidden: int = 32) -> Any:
    """Write a LoRA that changes the tiny model's output; gives the logits that it should have."""
    import torch
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    base = _tiny_llama(hidden)
    torch.manual_seed(seed)
    tuned = get_peft_model(base, config).eval()
    tuned.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    with torch.no_grad():
        return tuned(torch.tensor([[1, 2, 3]])).logits


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_an_agent_in_process_follows_promotion_and_rollback(tmp_path: Path) -> None:
    import torch

    daemon, clock = Daemon(), Clock()
    expected: dict[str | None, Any] = {None: _tiny_llama()(torch.tensor([[1, 2, 3]])).logits.detach()}
    for number in (1, 2):
        version = f"acme.routing.v{number}"
        expected[version] = _train_adapter(tmp_path / version, seed=number)
        daemon.add(version, tmp_path / version)
    model = _tiny_llama()
    with daemon.up(), _client(daemon, tmp_path, clock=clock) as active:
        agent = Agent(active, model, tmp_path / "fetched")
        for version in (
            None,
            "acme.routing.v1",
            "acme.routing.v2",
            "acme.routing.v1",
            None,
            "acme.routing.v2",
        ):
            daemon.version = version
            clock.seconds += 60
            torch.testing.assert_close(agent.logits(), expected[version])
            assert agent.adapter_version == version
            assert len(getattr(model, "peft_config", {})) == (version is not None)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_an_adapter_that_does_not_fit_leaves_the_old_one_answering(tmp_path: Path) -> None:
    import torch

    daemon, clock = Daemon(), Clock()
    expected = _train_adapter(tmp_path / "fits", seed=1)
    _train_adapter(tmp_path / "too-wide", seed=2, hidden=48)
    daemon.add("acme.routing.v1", tmp_path / "fits")
    daemon.add("acme.routing.v2", tmp_path / "too-wide")
    daemon.add("acme.routing.v3", tmp_path / "fits")
    daemon.version = "acme.routing.v1"
    with daemon.up(), _client(daemon, tmp_path, clock=clock) as active:
        agent = Agent(active, _tiny_llama(), tmp_path / "fetched")
        torch.testing.assert_close(agent.logits(), expected)
        clock.seconds, daemon.version = 60, "acme.routing.v2"
        with pytest.raises(BrokenAdapter, match="does not fit"):
            agent.refresh()
        torch.testing.assert_close(agent.logits(), expected)
        assert agent.adapter_version == "acme.routing.v1"
        clock.seconds, daemon.version = 120, "acme.routing.v3"
        daemon.claim({**daemon.adapters["acme.routing.v3"].files, "adapter_config.json": "0" * 64})
        torch.testing.assert_close(agent.logits(), expected)
        assert agent.adapter_version == "acme.routing.v1"
        daemon.add("acme.routing.v3", tmp_path / "fits")
        clock.seconds = 180
        torch.testing.assert_close(agent.logits(), expected)
        assert agent.adapter_version == "acme.routing.v3"
