"""The page for unknown addresses. Programs get JSON instead, and so does everything below the API's paths."""

from fastapi import FastAPI, Request
from fastapi.exception_handlers import http_exception_handler
from nicegui import app as nicegui_app
from starlette.exceptions import HTTPException
from starlette.responses import Response

from daemon.console.base.page_session import CONSOLE_PATH
from daemon.console.plain_page import build_plain_page

API_PATHS = ("/api/", "/v1/")
CONTENT = f"""<h2>There is no page at this address</h2>
<p class="muted">It may have been mistyped, or the page is gone.</p>
<p><a href="{CONSOLE_PATH}/">Go to the overview</a></p>"""


def add_not_found_page(api: FastAPI) -> None:
    """Answer browsers that ask the daemon for an unknown address with a page of ours."""
    for app in (api, nicegui_app):
        app.add_exception_handler(404, _answer)


async def _answer(request: Request, problem: Exception) -> Response:
    # NiceGUI is mounted, so it is the endpoint of its unknown addresses.
    is_unknown = request.scope.get("endpoint") in (None, nicegui_app)
    if is_unknown and _is_for_people(request):
        return build_plain_page("Not found", CONTENT, request.headers, 404)
    if not isinstance(problem, HTTPException):
        problem = HTTPException(404)
    return await http_exception_handler(request, problem)


def _is_for_people(request: Request) -> bool:
    path = request.url.path
    if path.startswith(f"{CONSOLE_PATH}/"):
        return True
    return "text/html" in request.headers.get("accept", "") and not path.startswith(API_PATHS)
