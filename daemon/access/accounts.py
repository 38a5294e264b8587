"""Operators' accounts and sessions: a person is known by a session's cookie, a token, or a trusted proxy.

Sessions live in this process's memory. A restart signs everybody out, so that a removed account or a
changed password takes effect at once and no key to a session is on a disk; decisions are durable without
sessions.
"""

import hashlib
import hmac
import secrets
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from threading import BoundedSemaphore, Lock
from typing import Literal

from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import Argon2Error, InvalidHashError, VerificationError
from pydantic import TypeAdapter, ValidationError

from daemon.access.tokens import TokenDigests, TokensMissing, digest_secret
from daemon.settings.people import OperatorAccount, OperatorSettings, PersonName, Role
from daemon.settings.types import SettingsError
from extractors.errors import LearndError
from extractors.values import Value

LONGEST_PASSWORD = 1024
WINDOW = timedelta(minutes=5)
PER_NAME_AND_PEER = 5
PER_NAME = 50
PER_PEER = 30
"""Failed sign-ins in a window. The limit for a name alone is high, or anybody could lock its owner out."""
_NAME = TypeAdapter(PersonName)
NAMELESS = ""
"""Stands for the name where a sign-in shows a token."""
MOST_REMEMBERED = 10_000
"""Most names and peers whose failures are remembered, and most sessions."""
HASHES_AT_ONCE = 2
"""Passwords that are checked at the same time: each takes 64 MiB."""
HASH_SECONDS = 10.0


class SignInRefused(LearndError):
    """Name and password do not belong together, or nobody has that name; the message does not say which."""

    def __init__(self) -> None:
        super().__init__("this name and password do not belong together")


class TooManyAttempts(LearndError):
    """Too many sign-ins failed lately."""

    def __init__(self, wait: timedelta) -> None:
        super().__init__(f"too many sign-ins failed; try again in {wait.total_seconds():.0f} s")
        self.wait = wait


class Person(Value):
    """Somebody who is signed in."""

    name: str
    role: Role
    by: Literal["session", "token", "proxy"]
    csrf_token: str | None = None
    """Every request that changes something must carry it; None for a person with a token, who needs none."""
    expires_at: datetime | None = None
    """When the session ends."""

    def accepts_csrf_token(self, csrf_token: str | None) -> bool:
        """Return True if the token proves that a request comes from our own page.

        A cookie proves nothing: a browser sends it along for any page.
        """
        if self.csrf_token is None:
            return True
        return csrf_token is not None and hmac.compare_digest(
            self.csrf_token.encode(), csrf_token.encode("utf-8", "replace")
        )


class Operators:
    """The people in the settings, and their sessions. Threads share it."""

    def __init__(self, settings: OperatorSettings, clock: Callable[[], datetime]) -> None:
        """Read the accounts. Raises SettingsError for a password hash that is not one of argon2."""
        self._settings = settings
        self._clock = clock
        self._people = settings.read_accounts()
        self._tokens = TokenDigests(settings.read_tokens())
        self._trusted = [ip_network(written) for written in settings.proxy_addresses]
        self._passwords = _PasswordChecker(self._people)
        self._failures = _FailedSignIns()
        self._sessions: dict[bytes, Person] = {}
        self._lock = Lock()
        # Makes the CSRF tokens of a proxy's people valid for this process only.
        self._key = secrets.token_bytes(32)

    @property
    def can_sign_in(self) -> bool:
        """True if the settings name any way to sign in."""
        return bool(self._people) or bool(self._settings.proxy_header and self._settings.proxy_role)

    @property
    def lifetime(self) -> timedelta:
        """Duration of a session."""
        return timedelta(hours=self._settings.session_hours)

    def sign_in(self, name: str, password: str, peer: str) -> tuple[str, Person]:
        """Begin a session, and return its cookie and its person. Raises SignInRefused, TooManyAttempts."""
        now = self._clock()
        # An attempt counts as failed until it has succeeded, so that trying many at once gains nothing.
        self._failures.add(name, peer, now)
        if not self._passwords.matches(name, password):
            raise SignInRefused
        self._failures.forget(name, peer)
        return self._begin_session(name, now)

    def sign_in_by_token(self, token: str, peer: str) -> tuple[str, Person]:
        """Begin a session of the person for whom a token acts. Raises SignInRefused, TooManyAttempts."""
        now = self._clock()
        self._failures.add(NAMELESS, peer, now)
        person = self.find_by_token(token)
        if person is None:
            raise SignInRefused
        self._failures.forget(NAMELESS, peer)
        return self._begin_session(person.name, now)

    def _begin_session(self, name: str, now: datetime) -> tuple[str, Person]:
        cookie = secrets.token_urlsafe(32)
        person = Person(
            name=name,
            role=self._people[name].role,
            by="session",
            csrf_token=secrets.token_urlsafe(32),
            expires_at=now + self.lifetime,
        )
        with self._lock:
            self._forget_expired(now)
            self._sessions[digest_secret(cookie)] = person
        return cookie, person

    def sign_out(self, cookie: str) -> None:
        """End the session, if there is one."""
        with self._lock:
            self._sessions.pop(digest_secret(cookie), None)

    def find_by_session(self, cookie: str | None) -> Person | None:
        """Return the person of a session; None where the session is over."""
        with self._lock:
            person = self._sessions.get(digest_secret(cookie)) if cookie else None
        if person is None or person.expires_at is None or person.expires_at <= self._clock():
            return None
        return person

    def find_by_token(self, token: str) -> Person | None:
        """Return the person that a bearer token acts for."""
        name = self._tokens.get(token)
        return None if name is None else Person(name=name, role=self._people[name].role, by="token")

    def find_by_proxy(self, headers: Mapping[str, str], peer: str) -> Person | None:
        """Return the person that a trusted proxy names; None where it names nobody, or is not trusted."""
        if self._settings.proxy_header is None or not self.is_trusted_proxy(peer):
            return None
        try:
            name = _NAME.validate_python(headers.get(self._settings.proxy_header, "").strip())
        except ValidationError:
            return None
        role = self._people[name].role if name in self._people else self._settings.proxy_role
        if role is None:
            return None
        token = hmac.new(self._key, name.encode("utf-8", "replace"), hashlib.sha256).hexdigest()
        return Person(name=name, role=role, by="proxy", csrf_token=token)

    def is_trusted_proxy(self, peer: str) -> bool:
        """Return True if requests from this address come through the trusted proxy."""
        address = _parse_address(peer)
        return address is not None and any(address in network for network in self._trusted)

    def find_client_address(self, peer: str, forwarded_for: str | None) -> str:
        """Return the address that a request began at: as a trusted proxy says, else the peer's own."""
        for hop in reversed((forwarded_for or "").split(",")):
            if not self.is_trusted_proxy(peer) or _parse_address(hop.strip()) is None:
                break
            peer = hop.strip()
        return peer

    def _forget_expired(self, now: datetime) -> None:
        over = [
            key for key, person in self._sessions.items() if person.expires_at and person.expires_at <= now
        ]
        oldest = list(self._sessions)[: max(0, len(self._sessions) - MOST_REMEMBERED)]
        for key in {*over, *oldest}:
            del self._sessions[key]


def hash_password(password: str) -> str:
    """Return the argon2id line for the settings. Raises LearndError for an empty or too long password."""
    if not password.strip() or len(password) > LONGEST_PASSWORD:
        raise LearndError(f"a password has 1 to {LONGEST_PASSWORD} characters")
    return PasswordHasher().hash(password)


def check_tokens_are_apart(
    agents: Mapping[str, str], operators: Mapping[str, str], gateway: str | None
) -> None:
    """Check that each token of operators and of the gateway is theirs alone. Raises TokensMissing."""
    if gateway is not None and not gateway.strip():
        raise TokensMissing("gateway.daemon_token is empty, which anybody can send; give it a value")
    if gateway is not None and gateway in agents.keys() | operators.keys():
        raise TokensMissing(
            "gateway.daemon_token is also an agent's or an operator's token; the gateway needs one of its own"
        )
    if any(not token.strip() for token in operators):
        raise TokensMissing("one of the operators' tokens is empty, which anybody can send; give it a value")
    if agents.keys() & operators.keys():
        raise TokensMissing(
            "a token is both an agent's and an operator's; an agent could decide with it, so give the "
            "operator another one"
        )


class _PasswordChecker:
    """Checks passwords, in the same time whether or not there is an account of that name."""

    def __init__(self, people: Mapping[str, OperatorAccount]) -> None:
        self._hashes = {
            name: account.password_hash.get_secret_value()
            for name, account in people.items()
            if account.password_hash is not None
        }
        for name, hashed in self._hashes.items():
            try:
                extract_parameters(hashed)
            except (InvalidHashError, ValueError):
                raise SettingsError(
                    f"the password hash of {name} is none of argon2; `learnd operators hash` makes one"
                ) from None
        sample = next(iter(self._hashes.values()), None)
        hasher = PasswordHasher.from_parameters(extract_parameters(sample)) if sample else PasswordHasher()
        self._nobody = hasher.hash(secrets.token_urlsafe())
        self._turns = BoundedSemaphore(HASHES_AT_ONCE)

    def matches(self, name: str, password: str) -> bool:
        """Return True if the password is that of `name`.

        Raises TooManyAttempts where too many other passwords are being checked.
        """
        hashed = self._hashes.get(name)
        if not self._turns.acquire(timeout=HASH_SECONDS):
            raise TooManyAttempts(timedelta(seconds=HASH_SECONDS))
        try:
            PasswordHasher().verify(hashed or self._nobody, password[:LONGEST_PASSWORD])
        except (VerificationError, InvalidHashError, Argon2Error):
            return False
        finally:
            self._turns.release()
        return hashed is not None and len(password) <= LONGEST_PASSWORD


@dataclass
class _FailedSignIns:
    """Sign-ins that failed lately."""

    _times: dict[tuple[str, ...], deque[datetime]] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def add(self, name: str, peer: str, now: datetime) -> None:
        """Count an attempt. Raises TooManyAttempts after too many within the window."""
        limits = {
            ("both", name, _to_network(peer)): PER_NAME_AND_PEER,
            ("name", name): PER_NAME,
            ("peer", _to_network(peer)): PER_PEER,
        }
        with self._lock:
            for key, most in limits.items():
                times = self._times.get(key, deque())
                while times and times[0] <= now - WINDOW:
                    times.popleft()
                if len(times) >= most:
                    raise TooManyAttempts(times[0] + WINDOW - now)
            for key in limits:
                self._times.setdefault(key, deque()).append(now)
            if len(self._times) > MOST_REMEMBERED:
                self._forget_old(now)

    def forget(self, name: str, peer: str) -> None:
        """Clear the failures of a person who has signed in; for the name or peer alone, take one back."""
        with self._lock:
            self._times.pop(("both", name, _to_network(peer)), None)
            for key in (("name", name), ("peer", _to_network(peer))):
                if times := self._times.get(key):
                    times.pop()

    def _forget_old(self, now: datetime) -> None:
        self._times = {key: times for key, times in self._times.items() if times and times[-1] > now - WINDOW}
        for key in list(self._times)[: max(0, len(self._times) - MOST_REMEMBERED)]:
            del self._times[key]


def _to_network(peer: str) -> str:
    """Return the network from which one person can have any number of addresses."""
    address = _parse_address(peer)
    return str(ip_network((address, 64), strict=False)) if isinstance(address, IPv6Address) else peer


def _parse_address(written: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(written)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
