"""Damaged files in the data directory: every route says so in a sentence, none fails as by a defect."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from daemon.access.accounts import Operators
from daemon.access.sign_in import Authenticator
from daemon.api.app import build_api
from daemon.data.imports import import_file
from daemon.monitoring.metrics import Metrics
from daemon.runtime.paths import imports_folder
from daemon.settings.load import Settings
from daemon.views.status import Health
from extractors.values import file_digest
from tests.support.openai_stand_in import serving
from tests.support.runs import NOWHERE, Runs, make_held_out

OPERATORS = {"users": {"ci": {"role": "operator"}}, "tokens": {"ci-token": "ci"}}
Harm = Callable[[Path], None]


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def overwrite(file: Path) -> None:
    file.write_bytes(b"\xff\x00{]" * 100)


def remove(file: Path) -> None:
    file.unlink()


def make_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def overwrite_with_right_digest(file: Path) -> None:
    """As somebody does who edits a file and corrects the manifest."""
    overwrite(file)
    manifest = file.parent / "manifest.json"
    if manifest.exists() and manifest != file:
        content = json.loads(manifest.read_text("utf-8"))
        content["files"][file.name] = file_digest(file)
        manifest.write_text(json.dumps(content), "utf-8")


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Runs]:
    made = Runs(tmp_path / "data", NOWHERE)
    snapshot = made.snapshot(make_held_out(20))
    made.run(snapshot, right=15)
    mine = tmp_path / "mine.jsonl"
    mine.write_text('{"prompt": "hello", "completion": "billing"}\n')
    folder = imports_folder(made.context.data_dir, made.context.target.key)
    import_file(folder, mine, "sft", form=None, system=None, now=made.now)
    yield made
    made.store.close()


def list_reading_paths(client: httpx.Client, runs: Runs) -> list[str]:
    """Return the path of every route that reads, with the ids of what there is."""
    (cycle,) = runs.store.cycles()
    tenant, agent = runs.context.target.key.split("/")
    known = {"tenant": tenant, "agent": agent, "cycle_id": cycle.id, "version_id": str(cycle.version_id)}
    known |= {"version": str(cycle.version_id), "run": cycle.id, "name": "adapter_model.safetensors"}
    known |= {"batch_id": "none", "number": "1"}
    routes = client.get("/openapi.json").json()["paths"]
    reading = [path for path, methods in routes.items() if "get" in methods]
    return [f"{path.format(**known)}?reason=x&kind=sft&run={cycle.id}&run={cycle.id}" for path in reading]


@pytest.mark.parametrize("harm", [cut, overwrite, remove, make_folder, overwrite_with_right_digest])
def test_no_damaged_file_is_a_defect(runs: Runs, tmp_path: Path, harm: Harm) -> None:
    fields = runs.settings.model_dump(exclude={"operators"})
    settings = Settings.model_validate({**fields, "operators": OPERATORS})
    authenticator = Authenticator(Operators(settings.operators, lambda: runs.now), {})
    api = build_api(settings, runs.store, authenticator, Health(), Metrics(), lambda: runs.now)
    data, whole = runs.context.data_dir, tmp_path / "whole"
    shutil.copytree(data, whole)
    files = [path for path in whole.rglob("*") if path.is_file() and path.name[:6] != "learnd"]
    assert {path.relative_to(whole).parts[0] for path in files} == {
        "adapters",
        "imports",
        "runs",
        "snapshots",
    }
    with serving(api) as url, httpx.Client(base_url=url, timeout=60) as client:
        client.headers["authorization"] = "Bearer ci-token"
        paths = list_reading_paths(client, runs)
        before = [client.get(path).status_code for path in paths]
        assert before.count(200) > 15, dict(zip(paths, before, strict=True))
        for file in files:
            damaged = data / file.relative_to(whole)
            harm(damaged)
            for path in paths:
                answer = client.get(path)
                assert answer.status_code != 500, (file.relative_to(whole), path, answer.text)
            # The whole folder again: a harm may have changed the manifest, too.
            shutil.rmtree(damaged.parent)
            shutil.copytree(file.parent, damaged.parent)
