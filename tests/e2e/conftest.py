"""A tiny model and a real vLLM that serves it, one for all end-to-end tests."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.demo.vllm import VllmServer, run_vllm

ROOT = Path(__file__).resolve().parents[2]
MAX_LORAS = 4


@pytest.fixture(scope="session")
def vllm_python() -> str:
    """The interpreter of vLLM's own environment."""
    python = os.environ.get("LEARND_VLLM_PYTHON", str(ROOT / ".venv-vllm/bin/python"))
    if not Path(python).exists():
        reason = f"there is no vLLM: {python} does not exist; `make setup-vllm` installs it"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return python


@pytest.fixture(scope="session")
def vllm(
    tiny_model: Path, vllm_python: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[VllmServer]:
    log = tmp_path_factory.mktemp("vllm") / "vllm.log"
    with run_vllm(tiny_model, python=vllm_python, log=log, max_loras=MAX_LORAS, eager=True) as server:
        yield server
