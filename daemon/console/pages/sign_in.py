"""Signing in and out of the console, with a plain form.

Only a response over HTTP can set a cookie that scripts cannot read.
"""

from html import escape
from string import Template
from typing import Annotated
from urllib.parse import quote, urldefrag, urlsplit

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response

from daemon.access.accounts import SignInRefused, TooManyAttempts
from daemon.access.sign_in import COOKIE, Authenticator
from daemon.console.base.context import ConsoleContext
from daemon.console.base.page_session import CONSOLE_PATH, SIGN_IN
from daemon.console.plain_page import build_plain_page

PROBLEMS = {
    "refused": "This name and password do not belong together.",
    "wait": "Too many sign-ins failed. Try again in a few minutes.",
    "token": "This link does not sign in any more. Sign in here.",
}
FORM = Template("""$problem<form method="post" class="form">
<input type="hidden" name="to" value="$to">
<label class="field"><span>Name</span>
<input name="name" autocomplete="username" required autofocus></label>
<label class="field"><span>Password</span>
<input name="password" type="password" autocomplete="current-password" required></label>
<button class="enter">Sign in</button>
</form>
<form method="post" id="by-token">
<input type="hidden" name="to" value="$to"><input type="hidden" name="token">
</form>
<script>
const token = new URLSearchParams(location.hash.slice(1)).get("token");
if (token) {
  history.replaceState(null, "", location.pathname + location.search);
  const form = document.getElementById("by-token");
  form.elements.token.value = token;
  form.submit();
}
</script>""")
"""A link with `#token=…` signs in by an operator's token: browsers keep that part of an address to
themselves, so no log of a server or a proxy holds it."""
NOBODY = """<p>The settings name no operators yet, so nobody can sign in.</p>
<p class="muted">Write a line for yourself, name the file in learnd.toml, and start the daemon again:</p>
<pre>learnd operators hash ann &gt;&gt; operators

[operators]
users_file = "operators"</pre>"""


def build_sign_in_router(console: ConsoleContext, authenticator: Authenticator) -> APIRouter:
    """Build the routes of the sign-in form and of signing out."""
    router = APIRouter(prefix=CONSOLE_PATH, include_in_schema=False)

    @router.get(SIGN_IN)
    def form(request: Request, to: str = "", problem: str = "") -> Response:
        if console.open_session(request).person is not None:
            # Where an address has no fragment, browsers keep that of the link, with its token.
            return RedirectResponse(f"{urldefrag(_to_console_path(to)).url}#", 303)
        alert = f'<p class="problem" role="alert">{PROBLEMS[problem]}</p>' if problem in PROBLEMS else ""
        operators = console.operators
        content = FORM.substitute(problem=alert, to=escape(to)) if operators.can_sign_in else NOBODY
        return build_plain_page("Sign in", content, request.headers)

    @router.post(SIGN_IN)
    def sign_in(
        request: Request,
        name: Annotated[str, Form(max_length=200)] = "",
        password: Annotated[str, Form(max_length=4096)] = "",
        token: Annotated[str, Form(max_length=4096)] = "",
        to: Annotated[str, Form(max_length=4096)] = "",
    ) -> RedirectResponse:
        try:
            cookie, _ = (
                authenticator.sign_in_by_token(token, request)
                if token
                else authenticator.sign_in(name, password, request)
            )
        except TooManyAttempts:
            return _redirect_to_form("wait", to)
        except SignInRefused:
            return _redirect_to_form("token" if token else "refused", to)
        if before := request.cookies.get(COOKIE):
            console.operators.sign_out(before)
        response = RedirectResponse(_to_console_path(to), 303)
        authenticator.set_cookie(cookie, request, response)
        return response

    @router.post("/sign-out")
    def sign_out(request: Request, csrf_token: Annotated[str, Form(max_length=200)] = "") -> RedirectResponse:
        response = RedirectResponse(f"{CONSOLE_PATH}{SIGN_IN}", 303)
        person = console.operators.find_by_session(cookie := request.cookies.get(COOKIE))
        if person is not None and cookie and person.accepts_csrf_token(csrf_token):
            authenticator.sign_out(cookie, person)
            response.delete_cookie(COOKIE)
        return response

    return router


def _redirect_to_form(problem: str, to: str) -> RedirectResponse:
    return RedirectResponse(f"{CONSOLE_PATH}{SIGN_IN}?problem={problem}&to={quote(to, safe='')}", 303)


def _to_console_path(to: str) -> str:
    """Return `to` if it is a page of the console, else the console's first page.

    Nobody must be redirected to another site from here.
    """
    parts = urlsplit(to.replace("\\", "/"))
    local = not parts.scheme and not parts.netloc and parts.path.startswith(f"{CONSOLE_PATH}/")
    return to if local else f"{CONSOLE_PATH}/"
