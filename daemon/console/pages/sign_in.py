"""Signing in and out of the console, by a plain form.

Only an answer over HTTP can set a cookie that pages cannot read.
"""

from html import escape
from string import Template
from typing import Annotated
from urllib.parse import quote, urlsplit

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from daemon.access.accounts import SignInRefused, TooManyAttempts
from daemon.access.sign_in import COOKIE, Authenticator
from daemon.console.base.context import ConsoleContext
from daemon.console.base.page_session import CONSOLE_PATH, SIGN_IN
from daemon.console.frame import STYLE, read_theme

PROBLEMS = {
    "refused": "This name and password do not belong together.",
    "wait": "Too many sign-ins failed. Try again in a few minutes.",
    "foreign": "The form came from another site, and was not read. Sign in here.",
}
PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Sign in · learnd</title><link rel="icon" href="data:,"><style>$style</style>
</head>
<body class="$theme"><main class="sign-in"><h1>learnd</h1>$inside</main></body>
</html>
""")
FORM = Template("""$problem<form method="post" class="form">
<input type="hidden" name="to" value="$to">
<label class="field"><span>Name</span>
<input name="name" autocomplete="username" required autofocus></label>
<label class="field"><span>Password</span>
<input name="password" type="password" autocomplete="current-password" required></label>
<button class="enter">Sign in</button>
</form>""")
NOBODY = """<p>The settings name no operators yet, so nobody can sign in.</p>
<p class="muted">Write a line for yourself, name the file in learnd.toml, and start the daemon again:</p>
<pre>learnd operators hash ann &gt;&gt; operators

[operators]
users_file = "operators"</pre>"""


def build_sign_in_router(console: ConsoleContext, door: Authenticator) -> APIRouter:
    """The form and what it leads to."""
    router = APIRouter(prefix=CONSOLE_PATH, include_in_schema=False)
    style = STYLE.read_text("utf-8")

    @router.get(SIGN_IN)
    def form(request: Request, to: str = "", problem: str = "") -> Response:
        session = console.open_session(request)
        if session.person is not None:
            return RedirectResponse(_to_console_path(to), 303)
        said = f'<p class="problem" role="alert">{PROBLEMS[problem]}</p>' if problem in PROBLEMS else ""
        inside = FORM.substitute(problem=said, to=escape(to)) if console.operators.can_sign_in else NOBODY
        theme = read_theme(session)
        page = PAGE.substitute(style=style, inside=inside, theme=f"body--{theme}" if theme else "")
        return HTMLResponse(page, headers={"Cache-Control": "no-store"})

    @router.post(SIGN_IN)
    def sign_in(
        request: Request,
        name: Annotated[str, Form(max_length=200)] = "",
        password: Annotated[str, Form(max_length=4096)] = "",
        to: Annotated[str, Form(max_length=4096)] = "",
    ) -> RedirectResponse:
        if not _is_own_form(request):
            return _redirect_to_form("foreign", to)
        try:
            cookie, _ = door.sign_in(name, password, request)
        except TooManyAttempts:
            return _redirect_to_form("wait", to)
        except SignInRefused:
            return _redirect_to_form("refused", to)
        if before := request.cookies.get(COOKIE):
            console.operators.sign_out(before)
        inside = RedirectResponse(_to_console_path(to), 303)
        door.give(cookie, request, inside)
        return inside

    @router.post("/sign-out")
    def sign_out(request: Request, csrf_token: Annotated[str, Form(max_length=200)] = "") -> RedirectResponse:
        outside = RedirectResponse(f"{CONSOLE_PATH}{SIGN_IN}", 303)
        person = console.operators.find_by_session(cookie := request.cookies.get(COOKIE))
        if person is not None and cookie and person.shows(csrf_token):
            door.sign_out(cookie, person)
            outside.delete_cookie(COOKIE)
        return outside

    return router


def _redirect_to_form(problem: str, to: str) -> RedirectResponse:
    return RedirectResponse(f"{CONSOLE_PATH}{SIGN_IN}?problem={problem}&to={quote(to, safe='')}", 303)


def _to_console_path(to: str) -> str:
    """Where to go, if that is a page of the console: nobody is sent to another site from here."""
    parts = urlsplit(to.replace("\\", "/"))
    local = not parts.scheme and not parts.netloc and parts.path.startswith(f"{CONSOLE_PATH}/")
    return to if local else f"{CONSOLE_PATH}/"


def _is_own_form(request: Request) -> bool:
    """Whether the form is our own: browsers say from which site a form was sent."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in {"same-origin", "none"}
    origin = request.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == request.headers.get("host")
