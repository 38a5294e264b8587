"""The settings: one TOML file, with `LEARND_*` environment variables on top.

`LEARND_PHOENIX__URL` sets `url` in `[phoenix]`; lists are JSON. Secrets never stand in the
file: they come from the environment (`LEARND_PHOENIX__API_KEY`) or from a file that the
settings name (`api_key_file`). Loading fails with the key's path and what would be right.
"""

import os
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings import SettingsError as VariableUnreadable

from daemon.settings.environment import PREFIX, find_misspelt, list_variables
from daemon.settings.errors import Location, explain
from daemon.settings.people import AgentSettings, OperatorSettings
from daemon.settings.servers import (
    DaemonSettings,
    GatewaySettings,
    NotifySettings,
    PhoenixSettings,
    ReplicaSettings,
    TrainingSettings,
)
from daemon.settings.target import TargetSettings
from daemon.settings.types import EVERY_ADDRESS, SettingsError


class Settings(BaseSettings):
    """All settings of learnd."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
    )

    data_dir: Annotated[Path, AfterValidator(Path.absolute)] = Path("learnd-data")
    """Folder of the store, the snapshots, the adapters and the runs' logs. Only learnd's own user can
    read it; permissions of others are taken away."""
    adapters_group: str | None = None
    """The name or number of a group that may read the adapters, and nothing else in `data_dir`. Model servers
    that do not run as learnd's user belong to it; learnd's user has to belong to it, too."""
    phoenix: PhoenixSettings = PhoenixSettings()
    """The Phoenix server that holds the agents' traces and feedback."""
    daemon: DaemonSettings = DaemonSettings()
    """The daemon, `learnd run`."""
    gateway: GatewaySettings = GatewaySettings()
    """The gateway for agents, `learnd gateway`."""
    agents: AgentSettings = AgentSettings()
    """How agents authenticate."""
    operators: OperatorSettings = OperatorSettings()
    """How people authenticate, and who may decide."""
    notify: tuple[NotifySettings, ...] = ()
    """Receivers of notifications."""
    training: TrainingSettings = TrainingSettings()
    """The machine that trains, and the limits of a training."""
    replicas: tuple[ReplicaSettings, ...] = ()
    """The vLLM servers that serve the adapters."""
    targets: tuple[TargetSettings, ...] = Field((), validate_default=True)
    """The agents that learn."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put the environment before the file: pydantic-settings merges them, and the first wins."""
        return env_settings, init_settings

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        names = [replica.name for replica in self.replicas]
        if len(names) != len(set(names)):
            raise ValueError(f"replicas: two have the same name among {names}")
        receivers = [each.name for each in self.notify]
        if len(receivers) != len(set(receivers)):
            raise ValueError(f"notify: two have the same name among {receivers}")
        keys = [target.key for target in self.targets]
        if len(keys) != len(set(keys)):
            raise ValueError(f"targets: two are the same tenant/agent among {keys}")
        for index, target in enumerate(self.targets):
            unknown = set(target.replicas) - set(names)
            if unknown:
                raise ValueError(
                    f"targets.{index}.replicas: {sorted(unknown)} not among the replicas {names}"
                )
            if target.evaluate_with == "replica" and not self.find_replicas(target):
                raise ValueError(
                    f"targets.{index}.evaluate_with: no replica serves {target.key}"
                    f"{', since agents load embeddings themselves' if target.task == 'embedding' else ''}; "
                    "leave it out, or add one under [[replicas]]"
                )
        return self

    @property
    def gateway_state_dir(self) -> Path:
        """The gateway's own folder."""
        return self.gateway.state_dir or self.data_dir / "gateway"

    @property
    def daemon_url(self) -> str:
        """The address at which the gateway asks the daemon."""
        if self.gateway.daemon_url is not None:
            return self.gateway.daemon_url
        host = "127.0.0.1" if self.daemon.host in EVERY_ADDRESS else self.daemon.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.daemon.port}"

    def find_target(self, key: str) -> TargetSettings:
        """Return the target `key` (`tenant/agent`). Raises SettingsError, which names the known targets."""
        for target in self.targets:
            if target.key == key:
                return target
        known = ", ".join(target.key for target in self.targets) or "none"
        raise SettingsError(f"no target {key!r} in the settings (there are: {known})")

    def find_replicas(self, target: TargetSettings) -> tuple[ReplicaSettings, ...]:
        """Return the replicas that serve `target`; none serves embeddings, which agents load themselves."""
        if target.task == "embedding":
            return ()
        return tuple(r for r in self.replicas if not target.replicas or r.name in target.replicas)


def load_settings(path: Path) -> Settings:
    """Read `path` and the environment.

    Relative paths in the file are relative to its folder, those in the environment to the working folder.
    Raises SettingsError with every wrong key or variable.
    """
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise SettingsError(
            f"no settings file at {path}; `learnd init` writes one, --config names another"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as broken:
        raise SettingsError(f"{path} is not valid TOML: {broken}") from None
    secrets = sorted(_find_secrets(content))
    if secrets:
        raise SettingsError(
            f"{path}: {', '.join(secrets)}: secrets do not belong in the settings file; "
            "name a file with `…_file`, or set the LEARND_… environment variable"
        )
    misspelt = list(find_misspelt(os.environ, Settings))
    if misspelt:
        raise SettingsError("\n".join(["environment variables:", *misspelt]))
    try:
        return Settings(**_resolve_paths({"data_dir": "learnd-data"} | content, path.parent))
    except ValidationError as wrong:
        raise SettingsError(f"{path}:\n{explain(wrong, _find_keys)}") from None
    except VariableUnreadable as wrong:
        set_now = ", ".join(list_variables())
        raise SettingsError(
            f"one of the environment variables {set_now} should be JSON and is not: {wrong}"
        ) from None


@cache
def _build_schema() -> dict[str, Any]:
    return Settings.model_json_schema()


def _find_keys(location: Location) -> list[str]:
    """Return the keys of the table at `location`."""
    tables = [_build_schema()]
    for step in location:
        tables = [inner for table in tables for inner in _find_schemas(table, step)]
    return [key for table in tables for key in table.get("properties", {})]


def _find_schemas(table: dict[str, Any], step: int | str) -> Iterator[dict[str, Any]]:
    """Yield the schemas of what stands in a table under a key, or in a list at an index."""
    by_key = (
        table.get("properties", {}).get(step),
        *table.get("patternProperties", {}).values(),
        table.get("additionalProperties"),
    )
    found = (table.get("items"),) if isinstance(step, int) else by_key
    inner = next((each for each in found if isinstance(each, dict)), None)
    if inner is not None:
        for each in inner.get("anyOf", [inner]):
            name = each.get("$ref", "").removeprefix("#/$defs/")
            yield _build_schema()["$defs"][name] if name else each


def _resolve_paths(content: Any, folder: Path) -> Any:
    """Return `content` with its relative paths resolved against `folder`."""
    if isinstance(content, list):
        return [_resolve_paths(item, folder) for item in content]
    if not isinstance(content, dict):
        return content
    return {
        key: str((folder / value).resolve())
        if _is_path(key, value, folder)
        else _resolve_paths(value, folder)
        for key, value in content.items()
    }


PATHS = {
    "data_dir",
    "api_key_file",
    "daemon_token_file",
    "golden",
    "secret_file",
    "state_dir",
    "tokens_file",
    "users_file",
}
SECRETS = {"api_key", "daemon_token", "tokens", "password_hash", "secret"}


def _is_path(key: str, value: Any, folder: Path) -> bool:
    """Return whether the value is a path: a base model may be a folder or a hub id."""
    if not isinstance(value, str):
        return False
    return key in PATHS or (key == "base_model" and bool(value) and (folder / value).is_dir())


def _find_secrets(content: Mapping[str, Any], path: str = "") -> Iterator[str]:
    for key, value in content.items():
        here = f"{path}.{key}" if path else key
        if key in SECRETS:
            yield here
        elif isinstance(value, dict):
            yield from _find_secrets(value, here)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, dict):
                    yield from _find_secrets(item, f"{here}.{index}")
