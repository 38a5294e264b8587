"""Signing in over HTTP: the session's cookie, the CSRF token, and access to the operators' routes.

Authorization: Bearer …             a person's own token; nothing else is needed
X-Forwarded-User: … (the settings)  from a trusted proxy; changes need X-CSRF-Token
Cookie: learnd_session=…            from `POST /api/v1/session`; changes need X-CSRF-Token
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from math import ceil
from typing import Annotated

import structlog
from fastapi import APIRouter, Depends, HTTPException, Request, Response, Security
from fastapi.security import APIKeyCookie, APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from pydantic import Field, SecretStr

from daemon.access.accounts import Operators, Person, SignInRefused, TooManyAttempts
from daemon.access.tokens import TokenDigests, parse_bearer
from daemon.settings.people import Role
from extractors.values import Value

log = structlog.get_logger()
COOKIE = "learnd_session"
CSRF_HEADER = "X-CSRF-Token"
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})

_bearer = HTTPBearer(auto_error=False, scheme_name="operator token")
_cookie = APIKeyCookie(name=COOKIE, auto_error=False, scheme_name="session")
_csrf = APIKeyHeader(
    name=CSRF_HEADER,
    auto_error=False,
    scheme_name="CSRF token",
    description="From `GET /api/v1/session`. With a session, every request that changes something needs it.",
)


class SignInRequest(Value):
    """Name and password of the person who signs in."""

    name: str = Field(max_length=200)
    password: SecretStr


class SessionView(Value):
    """The person who is signed in."""

    name: str
    role: Role
    csrf_token: str | None
    """For the header `X-CSRF-Token` of requests that change something; null where a token signs in."""
    expires_at: datetime | None


@dataclass(frozen=True)
class Credentials:
    """The proofs of identity that a request can carry. A FastAPI dependency, for the API's description."""

    token: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]
    cookie: Annotated[str | None, Security(_cookie)]
    csrf_token: Annotated[str | None, Security(_csrf)]


class Authenticator:
    """Identifies the operator who sends a request, and checks that they may do what it asks.

    `authenticate` and `authorize` are FastAPI dependencies of the operators' routes.
    """

    def __init__(self, operators: Operators, agents: Mapping[str, str]) -> None:
        """`agents` are the agents' tokens, which open nothing here."""
        self._operators = operators
        self._agents = TokenDigests(agents)

    def authenticate(
        self, request: Request, response: Response, _: Annotated[Credentials, Depends(Credentials)]
    ) -> Person:
        """Return the person who is signed in. Raises as `check_is_signed_in` does."""
        response.headers["Cache-Control"] = "no-store"
        return self.check_is_signed_in(request)

    def authorize(
        self, request: Request, response: Response, _: Annotated[Credentials, Depends(Credentials)]
    ) -> Person:
        """Return the person who is signed in and may do this. Raises as `check_may` does."""
        response.headers["Cache-Control"] = "no-store"
        return self.check_may(request)

    def check_is_signed_in(self, request: Request) -> Person:
        """Return the person who is signed in.

        Raises HTTPException: 401 where nobody is, and 403 for a change that does not come from our own page.
        """
        person = self._identify(request)
        if request.method not in SAFE and not person.accepts_csrf_token(request.headers.get(CSRF_HEADER)):
            raise HTTPException(
                403, "the header X-CSRF-Token is missing or wrong; `GET /api/v1/session` says what it is"
            )
        return person

    def check_may(self, request: Request) -> Person:
        """Return the person who is signed in and may do this: viewers read, operators also change things.

        Raises HTTPException as `check_is_signed_in` does, and 403 for a viewer who would change something.
        """
        person = self.check_is_signed_in(request)
        if request.method not in SAFE and person.role != "operator":
            raise HTTPException(403, f"{person.name} is a viewer: only operators may do this")
        return person

    def sign_in(self, name: str, password: str, request: Request) -> tuple[str, Person]:
        """Begin a session, and return its cookie and its person. Raises SignInRefused, TooManyAttempts."""
        return self._sign_in(name, request, lambda peer: self._operators.sign_in(name, password, peer))

    def sign_in_by_token(self, token: str, request: Request) -> tuple[str, Person]:
        """Begin a session of the person for whom `token` acts, and return its cookie and the person.

        Raises SignInRefused, TooManyAttempts.
        """
        return self._sign_in("", request, lambda peer: self._operators.sign_in_by_token(token, peer))

    def _sign_in(
        self, name: str, request: Request, begin_session: Callable[[str], tuple[str, Person]]
    ) -> tuple[str, Person]:
        peer = request.client.host if request.client else ""
        peer = self._operators.find_client_address(peer, request.headers.get("X-Forwarded-For"))
        try:
            cookie, person = begin_session(peer)
        except (TooManyAttempts, SignInRefused) as refused:
            log.warning("sign-in refused", name=name, peer=peer, reason=str(refused))
            raise
        log.info("signed in", name=person.name, role=person.role, peer=peer)
        return cookie, person

    def sign_out(self, cookie: str | None, person: Person) -> None:
        """End the session, if there is one."""
        if cookie:
            self._operators.sign_out(cookie)
        log.info("signed out", name=person.name)

    def set_cookie(self, cookie: str, request: Request, response: Response) -> None:
        """Set the session's cookie with `response`; no script of a page can read it."""
        response.headers["Cache-Control"] = "no-store"
        response.set_cookie(
            COOKIE,
            cookie,
            max_age=int(self._operators.lifetime.total_seconds()),
            httponly=True,
            # Not "strict": a link in a notification should find its reader signed in.
            samesite="lax",
            secure=self._is_secure(request),
        )

    def _is_secure(self, request: Request) -> bool:
        """Return True if the browser speaks TLS, with us or with a trusted proxy."""
        peer = request.client.host if request.client else ""
        behind = (
            self._operators.is_trusted_proxy(peer) and request.headers.get("X-Forwarded-Proto") == "https"
        )
        return behind or request.url.scheme == "https"

    def _identify(self, request: Request) -> Person:
        peer = request.client.host if request.client else ""
        token = parse_bearer(request.headers.get("Authorization"))
        if token is not None:
            person = self._operators.find_by_token(token)
            if person is None and self._agents.get(token) is not None:
                raise HTTPException(403, "this is an agent's token; operators' routes need an operator's")
        else:
            person = self._operators.find_by_proxy(request.headers, peer)
            person = person or self._operators.find_by_session(request.cookies.get(COOKIE))
        if person is not None:
            return person
        how = "sign in with `POST /api/v1/session`, or send an operator's bearer token"
        if not self._operators.can_sign_in:
            how = "the settings name no operators; see `learnd operators hash`"
        raise HTTPException(401, how, headers={"WWW-Authenticate": "Bearer"})


def build_session_router(authenticator: Authenticator) -> APIRouter:
    """Build the routes that sign in and out, below `/api/v1`."""
    router = APIRouter(prefix="/session", tags=["session"])

    @router.post("")
    def sign_in(body: SignInRequest, request: Request, response: Response) -> SessionView:
        """Begin a session. The response sets its cookie; 429 after too many failed attempts."""
        try:
            cookie, person = authenticator.sign_in(body.name, body.password.get_secret_value(), request)
        except TooManyAttempts as limited:
            retry = {"Retry-After": str(ceil(limited.wait.total_seconds()))}
            raise HTTPException(429, str(limited), headers=retry) from None
        except SignInRefused as refused:
            raise HTTPException(401, str(refused)) from None
        authenticator.set_cookie(cookie, request, response)
        return _to_view(person)

    @router.get("")
    def show_session(person: Annotated[Person, Depends(authenticator.authenticate)]) -> SessionView:
        """Show who is signed in, and the CSRF token that their changes need."""
        return _to_view(person)

    @router.delete("", status_code=204)
    def sign_out(
        person: Annotated[Person, Depends(authenticator.authenticate)],
        response: Response,
        cookie: Annotated[str | None, Security(_cookie)],
    ) -> None:
        """End the session."""
        authenticator.sign_out(cookie, person)
        response.delete_cookie(COOKIE)

    return router


def _to_view(person: Person) -> SessionView:
    return SessionView(**person.model_dump(exclude={"by"}))
