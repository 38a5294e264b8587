"""The whole loop on real parts: a real Phoenix, a tiny model really trained, a real vLLM, a real gateway."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from daemon.demo.corpus import CustomerRequest
from daemon.demo.phoenix import PhoenixServer
from daemon.demo.servers import find_free_port, run_server
from daemon.demo.traffic import Agent, keep_asking
from daemon.demo.vllm import VllmServer
from daemon.route_server import serve_routes
from registry.cycles import CycleState
from registry.versions import VersionState
from tests.e2e.team import HELD_OUT, QUESTIONS, ROOT, Team, new_team

IN_THE_MIDDLE = {
    "EXTRACTING": "statement",
    "SELECTING": "statement",
    "TRAINING": "training",
    "EVALUATING": "answering",
    "PROMOTING": "after commit",
}
"""When a state's step is under way and not done (`tests/e2e/die_in.py`)."""


@pytest.fixture
def team(tmp_path: Path, phoenix: PhoenixServer, vllm: VllmServer, tiny_model: Path) -> Iterator[Team]:
    made = new_team(tmp_path, f"t{uuid4().hex[:8]}", phoenix=phoenix.url, vllm=vllm.url, model=tiny_model)
    yield made
    # The server is shared: leave nothing of this team loaded on it.
    for name in list_loaded(vllm, made):
        httpx.post(f"{vllm.url}/v1/unload_lora_adapter", json={"lora_name": name}, timeout=30)


def list_loaded(vllm: VllmServer, team: Team) -> list[str]:
    models = httpx.get(f"{vllm.url}/v1/models", timeout=30).json()["data"]
    return [model["id"] for model in models if model["id"].startswith(team.settings.targets[0].slug)]


@contextmanager
def run_gateway(team: Team, tmp_path: Path) -> Iterator[str]:
    port = find_free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "learnd", "gateway", "--config", str(team.config)]
    env = {"LEARND_GATEWAY__PORT": str(port)}
    with ExitStack() as stack:
        with team.store() as store, serve_routes(team.settings, store):
            stack.enter_context(
                run_server(
                    command,
                    health_url=f"{url}/readyz",
                    log=tmp_path / "gateway.log",
                    env=env,
                    start_seconds=60,
                )
            )
        yield url


def test_feedback_becomes_a_proven_version_that_is_swapped_in_without_losing_a_request(
    team: Team, vllm: VllmServer, tmp_path: Path
) -> None:
    # The questions of reviewed calls, whichever of them are held out; the model is too small for others.
    requests = [CustomerRequest(text=QUESTIONS[1][1].format(n=n), label="shipping") for n in range(1, 41, 2)]
    # Enough sessions to validate on for a race: the rest is little, and is looked at more often.
    team = team.change_thresholds(sft_examples=20, pairs=10)
    team = team.change_section("holdout", race_validation_share=0.62)
    team = team.change_section("hyperparameters", sft={"epochs": 14, "learning_rate": 0.005})
    with run_gateway(team, tmp_path) as url, Agent(url, team.key, "Route.") as agent:
        assert agent.route(requests[0]).version == "base"
        with keep_asking(agent, requests, pause=1.5) as traffic:
            traffic.wait_for(3)
            cycle = team.ask("once")
            traffic.wait_for(5, version=cycle["version_id"], seconds=60)
        assert [reply.error for reply in traffic.replies if reply.error] == []
        assert traffic.replies[-1].version == cycle["version_id"]
        answers = [agent.route(request).text for request in requests]
        assert answers.count("shipping") > len(answers) / 2

    assert (cycle["state"], cycle["verdict"]) == ("DONE", "PROMOTE"), cycle["reason"]
    assert cycle["report"]["holdout_size"] == HELD_OUT
    race = cycle["report"]["race"]
    assert race["winner"] == cycle["plan"]["name"] == "sft"
    assert [contender["name"] for contender in race["contenders"]] == ["sft", "sft+dpo (sigmoid+sft)"]
    assert [each["winner"] for each in team.ask("experiments", "list")] == ["sft"]
    assert "DPO left out" in race["contenders"][1]["left"], "the adapter has settled the pairs"
    (sft,) = cycle["training"]
    assert sft["figures"]["steps"] > 0
    planned = team.ask("plan")["choice"]["plan"]
    assert planned["stages"][0]["method"] == "sft"
    challengers = [contender["name"] for contender in planned["challengers"]]
    assert challengers == ["sft from live", "sft+dpo (sigmoid+sft)"], "the live version has settled the pairs"
    forecast = team.ask("estimate")
    assert (forecast["stages"][0]["method"], forecast["stages"][0]["fits"]) == ("sft", True)
    assert forecast["last"]["id"] == cycle["id"]
    expected = sft["figures"]["estimated"]
    assert expected["steps"] == forecast["stages"][0]["steps"] >= sft["figures"]["steps"]
    assert 0.5 < sum(expected["memory"].values()) / sft["figures"]["peak_memory_bytes"] < 2
    again = team.ask("once")
    assert again["state"] == "SKIPPED"
    assert again["version_id"] is None
    assert [version["state"] for version in team.ask("adapters", "list")] == ["ACTIVE"]

    team.learnd("adapters", "rollback", "--reason", "a test")
    status = team.ask("status")[0]
    assert (status["active_version"], status["held"]) == (None, True)
    team.learnd("adapters", "release")
    team.learnd("adapters", "activate", cycle["version_id"])
    assert team.ask("status")[0]["active_version"] == cycle["version_id"]
    assert list_loaded(vllm, team) == [cycle["version_id"]]
    acts = [act["action"] for act in team.ask("adapters", "show", cycle["version_id"])["audit"]]
    assert "activate" in acts


def test_a_cycle_that_is_killed_in_every_one_of_its_states_completes_once(
    team: Team, vllm: VllmServer
) -> None:
    killed_in: set[str] = set()
    for state, moment in IN_THE_MIDDLE.items():
        assert die_in(team, state, moment) == -signal.SIGKILL
        with team.store() as store:
            (before,) = store.find_unfinished_cycles()
            assert before.state == state
            assert store.find_active_version(team.key) is None or state == "PROMOTING"
        killed_in.add(before.id)

    team.learnd("once")

    with team.store() as store:
        cycles, versions = store.cycles(team.key), store.versions(team.key)
        assert {cycle.id for cycle in cycles} == killed_in
        assert [cycle.state for cycle in cycles] == [CycleState.DONE]
        assert [version.state for version in versions] == [VersionState.ACTIVE]
    run = team.settings.data_dir / "runs" / team.settings.targets[0].slug / cycles[0].id
    assert len((run / "train-0" / "starts").read_text().splitlines()) == 1, "nothing is trained twice"
    assert list_loaded(vllm, team) == [versions[0].id]


def test_a_training_child_that_is_killed_with_the_daemon_resumes(team: Team) -> None:
    assert die_in(team, "TRAINING", "training") == -signal.SIGKILL
    folder = next((team.settings.data_dir / "runs").glob("*/*/train-0"))
    os.kill(int((folder / "pid").read_text()), signal.SIGKILL)

    cycle = team.ask("once")

    assert (cycle["state"], cycle["verdict"]) == ("DONE", "PROMOTE"), cycle["reason"]
    assert len((folder / "starts").read_text().splitlines()) == 2


def test_where_promotion_is_manual_a_version_that_two_engines_prove_waits_for_an_operator(
    tmp_path: Path, phoenix: PhoenixServer, vllm: VllmServer, tiny_model: Path
) -> None:
    tenant = f"t{uuid4().hex[:8]}"
    team = new_team(
        tmp_path,
        tenant,
        phoenix=phoenix.url,
        vllm=vllm.url,
        model=tiny_model,
        promotion="manual",
        evaluate_with="replica",
    )
    cycle = team.ask("once")
    assert "promotion is manual" in cycle["reason"]
    served = cycle["report"]["served"]
    assert (served["verdict"], served["agreement"] > 0.9) == ("PROMOTE", True)
    assert served["comparison"]["gained"] > 0.8 * HELD_OUT
    assert team.ask("status")[0]["active_version"] is None
    assert list_loaded(vllm, team) == []
    team.learnd("adapters", "promote")
    assert list_loaded(vllm, team) == [cycle["version_id"]]
    team.learnd("adapters", "rollback")
    httpx.post(f"{vllm.url}/v1/unload_lora_adapter", json={"lora_name": cycle["version_id"]}, timeout=30)


def die_in(team: Team, state: str, moment: str) -> int:
    command = [sys.executable, "-m", "tests.e2e.die_in", str(team.config), state, moment]
    return subprocess.run(command, cwd=ROOT, check=False, timeout=300).returncode
