"""The files in deploy/ agree with each other and with the settings; no service gets more than it needs."""

import json
import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import compose
import pytest
import yaml

from daemon.settings.load import Settings, load_settings

DEPLOY = Path(__file__).parents[2] / "deploy"
DOCKER_COMPOSE = Path(compose.__file__).parent / "docker-compose"
DIGEST = f"sha256:{'0a' * 32}"
PINNED = {"PYTHON_IMAGE": f"python:3.11-slim@{DIGEST}", "VLLM_IMAGE": f"vllm/vllm-openai:v0.32.0@{DIGEST}"}


def read_services(*options: str) -> dict[str, Any]:
    """Return the services as Docker Compose understands them."""
    command = [DOCKER_COMPOSE, *options, "--file", DEPLOY / "compose.yaml", "--profile", "gpu"]
    made = subprocess.run(
        [*command, "config", "--format", "json"],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": os.defpath, "HOME": "/"},
    )
    services: dict[str, Any] = json.loads(made.stdout)["services"]
    return services


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return read_services()


@pytest.fixture
def settings() -> Settings:
    return load_settings(DEPLOY / "learnd.toml")


def find_mounts(service: dict[str, Any]) -> dict[str, str]:
    """Return what lies at each path in the container, folders of the host by their names."""
    return {
        each["target"]: each["source"] if each["type"] == "volume" else Path(each["source"]).name
        for each in service["volumes"]
    }


def list_secrets(service: dict[str, Any]) -> set[str]:
    return {secret["source"] for secret in service["secrets"]}


def test_vllm_finds_the_base_model_where_the_daemon_says_and_of_its_data_the_adapters_alone(
    services, settings
):
    base = settings.targets[0].base_model
    vllm, learnd = find_mounts(services["vllm"]), find_mounts(services["learnd"])
    assert vllm[base] == learnd[base]
    adapters = str(settings.data_dir / "adapters")
    assert vllm == {base: learnd[base], adapters: learnd[str(settings.data_dir)], "/cache": "vllm-cache"}
    mount = next(each for each in services["vllm"]["volumes"] if each["target"] == adapters)
    assert (mount["read_only"], mount["volume"]["subpath"]) == (True, "adapters")
    assert services["vllm"]["group_add"] == [settings.adapters_group]


def test_no_adapter_has_a_rank_that_vllm_refuses(services, settings):
    assert f"--max-lora-rank={settings.training.max_lora_rank}" in services["vllm"]["command"]


def test_each_service_gets_the_secrets_that_it_needs_and_no_other(services, settings):
    shared = {
        settings.agents.tokens_file,
        settings.replicas[0].api_key_file,
        settings.gateway.daemon_token_file,
    }
    named = {"gateway": shared, "learnd": shared | {settings.operators.users_file}}
    for service, files in named.items():
        assert {Path("/run/secrets") / secret for secret in list_secrets(services[service])} == files
    holders = {name for name in services if "phoenix_admin_secret" in list_secrets(services[name])}
    assert holders == {"phoenix", "phoenix-key-gateway", "phoenix-key-learnd"}


@pytest.mark.parametrize("service", ["learnd", "gateway"])
def test_a_key_of_its_own_is_written_where_the_service_reads_it(services, settings, service):
    maker = services[f"phoenix-key-{service}"]
    variable = services[service].get("environment", {}).get("LEARND_PHOENIX__API_KEY_FILE")
    file = Path(variable or settings.phoenix.api_key_file)
    assert str(file) in maker["command"]
    assert find_mounts(maker)[str(file.parent)] == find_mounts(services[service])[str(file.parent)]
    assert maker.get("user") == services[service].get("user")
    needs = services[service]["depends_on"][f"phoenix-key-{service}"]
    assert needs["condition"] == "service_completed_successfully"


def test_the_gateway_is_another_user_without_the_daemon_s_data(services, settings):
    gateway = services["gateway"]
    assert gateway["user"] == "10002:10002"
    assert "user" not in services["learnd"]  # The image's: 10001.
    writable = {each["target"] for each in gateway["volumes"] if not each.get("read_only")}
    assert writable == {str(settings.gateway.state_dir)}
    assert "learnd-data" not in find_mounts(gateway).values()
    assert set(gateway["depends_on"]) == {"phoenix-key-gateway"}


def test_no_service_may_do_or_take_more_than_it_needs(services):
    assert len(services) == 6
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["read_only"], name
        assert "cap_add" not in service, name
        assert "privileged" not in service, name
        assert int(service["mem_limit"]) > 0, name
        assert int(service["pids_limit"]) > 0, name


def test_limits_can_be_set_from_outside(tmp_path):
    file = tmp_path / "env"
    names = ("PHOENIX", "VLLM", "LEARND", "GATEWAY")
    file.write_text("".join(f"{name}_MEMORY=123m\n{name}_PIDS=77\n" for name in names))
    found = read_services("--env-file", str(file))
    for name in names:
        service = found[name.lower()]
        assert (int(service["mem_limit"]), int(service["pids_limit"])) == (123 * 2**20, 77)


def test_ports_are_published_on_this_machine_only(services, settings):
    published = {
        (port["host_ip"], int(port["published"]), port["target"])
        for service in services.values()
        for port in service.get("ports", ())
    }
    ports = (6006, settings.daemon.port, settings.gateway.port)
    assert published == {("127.0.0.1", port, port) for port in ports}


def test_every_image_that_is_not_built_here_can_be_named_by_digest(tmp_path):
    file = tmp_path / "images.env"
    file.write_text("".join(f"{name}={image}\n" for name, image in PINNED.items()))
    found = read_services("--env-file", str(file))
    assert found["vllm"]["image"] == PINNED["VLLM_IMAGE"]
    built = [service["build"]["args"]["PYTHON_IMAGE"] for service in found.values() if "build" in service]
    assert built == [PINNED["PYTHON_IMAGE"]] * 5
    dockerfile = (DEPLOY / "Dockerfile").read_text("utf-8")
    bases = [line.split()[1] for line in dockerfile.splitlines() if line.startswith("FROM ")]
    assert bases == ["${PYTHON_IMAGE}"] * 2


@pytest.mark.parametrize(
    ("images", "returned"),
    [
        (None, 1),
        (PINNED, 0),
        ({**PINNED, "VLLM_IMAGE": "vllm/vllm-openai:v0.32.0"}, 1),
        ({**PINNED, "PYTHON_IMAGE": "python:3.11-slim@sha256:0a"}, 1),
        ({"PYTHON_IMAGE": PINNED["PYTHON_IMAGE"]}, 1),
    ],
)
def test_a_release_without_digests_is_refused(tmp_path, images, returned):
    file = tmp_path / "images.env"
    if images is not None:
        file.write_text("".join(f"{name}={image}\n" for name, image in images.items()))
    made = subprocess.run(
        [DEPLOY / "images.sh", "check"],
        env={"PATH": os.defpath, "IMAGES_FILE": str(file)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (made.returncode, "pin" in made.stderr) == (returned, bool(returned))


def test_the_images_to_pin_are_those_that_compose_takes():
    script = (DEPLOY / "images.sh").read_text("utf-8")
    compose_file = (DEPLOY / "compose.yaml").read_text("utf-8")
    for name, image in PINNED.items():
        tag = image.partition("@")[0]
        assert f"{name}={tag}" in script
        assert f"${{{name}:-{tag}}}" in compose_file


def test_the_script_writes_every_secret_that_compose_mounts_once(tmp_path):
    script = tmp_path / "make-secrets.sh"
    script.write_bytes((DEPLOY / "make-secrets.sh").read_bytes())
    for _ in range(2):
        subprocess.run(["/bin/sh", script], check=True, capture_output=True)
    named = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))["secrets"]
    written = {file.name: file.read_text("utf-8").strip() for file in (tmp_path / "secrets").iterdir()}
    assert written.keys() == named.keys()
    assert len(set(written.values())) == len(written)
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700


def read_unit(name: str) -> dict[str, list[str]]:
    """Return the values of each key of a unit."""
    found: dict[str, list[str]] = {}
    for line in (DEPLOY / "systemd" / name).read_text("utf-8").splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def test_the_units_are_two_users_and_the_gateway_cannot_reach_the_daemon_s_data(settings):
    daemon, gateway = read_unit("learnd.service"), read_unit("learnd-gateway.service")
    assert (daemon["User"], gateway["User"]) == (["learnd"], ["learnd-gateway"])
    assert str(settings.data_dir) in gateway["InaccessiblePaths"][0]
    assert (daemon["StateDirectory"], gateway["StateDirectory"]) == (["learnd"], ["learnd-gateway"])
    assert set(daemon["EnvironmentFile"]).isdisjoint(gateway["EnvironmentFile"])
    for unit in (daemon, gateway):
        assert unit["StateDirectoryMode"] == ["0700"]
        assert int(unit["LimitNOFILE"][0]) >= 65536
        assert unit["NoNewPrivileges"] == ["true"]
