"""The route that tells gateways which version is active, over real HTTP."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from daemon.api.gateways import build_gateways_router, parse_tags, parse_wait
from daemon.runtime.gateway_routes import ROUTES_PATH
from tests.support.gateway import RouteSource, route, serving_routes
from tests.support.openai_stand_in import serving
from tests.support.phoenix import wait_until


@pytest.fixture
def store() -> RouteSource:
    return RouteSource(route(version="acme.routing.v1"), route(target="globex/sorting"))


@contextmanager
def asking(store: RouteSource) -> Iterator[httpx.Client]:
    with serving_routes(store) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield client


def wait_for(tag: str, seconds: int) -> dict[str, str]:
    """Return the headers that ask to wait for something else than `tag`."""
    return {"if-none-match": tag, "prefer": f"wait={seconds}"}


def test_it_names_the_version_of_every_target_with_a_tag(store: RouteSource) -> None:
    with asking(store) as client:
        answer = client.get(ROUTES_PATH)
        assert answer.json() == {
            "routes": {
                "acme/routing": {"version": "acme.routing.v1"},
                "globex/sorting": {"version": None},
            }
        }
        tag = answer.headers["etag"]
        assert client.get(ROUTES_PATH, headers={"if-none-match": tag}).status_code == 304
        store.serve("acme/routing", "acme.routing.v2")
        changed = client.get(ROUTES_PATH, headers={"if-none-match": tag})
    assert changed.status_code == 200
    assert changed.headers["etag"] != tag


def test_the_answer_waits_for_a_change(store: RouteSource) -> None:
    with asking(store) as client, ThreadPoolExecutor(1) as pool:
        tag = client.get(ROUTES_PATH).headers["etag"]
        held = pool.submit(client.get, ROUTES_PATH, headers=wait_for(tag, 60))
        before = store.readings
        wait_until(lambda: store.readings >= before + 3, 10, "the store to be read again and again")
        assert not held.done()
        store.serve("acme/routing", "acme.routing.v2")
        answer = held.result(10)
    assert answer.json()["routes"]["acme/routing"] == {"version": "acme.routing.v2"}
    assert answer.headers["preference-applied"] == "wait=60"


def test_nothing_that_changes_is_304_in_the_end(store: RouteSource) -> None:
    with asking(store) as client:
        tag = client.get(ROUTES_PATH).headers["etag"]
        assert client.get(ROUTES_PATH, headers=wait_for(tag, 1)).status_code == 304


def test_all_who_wait_share_each_reading_and_without_them_there_is_none(store: RouteSource) -> None:
    with asking(store) as client, ThreadPoolExecutor(20) as pool:
        tag = client.get(ROUTES_PATH).headers["etag"]
        began = store.readings
        held = [pool.submit(client.get, ROUTES_PATH, headers=wait_for(tag, 2)) for _ in range(20)]
        assert {answer.result(20).status_code for answer in held} == {304}
        # One of each when it comes, and four a second for all of them.
        assert store.readings - began < 20 + 20
        rest = store.readings
        assert client.get(ROUTES_PATH, headers={"if-none-match": '"other"'}).status_code == 200
        assert store.readings == rest + 1


def test_a_store_that_breaks_meanwhile_is_said_to_who_waits(store: RouteSource) -> None:
    with asking(store) as client, ThreadPoolExecutor(1) as pool:
        tag = client.get(ROUTES_PATH).headers["etag"]
        held = pool.submit(client.get, ROUTES_PATH, headers=wait_for(tag, 60))
        store.broken = True
        answer = held.result(10)
    assert (answer.status_code, "this test broke it" in answer.text) == (409, True)


def test_a_server_that_ends_answers_who_waits_with_what_holds_then(store: RouteSource) -> None:
    stopping, app = threading.Event(), FastAPI()
    app.include_router(build_gateways_router(store, token=None, agents={}, is_stopping=stopping.is_set))
    with serving(app) as url, httpx.Client(base_url=url, timeout=30) as client, ThreadPoolExecutor(1) as pool:
        tag = client.get(ROUTES_PATH).headers["etag"]
        held = pool.submit(client.get, ROUTES_PATH, headers=wait_for(tag, 60))
        before = store.readings
        wait_until(lambda: store.readings > before, 10, "the wait to begin")
        stopping.set()
        assert held.result(10).status_code == 304


@pytest.mark.parametrize(
    ("tokens", "sent", "status"),
    [
        ({"token": None, "agents": {}}, "", 200),
        ({"token": None, "agents": {"a": "acme"}}, "", 401),
        ({"token": None, "agents": {"a": "acme"}}, "Bearer a", 401),
        ({"token": "g", "agents": {"a": "acme"}}, "Bearer a", 401),
        ({"token": "g", "agents": {"a": "acme"}}, "Bearer g", 200),
        ({"token": "g", "agents": {}}, "", 401),
        ({"token": "g", "agents": {}}, "Basic g", 401),
    ],
)
def test_only_the_gateway_s_token_opens_it_where_there_are_any(
    store: RouteSource, tokens: dict[str, Any], sent: str, status: int
) -> None:
    app = FastAPI()
    app.include_router(build_gateways_router(store, is_stopping=lambda: False, **tokens))
    with serving(app) as url:
        assert httpx.get(url + ROUTES_PATH, headers={"authorization": sent}).status_code == status


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        ("", 0),
        ("wait=10", 10),
        ("respond-async, Wait=7; x=1", 7),
        ('wait="5"', 5),
        (f"wait={10**8}", 60),
        (f"wait={10**20}", 0),
        ("wait=-1", 0),
        ("wait=NaN", 0),
        ("wait", 0),
        ("awaits=5", 0),
        ("wait=٣", 0),
    ],
)
def test_how_long_an_answer_may_be_held_back_is_read_from_the_header(prefer: str, seconds: int) -> None:
    assert parse_wait(prefer) == seconds


def test_tags_come_in_lists_and_may_be_weak() -> None:
    assert parse_tags('"a", W/"b",c') == {"a", "b"}
