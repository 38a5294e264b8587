"""Starting `learnd run` where it cannot."""

import socket
from pathlib import Path

import pytest

from daemon.service import PortTaken, serve
from daemon.settings import Settings


def test_a_port_that_is_taken_is_told_before_anything_begins(tmp_path: Path) -> None:
    target = {
        "tenant": "acme",
        "agent": "routing",
        "project": "p",
        "task": "generation",
        "base_model": "none",
    }
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = Settings.model_validate(
            {"data_dir": tmp_path, "daemon": {"port": port}, "targets": [target | {"base_model": "none"}]}
        )
        with pytest.raises(PortTaken, match=rf"127\.0\.0\.1:{port} .*set another daemon\.port"):
            serve(settings)
    assert not list(tmp_path.rglob("*.db"))
