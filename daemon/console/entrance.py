"""Signing in and out of the console: by forms, because only an answer over HTTP can set a cookie."""

from typing import Annotated
from urllib.parse import quote, urlsplit

import structlog
from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse
from nicegui import ui

from daemon.console.frame import dress
from daemon.console.parts import Tagged, heading, text
from daemon.console.visit import MOUNTED, SIGN_IN, Console, Visit
from daemon.operators import SignInRefused, TooManyAttempts
from daemon.sign_in import COOKIE, Door

log = structlog.get_logger()
PROBLEMS = {
    "refused": "This name and password do not belong together.",
    "wait": "Too many sign-ins failed. Try again in a few minutes.",
    "foreign": "The form came from another site, and was not read. Sign in here.",
}


def entrance(console: Console, door: Door) -> APIRouter:
    """The routes behind the forms."""
    router = APIRouter(prefix=MOUNTED, include_in_schema=False)

    @router.post(SIGN_IN)
    def sign_in(
        request: Request,
        name: Annotated[str, Form(max_length=200)] = "",
        password: Annotated[str, Form(max_length=4096)] = "",
        to: Annotated[str, Form(max_length=4096)] = "",
    ) -> RedirectResponse:
        if not _from_here(request):
            return _again("foreign", to)
        try:
            cookie, _ = door.sign_in(name, password, request)
        except TooManyAttempts:
            return _again("wait", to)
        except SignInRefused:
            return _again("refused", to)
        inside = RedirectResponse(_local(to), 303)
        door.give(cookie, request, inside)
        return inside

    @router.post("/sign-out")
    def sign_out(request: Request, csrf_token: Annotated[str, Form(max_length=200)] = "") -> RedirectResponse:
        outside = RedirectResponse(f"{MOUNTED}{SIGN_IN}", 303)
        person = console.operators.of_session(cookie := request.cookies.get(COOKIE))
        if person is not None and cookie and person.shows(csrf_token):
            console.operators.sign_out(cookie)
            log.info("signed out", name=person.name)
            outside.delete_cookie(COOKIE)
        return outside

    return router


def sign_in_page(console: Console) -> None:
    """The form."""

    @ui.page(SIGN_IN, title="Sign in · learnd")
    def page(request: Request, to: str = "", problem: str = "") -> RedirectResponse | None:
        visit = Visit.of(console, request)
        if visit.person is not None and not problem:
            return RedirectResponse(_local(to), 303)
        dress(visit)
        with ui.element("div").classes("entrance"):
            heading("learnd", 1)
            if not console.operators.anybody:
                _nobody()
                return None
            if problem in PROBLEMS:
                text(PROBLEMS[problem], "problem").props("role=alert")
            with ui.element("form").props(f'method=post action="{MOUNTED}{SIGN_IN}"').classes("form"):
                _hidden("to", to)
                _field("Name", "name", "text", "username")
                _field("Password", "password", "password", "current-password")
                ui.button("Sign in").props("type=submit no-caps unelevated color=primary")
        return None


def _nobody() -> None:
    text("The settings name no operators yet, so nobody can sign in.")
    text("Make a password hash, and set it in the daemon's environment:", "muted")
    Tagged("pre", "learnd operators hash\nexport LEARND_OPERATORS__USERS__ANN__PASSWORD_HASH='…'")
    text("With [operators.users.ann] in learnd.toml, start the daemon again.", "muted")


def _field(label: str, name: str, kind: str, completes: str) -> None:
    with Tagged("label", "").classes("field"):
        Tagged("span", label)
        entered = ui.element("input").props(f"name={name} type={kind} autocomplete={completes} required")
        if name == "name":
            entered.props("autofocus")


def _hidden(name: str, value: str) -> None:
    hidden = ui.element("input").props(f"type=hidden name={name}")
    hidden.props["value"] = value


def _again(problem: str, to: str) -> RedirectResponse:
    return RedirectResponse(f"{MOUNTED}{SIGN_IN}?problem={problem}&to={quote(to, safe='')}", 303)


def _local(to: str) -> str:
    """Where to go, if that is a page of the console: nobody is sent to another site from here."""
    parts = urlsplit(to.replace("\\", "/"))
    here = not parts.scheme and not parts.netloc and parts.path.startswith(f"{MOUNTED}/")
    return to if here else f"{MOUNTED}/"


def _from_here(request: Request) -> bool:
    """Whether the form is our own: browsers say from which site a form was sent."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in {"same-origin", "none"}
    origin = request.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == request.headers.get("host")
