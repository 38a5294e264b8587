"""The client against a real Phoenix, and against a stand-in for what a healthy Phoenix does not do:
be busy, hide behind a proxy, answer half."""

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from daemon.demo.phoenix import PhoenixServer, run_phoenix
from daemon.demo.servers import find_free_port
from extractors.phoenix.client import PhoenixClient
from extractors.phoenix.http import PhoenixAnswer, PhoenixRefused, PhoenixUnreachable
from extractors.phoenix.mirror import MirrorSource
from extractors.phoenix.poll import poll
from extractors.phoenix.span_client import WrongCondition
from extractors.phoenix.spans import Annotation
from registry.store.store import Store
from tests.support.phoenix import NOON, chat_span, new_project, send_and_wait, send_spans, wait_for_spans

ADMIN_KEY = "admin-key-of-a-test-0123456789abcdef"


@pytest.fixture
def client(phoenix: PhoenixServer) -> Iterator[PhoenixClient]:
    # A short URL makes every question take several requests.
    with PhoenixClient(phoenix.url, longest_url=400) as client:
        yield client


def build_verdict(span_id: str, identifier: str = "ann", label: str | None = "approved") -> Annotation:
    return Annotation(
        level="span",
        subject_id=span_id,
        name="approval 👍",
        identifier=identifier,
        annotator_kind="HUMAN",
        label=label,
        score=0.25,
        explanation="naïve, but “right” 📦",
        metadata={"response": {"nested": [1, None, "x"]}},
        updated_at=NOON,
    )


def test_annotations_come_back_as_they_were_written(
    phoenix: PhoenixServer, client: PhoenixClient, project: str
) -> None:
    spans = [chat_span() for _ in range(60)]
    send_and_wait(phoenix.url, project, *spans)
    written = [build_verdict(span.span_id, identifier) for span in spans for identifier in ("", "bob")]
    client.annotations.write(written)

    found = client.annotations.read(
        client.project(project), "span", [span.span_id for span in spans], {"approval 👍", "other"}
    )

    unstamped = [annotation.model_copy(update={"updated_at": NOON}) for annotation in found]
    assert sorted(unstamped, key=lambda a: a.key) == sorted(written, key=lambda a: a.key)


def test_an_annotation_of_a_span_that_does_not_exist_is_an_error(client: PhoenixClient) -> None:
    with pytest.raises(PhoenixAnswer, match="0123456789abcdef"):
        client.annotations.write([build_verdict("0123456789abcdef")])


def test_subjects_that_are_gone_have_no_annotations(
    phoenix: PhoenixServer, client: PhoenixClient, project: str
) -> None:
    send_and_wait(phoenix.url, project, chat_span())
    assert client.annotations.read(client.project(project), "trace", ["0" * 32], {"approval"}) == []


def test_reviewers_are_offered_what_to_choose_from_however_often_it_is_offered(
    phoenix: PhoenixServer, client: PhoenixClient, project: str
) -> None:
    send_and_wait(phoenix.url, project, chat_span())
    for _ in range(2):
        client.annotations.offer(client.project(project), "routing verdict", ["approved", "rejected"])
        client.annotations.offer(client.project(project), "correction")

    offered = httpx.get(f"{phoenix.url}/v1/projects/{project}/annotation_configs").json()["data"]
    assert {config["name"]: config["type"] for config in offered} == {
        "routing verdict": "CATEGORICAL",
        "correction": "FREEFORM",
    }


def test_spans_that_fulfil_a_condition_are_counted(
    phoenix: PhoenixServer, client: PhoenixClient, project: str
) -> None:
    send_and_wait(phoenix.url, project, chat_span(), chat_span(kind="TOOL"))
    found = client.project(project)
    assert (client.spans.count(found), client.spans.count(found, "span_kind == 'TOOL'")) == (2, 1)
    assert client.spans.count(found, "llm.no_such == 'x'") == 0
    with pytest.raises(WrongCondition, match="invalid syntax"):
        client.spans.count(found, "span_kind ==")


def test_keys_that_phoenix_refuses_are_told_apart_and_never_shown(tmp_path: Path) -> None:
    project = new_project()
    with run_phoenix(tmp_path / "phoenix", auth_secret=ADMIN_KEY) as phoenix:
        span = chat_span()
        send_spans(phoenix.url, project, [span], api_key=ADMIN_KEY)
        wait_for_spans(phoenix.url, project, 1, api_key=ADMIN_KEY)

        for key in (None, "a wrong key"):
            with pytest.raises(PhoenixRefused, match="401") as refused:
                _poll_once(phoenix.url, key, project, tmp_path)
            assert "wrong key" not in str(refused.value)
        with pytest.raises(PhoenixRefused, match=r"403.*viewer"):
            _poll_once(phoenix.url, _create_viewer_key(phoenix.url), project, tmp_path)

        with PhoenixClient(phoenix.url, ADMIN_KEY) as client:
            client.annotations.write([build_verdict(span.span_id)])
        _poll_once(phoenix.url, ADMIN_KEY, project, tmp_path)


def _poll_once(url: str, key: str | None, project: str, data_dir: Path) -> None:
    store = Store.open(data_dir, NOON)
    try:
        with PhoenixClient(url, key) as client:
            change = poll(
                client,
                store.mirror("acme/routing"),
                MirrorSource(project=project, annotation_names=frozenset({"approval 👍"})),
                now=NOON,
            )
            assert len(change.annotations) == 1
    finally:
        store.close()


def _create_viewer_key(url: str) -> str:
    """The API key of a new user who may only look."""
    user = {"email": "v@example.com", "username": "v", "role": "VIEWER", "auth_method": "LOCAL"}
    with httpx.Client(base_url=url, timeout=60) as browser:
        browser.post(
            "/v1/users",
            json={"user": {**user, "password": "look-only"}, "send_welcome_email": False},
            headers={"authorization": f"Bearer {ADMIN_KEY}"},
        ).raise_for_status()
        browser.post("/auth/login", json={"email": user["email"], "password": "look-only"}).raise_for_status()
        key = browser.post("/v1/user/api_keys", json={"data": {"name": "look"}}).raise_for_status().json()
    return str(key["data"]["key"])


# ---- what a healthy Phoenix does not do

HttpAnswer = tuple[int, dict[str, str], bytes]
FOUND: HttpAnswer = (
    200,
    {"content-type": "application/json"},
    json.dumps(
        {"data": {"getProjectByName": {"id": "UHJvamVjdDox", "streamingLastUpdatedAt": None}}}
    ).encode(),
)


@contextmanager
def answering(answers: Sequence[HttpAnswer]) -> Iterator[str]:
    """A stand-in for Phoenix's HTTP: gives `answers` in turn, the last one for ever."""
    waiting = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            status, headers, body = waiting.pop(0) if len(waiting) > 1 else waiting[0]
            self.send_response(status)
            for name, value in {**headers, "content-length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("status", [429, 502, 503, 507])
def test_a_busy_phoenix_is_asked_again(status: int) -> None:
    busy: HttpAnswer = (status, {}, b"busy")
    with answering([busy, busy, FOUND]) as url, PhoenixClient(url) as client:
        assert client.project("p").id == "UHJvamVjdDox"


def test_a_busy_phoenix_is_given_the_time_it_asks_for() -> None:
    with answering([(503, {"retry-after": "1"}, b""), FOUND]) as url, PhoenixClient(url) as client:
        start = time.monotonic()
        client.project("p")
        assert time.monotonic() - start >= 1


def test_patience_ends() -> None:
    with (
        answering([(503, {}, b"queue is full")]) as url,
        PhoenixClient(url, patience=0.5) as client,
        pytest.raises(PhoenixUnreachable, match=r"busy.*503 queue is full"),
    ):
        client.project("p")


def test_nobody_there_is_said_with_the_url() -> None:
    url = f"http://127.0.0.1:{find_free_port()}"
    with PhoenixClient(url, patience=0.3) as client, pytest.raises(PhoenixUnreachable, match=url):
        client.project("p")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((200, {}, b"<!doctype html><title>Phoenix</title>"), "base URL"),
        ((200, {}, b'{"data": null, "errors": [{"message": "Cannot query field"}]}'), "Cannot query field"),
        ((302, {"location": "/login"}, b""), "302"),
        ((500, {}, b"Internal Server Error"), "500 Internal Server Error"),
    ],
)
def test_an_answer_that_is_none_is_an_error_that_shows_it(answer: HttpAnswer, said: str) -> None:
    with (
        answering([answer]) as url,
        PhoenixClient(url) as client,
        pytest.raises(PhoenixAnswer, match=said),
    ):
        client.project("p")


def test_half_a_multipart_answer_is_an_error_and_not_fewer_spans() -> None:
    half = (200, {"content-type": "multipart/mixed; boundary=x"}, b'--x\r\nA: b\r\n\r\n{"data": []}\r\n')
    with answering([FOUND, half]) as url, PhoenixClient(url) as client:
        project = client.project("p")
        with pytest.raises(PhoenixAnswer, match="whole"):
            client.spans.read_traces(project, ["0" * 32])
