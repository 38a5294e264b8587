"""The files in deploy/ agree with each other and with the settings."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from daemon.settings.load import Settings, load_settings

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.fixture
def services() -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))["services"]


@pytest.fixture
def settings() -> Settings:
    return load_settings(DEPLOY / "learnd.toml")


def mounts(service: dict[str, Any]) -> dict[str, str]:
    """Path in the container to what lies there."""
    return {
        target: source
        for source, target in (mount.removesuffix(":ro").rsplit(":", 1) for mount in service["volumes"])
    }


def test_vllm_finds_adapters_and_base_model_where_the_daemon_says(services, settings):
    for path in (str(settings.data_dir), settings.targets[0].base_model):
        assert mounts(services["vllm"])[path] == mounts(services["learnd"])[path]


def test_no_adapter_has_a_rank_that_vllm_refuses(services, settings):
    assert f"--max-lora-rank={settings.training.max_lora_rank}" in services["vllm"]["command"]


def test_the_secrets_that_the_settings_name_are_mounted_in_daemon_and_gateway(services, settings):
    named = {settings.phoenix.api_key_file, settings.agents.tokens_file, settings.replicas[0].api_key_file}
    # The gateway knows no operators.
    for service, wanted in (("learnd", named | {settings.operators.users_file}), ("gateway", named)):
        assert {Path("/run/secrets") / secret for secret in services[service]["secrets"]} == wanted


def test_ports_are_published_on_this_machine_only(services, settings):
    published = {port for service in services.values() for port in service.get("ports", ())}
    ports = (6006, settings.daemon.port, settings.gateway.port)
    assert published == {f"${{BIND_ADDRESS:-127.0.0.1}}:{port}:{port}" for port in ports}
