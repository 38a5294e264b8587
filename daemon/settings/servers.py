"""Settings of the processes and servers: Phoenix, daemon, gateway, replicas."""

from pathlib import Path
from typing import Literal, Self, get_args

from pydantic import Field, SecretStr, model_validator

from daemon.settings.types import Port, Slug, Url, WithApiKey, read_secret
from extractors.values import Value
from registry.notices import Event
from trainers.planning.limits import Limits


class PhoenixSettings(WithApiKey):
    """Where the agents' traces are."""

    url: Url = "http://127.0.0.1:6006"
    """Where Phoenix answers."""
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
    def public_url(self) -> str:
        """Where people look at it."""
        return self.browser_url or self.url


class DaemonSettings(Value):
    """`learnd run`: its API, its log, and how much it does at once."""

    host: str = "127.0.0.1"
    """The address that the API and the console listen on; others than 127.0.0.1 only with agents' tokens."""
    port: Port = 8710
    """The port of the API and the console."""
    trainings_at_once: int = Field(1, ge=1)
    """Cycles that train or evaluate at the same time."""
    reconcile_seconds: float = Field(15, gt=0)
    """How often each replica is compared with what it should serve."""
    log_format: Literal["console", "json"] = "console"
    """Text for people, or one JSON object a line."""


class GatewaySettings(Value):
    """`learnd gateway`: the OpenAI-compatible door for agents."""

    host: str = "127.0.0.1"
    """The address that the gateway listens on; others than 127.0.0.1 only with agents' tokens."""
    port: Port = 8700
    """The port of the gateway."""
    refresh_seconds: float = Field(1.0, gt=0)
    """How often the gateway looks which version is active."""
    max_body_mb: float = Field(16, gt=0)
    """The largest request, in MiB."""
    trace: bool = True
    """Write each call to Phoenix as a span."""


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

    def read_key(self) -> str | None:
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
    """Names the server in the log, the metrics and `targets.replicas`."""
    url: Url
    """Where the server answers, without `/v1`."""
    base_name: str = "base"
    """The name under which it serves the base model (`--served-model-name`)."""
    path_map: PathMap | None = None
    """Needed where vLLM's file system is not learnd's."""


class TrainingSettings(Value):
    """Where and how trainings run."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where trainings and evaluations run; `auto` takes a GPU where there is one."""
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

    def format_price(self, seconds: float) -> str | None:
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
