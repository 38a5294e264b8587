"""Bearer tokens: they name the caller, and without one nobody is served from the network."""

import hashlib
from collections.abc import Mapping

from extractors.errors import LearndError
from extractors.values import Value

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
"""Hosts that can be reached from this machine only."""


class TokensMissing(LearndError):
    """A server would listen to the network without tokens, or with one that anybody can guess."""


class Caller(Value):
    """An agent that sends a request. Without tokens there is one caller, who sees every tenant."""

    tenant: str | None
    """None: every tenant."""

    def may_see(self, tenant: str) -> bool:
        """Return True if the caller may see this tenant's targets."""
        return self.tenant is None or self.tenant == tenant


class TokenDigests:
    """Owners by the digests of their tokens, so that the time of a look-up reveals nothing about a token."""

    def __init__(self, owners: Mapping[str, str]) -> None:
        """`owners` are names by token."""
        self._owners = {digest_secret(token): name for token, name in owners.items()}

    def __len__(self) -> int:
        return len(self._owners)

    def get(self, token: str | None) -> str | None:
        """Return the token's owner; None where it has none."""
        return None if token is None else self._owners.get(digest_secret(token))


def parse_bearer(authorization: str | None) -> str | None:
    """Return the token of an `Authorization` header; None where it holds no bearer token."""
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


class Tokens:
    """Tenants by bearer token; without any, everybody on this machine may see every tenant."""

    def __init__(self, tokens: Mapping[str, str]) -> None:
        self._tenants = TokenDigests(tokens)

    def find_caller(self, authorization: str | None) -> Caller | None:
        """Return the caller who sends this `Authorization` header; None if the token is missing or wrong."""
        if not self._tenants:
            return Caller(tenant=None)
        tenant = self._tenants.get(parse_bearer(authorization))
        return None if tenant is None else Caller(tenant=tenant)


def check_tokens(host: str, tokens: Mapping[str, str]) -> None:
    """Check that listening on `host` lets no strangers in. Raises TokensMissing."""
    if not tokens and host not in LOOPBACK:
        raise TokensMissing(
            f"listening on {host} without agents' tokens would let anybody in: set LEARND_AGENTS__TOKENS or "
            "agents.tokens_file, or listen on 127.0.0.1"
        )
    if any(not token.strip() for token in tokens):
        raise TokensMissing(
            "one of the agents' tokens is empty, which anybody can send: give it a value or remove it"
        )


def check_gateway_token(tokens: Mapping[str, str], gateway: str | None) -> None:
    """Check that a gateway gets an answer from a daemon whose agents have tokens. Raises TokensMissing."""
    if tokens and not gateway:
        raise TokensMissing(
            "agents have tokens, so the daemon wants one of the gateway, too: set "
            "gateway.daemon_token_file or LEARND_GATEWAY__DAEMON_TOKEN, to the same value for both"
        )


def digest_secret(secret: str) -> bytes:
    """Return the SHA-256 of a token or cookie."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
