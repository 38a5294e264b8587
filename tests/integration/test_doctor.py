"""What `learnd doctor` says of a machine that is to train."""

from pathlib import Path

import pytest

from daemon.demo.phoenix import PhoenixServer
from daemon.doctor import examine
from daemon.settings import Settings
from trainers.memory import free_memory


def test_memory_is_what_the_smallest_training_takes_and_4_bits_are_looked_for_where_they_are_asked_for(
    phoenix: PhoenixServer, tiny_model: Path, tmp_path: Path
) -> None:
    target = {
        "tenant": "acme",
        "agent": "support",
        "project": "support",
        "task": "generation",
        "base_model": str(tiny_model),
    }
    settings = Settings.model_validate(
        {
            "data_dir": tmp_path,
            "phoenix": {"url": phoenix.url},
            "training": {"quantization": "always", "device": "cpu"},
            "targets": [target],
        }
    )
    checks = {check.name: check for check in examine(settings)}
    assert checks["phoenix"].ok
    memory = checks["acme/support: memory"]
    assert memory.ok
    free, least = (float(part.split()[-1]) for part in memory.found.replace(" GiB free", "").split(", "))
    assert free == pytest.approx(free_memory("cpu") / 2**30, rel=0.2)
    # Python and the libraries, the tiny model, and 64 answers' logits over 49152 words.
    assert 0.8 < least < 1.1
    assert checks["4 bits"].ok
