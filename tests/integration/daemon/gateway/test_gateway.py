"""The gateway in front of stand-in replicas (tests/support/openai_stand_in.py), over real HTTP."""

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest

from daemon.access.tokens import TokensMissing, check_tokens
from daemon.demo.servers import find_free_port
from daemon.gateway import ReplicaAddress, Tracing
from tests.support.gateway import ASK, Collector, RouteSource, gateway, route
from tests.support.openai_stand_in import StandIn, serving
from tests.support.phoenix import wait_until


@pytest.fixture
def replica() -> Iterator[tuple[StandIn, str]]:
    stand_in = StandIn(models={"base", "acme.routing.v1", "acme.routing.v2"})
    with serving(stand_in) as url:
        yield stand_in, url


def test_the_base_model_answers_until_a_version_is_active(replica: tuple[StandIn, str]) -> None:
    stand_in, url = replica
    with gateway(RouteSource(route(url))) as client:
        answer = client.post("/v1/chat/completions", json=ASK)
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"] == stand_in.answer
    assert answer.json()["model"] == "acme/routing"
    assert answer.headers["x-learnd-version"] == "base"
    assert stand_in.seen == [{**ASK, "model": "base"}]


def test_the_alias_flips_under_steady_traffic_without_a_failed_request(replica: tuple[StandIn, str]) -> None:
    stand_in, url = replica
    stand_in.event_seconds = 0.02
    store = RouteSource(route(url, version="acme.routing.v1"))
    with gateway(store) as client, ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(client.post, "/v1/chat/completions", json=ASK) for _ in range(100)]
        wait_until(answers[0].done, 5, "the first answer")
        store.serve("acme/routing", "acme.routing.v2")
        wait_for_reading(store)
        answers += [pool.submit(client.post, "/v1/chat/completions", json=ASK) for _ in range(20)]
    statuses = {answer.result().status_code for answer in answers}
    versions = [answer.result().headers["x-learnd-version"] for answer in answers]
    assert statuses == {200}
    assert versions[0] == "acme.routing.v1"
    assert set(versions[-20:]) == {"acme.routing.v2"}


def test_an_openai_client_streams_through_it_and_sees_the_alias(replica: tuple[StandIn, str]) -> None:
    stand_in, url = replica
    with gateway(RouteSource(route(url, version="acme.routing.v1"))) as client:
        agent = openai.OpenAI(base_url=f"{client.base_url}/v1", api_key="none", max_retries=0)
        with agent.chat.completions.create(stream=True, **ASK) as stream:  # type: ignore[call-overload]
            chunks = list(stream)
        agent.close()
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == stand_in.answer
    assert {chunk.model for chunk in chunks} == {"acme/routing"}


def test_a_stream_arrives_piece_by_piece(replica: tuple[StandIn, str]) -> None:
    stand_in, url = replica
    stand_in.event_seconds = 0.1
    with (
        gateway(RouteSource(route(url))) as client,
        client.stream("POST", "/v1/completions", json=_stream("hi")) as answer,
    ):
        arrivals = [time.monotonic() for line in answer.iter_lines() if line.startswith("data: ")]
    assert arrivals[-1] - arrivals[0] > 0.3


def test_a_client_that_hangs_up_stops_the_replica(replica: tuple[StandIn, str]) -> None:
    stand_in, url = replica
    stand_in.event_seconds = 0.2
    stand_in.answer = "word " * 200
    with gateway(RouteSource(route(url))) as client:
        with client.stream("POST", "/v1/chat/completions", json={**ASK, "stream": True}) as answer:
            next(answer.iter_bytes())
        wait_until(lambda: stand_in.aborted == 1, 5, "the replica to stop")
        stand_in.event_seconds = 60
        with pytest.raises(httpx.ReadTimeout):
            client.post("/v1/chat/completions", json=ASK, timeout=0.3)
        wait_until(lambda: stand_in.aborted == 2, 5, "the replica to stop")


def test_the_tokens_of_two_tenants_never_meet(replica: tuple[StandIn, str]) -> None:
    _, url = replica
    store = RouteSource(route(url), route(url, target="globex/sorting"))
    with gateway(store, tokens={"acme-token": "acme", "globex-token": "globex"}) as client:
        acme = {"authorization": "Bearer acme-token"}
        globex = {"authorization": "bearer globex-token"}
        assert client.post("/v1/chat/completions", json=ASK, headers=acme).status_code == 200
        foreign = client.post("/v1/chat/completions", json=ASK, headers=globex)
        unknown = client.post("/v1/chat/completions", json={**ASK, "model": "acme/none"}, headers=globex)
        assert [model["id"] for model in client.get("/v1/models", headers=globex).json()["data"]] == [
            "globex/sorting"
        ]
        assert client.get("/v1/models/acme/routing", headers=globex).status_code == 404
        assert "acme" in client.get("/metrics", headers=acme).text
        assert "acme" not in client.get("/metrics", headers=globex).text
    assert foreign.status_code == unknown.status_code == 404
    assert foreign.text.replace("routing", "none") == unknown.text
    assert foreign.json()["error"]["code"] == "model_not_found"


@pytest.mark.parametrize(
    "sent", [{}, {"authorization": "Bearer nope"}, {"authorization": "Basic acme-token"}]
)
def test_a_missing_or_wrong_token_is_refused(replica: tuple[StandIn, str], sent: dict[str, str]) -> None:
    stand_in, url = replica
    with gateway(RouteSource(route(url)), tokens={"acme-token": "acme"}) as client:
        for path in ("/v1/models", "/metrics"):
            assert client.get(path, headers=sent).status_code == 401
        answer = client.post("/v1/chat/completions", json=ASK, headers=sent)
        assert client.get("/healthz").status_code == 200
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert stand_in.seen == []


def test_a_replica_gets_its_own_key_and_never_the_agents(replica: tuple[StandIn, str]) -> None:
    stand_in, url = replica
    address = ReplicaAddress(name="r0", url=url, base_name="base", api_key="replica-key")  # type: ignore[arg-type]
    sent = {
        "authorization": "Bearer acme-token",
        "cookie": "a=b",
        "x-request-id": "42",
        "proxy-authorization": "x",
    }
    with gateway(RouteSource(route(replicas=(address,))), tokens={"acme-token": "acme"}) as client:
        client.post("/v1/chat/completions", json=ASK, headers=sent)
    received = stand_in.headers[0]
    assert received["authorization"] == "Bearer replica-key"
    assert received["x-request-id"] == "42"
    assert "cookie" not in received
    assert "proxy-authorization" not in received


NOT_ROUTES = [
    ("POST", "/v1/load_lora_adapter"),
    ("POST", "/v1/unload_lora_adapter"),
    ("POST", "/v1/chat/completions/../load_lora_adapter"),
    ("POST", "//v1/chat/completions"),
    ("POST", "/v1/embeddings"),
    ("POST", "/tokenize"),
    ("POST", "/sleep"),
    ("GET", "/v1/chat/completions"),
    ("GET", "/docs"),
    ("GET", "/"),
]


def test_only_the_listed_routes_exist(replica: tuple[StandIn, str]) -> None:
    stand_in, url = replica
    with gateway(RouteSource(route(url))) as client:
        for method, path in NOT_ROUTES:
            answer = client.request(method, httpx.URL(str(client.base_url), raw_path=path.encode()), json=ASK)
            assert answer.status_code == 404, path
            assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert stand_in.paths == []


def test_only_aliases_are_models(replica: tuple[StandIn, str]) -> None:
    stand_in, url = replica
    with gateway(RouteSource(route(url, version="acme.routing.v1"))) as client:
        for name in ("base", "acme.routing.v1", "acme/unknown", "", "acme/routing/"):
            assert client.post("/v1/chat/completions", json={**ASK, "model": name}).status_code == 404, name
            assert client.get(f"/v1/models/{name}").status_code == 404, name
        listed = client.get("/v1/models").json()["data"]
        assert client.get("/v1/models/acme/routing").json() == listed[0]
    assert [model["id"] for model in listed] == ["acme/routing"]
    assert stand_in.seen == []


REFUSED_BODIES = {
    b"": 400,
    b"{": 400,
    b"[]": 400,
    b'{"messages": []}': 400,
    b'{"model": 3}': 400,
    b"\xff\xfe\x00": 400,
    b"[" * 100_000: 400,
    b'{"model": "acme/routing", "n": ' + b"9" * 5000 + b"}": 400,
    b'{"model": "acme/routing", "x": "' + b"a" * 2**20 + b'"}': 413,
}


def test_a_broken_or_large_body_is_refused_and_harms_nobody(replica: tuple[StandIn, str]) -> None:
    stand_in, url = replica
    with gateway(RouteSource(route(url))) as client:
        for body, status in REFUSED_BODIES.items():
            answer = client.post("/v1/chat/completions", content=body)
            assert answer.status_code == status, body[:50]
            assert answer.json()["error"]["message"]
        assert stand_in.seen == []
        assert client.post("/v1/chat/completions", json=ASK).status_code == 200


def test_a_large_body_without_an_announced_length_is_refused(replica: tuple[StandIn, str]) -> None:
    _, url = replica
    with gateway(RouteSource(route(url)), max_body_bytes=1000) as client:
        assert client.post("/v1/chat/completions", content=iter([b"x" * 600] * 2)).status_code == 413


def test_without_a_replica_the_agent_is_told_when_to_try_again() -> None:
    with gateway(
        RouteSource(route(f"http://127.0.0.1:{find_free_port()}"), route(target="acme/idle"))
    ) as client:
        for target in ("acme/routing", "acme/idle"):
            answer = client.post("/v1/chat/completions", json={**ASK, "model": target})
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) > 0
            assert answer.json()["error"]["type"] == "server_error"
            assert "127.0.0.1" not in answer.text


@pytest.mark.parametrize("state", ["gone", "restarted", "overloaded", "wrong key", "breaks off"])
@pytest.mark.parametrize("stream", [False, True])
def test_another_replica_takes_over(replica: tuple[StandIn, str], state: str, stream: bool) -> None:
    healthy, url = replica
    sick = StandIn(models={"base"} if state == "restarted" else {"base", "acme.routing.v1"})
    sick.status = {"overloaded": 503, "wrong key": 401}.get(state, 200)
    sick.events_before_break = 0 if state == "breaks off" else None
    with serving(sick) as sick_url:
        sick_url = f"http://127.0.0.1:{find_free_port()}" if state == "gone" else sick_url
        with gateway(RouteSource(route(sick_url, url, version="acme.routing.v1"))) as client:
            answers = [client.post("/v1/chat/completions", json={**ASK, "stream": stream}) for _ in range(6)]
    assert {answer.status_code for answer in answers} == {200}
    assert len(healthy.seen) == 6
    assert len(sick.seen) <= 1  # then it rests


def test_requests_go_to_the_replica_that_has_the_fewest(replica: tuple[StandIn, str]) -> None:
    slow, slow_url = replica
    slow.event_seconds = 0.5
    quick = StandIn()
    with (
        serving(quick) as quick_url,
        gateway(RouteSource(route(slow_url, quick_url))) as client,
        ThreadPoolExecutor(2) as pool,
    ):
        for _ in range(12):
            pool.submit(client.post, "/v1/chat/completions", json=ASK)
            time.sleep(0.04)
    assert len(slow.seen) + len(quick.seen) == 12
    assert len(quick.seen) > len(slow.seen) > 0


def test_a_refusal_of_the_model_itself_reaches_the_agent(replica: tuple[StandIn, str]) -> None:
    stand_in, url = replica
    stand_in.status = 400
    with gateway(RouteSource(route(url))) as client:
        answer = client.post("/v1/chat/completions", json=ASK)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "this replica was told to fail"
    assert len(stand_in.seen) == 1


def test_a_stream_that_breaks_off_ends_in_an_error_and_is_not_begun_again(
    replica: tuple[StandIn, str],
) -> None:
    stand_in, url = replica
    stand_in.events_before_break = 2
    with gateway(RouteSource(route(url, url))) as client:
        agent = openai.OpenAI(base_url=f"{client.base_url}/v1", api_key="none", max_retries=0)
        stream = agent.chat.completions.create(stream=True, **ASK)  # type: ignore[call-overload]
        with stream, pytest.raises(openai.APIError, match="broke off"):
            list(stream)
        agent.close()
    assert len(stand_in.seen) == 1


def test_the_last_known_version_serves_while_the_daemon_cannot_tell(replica: tuple[StandIn, str]) -> None:
    _, url = replica
    store = RouteSource(route(url, version="acme.routing.v1"))
    with gateway(store) as client:
        store.broken = True
        wait_for_reading(store)
        answer = client.post("/v1/chat/completions", json=ASK)
        assert answer.headers["x-learnd-version"] == "acme.routing.v1"
        store.broken = False
        store.serve("acme/routing", "acme.routing.v2")
        wait_for_reading(store)
        answer = client.post("/v1/chat/completions", json=ASK)
        assert answer.headers["x-learnd-version"] == "acme.routing.v2"


def test_a_gateway_that_never_heard_from_the_daemon_is_not_ready(replica: tuple[StandIn, str]) -> None:
    _, url = replica
    store = RouteSource(route(url))
    store.broken = True
    with gateway(store) as client:
        assert client.get("/readyz").status_code == 503
        assert client.post("/v1/chat/completions", json=ASK).status_code == 503
        store.broken = False
        wait_until(lambda: client.get("/readyz").status_code == 200, 5, "the gateway to be ready")


def test_usage_that_only_the_trace_wants_stays_out_of_the_stream(replica: tuple[StandIn, str]) -> None:
    stand_in, url = replica
    tracing = Tracing(f"http://127.0.0.1:{find_free_port()}")
    asked = {**ASK, "stream": True, "stream_options": {"include_usage": True}}
    with gateway(RouteSource(route(url)), tracing=tracing) as client:
        plain = client.post("/v1/chat/completions", json={**ASK, "stream": True})
        wanted = client.post("/v1/chat/completions", json=asked)
    assert stand_in.seen[0]["stream_options"] == {"include_usage": True}
    assert "usage" not in plain.text
    assert "usage" in wanted.text
    assert plain.text.endswith("data: [DONE]\n\n")


def test_a_dead_phoenix_costs_traces_and_no_request(replica: tuple[StandIn, str]) -> None:
    _, url = replica
    tracing = Tracing(f"http://127.0.0.1:{find_free_port()}", max_queued_bytes=20_000)
    with gateway(RouteSource(route(url)), tracing=tracing) as client:
        answers = [client.post("/v1/chat/completions", json=ASK) for _ in range(30)]
        assert {answer.status_code for answer in answers} == {200}
        wait_until(lambda: tracing.lost > 0, 5, "a call to go untraced")
        assert f"learnd_gateway_untraced_calls {float(tracing.lost)}" in client.get("/metrics").text


def test_a_call_that_is_larger_than_the_queue_is_traced_all_the_same(replica: tuple[StandIn, str]) -> None:
    _, url = replica
    collector = Collector()
    with serving(collector) as phoenix:
        with gateway(RouteSource(route(url)), tracing=Tracing(phoenix, max_queued_bytes=1)) as client:
            assert client.post("/v1/chat/completions", json=ASK).status_code == 200
        assert len(collector.spans) == 1


def test_calls_wait_for_a_phoenix_that_is_down(replica: tuple[StandIn, str]) -> None:
    _, url = replica
    port = find_free_port()
    collector = Collector(refuse=1)
    with gateway(RouteSource(route(url)), tracing=Tracing(f"http://127.0.0.1:{port}")) as client:
        span_ids = [
            client.post("/v1/chat/completions", json=ASK).headers["x-learnd-span-id"] for _ in range(3)
        ]
        with socket.create_server(("127.0.0.1", port)) as down:
            down.settimeout(20)
            down.accept()[0].close()
        with serving(collector, port):
            wait_until(lambda: bool(collector.spans), 20, "the spans")
    assert [span.span_id.hex() for span in collector.spans] == span_ids


def test_spans_that_phoenix_refuses_do_not_hold_up_the_next_ones(replica: tuple[StandIn, str]) -> None:
    _, url = replica
    collector = Collector(refuse=1, status=422)
    with serving(collector) as phoenix:
        tracing = Tracing(phoenix)
        with gateway(RouteSource(route(url)), tracing=tracing) as client:
            client.post("/v1/chat/completions", json=ASK)
            wait_until(lambda: tracing.lost == 1, 5, "a call to go untraced")
            client.post("/v1/chat/completions", json=ASK)
    assert len(collector.spans) == 1


def test_requests_are_counted_by_alias_version_and_status(replica: tuple[StandIn, str]) -> None:
    stand_in, url = replica
    with gateway(RouteSource(route(url, version="acme.routing.v1"))) as client:
        client.post("/v1/chat/completions", json=ASK)
        stand_in.status = 400
        client.post("/v1/chat/completions", json=ASK)
        # A call is counted once its answer is out, so shortly after the client has it.
        idle = 'learnd_gateway_in_flight{target="acme/routing"} 0.0'
        wait_until(lambda: idle in client.get("/metrics").text, 5, "both calls to be counted")
        page = client.get("/metrics").text
    for status in (200, 400):
        labels = f'status="{status}",target="acme/routing",version="acme.routing.v1"'
        assert f"learnd_gateway_requests_total{{{labels}}} 1.0" in page


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "gateway.internal"])  # noqa: S104
def test_nobody_listens_to_the_network_without_tokens(host: str) -> None:
    with pytest.raises(TokensMissing, match="LEARND_AGENTS__TOKENS"):
        check_tokens(host, {})
    check_tokens(host, {"token": "acme"})
    check_tokens("127.0.0.1", {})
    with pytest.raises(TokensMissing, match="empty"):
        check_tokens(host, {" ": "acme"})


def _stream(prompt: str) -> dict[str, Any]:
    return {"model": "acme/routing", "prompt": prompt, "stream": True}


def wait_for_reading(store: RouteSource) -> None:
    """Wait until the daemon has told the gateway what the store holds now, and the gateway goes by it."""
    # A reading under way may have begun before; the next one is in force once the one after it begins.
    enough = store.readings + 2
    wait_until(lambda: store.readings >= enough, 5, "the gateway to ask the daemon")
