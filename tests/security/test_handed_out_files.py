"""Files of adapters that were exchanged on disk: neither agents nor model servers get them."""

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from daemon.runtime.context import TargetContext
from daemon.serving.reconciler import reconcile_target
from daemon.serving.silent_replicas import SilentReplicas
from daemon.settings.load import Settings
from learnd import ActiveAdapter, LearndClientError
from registry.versions import Version
from tests.integration.daemon.api.test_operators import Daemon
from tests.support.openai_stand_in import serving
from tests.support.trained_version import TRAINED_AT, add_trained_version

NAME = "adapter_model.safetensors"
PRIVATE = b"what no agent may read"
Harm = Callable[[Path, Path], None]


def change_byte(folder: Path, _elsewhere: Path) -> None:
    (folder / NAME).write_bytes(b"weighty")


def link_file(folder: Path, elsewhere: Path) -> None:
    (folder / NAME).unlink()
    (folder / NAME).symlink_to(elsewhere / NAME)


def link_folder(folder: Path, elsewhere: Path) -> None:
    shutil.rmtree(folder)
    folder.symlink_to(elsewhere)


def link_same_content(folder: Path, elsewhere: Path) -> None:
    """Even what is the same now can be exchanged later, outside of the data directory."""
    (elsewhere / NAME).write_bytes(b"weights")
    link_folder(folder, elsewhere)


def link_target_folder(folder: Path, elsewhere: Path) -> None:
    moved = elsewhere / "target"
    folder.parent.rename(moved)
    folder.parent.symlink_to(moved)


def remove_file(folder: Path, _elsewhere: Path) -> None:
    (folder / NAME).unlink()


HARMS = [change_byte, link_file, link_folder, link_same_content, link_target_folder, remove_file]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon(tmp_path / "data")
    yield made
    made.store.close()


@pytest.fixture
def version(daemon: Daemon) -> Version:
    added = add_trained_version(daemon.store, daemon.settings.data_dir)
    moment = {"drain_until": TRAINED_AT, "now": TRAINED_AT}
    return daemon.store.activate(added.id, expected_active=None, actor="ann", reason="better", **moment)  # type: ignore[arg-type]


def do_harm(harm: Harm, data_dir: Path, version: Version) -> None:
    elsewhere = data_dir.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / NAME).write_bytes(PRIVATE)
    harm(data_dir / version.path, elsewhere)


@pytest.mark.usefixtures("version")
def test_an_agent_gets_the_file_that_was_trained(daemon: Daemon, tmp_path: Path) -> None:
    with daemon.up() as url, ActiveAdapter("acme/routing", url=url, token="acme-token") as adapter:
        assert (adapter.fetch(tmp_path / "agent") / NAME).read_bytes() == b"weights"


@pytest.mark.parametrize("harm", HARMS)
def test_an_agent_gets_no_file_that_was_exchanged(
    daemon: Daemon, version: Version, harm: Harm, tmp_path: Path
) -> None:
    do_harm(harm, daemon.settings.data_dir, version)
    with daemon.client(authorization="Bearer acme-token") as client:
        answer = client.get(f"/v1/adapters/{version.id}/files/{NAME}")
        assert answer.status_code in {404, 409}
        assert PRIVATE not in answer.content
        assert str(tmp_path) not in answer.text
        with (
            ActiveAdapter("acme/routing", url=str(client.base_url), token="acme-token") as adapter,
            pytest.raises(LearndClientError),
        ):
            adapter.fetch(tmp_path / "agent")


@pytest.mark.parametrize("harm", HARMS)
def test_a_model_server_is_told_to_load_no_file_that_was_exchanged(
    daemon: Daemon, version: Version, harm: Harm
) -> None:
    with ExitStack() as stack:
        replica = ReplicaStandIn()
        context = build_context(daemon, stack.enter_context(serving(replica.app)))
        assert reconcile_target(context, SilentReplicas()) == {"one": "ok"}
        assert replica.loaded == [version.id]
        replica.loaded.clear()
        do_harm(harm, daemon.settings.data_dir, version)
        (problem,) = reconcile_target(context, SilentReplicas()).values()
        assert NAME in problem or "is a link" in problem
        assert replica.loaded == []


@pytest.mark.parametrize("harm", HARMS)
def test_an_operator_is_told_what_is_wrong_without_a_folder_of_the_machine(
    daemon: Daemon, version: Version, harm: Harm, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    do_harm(harm, daemon.settings.data_dir, version)
    with daemon.as_ci() as client:
        answer = client.post(f"/api/v1/versions/{version.id}/activate", json={"reason": "again"})
        assert answer.status_code == 409
        assert f"{version.id} cannot be served" in answer.text
        assert "/" not in answer.json()["detail"].replace("…/", "")
    told = capfd.readouterr()
    assert str(tmp_path) in told.out + told.err


class ReplicaStandIn:
    """Stands in for vLLM: its documented routes to list and load adapters, of which it forgets all."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.asked_to_load = threading.Event()
        self.app = FastAPI()
        self.app.get("/v1/models")(self.list_models)
        self.app.post("/v1/load_lora_adapter")(self.load)

    def list_models(self) -> dict[str, Any]:
        return {"object": "list", "data": [{"id": "base", "root": "base", "parent": None}]}

    def load(self, body: dict[str, str]) -> str:
        self.loaded.append(body["lora_name"])
        self.asked_to_load.set()
        return "loaded"


def build_context(daemon: Daemon, url: str) -> TargetContext:
    fields = daemon.settings.model_dump(exclude={"replicas", "operators", "targets"})
    target = {"tenant": "acme", "agent": "routing", "project": "p", "task": "generation"}
    replicas = [{"name": "one", "url": url, "base_name": "base"}]
    settings = Settings.model_validate(
        {**fields, "replicas": replicas, "targets": [{**target, "base_model": "none"}]}
    )
    return TargetContext(settings, settings.targets[0], daemon.store, lambda: TRAINED_AT)


def test_the_routes_to_files_answer_only_get(daemon: Daemon, version: Version) -> None:
    with daemon.client(authorization="Bearer acme-token") as client:
        for method in ("POST", "PUT", "DELETE"):
            answer: httpx.Response = client.request(method, f"/v1/adapters/{version.id}/files/{NAME}")
            assert answer.status_code == 405
