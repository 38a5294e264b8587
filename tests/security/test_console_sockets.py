"""Strangers and colleagues who know the id of somebody's page, over web sockets of their own."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from daemon.access.sign_in import COOKIE
from tests.support.console import PASSWORD, RunningDaemon, run_daemon_with_a_past

PATH = "/console/_nicegui_ws/socket.io/?EIO=4&transport=websocket"
OPENED, REFUSED = "40", "44"
"""What a socket is answered to its first message."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("daemon")


@pytest.fixture(scope="module")
def daemon(folder: Path) -> Iterator[RunningDaemon]:
    with run_daemon_with_a_past(folder) as running:
        yield running


def sign_in(daemon: RunningDaemon, name: str) -> str:
    """Return the cookie of a new session."""
    form = {"name": name, "password": PASSWORD}
    return httpx.post(f"{daemon.url}/console/sign-in", data=form).cookies[COOKIE]


def open_page(daemon: RunningDaemon, cookie: str) -> str:
    """Return the id of a new page."""
    page = httpx.get(f"{daemon.url}/console/", cookies={COOKIE: cookie}, timeout=30)
    found = re.search(r"'client_id': '([0-9a-f-]+)'", page.text)
    assert found, page.text[:200]
    return found[1]


def name_page(page: str, tab: str = "tab") -> dict[str, Any]:
    """Return what a browser sends to open a page by its socket."""
    names = {"client_id": page, "tab_id": tab, "document_id": "document", "next_message_id": 0}
    return {**names, "implicit_handshake": True}


@contextmanager
def open_socket(daemon: RunningDaemon, cookie: str | None) -> Iterator[ClientConnection]:
    headers = {} if cookie is None else {"Cookie": f"{COOKIE}={cookie}"}
    with connect(daemon.url.replace("http", "ws", 1) + PATH, additional_headers=headers) as socket:
        assert str(socket.recv(10)).startswith("0{")
        yield socket


def begin(socket: ClientConnection, sent: dict[str, Any] | None = None) -> str:
    """Send the first message, and return what kind of answer comes."""
    socket.send("40" + ("" if sent is None else json.dumps(sent)))
    return str(socket.recv(10))[:2]


def ask_for_page(socket: ClientConnection, sent: dict[str, Any]) -> bool:
    """Return what a handshake is answered. Whatever was sent before it has been read by then."""
    socket.send("420" + json.dumps(["handshake", sent]))
    while not (answer := str(socket.recv(10))).startswith("430"):
        pass
    return bool(json.loads(answer[3:])[0])


def write_to_log(socket: ClientConnection, page: str, words: str) -> None:
    """Make the page write to the daemon's log, which is an event like any other."""
    socket.send("42" + json.dumps(["log", {"client_id": page, "level": "warning", "message": words}]))


@pytest.mark.parametrize("cookie", [None, "not-a-session"])
def test_nobody_opens_a_socket_without_signing_in(daemon: RunningDaemon, cookie: str | None) -> None:
    with pytest.raises(InvalidStatus), open_socket(daemon, cookie):
        pass


def test_a_socket_of_another_site_is_refused(daemon: RunningDaemon) -> None:
    cookie = sign_in(daemon, "ann")
    headers = {"Cookie": f"{COOKIE}={cookie}", "Origin": "https://evil.example.com"}
    url = daemon.url.replace("http", "ws", 1) + PATH
    with pytest.raises(InvalidStatus), connect(url, additional_headers=headers):
        pass


def test_a_socket_is_no_place_for_plain_requests(daemon: RunningDaemon) -> None:
    polling = daemon.url + PATH.replace("websocket", "polling")
    assert httpx.get(polling).status_code == 403
    assert httpx.get(polling, cookies={COOKIE: sign_in(daemon, "ann")}).status_code == 400


def test_nobody_opens_or_speaks_for_the_page_of_another_session(daemon: RunningDaemon, folder: Path) -> None:
    anns, vics = sign_in(daemon, "ann"), sign_in(daemon, "vic")
    page, other = open_page(daemon, anns), open_page(daemon, vics)
    with open_socket(daemon, vics) as socket:
        assert begin(socket, name_page(page)) == REFUSED
    with open_socket(daemon, vics) as socket:
        assert begin(socket) == OPENED
        assert not ask_for_page(socket, name_page(page))
        write_to_log(socket, page, "vic without a page")
        assert ask_for_page(socket, name_page(other))
        write_to_log(socket, page, "vic with a page")
        assert not ask_for_page(socket, name_page("nobody's"))
    with open_socket(daemon, anns) as socket:
        assert begin(socket, name_page(page)) == OPENED
        write_to_log(socket, page, "ann herself")
        assert not ask_for_page(socket, name_page(page))  # It is open already.
    log = (folder / "daemon.log").read_text("utf-8")
    assert "ann herself" in log
    assert "vic with" not in log
    assert page not in log


def test_another_session_of_the_same_person_does_not_open_the_page(daemon: RunningDaemon) -> None:
    page = open_page(daemon, sign_in(daemon, "ann"))
    with open_socket(daemon, sign_in(daemon, "ann")) as socket:
        assert begin(socket, name_page(page)) == REFUSED


@pytest.mark.parametrize("sent", ["1", "null", '"words"', '["client_id"]', '{"client_id": 7}', "{}"])
def test_messages_of_no_known_form_are_dropped(daemon: RunningDaemon, sent: str) -> None:
    cookie = sign_in(daemon, "ann")
    page = open_page(daemon, cookie)
    with open_socket(daemon, cookie) as socket:
        assert begin(socket) == OPENED
        for event in ("event", "log", "ack", "javascript_response", "nonsense"):
            socket.send(f'42["{event}",{sent}]')
        assert ask_for_page(socket, name_page(page))


def test_a_file_is_uploaded_to_nobody_elses_page(daemon: RunningDaemon) -> None:
    page = open_page(daemon, sign_in(daemon, "ann"))
    upload = f"{daemon.url}/console/_nicegui/client/{page}/upload/1"
    for cookies in ({}, {COOKIE: sign_in(daemon, "vic")}):
        assert httpx.post(upload, files={"file": b"{}"}, cookies=cookies).status_code == 403


@pytest.mark.parametrize(
    "path",
    [
        "/console/approvals",
        "/console/sign-in/there",
        "/console/sign-inside",
        "/console/nowhere",
        "/console//approvals",
        "/console/sign-in/../approvals",
        "/console/%2e%2e/approvals",
    ],
)
def test_strangers_are_sent_to_the_sign_in_page_from_everywhere_else(
    daemon: RunningDaemon, path: str
) -> None:
    answer = httpx.get(f"{daemon.url}{path}")
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/console/sign-in?to=")


@pytest.mark.parametrize(
    "path", ["/console/_nicegui/x", "/console/_nicegui_ws/x", "/console/_nicegui/client/x"]
)
def test_strangers_get_no_part_of_a_page(daemon: RunningDaemon, path: str) -> None:
    assert httpx.get(f"{daemon.url}{path}").status_code == 403
