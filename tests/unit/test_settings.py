"""Settings: what they take, what they refuse, and in which words."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from daemon.settings import Settings, SettingsError, load_settings

MINIMAL = """
[[replicas]]
name = "local"
url = "http://127.0.0.1:8000/"

[[targets]]
tenant = "acme"
agent = "routing"
project = "acme-routing"
task = "classification"
base_model = "some/model"
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("LEARND_VLLM_PYTHON", raising=False)
    path = tmp_path / "learnd.toml"
    path.write_text(MINIMAL, "utf-8")
    return path


def write(config: Path, text: str) -> Path:
    config.write_text(text, "utf-8")
    return config


def refusal(config: Path) -> str:
    with pytest.raises(SettingsError) as refused:
        load_settings(config)
    return str(refused.value)


def test_a_target_is_named_by_tenant_and_agent(config: Path) -> None:
    settings = load_settings(config)
    assert settings.target("acme/routing").slug == "acme.routing"
    assert settings.replicas_of(settings.targets[0]) == settings.replicas


def test_a_relative_data_dir_lies_beside_the_file(config: Path) -> None:
    assert load_settings(config).data_dir == config.parent / "learnd-data"


def test_the_environment_overrides_one_key_and_leaves_the_rest(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(config, "[phoenix]\nurl = 'http://one:1'\npoll_seconds = 7\n" + MINIMAL)
    monkeypatch.setenv("LEARND_PHOENIX__URL", "http://two:2")
    phoenix = load_settings(config).phoenix
    assert (phoenix.url, phoenix.poll_seconds) == ("http://two:2", 7)


def test_a_secret_comes_from_the_environment_or_a_file_and_is_never_shown(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEARND_PHOENIX__API_KEY", "s3cret")
    settings = load_settings(config)
    assert settings.phoenix.api_key == SecretStr("s3cret")
    assert settings.phoenix.key() == "s3cret"
    assert "s3cret" not in repr(settings)
    assert "s3cret" not in settings.model_dump_json()
    (config.parent / "key").write_text("from-file\n", "utf-8")
    monkeypatch.delenv("LEARND_PHOENIX__API_KEY")
    write(config, f"[phoenix]\napi_key_file = '{config.parent / 'key'}'\n" + MINIMAL)
    assert load_settings(config).phoenix.key() == "from-file"


@pytest.mark.parametrize(
    "section", ["[phoenix]\napi_key = 'x'\n", "[[replicas]]\nname = 'a'\nurl = 'http://a'\napi_key = 'x'\n"]
)
def test_a_secret_in_the_file_is_refused(config: Path, section: str) -> None:
    assert "api_key: secrets do not belong" in refusal(write(config, section))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("some/model", ""), "targets.0.base_model"),
        (('task = "classification"', 'task = "poetry"'), "targets.0.task"),
        (('agent = "routing"', 'agent = "Routing!"'), "targets.0.agent"),
        (("[[targets]]", "[[targets]]\nalpha = 0.05"), "targets.0.alpha: Extra inputs"),
        (("[[targets]]", "[[targets]]\ngate.alpha = 2"), "targets.0.gate.alpha"),
        (("[[targets]]", "[[targets]]\nreplicas = ['other']"), "targets.0.replicas"),
        (("[[targets]]", "[[targets]]\nschedule.timezone = 'Mars/Base'"), "Mars/Base"),
        (("[[targets]]", "[[targets]]\nschedule.cron = 'often'"), "targets.0.schedule"),
        (("http://127", "127"), "replicas.0.url"),
    ],
)
def test_a_wrong_key_is_named_by_its_path(config: Path, change: tuple[str, str], words: str) -> None:
    assert words in refusal(write(config, MINIMAL.replace(*change)))


def test_a_missing_file_says_how_to_get_one(tmp_path: Path) -> None:
    assert "learnd init" in refusal(tmp_path / "nothing.toml")


def test_a_label_cannot_approve_and_reject(config: Path) -> None:
    both = MINIMAL + (
        "[[targets.feedback.annotations]]\nname = 'approval'\n"
        "approved_labels = ['Fine']\nrejected_labels = ['fine']\n"
    )
    assert "both approve and reject" in refusal(write(config, both))


def test_the_file_that_init_writes_is_valid() -> None:
    example = Path(__file__).resolve().parents[2] / "daemon" / "learnd.example.toml"
    settings = load_settings(example)
    assert settings.target("acme/routing").promotion == "automatic"


def test_tokens_come_from_a_file_of_lines(config: Path) -> None:
    (config.parent / "tokens").write_text("# agents\nabc acme\n\ndef other # second\n", "utf-8")
    write(config, f"[agents]\ntokens_file = '{config.parent / 'tokens'}'\n" + MINIMAL)
    assert load_settings(config).agents.by_token() == {"abc": "acme", "def": "other"}
    (config.parent / "tokens").write_text("abc\n", "utf-8")
    with pytest.raises(SettingsError, match="line 1"):
        load_settings(config).agents.by_token()


def test_tokens_come_from_the_environment(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEARND_AGENTS__TOKENS", '{"abc": "acme"}')
    assert load_settings(config).agents.by_token() == {"abc": "acme"}


def test_defaults_are_enough_for_everything_but_targets() -> None:
    assert Settings().targets == ()
