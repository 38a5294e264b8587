"""Signing in over HTTP: the session's cookie, the CSRF token, and who may go through the operators' routes.

Authorization: Bearer …             a person's own token; nothing else is asked
X-Forwarded-User: … (the settings)  from a trusted proxy; changes want X-CSRF-Token
Cookie: learnd_session=…            from `POST /api/v1/session`; changes want X-CSRF-Token
"""

from collections.abc import Mapping
from datetime import datetime
from math import ceil
from typing import Annotated

import structlog
from fastapi import APIRouter, Depends, HTTPException, Request, Response, Security
from fastapi.security import APIKeyCookie, APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from pydantic import Field, SecretStr

from daemon.access.accounts import Operators, Person, SignInRefused, TooManyAttempts
from daemon.access.tokens import TokenDigests
from daemon.settings.people import Role
from extractors.values import Value

log = structlog.get_logger()
COOKIE = "learnd_session"
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})

_bearer = HTTPBearer(auto_error=False, scheme_name="operator token")
_cookie = APIKeyCookie(name=COOKIE, auto_error=False, scheme_name="session")
_csrf = APIKeyHeader(
    name="X-CSRF-Token",
    auto_error=False,
    scheme_name="CSRF token",
    description="Of `GET /api/v1/session`; beside a session, with everything that changes something.",
)


class SignInRequest(Value):
    """What somebody says to sign in."""

    name: str = Field(max_length=200)
    password: SecretStr


class SessionView(Value):
    """Who is signed in."""

    name: str
    role: Role
    csrf_token: str | None
    """Goes into the header `X-CSRF-Token` of everything that changes something; a token needs none."""
    expires_at: datetime | None


class Authenticator:
    """Knows who is asking, and whether they may. A dependency of every route of the operators."""

    def __init__(self, operators: Operators, agents: Mapping[str, str]) -> None:
        """`agents` are the agents' tokens, which open nothing here."""
        self._operators = operators
        self._agents = TokenDigests(agents)

    def known(
        self,
        request: Request,
        response: Response,
        token: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
        cookie: Annotated[str | None, Security(_cookie)],
        csrf_token: Annotated[str | None, Security(_csrf)],
    ) -> Person:
        """Whoever is signed in; 401 for others, and 403 where a change does not come from our own page."""
        response.headers["Cache-Control"] = "no-store"
        person = self._who(request, token, cookie)
        if request.method not in SAFE and not person.shows(csrf_token):
            raise HTTPException(
                403, "the header X-CSRF-Token is missing or wrong; `GET /api/v1/session` says what it is"
            )
        return person

    def allowed(
        self,
        request: Request,
        response: Response,
        token: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
        cookie: Annotated[str | None, Security(_cookie)],
        csrf_token: Annotated[str | None, Security(_csrf)],
    ) -> Person:
        """Whoever is signed in and may do this: viewers read, operators change things as well."""
        person = self.known(request, response, token, cookie, csrf_token)
        if request.method not in SAFE and person.role != "operator":
            raise HTTPException(403, f"{person.name} is a viewer: only operators may do this")
        return person

    def sign_in(self, name: str, password: str, request: Request) -> tuple[str, Person]:
        """The session's cookie, and whose it is. Raises SignInRefused, TooManyAttempts."""
        peer = request.client.host if request.client else ""
        peer = self._operators.find_client_address(peer, request.headers.get("X-Forwarded-For"))
        try:
            cookie, person = self._operators.sign_in(name, password, peer)
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

    def give(self, cookie: str, request: Request, response: Response) -> None:
        """Have `response` set the session's cookie, which no page can read."""
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
        """Whether the browser speaks TLS, with us or with a trusted proxy."""
        peer = request.client.host if request.client else ""
        behind = (
            self._operators.is_trusted_proxy(peer) and request.headers.get("X-Forwarded-Proto") == "https"
        )
        return behind or request.url.scheme == "https"

    def _who(
        self, request: Request, token: HTTPAuthorizationCredentials | None, cookie: str | None
    ) -> Person:
        peer = request.client.host if request.client else ""
        if token is not None:
            person = self._operators.find_by_token(token.credentials)
            if person is None and self._agents.get(token.credentials) is not None:
                raise HTTPException(403, "this is an agent's token; operators' routes want an operator's")
        else:
            person = self._operators.find_by_proxy(request.headers, peer) or self._operators.find_by_session(
                cookie
            )
        if person is not None:
            return person
        how = "sign in with `POST /api/v1/session`, or send an operator's bearer token"
        if not self._operators.can_sign_in:
            how = "the settings name no operators; see `learnd operators hash`"
        raise HTTPException(401, how, headers={"WWW-Authenticate": "Bearer"})


def build_session_router(door: Authenticator) -> APIRouter:
    """Routes to sign in and out, below `/api/v1`."""
    router = APIRouter(prefix="/session", tags=["session"])

    @router.post("")
    def sign_in(asked: SignInRequest, request: Request, response: Response) -> SessionView:
        """Begin a session, whose cookie the answer sets. 429 after too many attempts that failed."""
        try:
            cookie, person = door.sign_in(asked.name, asked.password.get_secret_value(), request)
        except TooManyAttempts as wait:
            retry = {"Retry-After": str(ceil(wait.wait.total_seconds()))}
            raise HTTPException(429, str(wait), headers=retry) from None
        except SignInRefused as refused:
            raise HTTPException(401, str(refused)) from None
        door.give(cookie, request, response)
        return _to_view(person)

    @router.get("")
    def who_am_i(person: Annotated[Person, Depends(door.known)]) -> SessionView:
        """Who is signed in, and what their changes must show."""
        return _to_view(person)

    @router.delete("", status_code=204)
    def sign_out(
        person: Annotated[Person, Depends(door.known)],
        response: Response,
        cookie: Annotated[str | None, Security(_cookie)],
    ) -> None:
        """End the session."""
        door.sign_out(cookie, person)
        response.delete_cookie(COOKIE)

    return router


def _to_view(person: Person) -> SessionView:
    return SessionView(**person.model_dump(exclude={"by"}))
