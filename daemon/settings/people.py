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
    """Agents' access to the gateway and to the daemon's API."""

    tokens: dict[SecretStr, Slug] = {}
    """Bearer token to tenant; only from the environment (`LEARND_AGENTS__TOKENS`, JSON)."""
    tokens_file: Path | None = None
    """File with a line `TOKEN TENANT` for each token; `#` begins a comment."""
    cache_seconds: float = Field(30, gt=0)
    """How long a client may go on using a version it resolved; the old one stays loaded as long."""

    def read_tokens(self) -> dict[str, str]:
        """Token to tenant. Raises SettingsError when the file cannot be read or has a bad line."""
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
"""What decisions and the audit log are signed with; an e-mail address will do."""


Role = Literal["operator", "viewer"]
"""Operators decide, viewers read."""


class OperatorAccount(Value):
    """A person who may sign in."""

    role: Role = "operator"
    """Operators decide, viewers read."""
    password_hash: SecretStr | None = None
    """As `learnd operators hash` prints it; only from the environment. None: no sign-in by password."""


def check_network(written: str) -> str:
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
    proxy_addresses: tuple[Annotated[str, AfterValidator(check_network)], ...] = ()
    """Addresses or networks of that proxy; from anywhere else the header is not believed."""
    proxy_role: Role | None = None
    """Role of those whom the proxy names and `users` does not; None: they have none."""

    @model_validator(mode="after")
    def _trusts_somebody(self) -> Self:
        if self.proxy_header and not self.proxy_addresses:
            raise ValueError("proxy_header needs the proxy_addresses from which it is believed")
        return self

    def read_accounts(self) -> dict[str, OperatorAccount]:
        """Everybody by name. Raises SettingsError when the file cannot be read or has a bad line."""
        found = dict(self.users)
        for where, words in read_lines("operators.users_file", self.users_file, "NAME ROLE HASH"):
            name, role, hashed = words
            account = {"role": role} if hashed == "-" else {"role": role, "password_hash": hashed}
            try:
                found |= _ACCOUNTS.validate_python({name: account})
            except ValidationError as wrong:
                raise SettingsError(
                    f"{where}: {explain(wrong, OperatorAccount.model_fields).strip()}"
                ) from None
        return found

    def read_tokens(self) -> dict[str, str]:
        """Token to name. Raises SettingsError when the file cannot be read, or names nobody we know."""
        tokens = {token.get_secret_value(): name for token, name in self.tokens.items()}
        for _, (token, name) in read_lines("operators.tokens_file", self.tokens_file, "TOKEN NAME"):
            tokens[token] = name
        unknown = sorted(set(tokens.values()) - self.read_accounts().keys())
        if unknown:
            raise SettingsError(f"operators: tokens of {', '.join(unknown)}, who are not among the users")
        return tokens


_ACCOUNTS = TypeAdapter(dict[PersonName, OperatorAccount])
