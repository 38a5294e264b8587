"""Settings: what they take, what they refuse, and in which words."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from daemon.settings.environment import OTHER_VARIABLES
from daemon.settings.load import Settings, load_settings
from daemon.settings.types import SettingsError

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
def config(tmp_path: Path) -> Path:
    path = tmp_path / "learnd.toml"
    path.write_text(MINIMAL, "utf-8")
    return path


def write(config: Path, text: str) -> Path:
    config.write_text(text, "utf-8")
    return config


def read_refusal(config: Path) -> str:
    with pytest.raises(SettingsError) as refused:
        load_settings(config)
    return str(refused.value)


def test_a_target_is_named_by_tenant_and_agent(config: Path) -> None:
    settings = load_settings(config)
    assert settings.find_target("acme/routing").slug == "acme.routing"
    assert settings.find_replicas(settings.targets[0]) == settings.replicas


def test_a_relative_data_dir_lies_beside_the_file(config: Path) -> None:
    assert load_settings(config).data_dir == config.parent / "learnd-data"


def test_the_environment_overrides_one_key_and_leaves_the_rest(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(config, "[phoenix]\nurl = 'http://one:1'\npoll_seconds = 7\n" + MINIMAL)
    monkeypatch.setenv("LEARND_PHOENIX__URL", "http://two:2")
    phoenix = load_settings(config).phoenix
    assert (phoenix.url, phoenix.poll_seconds) == ("http://two:2", 7)


@pytest.mark.parametrize(
    ("variable", "words"),
    [
        ("LEARND_PHONIX__URL", "no section 'phonix'; did you mean LEARND_PHOENIX__URL?"),
        ("learnd_phonix__url", "did you mean LEARND_PHOENIX__URL?"),
        ("LEARND_PHOENIX_URL", "did you mean LEARND_PHOENIX__URL?"),
        ("LEARND_DAEMON_TRAINING_AT_ONCE", "did you mean LEARND_DAEMON__TRAININGS_AT_ONCE?"),
        ("LEARND_DATADIR", "did you mean LEARND_DATA_DIR?"),
        ("LEARND_OPERATER", "did you mean LEARND_OPERATOR?"),
        ("LEARND_WEATHER__URL", "the settings have no section 'weather'"),
        ("LEARND_DATA__DIR", "did you mean LEARND_DATA_DIR?"),
        ("LEARND_TARGET__0__TENANT", "did you mean LEARND_TARGETS?"),
        ("LEARND_TARGETS__0__TENANT", "'targets' is a list: set all of it as JSON in LEARND_TARGETS"),
    ],
)
def test_a_misspelt_variable_is_an_error_with_the_name_that_was_meant(
    config: Path, monkeypatch: pytest.MonkeyPatch, variable: str, words: str
) -> None:
    monkeypatch.setenv(variable, "s3cret")
    said = read_refusal(config)
    assert f"{variable}: " in said
    assert words in said
    assert "s3cret" not in said


def test_every_misspelt_variable_is_named(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEARND_PHONIX__URL", "http://two:2")
    monkeypatch.setenv("LEARND_GATEWEY__PORT", "1")
    said = read_refusal(config)
    assert "LEARND_PHOENIX__URL" in said
    assert "LEARND_GATEWAY__PORT" in said


def test_a_misspelt_key_of_a_section_is_an_error_in_the_environment_too(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEARND_PHOENIX__ULR", "http://two:2")
    assert "phoenix.ulr: there is no such key here; did you mean url?" in read_refusal(config)


@pytest.mark.parametrize("variable", sorted(OTHER_VARIABLES))
def test_a_variable_that_is_no_setting_but_is_read_elsewhere_is_no_error(
    config: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "x")
    assert load_settings(config).targets


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("LEARND_PORT", "tcp://10.0.0.7:8710"),
        ("LEARND_SERVICE_HOST", "10.0.0.7"),
        ("LEARND_GATEWAY_PORT", "tcp://10.0.0.7:8700"),
        ("LEARND_GATEWAY_PORT_8700_TCP_ADDR", "10.0.0.7"),
        ("LEARND_GATEWAY_SERVICE_PORT", "8700"),
    ],
)
def test_what_kubernetes_sets_for_services_called_learnd_is_no_error(
    config: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    assert load_settings(config).gateway.port == 8700


def test_a_secret_comes_from_the_environment_or_a_file_and_is_never_shown(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEARND_PHOENIX__API_KEY", "s3cret")
    settings = load_settings(config)
    assert settings.phoenix.api_key == SecretStr("s3cret")
    assert settings.phoenix.read_key() == "s3cret"
    assert "s3cret" not in repr(settings)
    assert "s3cret" not in settings.model_dump_json()
    (config.parent / "key").write_text("from-file\n", "utf-8")
    monkeypatch.delenv("LEARND_PHOENIX__API_KEY")
    write(config, f"[phoenix]\napi_key_file = '{config.parent / 'key'}'\n" + MINIMAL)
    assert load_settings(config).phoenix.read_key() == "from-file"


@pytest.mark.parametrize(
    "section", ["[phoenix]\napi_key = 'x'\n", "[[replicas]]\nname = 'a'\nurl = 'http://a'\napi_key = 'x'\n"]
)
def test_a_secret_in_the_file_is_refused(config: Path, section: str) -> None:
    assert "api_key: secrets do not belong" in read_refusal(write(config, section))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("some/model", ""), "targets.0.base_model"),
        (('task = "classification"', 'task = "poetry"'), "targets.0.task"),
        (('agent = "routing"', 'agent = "Routing!"'), "targets.0.agent"),
        (("[[targets]]", "[[targets]]\nalpha = 0.05"), "targets.0.alpha: there is no such key here"),
        (
            ("[[targets]]", "[[targets]]\ngate.min_efect = 0.1"),
            "targets.0.gate.min_efect: there is no such key here; did you mean min_effect?",
        ),
        (("[[targets]]", "[[targets]]\ngate.alpha = 2"), "targets.0.gate.alpha"),
        (("[[targets]]", "[[targets]]\nreplicas = ['other']"), "targets.0.replicas"),
        (("[[targets]]", "[[targets]]\nschedule.timezone = 'Mars/Base'"), "Mars/Base"),
        (("[[targets]]", "[[targets]]\nschedule.cron = 'often'"), "targets.0.schedule"),
        (("http://127", "127"), "replicas.0.url"),
        (
            ("[[replicas]]", "[operators]\nusers.ann.rolle = 'viewer'\n[[replicas]]"),
            "operators.users.ann.rolle: there is no such key here; did you mean role?",
        ),
        (
            ("[[targets]]", "[[targets]]\njudge.modell = 'm'"),
            "targets.0.judge.modell: there is no such key here; did you mean model?",
        ),
        (
            ("[[targets]]", "[[targets]]\nfeedback.annotations = [{ nam = 'x' }]"),
            "targets.0.feedback.annotations.0.nam: there is no such key here; did you mean name?",
        ),
    ],
)
def test_a_wrong_key_is_named_by_its_path(config: Path, change: tuple[str, str], words: str) -> None:
    assert words in read_refusal(write(config, MINIMAL.replace(*change)))


def test_a_key_that_belongs_elsewhere_is_not_offered_again(config: Path) -> None:
    said = read_refusal(write(config, MINIMAL.replace("[[targets]]", "[[targets]]\nalpha = 0.05")))
    assert said.endswith("targets.0.alpha: there is no such key here")
    said = read_refusal(write(config, MINIMAL.replace("[[targets]]", "adapters_dir = 'x'\n[[targets]]")))
    assert said.endswith("replicas.0.adapters_dir: there is no such key here")


@pytest.mark.parametrize(
    "text",
    [
        MINIMAL.replace("classification", "embedding"),
        MINIMAL[MINIMAL.index("[[targets]]") :],
    ],
)
def test_a_replica_is_to_confirm_verdicts_only_where_one_serves_the_target(config: Path, text: str) -> None:
    said = read_refusal(write(config, f'{text}evaluate_with = "replica"\n'))
    assert "targets.0.evaluate_with: no replica serves acme/routing" in said


def test_a_missing_file_says_how_to_get_one(tmp_path: Path) -> None:
    assert "learnd init" in read_refusal(tmp_path / "nothing.toml")


def test_a_label_cannot_approve_and_reject(config: Path) -> None:
    both = MINIMAL + (
        "[[targets.feedback.annotations]]\nname = 'approval'\n"
        "approved_labels = ['Fine']\nrejected_labels = ['fine']\n"
    )
    assert "both approve and reject" in read_refusal(write(config, both))


def test_the_file_that_init_writes_is_valid() -> None:
    example = Path(__file__).resolve().parents[4] / "daemon" / "learnd.example.toml"
    settings = load_settings(example)
    assert settings.find_target("acme/routing").promotion == "automatic"


def test_tokens_come_from_a_file_of_lines(config: Path) -> None:
    (config.parent / "tokens").write_text("# agents\nabc acme\n\ndef other # second\n", "utf-8")
    write(config, f"[agents]\ntokens_file = '{config.parent / 'tokens'}'\n" + MINIMAL)
    assert load_settings(config).agents.read_tokens() == {"abc": "acme", "def": "other"}
    (config.parent / "tokens").write_text("abc\n", "utf-8")
    with pytest.raises(SettingsError, match="line 1"):
        load_settings(config).agents.read_tokens()


def test_tokens_come_from_the_environment(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEARND_AGENTS__TOKENS", '{"abc": "acme"}')
    assert load_settings(config).agents.read_tokens() == {"abc": "acme"}


def test_a_variable_that_should_be_json_and_is_not_is_named(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEARND_TARGETS", "x")
    with pytest.raises(SettingsError, match=r"LEARND_TARGETS.* should be JSON"):
        load_settings(config)


def test_defaults_are_enough_for_everything_but_targets() -> None:
    assert Settings().targets == ()


HASH = "$argon2id$v=19$m=65536,t=3,p=4$c2FsdHNhbHQ$aGFzaGhhc2g"


def test_operators_come_from_a_file_of_lines_and_from_the_settings(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (config.parent / "users").write_text(f"ann operator {HASH}\nvic@example.org viewer - # reads\n", "utf-8")
    (config.parent / "tokens").write_text("abc ann\n", "utf-8")
    write(
        config,
        "[operators]\nusers_file = 'users'\ntokens_file = 'tokens'\nusers.bob.role = 'viewer'\n" + MINIMAL,
    )
    monkeypatch.setenv("LEARND_OPERATORS__USERS__BOB__PASSWORD_HASH", HASH)
    operators = load_settings(config).operators
    people = operators.read_accounts()
    assert {name: account.role for name, account in people.items()} == {
        "ann": "operator",
        "bob": "viewer",
        "vic@example.org": "viewer",
    }
    assert people["bob"].password_hash == people["ann"].password_hash == SecretStr(HASH)
    assert people["vic@example.org"].password_hash is None
    assert operators.read_tokens() == {"abc": "ann"}
    assert HASH not in repr(operators)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("ann operator", "line 1 of .* is not `NAME ROLE HASH`"),
        ("ann boss -", "line 1 of .*ann.role: Input should be 'operator' or 'viewer'"),
        ("learnd operator -", "what the audit log calls the daemon"),
    ],
)
def test_a_wrong_line_of_operators_is_named(config: Path, line: str, words: str) -> None:
    (config.parent / "users").write_text(line, "utf-8")
    operators = load_settings(write(config, "[operators]\nusers_file = 'users'\n" + MINIMAL)).operators
    with pytest.raises(SettingsError, match=words):
        operators.read_accounts()


def test_a_token_of_nobody_we_know_is_refused(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEARND_OPERATORS__TOKENS", '{"abc": "zoe"}')
    with pytest.raises(SettingsError, match="tokens of zoe"):
        load_settings(config).operators.read_tokens()


@pytest.mark.parametrize(
    ("section", "words"),
    [
        (f"[operators]\nusers.ann.password_hash = '{HASH}'\n", "password_hash: secrets do not belong"),
        ("[operators.tokens]\nabc = 'ann'\n", "operators.tokens: secrets do not belong"),
        ("[operators]\nusers.learnd.role = 'viewer'\n", "what the audit log calls the daemon"),
        ("[operators]\nproxy_header = 'X-User'\n", "operators: proxy_header needs the proxy_addresses"),
        ("[operators]\nproxy_addresses = ['example.org']\n", "operators.proxy_addresses.0"),
        (
            "[[notify]]\nname = 'a'\nurl = 'http://a'\nsecret = 'x'\n",
            "notify.0.secret: secrets do not belong",
        ),
        ("[[notify]]\nname = 'a'\n", "notify.0: it needs a url or a command"),
        ("[[notify]]\nname = 'a'\nurl = 'http://a'\ncommand = ['b']\n", "and not both"),
        ("[[notify]]\nname = 'a'\ncommand = ['b']\nsecret_file = 'c'\n", "a command is not signed"),
        ("[[notify]]\nname = 'a'\ncommand = ['b']\nevents = ['lunch']\n", "notify.0.events.0"),
        (2 * "[[notify]]\nname = 'a'\ncommand = ['b']\n", "notify: two have the same name"),
    ],
)
def test_operators_and_receivers_are_checked_at_load(config: Path, section: str, words: str) -> None:
    assert words in read_refusal(write(config, section + MINIMAL))


def test_a_receiver_hears_of_everything_and_finds_its_secret_in_a_file(config: Path) -> None:
    (config.parent / "secret").write_text("s3cret\n", "utf-8")
    section = "[[notify]]\nname = 'ops'\nurl = 'https://a/'\nsecret_file = 'secret'\n"
    (receiver,) = load_settings(write(config, section + MINIMAL)).notify
    assert receiver.read_key() == "s3cret"
    assert receiver.events == (
        "batch.waiting",
        "cycle.failed",
        "version.promoted",
        "version.rolled_back",
        "jobs.late",
    )
