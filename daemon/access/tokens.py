"""Bearer tokens: whose caller this is, and that nobody is served from the network without one."""

import hashlib
from collections.abc import Mapping

from extractors.errors import LearndError
from extractors.values import Value

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
"""Hosts that nobody beyond this machine can reach."""


class TokensMissing(LearndError):
    """A server would listen to the network without tokens, or with one that anybody can guess."""


class Caller(Value):
    """Who is asking. Without tokens there is one caller, who sees every tenant."""

    tenant: str | None

    def sees(self, tenant: str) -> bool:
        return self.tenant is None or self.tenant == tenant


class TokenDigests:
    """Whose a token is. Looked up by digest: how long that takes says nothing about the tokens themselves."""

    def __init__(self, whose: Mapping[str, str]) -> None:
        self._whose = {digest_secret(token): name for token, name in whose.items()}

    def __len__(self) -> int:
        return len(self._whose)

    def get(self, token: str | None) -> str | None:
        return None if token is None else self._whose.get(digest_secret(token))


def parse_bearer(authorization: str | None) -> str | None:
    """The token of an `Authorization` header; None where it holds no bearer token."""
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


class Tokens:
    """Which tenant a bearer token belongs to; without tokens everybody on this machine is welcome."""

    def __init__(self, tokens: Mapping[str, str]) -> None:
        self._tenants = TokenDigests(tokens)

    def caller(self, authorization: str | None) -> Caller | None:
        """The caller who sends this `Authorization` header; None when the token is missing or wrong."""
        if not self._tenants:
            return Caller(tenant=None)
        tenant = self._tenants.get(parse_bearer(authorization))
        return None if tenant is None else Caller(tenant=tenant)


def check_tokens(host: str, tokens: Mapping[str, str]) -> None:
    """Raises TokensMissing when listening on `host` would let strangers in."""
    if not tokens and host not in LOOPBACK:
        raise TokensMissing(
            f"listening on {host} without agents' tokens would let anybody in: set LEARND_AGENTS__TOKENS or "
            "agents.tokens_file, or listen on 127.0.0.1"
        )
    if any(not token.strip() for token in tokens):
        raise TokensMissing(
            "one of the agents' tokens is empty, which anybody can send: give it a value or remove it"
        )


def digest_secret(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
