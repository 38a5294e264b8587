"""Every route of the daemon against every kind of caller, and requests that no client of ours sends."""

import json
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from http.client import HTTPConnection
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import pytest

from tests.support.daemon_doors import AGENT, GATEWAY, OPERATOR, OTHER_AGENT, VIEWER, Doors, run_doors

NAMES = {"tenant": "acme", "agent": "routing", "number": "1"}
READING = {"GET", "HEAD"}
Headers = dict[str, str]


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    with run_doors(tmp_path_factory.mktemp("doors"), allowed_hosts=["learnd.example.com"]) as running:
        yield running


def fill(path: str, names: Mapping[str, str]) -> str:
    """Return the path with a value for each parameter."""
    return re.sub(r"{(\w+)(:path)?}", lambda found: names.get(found[1], "unknown"), path)


# ---- every route, every caller

CALLERS: dict[str, Callable[[Doors], Headers]] = {
    "nobody": lambda _: {},
    "wrong token": lambda _: {"Authorization": "Bearer wrong"},
    "agent": lambda _: {"Authorization": f"Bearer {AGENT}"},
    "agent of another tenant": lambda _: {"Authorization": f"Bearer {OTHER_AGENT}"},
    "gateway": lambda _: {"Authorization": f"Bearer {GATEWAY}"},
    "wrong cookie": lambda _: {"Cookie": "learnd_session=wrong", "X-CSRF-Token": "wrong"},
    "header of a proxy": lambda _: {"X-Forwarded-User": "ann"},
    "viewer's token": lambda _: {"Authorization": f"Bearer {VIEWER}"},
    "operator's token": lambda _: {"Authorization": f"Bearer {OPERATOR}"},
    "viewer": lambda doors: doors.sign_in("vic"),
    "operator": lambda doors: doors.sign_in("ann"),
    "operator without CSRF token": lambda doors: {"Cookie": doors.sign_in("ann")["Cookie"]},
}
# To all routes but its own, the gateway is a stranger.
STRANGERS = {"nobody", "wrong token", "gateway", "wrong cookie", "header of a proxy"}
AGENTS = {"agent", "agent of another tenant"}
TOKENS = {"viewer's token", "operator's token"}
SESSIONS = {"viewer", "operator", "operator without CSRF token"}


def is_open(method: str, path: str) -> bool:
    """Return True for what everybody may ask for."""
    return (
        path in {"/", "/healthz", "/readyz", "/openapi.json", "/docs", "/docs/oauth2-redirect"}
        or path.startswith("/docs-assets/")
        or path in {"/console/sign-in", "/console/sign-out", "/console/favicon.ico"}
        or (method, path) == ("POST", "/api/v1/session")
    )


def expect_status(method: str, path: str, caller: str) -> set[int] | None:
    """Return the statuses that refuse this caller, or None where they are let in."""
    if is_open(method, path):
        return None
    if path.startswith("/console/"):
        return None if caller in SESSIONS else {303, 403}
    if path == "/v1/gateway/routes":
        return None if caller == "gateway" else {401}
    if path.startswith("/v1/") or path == "/metrics":
        if caller in AGENTS:
            return None
        return {403} if caller in TOKENS else {401}
    assert path.startswith("/api/v1/"), f"decide who may use {method} {path}"
    if caller in STRANGERS:
        return {401}
    if caller in AGENTS:
        return {403}
    if method in READING or caller in {"operator", "operator's token"}:
        return None
    is_sign_out = (method, path) == ("DELETE", "/api/v1/session")
    return None if is_sign_out and caller != "operator without CSRF token" else {403}


@pytest.mark.parametrize("caller", CALLERS)
def test_every_route_lets_in_whom_it_should_and_nobody_else(doors: Doors, caller: str) -> None:
    routes = doors.list_routes()
    assert len(routes) > 60
    wrong = []
    with httpx.Client(base_url=doors.url, timeout=60) as client:
        for method, path in routes:
            filled = fill(path, NAMES)
            body: dict[str, Any] = {"json": {}} if method not in READING else {}
            headers = CALLERS[caller](doors)
            client.cookies.clear()
            answer = client.request(method, filled, headers=headers, **body)
            refused, expected = answer.status_code, expect_status(method, path, caller)
            is_right = refused in expected if expected else refused not in {401, 403} and refused < 500
            if expected is None and refused == 303:
                is_right = path in {"/", "/console/sign-in", "/console/sign-out"}
            if (method, path, caller) == ("POST", "/api/v1/session", caller):
                is_right = refused == 422
            if not is_right:
                wrong.append((method, path, refused, expected))
    assert wrong == []


@pytest.mark.parametrize("path", ["/api/v1/unknown", "/api/v1/", "/api/v1//targets", "/api/v1/session/"])
def test_below_the_operators_routes_strangers_are_not_told_what_exists(doors: Doors, path: str) -> None:
    assert httpx.get(f"{doors.url}{path}").status_code == 401
    assert httpx.post(f"{doors.url}{path}", json={}).status_code == 401


# ---- bodies


def send_head(doors: Doors, method: str, path: str, headers: Headers) -> tuple[int, str]:
    """Send a request without the body that its headers announce, and return what is answered."""
    where = urlsplit(doors.url)
    connection = HTTPConnection(str(where.hostname), where.port, timeout=20)
    connection.putrequest(method, path)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    told = answer.status, answer.read().decode()
    connection.close()
    return told


def test_a_stranger_is_refused_before_the_body_comes(doors: Doors) -> None:
    routes = [route for route in doors.list_routes() if route[1].startswith("/api/v1/")]
    changing = [route for route in routes if route[0] not in READING]
    changing.remove(("POST", "/api/v1/session"))
    assert len(changing) > 10
    for method, path in changing:
        headers = {"Content-Type": "application/json", "Content-Length": "60000"}
        assert send_head(doors, method, path, headers)[0] == 401, path


def test_sixty_megabytes_of_brackets_are_refused_unread(doors: Doors) -> None:
    body = b"[" + b"[]," * (20 * 2**20)
    for headers in ({}, {"Authorization": f"Bearer {OPERATOR}"}):
        answer = httpx.post(
            f"{doors.url}/api/v1/batches/b-1/decisions",
            content=body,
            headers={"Content-Type": "application/json", **headers},
            timeout=60,
        )
        assert answer.status_code == (413 if headers else 401)


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/api/v1/session", 64 * 2**10),
        ("/api/v1/targets/acme/routing/hold", 64 * 2**10),
        ("/api/v1/batches/b-1/decisions", 2**20),
        ("/unknown", 64 * 2**10),
    ],
)
def test_each_route_says_how_much_it_reads(doors: Doors, path: str, allowed: int) -> None:
    headers = {"Authorization": f"Bearer {OPERATOR}", "Content-Type": "application/json"}
    status, told = send_head(doors, "POST", path, {**headers, "Content-Length": str(allowed + 1)})
    assert (status, str(allowed) in told) == (413, True)
    status, told = send_head(doors, "POST", path, {**headers, "Transfer-Encoding": "chunked"})
    assert (status, "Content-Length" in told) == (411, True)


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
)
def test_bodies_are_json_and_nothing_that_a_page_may_send_unasked(doors: Doors, kind: str) -> None:
    headers = {"Authorization": f"Bearer {OPERATOR}", "Content-Type": kind}
    for path in ("/api/v1/session", "/api/v1/targets/acme/routing/hold", "/api/v1/batches/b-1/import"):
        answer = httpx.post(f"{doors.url}{path}", content=b'{"reason": "x"}', headers=headers)
        assert answer.status_code == 415, path
    assert not doors.store.target_state("acme/routing").held


def test_an_upload_that_ends_early_changes_nothing_and_is_no_defect(
    doors: Doors, capfd: pytest.CaptureFixture[str]
) -> None:
    where = urlsplit(doors.url)
    with socket.create_connection((where.hostname, where.port or 0), timeout=20) as connection:
        connection.sendall(
            b"POST /api/v1/batches/b-1/import HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            b"Authorization: Bearer " + OPERATOR.encode() + b"\r\n"
            b"Content-Type: application/x-ndjson\r\nContent-Length: 1000\r\n\r\n{}"
        )
    assert httpx.get(f"{doors.url}/healthz").status_code == 200
    assert "Traceback" not in capfd.readouterr().err


# ---- other sites' pages

FOREIGN: dict[str, Headers] = {
    "another site": {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    "another name of the site": {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"},
    "a frame": {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
    "an old browser": {"Origin": "https://evil.example.com"},
    "a sandbox": {"Origin": "null"},
    "another port": {"Origin": "http://127.0.0.1:1"},
}
LINK = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


@pytest.mark.parametrize("foreign", FOREIGN)
def test_pages_of_other_sites_are_refused_everywhere(doors: Doors, foreign: str) -> None:
    known = {"Authorization": f"Bearer {AGENT}", **FOREIGN[foreign]}
    for path in (
        "/metrics",
        "/v1/status",
        "/openapi.json",
        "/console/sign-in",
        "/api/v1/targets",
        "/nowhere",
    ):
        assert httpx.get(f"{doors.url}{path}", headers=known).status_code == 403, path
    form = {"name": "ann", "password": "wrong"}
    answer = httpx.post(f"{doors.url}/console/sign-in", data=form, headers=FOREIGN[foreign])
    assert answer.status_code == 403


def test_a_link_on_another_site_is_followed_and_its_form_is_not_sent(doors: Doors) -> None:
    assert httpx.get(f"{doors.url}/console/sign-in", headers=LINK).status_code == 200
    assert httpx.post(f"{doors.url}/console/sign-in", data={}, headers=LINK).status_code == 403


def test_our_own_pages_and_programs_are_let_in(doors: Doors) -> None:
    known = {"Authorization": f"Bearer {AGENT}"}
    own: tuple[Headers, ...] = (
        {},
        {"Origin": doors.url},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
    )
    for headers in own:
        assert httpx.get(f"{doors.url}/v1/status", headers={**known, **headers}).status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.example.com", 421),
        ("evil.example.com:8710", 421),
        ("127.0.0.1.evil.example.com", 421),
        ("", 421),
        ("[", 421),
        ("learnd.example.com", 200),
        ("LEARND.example.com:8710", 200),
        ("localhost:1", 200),
        ("[::1]:8710", 200),
        ("127.0.0.1", 200),
    ],
)
def test_only_requests_for_our_own_names_are_answered(doors: Doors, host: str, status: int) -> None:
    headers = {"Host": host, "Authorization": f"Bearer {AGENT}"}
    assert httpx.get(f"{doors.url}/v1/status", headers=headers).status_code == status
    assert httpx.get(f"{doors.url}/healthz", headers=headers).status_code == 200


# ---- values that are none

SURROGATE = '"\\ud800"'


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/v1/session", f'{{"name": {SURROGATE}, "password": "x"}}'),
        ("/api/v1/session", f'{{"name": "ann", "password": {SURROGATE}}}'),
        ("/api/v1/session", f'{{"name": "ann", "password": "x", {SURROGATE}: 1}}'),
        ("/api/v1/targets/acme/routing/hold", f'{{"reason": {SURROGATE}}}'),
        ("/api/v1/batches/b-1/close", f'{{"reason": {SURROGATE}}}'),
        ("/api/v1/batches/b-1/decisions", f'[{{"number": 1, "revision": 0, "state": {SURROGATE}}}]'),
        ("/api/v1/batches/b-1/decisions", "[" * 100_000),
        ("/api/v1/session", "not JSON"),
        ("/api/v1/session", '{"name": "ann", "password": NaN}'),
    ],
)
def test_a_body_that_is_no_text_is_the_callers_mistake(doors: Doors, path: str, body: str) -> None:
    headers = {"Authorization": f"Bearer {OPERATOR}", "Content-Type": "application/json"}
    assert httpx.post(f"{doors.url}{path}", content=body, headers=headers).status_code in {400, 422}


@pytest.mark.parametrize(
    "path",
    [
        f"/api/v1/batches/b-1/items?after={10**20}",
        f"/api/v1/batches/b-1/items?before={10**20}",
        f"/api/v1/batches/b-1/items?after=-{10**20}",
        f"/api/v1/batches/b-1/items/{10**20}",
        f"/api/v1/cycles/c-1/answers?offset={10**20}",
        f"/api/v1/cycles?limit={10**20}",
        f"/api/v1/targets/acme/routing/examples?kind=sft&offset={10**20}",
        "/api/v1/experiments?since=0001-01-01T00:00:00%2B14:00",
        "/api/v1/experiments?until=9999-12-31T23:59:59-14:00",
        f"/api/v1/experiments?until={10**20}",
    ],
)
def test_a_number_or_time_that_is_out_of_range_is_the_callers_mistake(doors: Doors, path: str) -> None:
    answer = httpx.get(f"{doors.url}{path}", headers={"Authorization": f"Bearer {OPERATOR}"})
    assert answer.status_code == 422


@pytest.mark.parametrize("year", ["0002-06-01", "9998-06-01"])
def test_the_years_at_the_ends_are_asked_for(doors: Doors, year: str) -> None:
    known = {"Authorization": f"Bearer {OPERATOR}"}
    asked = {"since": f"{year}T00:00:00+14:00", "until": f"{year}T00:00:00-12:00"}
    assert httpx.get(f"{doors.url}/api/v1/experiments", params=asked, headers=known).status_code == 200


@pytest.mark.parametrize("sent", [{"password": "s3cret"}, {"name": ["s3cret"], "password": {"s": "s3cret"}}])
def test_a_refusal_does_not_repeat_the_password(doors: Doors, sent: dict[str, Any]) -> None:
    answer = httpx.post(
        f"{doors.url}/api/v1/session", content=json.dumps(sent), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 422
    assert "s3cret" not in answer.text
    assert answer.json()["detail"][0]["loc"][0] == "body"


def test_a_decision_about_a_number_out_of_range_is_the_callers_mistake(doors: Doors) -> None:
    ruling = {"number": 10**20, "revision": 10**20, "state": "APPROVED"}
    known = {"Authorization": f"Bearer {OPERATOR}"}
    answer = httpx.post(f"{doors.url}/api/v1/batches/b-1/decisions", json=[ruling], headers=known)
    assert answer.status_code in {404, 422}


@pytest.mark.parametrize("path", ["/api/v1/targets/a%0Ab/x/hold", "/console/a%0Ab", "/a%0Ab"])
def test_a_line_break_in_a_path_is_no_defect(doors: Doors, path: str) -> None:
    known = {"Authorization": f"Bearer {OPERATOR}"}
    answer = httpx.post(f"{doors.url}{path}", json={"reason": "x"}, headers=known)
    assert answer.status_code in {403, 404, 415, 303}


ODD = (
    "",
    "a\nb",
    "0",
    "-1",
    str(10**20),
    "1e400",
    "NaN",
    "null",
    "[]",
    "\x00",
    "%",
    "'",
    "../..",
    "🧪",
    "a" * 5000,
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-14:00",
)
BODIES = (
    "",
    "[" * 900 + "]" * 900,
    "[" * 5000 + "]" * 5000,
    "null",
    "[]",
    "{}",
    "7",
    "[null]",
    '{"reason": "\\u0000"}',
    '{"reason": "x", "instead_of": "\\ud800"}',
    '[{"number": 1e400, "revision": -1, "state": "APPROVED"}]',
    '[{"number": true, "revision": 1, "state": "REJECTED", "reason": "x"}]',
)


def list_operations(doors: Doors) -> Iterator[tuple[str, str, list[dict[str, Any]]]]:
    """Yield method, path and parameters of every route that the API describes."""
    for path, methods in doors.app.openapi()["paths"].items():
        for method, operation in methods.items():
            if path != "/api/v1/session":
                yield method.upper(), path, operation.get("parameters", [])


def test_an_odd_value_of_any_parameter_is_no_defect(doors: Doors) -> None:
    failed, tried = [], 0
    for method, path, parameters in list_operations(doors):
        token = AGENT if path.startswith("/v1/") or path == "/metrics" else OPERATOR
        token = GATEWAY if path == "/v1/gateway/routes" else token
        with httpx.Client(
            base_url=doors.url, headers={"Authorization": f"Bearer {token}"}, timeout=60
        ) as client:
            for parameter in parameters:
                if parameter["in"] not in {"path", "query"}:
                    continue
                for odd in ODD:
                    names = dict(NAMES)
                    if parameter["in"] == "path":
                        names[parameter["name"]] = quote(odd, safe="")
                    filled = fill(path, names)
                    query = {parameter["name"]: odd} if parameter["in"] == "query" else None
                    status = client.request(method, filled, params=query).status_code
                    tried += 1
                    if status >= 500:
                        failed.append((method, path, parameter["name"], odd[:30], status))
    assert failed == []
    assert tried > 500


def test_an_odd_body_is_no_defect(doors: Doors) -> None:
    failed = []
    known = {"Authorization": f"Bearer {OPERATOR}"}
    for method, path, _ in list_operations(doors):
        if method in READING:
            continue
        filled = fill(path, NAMES)
        kind = "application/x-ndjson" if path.endswith("/import") else "application/json"
        for body in BODIES:
            headers = {**known, "Content-Type": kind}
            status = httpx.request(method, f"{doors.url}{filled}", content=body, headers=headers).status_code
            if status >= 500:
                failed.append((method, path, body, status))
    assert failed == []
