"""The operators' API over real HTTP: who is let in, who may decide, and that it does what the commands do."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest
from argon2 import PasswordHasher

from daemon.access.accounts import (
    PER_NAME_AND_PEER,
    WINDOW,
    Operators,
    check_tokens_are_apart,
    hash_password,
)
from daemon.access.sign_in import Authenticator
from daemon.access.tokens import TokensMissing
from daemon.api.app import build_api
from daemon.monitoring.metrics import Metrics
from daemon.settings.load import Settings
from daemon.settings.people import AgentSettings
from daemon.settings.types import SettingsError
from daemon.views.status import Health
from registry.batches import Batch
from registry.store.store import Store
from registry.versions import VersionState
from tests.integration.registry.store.batch_support import TARGET, a_batch, an_example
from tests.integration.registry.store.store_support import NOW, SOON, a_candidate, promote
from tests.support.openai_stand_in import serving

PASSWORD = "correct horse battery staple"
# Cheap ones: what is tested is not how long argon2 takes.
CHEAP = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
USERS = {
    "ann": {"role": "operator", "password_hash": CHEAP.hash(PASSWORD)},
    "vic": {"role": "viewer", "password_hash": CHEAP.hash(PASSWORD)},
    "ci": {"role": "operator"},
}
TOKENS = {"ci-token": "ci", "vic-token": "vic"}
AGENTS = {"acme-token": "acme"}


class Daemon:
    """The daemon's API over a store, at a time that a test can move."""

    def __init__(self, folder: Path, **operators: Any) -> None:
        target = {"tenant": "acme", "agent": "routing", "project": "p", "task": "generation"}
        known = {"users": USERS, "tokens": TOKENS, **operators}
        self.settings = Settings.model_validate(
            {"data_dir": folder, "targets": [{**target, "base_model": "none"}], "operators": known}
        )
        self.store = Store.open(folder, NOW)
        self.now = SOON
        self.health = Health()

    @contextmanager
    def up(self, agents: Mapping[str, str] = AGENTS) -> Iterator[str]:
        operators = Operators(self.settings.operators, lambda: self.now)
        settings = self.settings.model_copy(update={"agents": AgentSettings(tokens=dict(agents))})  # type: ignore[arg-type]
        authenticator = Authenticator(operators, agents)
        api = build_api(settings, self.store, authenticator, self.health, Metrics(), lambda: self.now)
        with serving(api) as url:
            yield url

    @contextmanager
    def client(self, agents: Mapping[str, str] = AGENTS, **headers: str) -> Iterator[httpx.Client]:
        with self.up(agents) as url, httpx.Client(base_url=url, headers=headers, timeout=30) as client:
            yield client

    @contextmanager
    def as_ci(self) -> Iterator[httpx.Client]:
        """Whoever holds the token of an operator."""
        with self.client(authorization="Bearer ci-token") as client:
            yield client


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon(tmp_path)
    yield made
    made.store.close()


@pytest.fixture
def batch(daemon: Daemon) -> Batch:
    return a_batch(daemon.store, "one", "two", "three", "four")


def sign_in(client: httpx.Client, name: str = "ann", password: str = PASSWORD) -> httpx.Response:
    return client.post("/api/v1/session", json={"name": name, "password": password})


def csrf(client: httpx.Client, name: str = "ann") -> dict[str, str]:
    """Sign in; the header for what changes something."""
    return {"X-CSRF-Token": sign_in(client, name).json()["csrf_token"]}


def approval(number: int, revision: int = 0, **more: Any) -> list[dict[str, Any]]:
    return [{"number": number, "revision": revision, "state": "APPROVED", **more}]


# ---- who is let in


def test_nobody_reads_anything_without_signing_in(daemon: Daemon) -> None:
    with daemon.client() as client:
        schema = client.get("/openapi.json").json()
        reading = [
            path for path, routes in schema["paths"].items() if path.startswith("/api/v1") and "get" in routes
        ]
        assert len(reading) > 12
        for path in reading:
            asked = path.replace("{tenant}/{agent}", TARGET)
            assert client.get(asked).status_code == 401, path
        assert "POST /api/v1/session" in client.get("/api/v1/batches").json()["detail"]


def test_every_route_that_changes_something_wants_an_operator_and_a_csrf_token(daemon: Daemon) -> None:
    with daemon.client() as client:
        schema = client.get("/openapi.json").json()
        changing = [
            (method, path.replace("{tenant}/{agent}", TARGET))
            for path, routes in schema["paths"].items()
            for method in routes
            if path.startswith("/api/v1")
            and method != "get"
            and (path, method) != ("/api/v1/session", "post")
        ]
        assert len(changing) == 12
        for method, path in changing:
            assert client.request(method, path, json={}).status_code == 401, path
        sign_in(client)
        for method, path in changing:
            refused = client.request(method, path, json={})
            assert (refused.status_code, "X-CSRF-Token" in refused.text) == (403, True), path
            wrong = client.request(method, path, json={}, headers={"X-CSRF-Token": "wrong"})
            assert wrong.status_code == 403, path
        shown = csrf(client, "vic")
        for method, path in changing:
            if path != "/api/v1/session":
                refused = client.request(method, path, json={}, headers=shown)
                assert (refused.status_code, "viewer" in refused.text) == (403, True), path


def test_a_session_is_a_cookie_that_pages_cannot_read_and_ends_when_it_should(daemon: Daemon) -> None:
    with daemon.client() as client:
        answer = sign_in(client)
        cookie = answer.headers["set-cookie"]
        assert {"HttpOnly", "SameSite=lax", "Path=/", "Max-Age=43200"} <= set(cookie.split("; "))
        assert answer.headers["cache-control"] == "no-store"
        who = client.get("/api/v1/session").json()
        assert (who["name"], who["role"], who["csrf_token"]) == (
            "ann",
            "operator",
            answer.json()["csrf_token"],
        )
        daemon.now += timedelta(hours=12)
        assert client.get("/api/v1/session").status_code == 401
        shown = csrf(client)
        kept = client.cookies["learnd_session"]
        assert client.delete("/api/v1/session", headers=shown).status_code == 204
        # Not only is the cookie gone: it opens nothing any more.
        client.cookies.set("learnd_session", kept)
        assert client.get("/api/v1/batches").status_code == 401


def test_one_session_s_csrf_token_is_of_no_use_to_another(daemon: Daemon, batch: Batch) -> None:
    with daemon.up() as url, httpx.Client(base_url=url) as ann, httpx.Client(base_url=url) as vic:
        sign_in(ann)
        of_another = csrf(vic, "vic")
        path = f"/api/v1/batches/{batch.id}/decisions"
        assert ann.post(path, json=approval(1), headers=of_another).status_code == 403
    assert daemon.store.batch(batch.id).approved == 0


def test_wrong_names_and_wrong_passwords_are_refused_alike_and_then_no_more_are_tried(daemon: Daemon) -> None:
    with daemon.client() as client:
        said = {
            sign_in(client, name, "wrong").json()["detail"] for name in ("ann", "nobody", "ci", "vic", "\x00")
        }
        assert said == {"this name and password do not belong together"}
        for _ in range(PER_NAME_AND_PEER - 1):
            assert sign_in(client, "ann", "wrong").status_code == 401
        limited = sign_in(client)
        assert (limited.status_code, limited.headers["retry-after"]) == (429, "300")
        assert sign_in(client, "vic").status_code == 200
        daemon.now += WINDOW
        assert sign_in(client).status_code == 200


def test_one_address_cannot_try_names_for_ever(daemon: Daemon) -> None:
    with daemon.client() as client:
        codes = [sign_in(client, f"name{n}", "wrong").status_code for n in range(32)]
    assert codes == [401] * 30 + [429] * 2


def test_a_form_of_another_page_cannot_sign_anybody_in(daemon: Daemon) -> None:
    with daemon.client() as client:
        body = json.dumps({"name": "ann", "password": PASSWORD})
        for kind in ("text/plain", "application/x-www-form-urlencoded"):
            refused = client.post("/api/v1/session", content=body, headers={"content-type": kind})
            assert refused.status_code == 415
            assert "set-cookie" not in refused.headers


def test_a_token_acts_for_its_person_without_a_csrf_token(daemon: Daemon, batch: Batch) -> None:
    with daemon.as_ci() as client:
        who = client.get("/api/v1/session").json()
        assert (who["name"], who["csrf_token"]) == ("ci", None)
        path = f"/api/v1/batches/{batch.id}/decisions"
        assert client.post(path, json=approval(1)).json()["decided"][0]["decided_by"] == "ci"
        by_viewer = client.post(path, json=approval(2), headers={"authorization": "Bearer vic-token"})
        assert by_viewer.status_code == 403


def test_agents_and_operators_tokens_open_only_their_own_routes(daemon: Daemon) -> None:
    with daemon.client(authorization="Bearer acme-token") as agent:
        assert agent.get("/v1/status").status_code == 200
        refused = agent.get("/api/v1/targets")
        assert (refused.status_code, "agent's token" in refused.text) == (403, True)
        assert agent.get("/api/v1/targets", headers={"authorization": "Bearer other"}).status_code == 401
    for agents in (AGENTS, {}):
        with daemon.client(agents, authorization="Bearer ci-token") as operator:
            assert operator.get("/api/v1/targets").status_code == 200
            for path in ("/v1/status", "/metrics", f"/v1/active/{TARGET}"):
                refused = operator.get(path)
                assert (refused.status_code, "operator's token" in refused.text) == (403, True)


def test_a_wrong_token_is_not_made_good_by_a_cookie(daemon: Daemon) -> None:
    with daemon.client() as client:
        sign_in(client)
        assert client.get("/api/v1/batches", headers={"authorization": "Bearer other"}).status_code == 401


@pytest.mark.parametrize("token", ["acme-token", "ci-token", " "])
def test_the_gateway_s_token_is_nobody_else_s_and_not_empty(token: str) -> None:
    with pytest.raises(TokensMissing, match=r"gateway\.daemon_token"):
        check_tokens_are_apart(AGENTS, TOKENS, token)


def test_a_token_cannot_be_an_agent_s_and_an_operator_s(daemon: Daemon) -> None:
    with (
        pytest.raises(TokensMissing, match="both an agent's and an operator's"),
        daemon.up({"ci-token": "acme"}),
    ):
        pass


def test_without_operators_nobody_is_let_in_and_told_why(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, users={}, tokens={})
    with daemon.client({}) as client:
        refused = client.get("/api/v1/targets")
        assert (refused.status_code, "learnd operators hash" in refused.text) == (401, True)
        assert client.get("/v1/status").status_code == 200
    daemon.store.close()


def test_a_trusted_proxy_says_who_somebody_is(tmp_path: Path) -> None:
    daemon = Daemon(
        tmp_path, proxy_header="X-Forwarded-User", proxy_addresses=["127.0.0.0/8"], proxy_role="viewer"
    )
    batch = a_batch(daemon.store, "one", "two")
    path = f"/api/v1/batches/{batch.id}/decisions"
    with daemon.client(**{"X-Forwarded-User": "ann"}) as client:
        who = client.get("/api/v1/session").json()
        assert (who["name"], who["role"]) == ("ann", "operator")
        # A browser sends what the proxy makes of it along for any page.
        assert client.post(path, json=approval(1)).status_code == 403
        shown = {"X-CSRF-Token": who["csrf_token"]}
        assert client.post(path, json=approval(1), headers=shown).status_code == 200
        stranger = client.get("/api/v1/session", headers={"X-Forwarded-User": "zoe@example.org"}).json()
        assert (stranger["name"], stranger["role"]) == ("zoe@example.org", "viewer")
        for nobody in ("learnd", "", "a b"):
            assert client.get("/api/v1/session", headers={"X-Forwarded-User": nobody}).status_code == 401
    daemon.store.close()


def test_nobody_but_the_trusted_proxy_is_believed(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, proxy_header="X-Forwarded-User", proxy_addresses=["10.0.0.1"])
    with daemon.client(**{"X-Forwarded-User": "ann", "X-Forwarded-For": "10.0.0.1"}) as client:
        assert client.get("/api/v1/session").status_code == 401
        # Nor is its word on where somebody comes from: one address stays one address.
        for n in range(31):
            last = client.post(
                "/api/v1/session",
                json={"name": f"name{n}", "password": "wrong"},
                headers={"X-Forwarded-For": f"192.0.2.{n}"},
            )
        assert last.status_code == 429
    daemon.store.close()


def test_behind_a_trusted_proxy_the_cookie_is_for_tls_and_attempts_count_by_who_makes_them(
    tmp_path: Path,
) -> None:
    daemon = Daemon(tmp_path, proxy_header="X-Forwarded-User", proxy_addresses=["127.0.0.1"])
    with daemon.client(**{"X-Forwarded-Proto": "https"}) as client:
        assert "Secure" in sign_in(client).headers["set-cookie"].split("; ")
        for n in range(31):
            body = {"name": f"name{n}", "password": "wrong"}
            attempt = client.post("/api/v1/session", json=body, headers={"X-Forwarded-For": f"192.0.2.{n}"})
            assert attempt.status_code == 401
    daemon.store.close()


def test_an_account_with_a_hash_that_is_none_stops_the_daemon(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, users={"ann": {"password_hash": "secret"}}, tokens={})
    with pytest.raises(SettingsError, match="password hash of ann is none of argon2") as refused, daemon.up():
        pass
    assert "secret" not in str(refused.value)
    daemon.store.close()


def test_the_hash_that_the_command_makes_signs_in(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, users={"ann": {"password_hash": hash_password(PASSWORD)}}, tokens={})
    with daemon.client() as client:
        assert sign_in(client).status_code == 200
        assert sign_in(client, password=PASSWORD + " ").status_code == 401
    daemon.store.close()


def test_how_long_a_refusal_takes_does_not_say_whether_the_name_is_known(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, users={"ann": {"password_hash": hash_password(PASSWORD)}}, tokens={})

    def seconds(client: httpx.Client, name: str) -> float:
        # Of computing, which no neighbour on the machine prolongs as it does the time that passes.
        began = time.process_time()
        assert sign_in(client, name, "wrong").status_code == 401
        return time.process_time() - began

    with daemon.client() as client:
        took = [(seconds(client, "ann"), seconds(client, f"name{n}")) for n in range(5)]
    known, unknown = (min(each) for each in zip(*took, strict=True))
    assert known / 2 < unknown < known * 2
    assert known > 0.01
    daemon.store.close()


def test_a_body_that_is_too_large_is_not_read(daemon: Daemon) -> None:
    with daemon.client() as client:
        assert client.post("/api/v1/session", content=iter((b"{}",))).status_code == 411
        connection = HTTPConnection(client.base_url.host, client.base_url.port, timeout=30)
        connection.putrequest("POST", "/api/v1/session")
        connection.putheader("Content-Length", str(2**40))
        connection.endheaders()
        assert connection.getresponse().status == 413
        connection.close()


# ---- what it does


def test_targets_show_their_data_against_their_thresholds_and_what_waits(
    daemon: Daemon, batch: Batch
) -> None:
    with daemon.as_ci() as client:
        (target,) = client.get("/api/v1/targets").json()
        assert target["needs"]["sft"] == {"has": 0, "needs": 50}
        assert target["needs"]["votes"] == {"has": 0, "needs": 100}
        assert [waiting["id"] for waiting in target["batches"]] == [batch.id]
        assert target["problems"] == {}
        assert client.get(f"/api/v1/targets/{TARGET}").json() == target
        data = client.get(f"/api/v1/targets/{TARGET}/data").json()
        assert (data["train"]["sft"], data["origins"]["sft"], data["dropped"]) == (0, {}, {})
        missing = client.get("/api/v1/targets/acme/other")
        assert (missing.status_code, "no target 'acme/other'" in missing.text) == (404, True)


def test_a_batch_is_decided_over_the_api(daemon: Daemon, batch: Batch) -> None:
    with daemon.as_ci() as client:
        assert [found["id"] for found in client.get("/api/v1/batches?state=WAITING").json()] == [batch.id]
        base = f"/api/v1/batches/{batch.id}"
        page = client.get(f"{base}/items?limit=2").json()
        assert [item["number"] for item in page["items"]] == [1, 2]
        assert client.get(f"{base}/items/3").json()["items"][0]["number"] == 3
        rulings = [
            *approval(1),
            *approval(2, edited={"completion": "shipping"}),
            {"number": 3, "revision": 0, "state": "REJECTED", "reason": "off topic"},
        ]
        answer = client.post(f"{base}/decisions", json=rulings).json()
        assert (answer["batch"]["approved"], answer["batch"]["rejected"]) == (2, 1)
        assert [item["edited"] for item in answer["decided"]] == [False, True, False]
        taken_back = [{"number": 3, "revision": 1, "state": "PENDING"}]
        assert client.post(f"{base}/decisions", json=taken_back).json()["batch"]["pending"] == 2
        assert client.post(f"{base}/close", json={}).json()["state"] == "DECIDED"
        acts = client.get(f"/api/v1/audit?target={TARGET}").json()
        assert [(act["actor"], act["action"]) for act in acts] == [("ci", "close"), *[("ci", "decide")] * 2]
    assert [example.completion.content for example in daemon.store.find_approved_examples(TARGET).sft] == [
        "billing",
        "shipping",
    ]


@pytest.mark.parametrize(
    ("rulings", "code", "words"),
    [
        (approval(1, 3), 409, "since you read it"),
        (approval(9), 404, "no item 9"),
        (approval(1, edited={"completion": ""}), 422, "could not be trained on"),
        ([{"number": 1, "revision": 0, "state": "REJECTED"}], 422, "a rejection needs a reason"),
        ([{"number": 1, "revision": 0, "state": "SURE"}], 422, "PENDING"),
        (approval(1, decided_by="ann"), 422, "decided_by"),
    ],
)
def test_a_decision_that_cannot_be_is_answered_with_the_reason(
    daemon: Daemon, batch: Batch, rulings: list[Any], code: int, words: str
) -> None:
    with daemon.as_ci() as client:
        refused = client.post(f"/api/v1/batches/{batch.id}/decisions", json=[*approval(2), *rulings])
        assert (refused.status_code, words in refused.text) == (code, True), refused.text
    assert daemon.store.batch(batch.id).pending == 4


def test_a_batch_is_withdrawn_and_then_closed_to_everything(daemon: Daemon, batch: Batch) -> None:
    with daemon.as_ci() as client:
        base = f"/api/v1/batches/{batch.id}"
        assert client.post(f"{base}/withdraw", json={}).status_code == 422
        withdrawn = client.post(f"{base}/withdraw", json={"reason": "wrong model"}).json()
        assert (withdrawn["state"], withdrawn["ended_by"]) == ("WITHDRAWN", "ci")
        assert client.post(f"{base}/decisions", json=approval(1)).status_code == 409
        assert client.post("/api/v1/batches/b-nowhere/close", json={}).status_code == 404


def test_a_batch_is_reviewed_elsewhere_through_the_api(daemon: Daemon, batch: Batch) -> None:
    with daemon.as_ci() as client:
        base = f"/api/v1/batches/{batch.id}"
        exported = client.get(f"{base}/export")
        assert exported.headers["content-type"] == "application/x-ndjson"
        assert exported.headers["content-disposition"] == f'attachment; filename="{batch.id}.jsonl"'
        lines = [json.loads(line) | {"state": "APPROVED"} for line in exported.text.splitlines()]
        review = "".join(json.dumps(line) + "\n" for line in lines)
        kind = {"content-type": "application/x-ndjson"}
        broken = client.post(f"{base}/import", content=b'{"item": "\xff"}', headers=kind)
        assert (broken.status_code, "not UTF-8" in broken.text) == (422, True)
        decided = client.post(f"{base}/import", content=review, headers=kind)
        assert decided.json()["batch"]["state"] == "DECIDED"
        stale = client.post(f"{base}/import", content=review, headers=kind)
        assert (stale.status_code, "line 4: item 4 is APPROVED by ci" in stale.text) == (422, True)


def test_what_telemetry_says_goes_out_as_data_and_never_as_a_page(daemon: Daemon) -> None:
    evil = "<script>alert(1)</script>"
    batch = a_batch(daemon.store, evil)
    with daemon.as_ci() as client:
        answer = client.get(f"/api/v1/batches/{batch.id}/items")
        assert answer.headers["content-type"] == "application/json"
        assert answer.json()["items"][0]["example"]["prompt"][1]["content"] == evil


def test_cycles_are_listed_filtered_and_shown_with_their_progress(daemon: Daemon, batch: Batch) -> None:
    run = daemon.settings.data_dir / "runs" / "acme.routing" / batch.cycle_id / "train-0"
    run.mkdir(parents=True)
    line = {"at": "2026-07-01T12:00:00Z", "stage": "training", "step": 1, "loss": 0.5}
    (run / "progress.jsonl").write_text(json.dumps(line) + '\n{"step": 2, "lo', "utf-8")
    with daemon.as_ci() as client:
        (listed,) = client.get("/api/v1/cycles").json()
        assert (listed["id"], listed["state"], listed["method"]) == (batch.cycle_id, "SKIPPED", None)
        assert client.get("/api/v1/cycles?state=DONE").json() == []
        assert client.get("/api/v1/cycles?verdict=PROMOTE").json() == []
        assert client.get("/api/v1/cycles?method=sft").json() == []
        assert client.get(f"/api/v1/cycles/{batch.cycle_id}").json()["reason"] == "30 of 50 examples"
        progress = client.get(f"/api/v1/cycles/{batch.cycle_id}/progress").json()
        assert progress == {"train-0": [line]}
        assert client.get("/api/v1/cycles/nowhere").status_code == 404


def test_versions_are_shown_rolled_back_and_released(daemon: Daemon) -> None:
    first = promote(daemon.store, a_candidate(daemon.store, TARGET), None)
    with daemon.as_ci() as client:
        (listed,) = client.get(f"/api/v1/versions?target={TARGET}").json()
        assert (listed["id"], listed["state"]) == (first.id, "ACTIVE")
        shown = client.get(f"/api/v1/versions/{first.id}").json()
        assert [act["action"] for act in shown["audit"]] == ["activate"]
        back = client.post(f"/api/v1/targets/{TARGET}/rollback", json={"reason": "wrong tone"})
        assert back.json() == {"target": TARGET, "active_version": None, "held": True}
        assert client.get("/api/v1/targets").json()[0]["held_reason"] == "wrong tone"
        released = client.post(f"/api/v1/targets/{TARGET}/release", json={})
        assert released.json() == {"target": TARGET, "active_version": None, "held": False}
        assert client.post(f"/api/v1/targets/{TARGET}/hold", json={}).status_code == 422
        held = client.post(f"/api/v1/targets/{TARGET}/hold", json={"reason": "a demo today"})
        assert held.json() == {"target": TARGET, "active_version": None, "held": True}
        assert daemon.store.target_state(TARGET).held_reason == "a demo today"
        again = client.post(f"/api/v1/targets/{TARGET}/rollback", json={"reason": "why not"})
        assert (again.status_code, "base model already" in again.text) == (409, True)


def test_a_cycle_is_asked_for_once_and_not_beside_another(daemon: Daemon) -> None:
    with daemon.as_ci() as client:
        for _ in range(2):
            asked = client.post(f"/api/v1/targets/{TARGET}/start")
            assert (asked.status_code, asked.json()) == (202, {"target": TARGET})
        assert [act.action for act in daemon.store.audit(TARGET)] == ["ask for a cycle"]
        assert daemon.store.find_demand(TARGET, daemon.now).asked
        began = daemon.now + timedelta(seconds=1)
        daemon.store.start_cycle(TARGET, "operator", began)
        assert not daemon.store.find_demand(TARGET, began).asked
        refused = client.post(f"/api/v1/targets/{TARGET}/start")
        assert (refused.status_code, "unfinished cycle" in refused.text) == (409, True)


def test_a_version_that_is_not_ready_or_whose_files_are_gone_is_not_served(daemon: Daemon) -> None:
    version = a_candidate(daemon.store, TARGET)
    with daemon.as_ci() as client:
        path, asked = f"/api/v1/versions/{version.id}", {"reason": "it looks good"}
        refused = client.post(f"{path}/promote", json=asked)
        assert (refused.status_code, "CANDIDATE, not READY" in refused.text) == (409, True)
        refused = client.post(f"{path}/activate", json=asked)
        assert (refused.status_code, "cannot be read" in refused.text) == (409, True)
        assert client.post("/api/v1/versions/nowhere/activate", json=asked).status_code == 404
    assert daemon.store.find_active_version(TARGET) is None


def test_a_version_that_waits_is_rejected_and_no_other(daemon: Daemon) -> None:
    version, waits = a_candidate(daemon.store, TARGET), {"reason": "it is rude"}
    with daemon.as_ci() as client:
        path = f"/api/v1/versions/{version.id}/reject"
        refused = client.post(path, json=waits)
        assert (refused.status_code, "only a version that is READY or on PROBATION" in refused.text) == (
            409,
            True,
        )
        daemon.store.judge(version.id, VersionState.PROBATION, now=daemon.now, actor="learnd", reason="")
        assert client.post(path, json={}).status_code == 422
        assert client.post(path, json=waits).json()["state"] == "REJECTED"
        assert client.post(path, json=waits).status_code == 409
        assert client.post("/api/v1/versions/nowhere/reject", json=waits).status_code == 404
    (act, *_) = daemon.store.audit(TARGET)
    assert (act.actor, act.detail) == ("ci", "PROBATION -> REJECTED: it is rude")


def test_an_expired_batch_is_closed_over_the_api(daemon: Daemon, batch: Batch) -> None:
    daemon.now = datetime.now(UTC) + timedelta(days=3650)
    with daemon.as_ci() as client:
        refused = client.post(f"/api/v1/batches/{batch.id}/decisions", json=approval(1))
        assert (refused.status_code, "EXPIRED" in refused.text) == (409, True)
    assert an_example("sft", "one").id not in {e.id for e in daemon.store.find_approved_examples(TARGET).sft}
