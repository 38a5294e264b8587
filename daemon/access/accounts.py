"""Who of the operators is asking: by a session's cookie, a token of their own, or a trusted proxy's word.

Sessions live in this process's memory. A restart signs everybody out, so that a removed account or a
changed password holds at once and no key to a session lies on a disk; decisions are durable without them.
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

from daemon.access.tokens import TokenDigests, TokensMissing
from daemon.settings.people import OperatorAccount, OperatorSettings, PersonName, Role
from daemon.settings.types import SettingsError
from extractors.errors import LearndError
from extractors.values import Value

LONGEST_PASSWORD = 1024
WINDOW = timedelta(minutes=5)
PER_NAME_AND_PEER = 5
PER_NAME = 50
PER_PEER = 30
"""Failed sign-ins in a window. The limit of a name alone is high: anybody could lock its owner out."""
_NAME = TypeAdapter(PersonName)
MOST_REMEMBERED = 10_000
"""Names and peers whose failures are remembered, and sessions."""
HASHES_AT_ONCE = 2
"""Passwords that are checked at the same time: each takes 64 MiB."""
HASH_SECONDS = 10.0


class SignInRefused(LearndError):
    """Name and password do not belong together, or nobody has that name: it is not said which."""

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
    """What must come along with everything that changes something; a token needs none of it."""
    expires_at: datetime | None = None
    """When the session ends."""

    def shows(self, csrf_token: str | None) -> bool:
        """Whether the request comes from our own page: a browser sends cookies along for any page."""
        if self.csrf_token is None:
            return True
        return csrf_token is not None and hmac.compare_digest(
            self.csrf_token.encode(), csrf_token.encode("utf-8", "replace")
        )


class Operators:
    """The people of the settings, and their sessions. Threads share it."""

    def __init__(self, settings: OperatorSettings, clock: Callable[[], datetime]) -> None:
        """Raises SettingsError for a password hash that is none of argon2."""
        self._settings = settings
        self._clock = clock
        self._people = settings.read_accounts()
        self._tokens = TokenDigests(settings.read_tokens())
        self._trusted = [ip_network(written) for written in settings.proxy_addresses]
        self._passwords = _PasswordChecker(self._people)
        self._failures = _FailedSignIns()
        self._sessions: dict[bytes, Person] = {}
        self._lock = Lock()
        # Binds what a proxy's people must show to this process.
        self._key = secrets.token_bytes(32)

    @property
    def can_sign_in(self) -> bool:
        """Whether there is any way to be known."""
        return bool(self._people) or bool(self._settings.proxy_header and self._settings.proxy_role)

    @property
    def lifetime(self) -> timedelta:
        return timedelta(hours=self._settings.session_hours)

    def sign_in(self, name: str, password: str, peer: str) -> tuple[str, Person]:
        """The session's cookie, and whose it is. Raises SignInRefused, TooManyAttempts."""
        now = self._clock()
        # It counts as failed until it has succeeded: trying many at once gains nothing.
        self._failures.add(name, peer, now)
        if not self._passwords.fit(name, password):
            raise SignInRefused
        self._failures.forget(name, peer)
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
            self._sessions[_digest(cookie)] = person
        return cookie, person

    def sign_out(self, cookie: str) -> None:
        """End the session, if there is one."""
        with self._lock:
            self._sessions.pop(_digest(cookie), None)

    def find_by_session(self, cookie: str | None) -> Person | None:
        """Whose session it is; None where it is over."""
        with self._lock:
            person = self._sessions.get(_digest(cookie)) if cookie else None
        if person is None or person.expires_at is None or person.expires_at <= self._clock():
            return None
        return person

    def find_by_token(self, token: str) -> Person | None:
        """For whom a bearer token acts."""
        name = self._tokens.get(token)
        return None if name is None else Person(name=name, role=self._people[name].role, by="token")

    def find_by_proxy(self, headers: Mapping[str, str], peer: str) -> Person | None:
        """Whom a trusted proxy names. None where it names nobody, or where the peer is no such proxy."""
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
        """Whether requests from this address come through the trusted proxy."""
        address = _parse_address(peer)
        return address is not None and any(address in network for network in self._trusted)

    def find_client_address(self, peer: str, forwarded_for: str | None) -> str:
        """Who really asks: what a trusted proxy says of it, else the peer itself."""
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
    """The argon2id line that settings take. Raises LearndError for a password that is none."""
    if not password.strip() or len(password) > LONGEST_PASSWORD:
        raise LearndError(f"a password has 1 to {LONGEST_PASSWORD} characters")
    return PasswordHasher().hash(password)


def check_tokens_are_apart(agents: Mapping[str, str], operators: Mapping[str, str]) -> None:
    """Raises TokensMissing for an operator's token that is empty, or an agent's as well."""
    if any(not token.strip() for token in operators):
        raise TokensMissing("one of the operators' tokens is empty, which anybody can send; give it a value")
    if agents.keys() & operators.keys():
        raise TokensMissing(
            "a token is both an agent's and an operator's; an agent could decide with it, so give the "
            "operator another one"
        )


class _PasswordChecker:
    """Checks passwords, in the same time whether or not there is somebody of that name."""

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
        like = next(iter(self._hashes.values()), None)
        hasher = PasswordHasher.from_parameters(extract_parameters(like)) if like else PasswordHasher()
        self._nobody = hasher.hash(secrets.token_urlsafe())
        self._turns = BoundedSemaphore(HASHES_AT_ONCE)

    def fit(self, name: str, password: str) -> bool:
        """Raises TooManyAttempts where too many others are being checked."""
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
        """Count an attempt. Raises TooManyAttempts where there were too many."""
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
        """Whoever has succeeded begins anew; others of that name or peer lose this one attempt."""
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
    """The network whose addresses one person can have as many of as they like."""
    address = _parse_address(peer)
    return str(ip_network((address, 64), strict=False)) if isinstance(address, IPv6Address) else peer


def _parse_address(written: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(written)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
