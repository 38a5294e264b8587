"""Settings of the processes and servers: Phoenix, daemon, gateway, replicas."""

from pathlib import Path
from typing import Literal, Self, get_args

from pydantic import Field, SecretStr, model_validator

from daemon.settings.types import Port, Slug, Url, WithApiKey, read_secret
from extractors.values import Value
from registry.notices import Event
from trainers.planning.limits import Limits


class PhoenixSettings(WithApiKey):
    """The Phoenix server that holds the agents' traces and feedback."""

    url: Url = "http://127.0.0.1:6006"
    """The address of Phoenix."""
    poll_seconds: float = Field(30, gt=0)
    """Seconds between two polls of a target's project."""
    full_sweep_minutes: float = Field(30, gt=0)
    """Minutes between two readings of all feedback. Only these notice annotations that were deleted."""
    experiments_project: str = Field("learnd-experiments", min_length=1)
    """The Phoenix project that gets a span for each training and each evaluation. It is not the project of an
    agent, since a training takes minutes and would spoil the latencies that Phoenix shows for the agent's
    calls."""
    browser_url: Url | None = None
    """The address of Phoenix for people's browsers, which the console links to. Without it, `url` is used."""

    @property
    def public_url(self) -> str:
        """The address of Phoenix for people's browsers."""
        return self.browser_url or self.url


class DaemonSettings(Value):
    """The daemon, `learnd run`: its API and console, its log, and how much it does at the same time."""

    host: str = "127.0.0.1"
    """The address on which the API and the console listen. An address other than 127.0.0.1 requires agents'
    tokens."""
    port: Port = 8710
    """The port of the API and the console."""
    allowed_hosts: tuple[str, ...] = ()
    """The names and addresses by which people and agents reach the API and the console, without a port, such
    as `learnd.example.com`. `localhost`, `127.0.0.1`, `::1` and `host` always count. `*` allows any name;
    without tokens, any web page can then reach the API by DNS rebinding. `/healthz` and `/readyz` answer to
    any name."""
    trainings_at_once: int = Field(1, ge=1)
    """How many cycles may train or evaluate at the same time."""
    reconcile_seconds: float = Field(15, gt=0)
    """Seconds between two checks that each replica serves what it should."""
    log_format: Literal["console", "json"] = "console"
    """`console` writes lines for people, `json` writes one JSON object a line."""


class GatewaySettings(Value):
    """The gateway, `learnd gateway`: an OpenAI-compatible API for agents."""

    host: str = "127.0.0.1"
    """The address on which the gateway listens. An address other than 127.0.0.1 requires agents' tokens."""
    port: Port = 8700
    """The port of the gateway."""
    daemon_url: Url | None = None
    """The address of the daemon, which tells the gateway which version of each target is active. Without it,
    the daemon listens on this machine, at `daemon.host` and `daemon.port`."""
    daemon_token: SecretStr | None = None
    """The bearer token with which the gateway asks the daemon. Both need it as soon as agents have tokens. It
    opens nothing else, and is read from the environment only."""
    daemon_token_file: Path | None = None
    """A file that contains `daemon_token`."""
    state_dir: Path | None = None
    """The gateway's own folder, in which it keeps what the daemon told it last, so that it starts without the
    daemon. Without it, `gateway` in `data_dir`."""
    max_body_mb: float = Field(16, gt=0)
    """The size of the largest request that the gateway accepts, in MiB."""
    trace: bool = True
    """Whether the gateway writes a span to Phoenix for each call."""

    def read_daemon_token(self) -> str | None:
        """Return the token, or None. Raises SettingsError when the file cannot be read."""
        if self.daemon_token is not None:
            return self.daemon_token.get_secret_value()
        return read_secret(self.daemon_token_file) if self.daemon_token_file else None


class NotifySettings(Value):
    """A receiver of notifications: a webhook or a command."""

    name: Slug
    """The receiver's name in the log. What was delivered is remembered under this name."""
    url: Url | None = None
    """The webhook to which each event is posted as JSON. A receiver has either a `url` or a `command`."""
    command: tuple[str, ...] = ()
    """The program that is run for each event, with its arguments. It gets the event as JSON on its standard
    input."""
    secret: SecretStr | None = None
    """The secret that signs each post. It is read from the environment only (`LEARND_NOTIFY`, as JSON)."""
    secret_file: Path | None = None
    """A file that contains the secret. Without a secret, posts are not signed."""
    events: tuple[Event, ...] = get_args(Event)
    """The events that are sent to the receiver. By default it gets all of them."""
    timeout_seconds: float = Field(10, gt=0)
    """The longest time that one delivery may take, in seconds."""

    @model_validator(mode="after")
    def _check_one_way(self) -> Self:
        if (self.url is None) == (not self.command):
            raise ValueError("it needs a url or a command, and not both")
        if self.command and (self.secret or self.secret_file):
            raise ValueError("a command is not signed: leave the secret out")
        return self

    def read_key(self) -> str | None:
        """Return the secret, or None. Raises SettingsError when the file cannot be read."""
        if self.secret is not None:
            return self.secret.get_secret_value()
        return read_secret(self.secret_file) if self.secret_file else None


class PathMap(Value):
    """A folder that has another path on the replica's machine."""

    local: str
    """The beginning of the path on learnd's machine."""
    remote: str
    """The beginning of the same path on the replica's machine."""


class ReplicaSettings(WithApiKey):
    """A vLLM server."""

    name: Slug
    """The server's name in the log, in the metrics and in a target's `replicas`."""
    url: Url
    """The address of the server, without `/v1`."""
    base_name: str = "base"
    """The name under which the server serves the base model (vLLM's `--served-model-name`)."""
    path_map: PathMap | None = None
    """How the server finds the data directory, if its path there is not the same as on learnd's machine."""


class TrainingSettings(Value):
    """The machine that trains, and the limits of a training."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """The device of trainings and evaluations. `auto` uses a GPU if there is one."""
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """The precision in which a model computes. `auto` is bfloat16 if the device supports it, else float32."""
    threads: int | None = Field(None, ge=1)
    """CPU threads of a training or an evaluation. Without it, PyTorch decides."""
    max_lora_rank: int = Field(16, ge=1)
    """The highest rank of an adapter. It must not be above the lowest `--max-lora-rank` of the replicas."""
    quantization: Literal["auto", "always", "never"] = "auto"
    """Whether the base model is held in 4 bits during training (QLoRA). `auto` does so only if the memory is
    too small otherwise."""
    share_prefixes: bool = True
    """Whether examples with the same beginning are trained as one sequence, which saves time. It is done only
    where the result is exactly the same."""
    max_minutes: float | None = Field(None, gt=0)
    """The longest time that the trainings of a cycle may take, in minutes. Then the best checkpoint so far is
    the result. Without it there is no limit."""
    max_cost: float | None = Field(None, gt=0)
    """The most that the trainings of a cycle may cost, in `currency`. It needs `price_per_hour`. Without it
    there is no limit."""
    price_per_hour: float | None = Field(None, ge=0)
    """The price of an hour of the machine that trains, in `currency`. It is used for `max_cost` and `learnd
    estimate`."""
    currency: str = "USD"
    """The currency of `max_cost` and `price_per_hour`, as it is shown."""

    def format_price(self, seconds: float) -> str | None:
        """Return the price of `seconds` of training, such as `2.50 USD`; None without a price per hour."""
        if self.price_per_hour is None:
            return None
        return f"{self.price_per_hour * seconds / 3600:.2f} {self.currency}"

    @property
    def limits(self) -> Limits:
        """The limits of a cycle's trainings."""
        return Limits(
            max_minutes=self.max_minutes, max_cost=self.max_cost, price_per_hour=self.price_per_hour
        )

    @model_validator(mode="after")
    def _check_price(self) -> Self:
        if self.max_cost is not None and not self.price_per_hour:
            raise ValueError("max_cost needs a price_per_hour above 0")
        return self
