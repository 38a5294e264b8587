"""The settings: one TOML file, with `LEARND_*` environment variables on top.

`LEARND_PHOENIX__URL` sets `url` in `[phoenix]`; lists are JSON. Secrets never stand in the
file: they come from the environment (`LEARND_PHOENIX__API_KEY`) or from a file that the
settings name (`api_key_file`). Loading fails with the key's path and what would be right.
"""

import os
import tomllib
from collections.abc import Iterator, Mapping
from datetime import timedelta
from difflib import get_close_matches
from functools import cache
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from apscheduler.triggers.cron import CronTrigger
from pydantic import AfterValidator, Field, SecretStr, TypeAdapter, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings import SettingsError as VariableUnreadable

from evaluation.rules import JUDGE, METRICS, Gate
from extractors.cleaning.quality import QualityRules
from extractors.cleaning.redaction import RedactionRules
from extractors.dataset.holdout_split import HoldoutRules
from extractors.feedback.rules import FeedbackRules
from extractors.feedback.searches import RELEVANCE, RetrievalRules
from extractors.llm.endpoint import Endpoint
from extractors.phoenix.spans import SpanFilter
from extractors.synthesis.filters import ScreeningRules
from extractors.synthesis.generate import SynthesisRules
from extractors.values import LearndError, Value
from registry.audit import DAEMON
from registry.notices import Event
from trainers.planning.hyperparameters import Hyperparameters, Method, Preset
from trainers.planning.method_rules import Task, Thresholds, overrides_for
from trainers.recovery.fallbacks import Limits

Slug = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
"""Lower-case letters, digits, `-` and `_`: part of model names and of folder names."""
Port = Annotated[int, Field(ge=1, le=65535)]


class SettingsError(LearndError):
    """The settings file is missing, or says something that cannot be right."""


def _without_slash(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise ValueError("must begin with http:// or https://")
    return url.rstrip("/")


Url = Annotated[str, AfterValidator(_without_slash)]


class WithApiKey(Value):
    """A service that may want a key: from the environment, or from the file named here."""

    api_key: SecretStr | None = None
    """Only from the environment; in the settings file it is an error."""
    api_key_file: Path | None = None
    """File whose content is the key."""

    def key(self) -> str | None:
        """The key, or None. Raises SettingsError when the file cannot be read."""
        if self.api_key is not None:
            return self.api_key.get_secret_value()
        return read_secret(self.api_key_file) if self.api_key_file else None


class PhoenixSettings(WithApiKey):
    """Where the agents' traces are."""

    url: Url = "http://127.0.0.1:6006"
    poll_seconds: float = Field(30, gt=0)
    """How often each target's project is polled."""
    full_sweep_minutes: float = Field(30, gt=0)
    """How often all feedback is read again, which finds deleted annotations."""
    experiments_project: str = Field("learnd-experiments", min_length=1)
    """Project for what learnd did itself. One of its own: a training takes minutes, an agent's call seconds,
    and in an agent's project it would spoil the latencies that Phoenix shows."""
    browser_url: Url | None = None
    """Where people's browsers find it, if that is not `url`: the console's links lead there."""

    @property
    def seen_at(self) -> str:
        """Where people look at it."""
        return self.browser_url or self.url


class DaemonSettings(Value):
    """`learnd run`: its API, its log, and how much it does at once."""

    host: str = "127.0.0.1"
    port: Port = 8710
    trainings_at_once: int = Field(1, ge=1)
    """Cycles that train or evaluate at the same time."""
    reconcile_seconds: float = Field(15, gt=0)
    """How often each replica is compared with what it should serve."""
    log_format: Literal["console", "json"] = "console"


class GatewaySettings(Value):
    """`learnd gateway`: the OpenAI-compatible door for agents."""

    host: str = "127.0.0.1"
    port: Port = 8700
    refresh_seconds: float = Field(1.0, gt=0)
    """How often the gateway looks which version is active."""
    max_body_mb: float = Field(16, gt=0)
    trace: bool = True
    """Write each call to Phoenix as a span."""


class AgentSettings(Value):
    """Agents' access to the gateway and to the daemon's API."""

    tokens: dict[SecretStr, Slug] = {}
    """Bearer token to tenant; only from the environment (`LEARND_AGENTS__TOKENS`, JSON)."""
    tokens_file: Path | None = None
    """File with a line `TOKEN TENANT` for each token; `#` begins a comment."""
    cache_seconds: float = Field(30, gt=0)
    """How long a client may go on using a version it resolved; the old one stays loaded as long."""

    def by_token(self) -> dict[str, str]:
        """Token to tenant. Raises SettingsError when the file cannot be read or has a bad line."""
        tokens = {token.get_secret_value(): tenant for token, tenant in self.tokens.items()}
        for _, (token, tenant) in _lines("agents.tokens_file", self.tokens_file, "TOKEN TENANT"):
            tokens[token] = tenant
        return tokens


def _a_person(name: str) -> str:
    if name == DAEMON:
        raise ValueError(f"{DAEMON!r} is what the audit log calls the daemon; a person needs another name")
    return name


PersonName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}$"), AfterValidator(_a_person)]
"""What decisions and the audit log are signed with; an e-mail address will do."""
Role = Literal["operator", "viewer"]
"""Operators decide, viewers read."""


class OperatorAccount(Value):
    """A person who may sign in."""

    role: Role = "operator"
    password_hash: SecretStr | None = None
    """As `learnd operators hash` prints it; only from the environment. None: no sign-in by password."""


def _network(written: str) -> str:
    ip_network(written)
    return written


class OperatorSettings(Value):
    """Who may look at what is learned, and decide about it."""

    users: dict[PersonName, OperatorAccount] = {}
    """Name to account. A hash comes from the environment (`LEARND_OPERATORS__USERS__ANN__PASSWORD_HASH`)."""
    users_file: Path | None = None
    """File with a line `NAME ROLE HASH` for each person, `-` for no password; `#` begins a comment."""
    tokens: dict[SecretStr, PersonName] = {}
    """Bearer token to the person for whom it acts; only from the environment, as JSON."""
    tokens_file: Path | None = None
    """File with a line `TOKEN NAME` for each token; `#` begins a comment."""
    session_hours: float = Field(12, gt=0)
    """How long a sign-in lasts."""
    proxy_header: str | None = Field(None, pattern=r"^[A-Za-z0-9-]+$")
    """Header in which a proxy that signs people in says who it is, such as `X-Forwarded-User`."""
    proxy_addresses: tuple[Annotated[str, AfterValidator(_network)], ...] = ()
    """Addresses or networks of that proxy; from anywhere else the header is not believed."""
    proxy_role: Role | None = None
    """Role of those whom the proxy names and `users` does not; None: they have none."""

    @model_validator(mode="after")
    def _trusts_somebody(self) -> Self:
        if self.proxy_header and not self.proxy_addresses:
            raise ValueError("proxy_header needs the proxy_addresses from which it is believed")
        return self

    def people(self) -> dict[str, OperatorAccount]:
        """Everybody by name. Raises SettingsError when the file cannot be read or has a bad line."""
        found = dict(self.users)
        for where, words in _lines("operators.users_file", self.users_file, "NAME ROLE HASH"):
            name, role, hashed = words
            account = {"role": role} if hashed == "-" else {"role": role, "password_hash": hashed}
            try:
                found |= _ACCOUNTS.validate_python({name: account})
            except ValidationError as wrong:
                raise SettingsError(f"{where}: {_explain(wrong).strip()}") from None
        return found

    def by_token(self) -> dict[str, str]:
        """Token to name. Raises SettingsError when the file cannot be read, or names nobody we know."""
        tokens = {token.get_secret_value(): name for token, name in self.tokens.items()}
        for _, (token, name) in _lines("operators.tokens_file", self.tokens_file, "TOKEN NAME"):
            tokens[token] = name
        unknown = sorted(set(tokens.values()) - self.people().keys())
        if unknown:
            raise SettingsError(f"operators: tokens of {', '.join(unknown)}, who are not among the users")
        return tokens


_ACCOUNTS = TypeAdapter(dict[PersonName, OperatorAccount])


def _lines(key: str, path: Path | None, form: str) -> Iterator[tuple[str, list[str]]]:
    """The words of each line of a secrets' file, and where it stands. Raises SettingsError."""
    for number, line in enumerate(read_secret(path).splitlines() if path else (), start=1):
        words = line.split("#")[0].split()
        where = f"{key}: line {number} of {path}"
        if words and len(words) != len(form.split()):
            raise SettingsError(f"{where} is not `{form}`")
        if words:
            yield where, words


class NotifySettings(Value):
    """Whom learnd tells when something happens that a person wants to know."""

    name: Slug
    """Names it in the log; deliveries are remembered under it."""
    url: Url | None = None
    """A webhook: each event is posted there as JSON."""
    command: tuple[str, ...] = ()
    """Or a program and its arguments: each event is a run of it, with the JSON on its standard input."""
    secret: SecretStr | None = None
    """Signs what is posted; only from the environment (`LEARND_NOTIFY`, JSON)."""
    secret_file: Path | None = None
    """File whose content is the secret."""
    events: tuple[Event, ...] = get_args(Event)
    """Which events; all, if left out."""
    timeout_seconds: float = Field(10, gt=0)
    """How long one delivery may take."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.url is None) == (not self.command):
            raise ValueError("it needs a url or a command, and not both")
        if self.command and (self.secret or self.secret_file):
            raise ValueError("a command is not signed: leave the secret out")
        return self

    def key(self) -> str | None:
        """The secret, or None. Raises SettingsError when the file cannot be read."""
        if self.secret is not None:
            return self.secret.get_secret_value()
        return read_secret(self.secret_file) if self.secret_file else None


class PathMap(Value):
    """How a replica's server sees learnd's data directory."""

    local: str
    """Prefix of the path here."""
    remote: str
    """What that prefix is called on the replica's file system."""


class ReplicaSettings(WithApiKey):
    """One vLLM server."""

    name: Slug
    url: Url
    base_name: str = "base"
    """The name under which it serves the base model (`--served-model-name`)."""
    path_map: PathMap | None = None
    """Needed where vLLM's file system is not learnd's."""


class TrainingSettings(Value):
    """Where and how trainings run."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """`auto` is bfloat16 where the device computes in it."""
    threads: int | None = Field(None, ge=1)
    """CPU threads of a training; None takes what torch would."""
    max_lora_rank: int = Field(16, ge=1)
    """The least `--max-lora-rank` of the replicas; no adapter has a higher rank."""
    quantization: Literal["auto", "always", "never"] = "auto"
    """QLoRA, the base in 4 bits while it trains: `auto` where memory asks for it."""
    share_prefixes: bool = True
    """Train examples that begin alike in one sequence, where that is exact."""
    max_minutes: float | None = Field(None, gt=0)
    """Most time that a cycle's trainings may take; then the best checkpoint so far is their result."""
    max_cost: float | None = Field(None, gt=0)
    """The same as money, at `price_per_hour`."""
    price_per_hour: float | None = Field(None, ge=0)
    """Of the machine that trains."""
    currency: str = "USD"
    """Of both prices, for `learnd estimate`."""

    def price(self, seconds: float) -> str | None:
        """What so long a training costs, in words; None without a price."""
        if self.price_per_hour is None:
            return None
        return f"{self.price_per_hour * seconds / 3600:.2f} {self.currency}"

    @property
    def limits(self) -> Limits:
        """What a cycle's trainings may take."""
        return Limits(
            max_minutes=self.max_minutes, max_cost=self.max_cost, price_per_hour=self.price_per_hour
        )

    @model_validator(mode="after")
    def _priced(self) -> Self:
        if self.max_cost is not None and not self.price_per_hour:
            raise ValueError("max_cost needs a price_per_hour above 0")
        return self


class SynthesisSettings(WithApiKey):
    """Synthetic examples for a target that has too few. A person approves each one, whatever stands here."""

    enabled: bool = False
    url: Url | None = None
    """An OpenAI-compatible API, with its `/v1`; None: the target's first replica."""
    model: str | None = None
    """As that API names it; None: the base model of the replica."""
    encoder: str = "sentence-transformers/all-MiniLM-L6-v2"
    """Hub id or folder of the sentence-transformer that tells what means the same."""
    margin: float = Field(1.5, ge=1)
    """Proposals for each example that is lacking: an operator will reject some."""
    share: float = Field(0.5, gt=0, lt=1)
    """Greatest share of the training examples that is synthetic."""
    expires_days: float = Field(14, gt=0)
    """How long a batch waits for an operator."""
    timeout_seconds: float = Field(60, gt=0)
    concurrency: int = Field(8, ge=1, le=256)
    """Calls at once."""
    asking: SynthesisRules = SynthesisRules()
    screening: ScreeningRules = ScreeningRules()

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.url is None) != (self.model is None):
            raise ValueError("url and model of a language model go together")
        return self


class TargetThresholds(Thresholds):
    """How much data a cycle needs."""

    min_new_examples: int = Field(50, ge=1)
    """New or changed pieces of feedback since the last cycle that start the next."""


class JudgeSettings(WithApiKey):
    """A language model that compares two answers, for texts that no gold answer equals."""

    url: Url
    """An OpenAI-compatible API, with its `/v1`."""
    model: str = Field(min_length=1)
    """As that API names it."""
    timeout_seconds: float = Field(60, gt=0)
    concurrency: int = Field(8, ge=1, le=256)
    """Calls at once."""

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint.model_validate(self.model_dump(include=set(Endpoint.model_fields)))


class ScheduleSettings(Value):
    """When cycles may start, besides when enough feedback has come in."""

    cron: str | None = None
    """Five fields, in `timezone`: a cycle starts then, whatever has come in."""
    timezone: str = "UTC"
    cooldown_minutes: float = Field(60, ge=0)
    """Least time from the end of one cycle to the start of the next."""

    @model_validator(mode="after")
    def _valid(self) -> Self:
        try:
            zone = ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError) as unknown:
            raise ValueError(
                f"timezone {self.timezone!r} is not an IANA name such as Europe/Berlin"
            ) from unknown
        if self.cron is not None:
            CronTrigger.from_crontab(self.cron, timezone=zone)
        return self

    @property
    def cooldown(self) -> timedelta:
        return timedelta(minutes=self.cooldown_minutes)


class RetentionRules(Value):
    """How many old versions keep their files."""

    keep: int = Field(5, ge=1)
    """Retired and rejected versions of a target; active, ready, held and last good ones always stay."""


def _known_hyperparameters(overrides: dict[str, Any]) -> dict[str, Any]:
    known = ", ".join(Hyperparameters.model_fields)
    for method in get_args(Method):
        try:
            Hyperparameters.model_validate(overrides_for(method, overrides))
        except (ValidationError, ValueError, TypeError) as wrong:
            said = _explain(wrong).strip() if isinstance(wrong, ValidationError) else str(wrong)
            raise ValueError(f"{said} (there are: {known}; or a table for one method)") from None
    return overrides


USUAL: Mapping[str | None, Mapping[str, Mapping[str, Any]]] = {
    # What people say of a conversation is about each of its turns.
    "chat": {"feedback": {"inherit": "all"}},
    "embedding": {"spans": {"kind": "RETRIEVER"}, "feedback": {"annotations": (RELEVANCE,)}},
}
"""Defaults of a target's sections that differ by task."""


class TargetSettings(Value):
    """What is being improved: a tenant's agent, its traffic, and the model it runs on."""

    tenant: Slug
    agent: Slug
    project: str = Field(min_length=1)
    """Phoenix project."""
    task: Task
    output_space: tuple[str, ...] = ()
    """All valid answers of a classification; empty: those seen in training."""
    base_model: str = Field(min_length=1)
    """Hub id or folder; the same model that the replicas serve."""
    spans: SpanFilter = SpanFilter()
    feedback: FeedbackRules = FeedbackRules()
    retrieval: RetrievalRules = RetrievalRules()
    """For the task `embedding`: where a search says which documents were used."""
    quality: QualityRules = QualityRules()
    redaction: RedactionRules = RedactionRules()
    golden: Path | None = None
    """JSONL of golden cases (`prompt`, `completion`); nothing like them is ever trained on."""
    synthesis: SynthesisSettings = SynthesisSettings()
    thresholds: TargetThresholds = TargetThresholds()
    holdout: HoldoutRules = HoldoutRules()
    gate: Gate = Gate()
    evaluate_with: Literal["transformers", "replica"] = "transformers"
    """`replica` has a replica answer the held-out prompts, too; a verdict stands where both lead to it. Where
    none can be asked for an hour it is INCONCLUSIVE."""
    judge: JudgeSettings | None = None
    """Compares the candidate's answers with those of what is live; decides where `gate.metrics` names it."""
    schedule: ScheduleSettings = ScheduleSettings()
    retention: RetentionRules = RetentionRules()
    promotion: Literal["automatic", "manual"] = "automatic"
    replicas: tuple[str, ...] = ()
    """Names of the replicas that serve it; empty: all."""
    max_new_tokens: int = Field(64, ge=1)
    """Longest answer in the evaluation, in tokens."""
    hyperparameters: Annotated[dict[str, Any], AfterValidator(_known_hyperparameters)] = {}
    """Overrides of the chosen hyperparameters, by name; a table under a method's name
    (`[targets.hyperparameters.dpo]`) holds for that method alone."""
    seeds: int = Field(1, ge=1, le=9)
    """Trainings of each plan, with as many seeds; the candidate is the median one on the holdout."""
    preset: Preset = "efficient"
    """`efficient` learns soon and with little memory; `quality` takes about twice as long."""

    @model_validator(mode="before")
    @classmethod
    def _as_the_task_wants(cls, given: Any) -> Any:
        """Defaults that depend on the task; what the settings say themselves stands."""
        usual = USUAL.get(given.get("task"), {}) if isinstance(given, dict) else {}
        for section, defaults in usual.items():
            said = given.get(section, {})
            if isinstance(said, dict):
                given = {**given, section: {**defaults, **said}}
        return given

    @model_validator(mode="after")
    def _metrics_known(self) -> Self:
        unknown = sorted(set(self.gate.metrics) - set(METRICS[self.task]))
        if unknown:
            raise ValueError(
                f"gate.metrics: the task {self.task} has no {', '.join(unknown)} "
                f"(there are: {', '.join(METRICS[self.task])})"
            )
        if JUDGE in self.gate.metrics and self.judge is None:
            raise ValueError(
                "gate.metrics names the judge, and there is no [targets.judge] with url and model"
            )
        return self

    @property
    def key(self) -> str:
        """`tenant/agent`: names the target, and is the alias that agents ask for."""
        return f"{self.tenant}/{self.agent}"

    @property
    def slug(self) -> str:
        """`tenant.agent`: the same in file and adapter names."""
        return f"{self.tenant}.{self.agent}"


class Settings(BaseSettings):
    """Everything that `learnd` can be told."""

    model_config = SettingsConfigDict(
        env_prefix="LEARND_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
    )

    data_dir: Annotated[Path, AfterValidator(Path.absolute)] = Path("learnd-data")
    """Store, snapshots, adapters, logs."""
    phoenix: PhoenixSettings = PhoenixSettings()
    daemon: DaemonSettings = DaemonSettings()
    gateway: GatewaySettings = GatewaySettings()
    agents: AgentSettings = AgentSettings()
    operators: OperatorSettings = OperatorSettings()
    notify: tuple[NotifySettings, ...] = ()
    training: TrainingSettings = TrainingSettings()
    replicas: tuple[ReplicaSettings, ...] = ()
    targets: tuple[TargetSettings, ...] = Field((), validate_default=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment before file: pydantic-settings merges them, the first wins."""
        return env_settings, init_settings

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        names = [replica.name for replica in self.replicas]
        if len(names) != len(set(names)):
            raise ValueError(f"replicas: two have the same name among {names}")
        told = [each.name for each in self.notify]
        if len(told) != len(set(told)):
            raise ValueError(f"notify: two have the same name among {told}")
        keys = [target.key for target in self.targets]
        if len(keys) != len(set(keys)):
            raise ValueError(f"targets: two are the same tenant/agent among {keys}")
        for index, target in enumerate(self.targets):
            unknown = set(target.replicas) - set(names)
            if unknown:
                raise ValueError(
                    f"targets.{index}.replicas: {sorted(unknown)} not among the replicas {names}"
                )
            if target.evaluate_with == "replica" and not self.replicas_of(target):
                raise ValueError(
                    f"targets.{index}.evaluate_with: no replica serves {target.key}"
                    f"{', since agents load embeddings themselves' if target.task == 'embedding' else ''}; "
                    "leave it out, or add one under [[replicas]]"
                )
        return self

    def target(self, key: str) -> TargetSettings:
        """The target `tenant/agent`. Raises SettingsError naming those there are."""
        for target in self.targets:
            if target.key == key:
                return target
        known = ", ".join(target.key for target in self.targets) or "none"
        raise SettingsError(f"no target {key!r} in the settings (there are: {known})")

    def replicas_of(self, target: TargetSettings) -> tuple[ReplicaSettings, ...]:
        """The replicas that serve `target`; none serves embeddings, which agents load themselves."""
        if target.task == "embedding":
            return ()
        return tuple(r for r in self.replicas if not target.replicas or r.name in target.replicas)


def load_settings(path: Path) -> Settings:
    """Read `path` and the environment.

    Relative paths in the file are relative to it, those in the environment to the working folder.
    Raises SettingsError with every wrong key.
    """
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise SettingsError(
            f"no settings file at {path}; `learnd init` writes one, --config names another"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as broken:
        raise SettingsError(f"{path} is not valid TOML: {broken}") from None
    secrets = sorted(_secrets_in(content))
    if secrets:
        raise SettingsError(
            f"{path}: {', '.join(secrets)}: secrets do not belong in the settings file; "
            "name a file with `…_file`, or set the LEARND_… environment variable"
        )
    try:
        return Settings(**_beside({"data_dir": "learnd-data"} | content, path.parent))
    except ValidationError as wrong:
        raise SettingsError(f"{path}:\n{_explain(wrong)}") from None
    except VariableUnreadable as wrong:
        set_now = ", ".join(environment_names())
        raise SettingsError(
            f"one of the environment variables {set_now} should be JSON and is not: {wrong}"
        ) from None


def read_secret(path: Path) -> str:
    """Content of a secret's file, without the space around it. Raises SettingsError."""
    try:
        return path.read_text("utf-8").strip()
    except OSError as unreadable:
        raise SettingsError(f"cannot read the secret in {path}: {unreadable.strerror}") from None


def environment_names() -> list[str]:
    """The `LEARND_*` variables that are set, without their values."""
    return sorted(name for name in os.environ if name.startswith("LEARND_"))


def _beside(content: Any, folder: Path) -> Any:
    """`content` with the paths among its values made absolute, from `folder`."""
    if isinstance(content, list):
        return [_beside(item, folder) for item in content]
    if not isinstance(content, dict):
        return content
    return {
        key: str((folder / value).resolve()) if _is_path(key, value, folder) else _beside(value, folder)
        for key, value in content.items()
    }


PATHS = {"data_dir", "api_key_file", "tokens_file", "users_file", "secret_file", "golden"}
SECRETS = {"api_key", "tokens", "password_hash", "secret"}


def _is_path(key: str, value: Any, folder: Path) -> bool:
    """A base model may be a folder; otherwise it is a hub's id."""
    if not isinstance(value, str):
        return False
    return key in PATHS or (key == "base_model" and bool(value) and (folder / value).is_dir())


def _secrets_in(content: Mapping[str, Any], path: str = "") -> Iterator[str]:
    for key, value in content.items():
        here = f"{path}.{key}" if path else key
        if key in SECRETS:
            yield here
        elif isinstance(value, dict):
            yield from _secrets_in(value, here)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, dict):
                    yield from _secrets_in(item, f"{here}.{index}")


def _explain(wrong: ValidationError) -> str:
    """One line a problem: the key's path, what is wrong; never the value, which may be a secret."""
    return "\n".join(
        f"  {_path(error['loc'])}: {_what(error)}"
        for error in wrong.errors(include_input=False, include_url=False)
    )


def _what(error: ErrorDetails) -> str:
    if error["type"] != "extra_forbidden":
        return error["msg"].removeprefix("Value error, ")
    given, known = str(error["loc"][-1]), _keys()
    near = get_close_matches(given, known, n=1) if given not in known else []
    return f"there is no such key here{f'; did you mean {near[0]}?' if near else ''}"


@cache
def _keys() -> frozenset[str]:
    """The keys of all sections."""
    schema = Settings.model_json_schema()
    return frozenset(
        key for each in (schema, *schema["$defs"].values()) for key in each.get("properties", {})
    )


def _path(location: tuple[int | str, ...]) -> str:
    # The keys of `agents.tokens` and `operators.tokens` are the tokens themselves.
    shown = location[:2] if location[1:2] == ("tokens",) else location
    return ".".join(map(str, shown)) or "settings"
