"""Messages for people without an account on the machine name no folder of it."""

from pathlib import Path

import pytest

from daemon.runtime.paths import hide_folders


def test_of_a_path_of_this_machine_the_last_name_is_left(tmp_path: Path) -> None:
    file = tmp_path / "adapters" / "acme.routing" / "adapter_config.json"
    assert hide_folders(f"v1 cannot be served: {file} has changed") == (
        "v1 cannot be served: …/adapter_config.json has changed"
    )
    assert hide_folders(f"[Errno 13] Permission denied: '{file}'") == (
        "[Errno 13] Permission denied: '…/adapter_config.json'"
    )
    assert hide_folders(f"{tmp_path}, {tmp_path}") == f"…/{tmp_path.name}, …/{tmp_path.name}"


@pytest.mark.parametrize(
    "words",
    [
        "replica local refused /v1/load_lora_adapter (HTTP 400)",
        "sign in with `POST /api/v1/session`",
        "Phoenix at http://127.0.0.1:6006/tmp/x does not answer",
        "acme/routing is held",
        "data_dir/runs/acme.routing/c-1/training/log.txt",
        "it scored 3/4 and 1 / 2",
    ],
)
def test_what_is_no_path_of_this_machine_stays(words: str) -> None:
    assert hide_folders(words) == words


def test_what_was_hidden_once_stays_as_it_is(tmp_path: Path) -> None:
    once = hide_folders(f"{tmp_path}/a/b.json")
    assert hide_folders(once) == once
