"""What every test shares: environment variables, one Phoenix, the tiny model."""

import os

# A busy core beside a spinning OpenMP barrier makes torch 10 to 30 times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.demo.phoenix import PhoenixServer, run_phoenix
from tests.support.phoenix import new_project
from tests.support.runs import NOWHERE, Runs
from tests.support.tiny_model import tiny_llama


@pytest.fixture(scope="session")
def phoenix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PhoenixServer]:
    """One server for all tests; each works in a project of its own."""
    with run_phoenix(tmp_path_factory.mktemp("phoenix")) as running:
        yield running


@pytest.fixture
def project() -> str:
    return new_project()


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Runs]:
    """A target whose Phoenix is not there, without any run so far."""
    made = Runs(tmp_path, NOWHERE)
    yield made
    made.store.close()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random two-layer Llama that trains in seconds and that vLLM can load."""
    return tiny_llama(tmp_path_factory.mktemp("tiny-model"))
