"""Settings of those who may ask: agents, operators, accounts."""

from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, TypeAdapter, ValidationError, model_validator

from daemon.settings.errors import explain
from daemon.settings.types import SettingsError, Slug, read_lines
from extractors.values import Value
from registry.audit import DAEMON


class AgentSettings(Value):
    """How agents authenticate to the gateway and to the daemon's API."""

    tokens: dict[SecretStr, Slug] = {}
    """A tenant for each bearer token. It is read from the environment only (`LEARND_AGENTS__TOKENS`, as
    JSON)."""
    tokens_file: Path | None = None
    """A file with a line `TOKEN TENANT` for each token; `#` begins a comment."""
    cache_seconds: float = Field(30, gt=0)
    """How long the client of an agent may use a version before it asks again, in seconds. A version that was
    replaced stays loaded for at least as long."""

    def read_tokens(self) -> dict[str, str]:
        """Return the tenant of each token. Raises SettingsError for an unreadable file or a bad line."""
        tokens = {token.get_secret_value(): tenant for token, tenant in self.tokens.items()}
        for _, (token, tenant) in read_lines("agents.tokens_file", self.tokens_file, "TOKEN TENANT"):
            tokens[token] = tenant
        return tokens


def check_person_name(name: str) -> str:
    if name == DAEMON:
        raise ValueError(f"{DAEMON!r} is what the audit log calls the daemon; a person needs another name")
    return name


PersonName = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}$"), AfterValidator(check_person_name)
]
"""The name in decisions and in the audit log; an e-mail address is possible."""
Role = Literal["operator", "viewer"]
"""Operators decide, viewers read."""


class OperatorAccount(Value):
    """A person who may sign in."""

    role: Role = "operator"
    """`operator` may decide, `viewer` may only read."""
    password_hash: SecretStr | None = None
    """The hash that `learnd operators hash` prints. It is read from the environment only. Without it, the
    person cannot sign in with a password."""


def check_network(written: str) -> str:
    ip_network(written)
    return written


class OperatorSettings(Value):
    """How people sign in to the console and the API, and who may decide."""

    users: dict[PersonName, OperatorAccount] = {}
    """An account for each name. A password's hash is read from the environment only
    (`LEARND_OPERATORS__USERS__ANN__PASSWORD_HASH`)."""
    users_file: Path | None = None
    """A file with a line `NAME ROLE HASH` for each person, with `-` for no password; `#` begins a comment."""
    tokens: dict[SecretStr, PersonName] = {}
    """A person for each bearer token, for programs that act in somebody's name. It is read from the
    environment only, as JSON."""
    tokens_file: Path | None = None
    """A file with a line `TOKEN NAME` for each token; `#` begins a comment."""
    session_hours: float = Field(12, gt=0)
    """Hours after which a person has to sign in again."""
    proxy_header: str | None = Field(None, pattern=r"^[A-Za-z0-9-]+$")
    """The header in which a proxy names the person that it has signed in, such as `X-Forwarded-User`."""
    proxy_addresses: tuple[Annotated[str, AfterValidator(check_network)], ...] = ()
    """The addresses or networks of that proxy. The header is ignored in requests from anywhere else."""
    proxy_role: Role | None = None
    """The role of people whom the proxy names and who have no account. Without it, they are refused."""

    @model_validator(mode="after")
    def _check_proxy(self) -> Self:
        if self.proxy_header and not self.proxy_addresses:
            raise ValueError("proxy_header needs the proxy_addresses from which it is believed")
        return self

    def read_accounts(self) -> dict[str, OperatorAccount]:
        """Return each person's account. Raises SettingsError for an unreadable file or a bad line."""
        found = dict(self.users)
        for where, words in read_lines("operators.users_file", self.users_file, "NAME ROLE HASH"):
            name, role, hashed = words
            account = {"role": role} if hashed == "-" else {"role": role, "password_hash": hashed}
            try:
                found |= _ACCOUNTS.validate_python({name: account})
            except ValidationError as wrong:
                raise SettingsError(
                    f"{where}: {explain(wrong, lambda _: OperatorAccount.model_fields).strip()}"
                ) from None
        return found

    def read_tokens(self) -> dict[str, str]:
        """Return the name of each token. Raises SettingsError for an unreadable file or an unknown name."""
        tokens = {token.get_secret_value(): name for token, name in self.tokens.items()}
        for _, (token, name) in read_lines("operators.tokens_file", self.tokens_file, "TOKEN NAME"):
            tokens[token] = name
        unknown = sorted(set(tokens.values()) - self.read_accounts().keys())
        if unknown:
            raise SettingsError(f"operators: tokens of {', '.join(unknown)}, who are not among the users")
        return tokens


_ACCOUNTS = TypeAdapter(dict[PersonName, OperatorAccount])
