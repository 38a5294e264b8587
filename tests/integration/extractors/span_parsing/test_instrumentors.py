"""Spans of real instrumentors in a real Phoenix become the same examples as hand-made spans.

The model behind the agents is a stand-in that speaks OpenAI's protocol (`tests/support/openai_stand_in.py`).
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from daemon.demo.phoenix import PhoenixServer
from extractors.feedback.extract import Extraction, extract
from extractors.feedback.rules import FeedbackRules
from extractors.phoenix.client import PhoenixClient
from extractors.phoenix.mirror import MirrorSource
from extractors.phoenix.poll import poll
from extractors.span_parsing.drop_reasons import DropReason
from registry.store.store import Store
from tests.support.openai_stand_in import TOOL_CALL, StandIn, serving
from tests.support.phoenix import SentSpan, annotate, new_project, send_and_wait, wait_until

ANSWER = "the billing team"
PLAIN = {
    "messages": [
        {"role": "system", "content": "Route the customer."},
        {"role": "user", "content": "Où est ma facture ? 🧾"},
    ],
    "tools": [],
}
WITH_TOOLS = {
    "messages": [
        *PLAIN["messages"],
        {"role": "assistant", "content": "", "tool_calls": [TOOL_CALL]},
        {"role": "tool", "content": "done", "tool_call_id": "call_1"},
        {"role": "user", "content": "Thanks. And my refund?"},
    ],
    "tools": [
        {
            "type": "function",
            "function": {
                "name": "transfer",
                "description": "Hand over.",
                "parameters": {"type": "object", "properties": {"to": {"type": "string"}}},
            },
        }
    ],
}
LONG = {
    "messages": [
        {"role": ("user", "assistant")[number % 2], "content": f"turn {number}"} for number in range(71)
    ],
    "tools": [],
}


@pytest.fixture(scope="module")
def model() -> Iterator[str]:
    with serving(StandIn(answer=ANSWER)) as url:
        yield url


CONVERSATIONS = {
    "openai": {"plain": PLAIN, "tools": WITH_TOOLS, "long": LONG},
    "langchain": {"plain": PLAIN, "tools": WITH_TOOLS, "long": LONG},
    "langchain-over-openai": {"tools": WITH_TOOLS},
    "dspy": {"plain": PLAIN, "long": LONG},
}
"""What the agent of each framework asks, by a name for each conversation."""


@pytest.fixture(scope="module")
def traced(phoenix: PhoenixServer, model: str) -> Callable[[str, str], str]:
    """The project into which a framework's conversation was traced.

    An agent's process spends most of its time on imports, so one asks all conversations of its framework.
    """

    @cache
    def run_agent(framework: str) -> dict[str, str]:
        projects = {name: new_project(framework) for name in CONVERSATIONS[framework]}
        asked = [(projects[name], asked) for name, asked in CONVERSATIONS[framework].items()]
        command = [sys.executable, "-m", "tests.integration.extractors.span_parsing.instrumented_agent"]
        subprocess.run(
            [*command, framework, model, phoenix.url, json.dumps(asked)],
            check=True,
            timeout=300,
            env={**os.environ, "NO_PROXY": "127.0.0.1", "LANGSMITH_TRACING": "false"},
        )
        for project in projects.values():
            # The agent's own span ends last, so Phoenix has all of a conversation when it has that.
            wait_until(partial(has_agent_span, phoenix, project), 60, f"spans in {project}")
        return projects

    return lambda framework, conversation: run_agent(framework)[conversation]


def has_agent_span(phoenix: PhoenixServer, project: str) -> bool:
    return "agent" in {span["name"] for span in read_spans(phoenix, project)}


def find_llm_span_ids(phoenix: PhoenixServer, project: str) -> list[str]:
    """LLM spans, the one that began first first."""
    llm = [span for span in read_spans(phoenix, project) if span["span_kind"] == "LLM"]
    return [span["context"]["span_id"] for span in sorted(llm, key=lambda span: span["start_time"])]


def read_spans(phoenix: PhoenixServer, project: str) -> list[dict[str, Any]]:
    answer = httpx.get(f"{phoenix.url}/v1/projects/{project}/spans", params={"limit": 1000}, timeout=60)
    return answer.json()["data"] if answer.status_code == 200 else []


def read_back(phoenix: PhoenixServer, project: str, folder: Path) -> Extraction:
    """Poll Phoenix into a store and extract, as the daemon does."""
    now = datetime.now(UTC)
    with Store.open(folder, now) as store, PhoenixClient(phoenix.url) as client:
        names = {"approval", "correction"}
        mirror = store.mirror("acme/routing")
        source = MirrorSource(project=project, annotation_names=frozenset(names))
        change = poll(client, mirror, source, now=now)
        store.apply_mirror("acme/routing", change, now)
        return extract(*store.read_mirror("acme/routing"), FeedbackRules())


def build_expected_span(asked: dict[str, Any]) -> SentSpan:
    """The conversation as one span in OpenInference's flat attributes."""
    answer = {"role": "assistant", "content": ANSWER, "tool_calls": [TOOL_CALL] if asked["tools"] else []}
    attributes = {"session.id": "session-1"}
    for side, messages in (("input", asked["messages"]), ("output", [answer])):
        for number, message in enumerate(messages):
            attributes |= flatten(f"llm.{side}_messages.{number}.message", message)
    for number, tool in enumerate(asked["tools"]):
        attributes[f"llm.tools.{number}.tool.json_schema"] = json.dumps(tool)
    return SentSpan(attributes=attributes, started_at=datetime.now(UTC))


def flatten(prefix: str, message: dict[str, Any]) -> dict[str, str]:
    texts = {key: message[key] for key in ("role", "content", "tool_call_id") if key in message}
    for number, call in enumerate(message.get("tool_calls", [])):
        at = f"tool_calls.{number}.tool_call"
        texts |= {f"{at}.id": call["id"]}
        texts |= {f"{at}.function.{key}": call["function"][key] for key in ("name", "arguments")}
    return {f"{prefix}.{key}": text for key, text in texts.items()}


@pytest.mark.parametrize(
    ("framework", "conversation"),
    [
        ("openai", "plain"),
        ("openai", "tools"),
        ("langchain", "plain"),
        ("langchain", "tools"),
        ("langchain-over-openai", "tools"),
        ("dspy", "plain"),
    ],
)
def test_an_instrumented_call_is_the_same_example_as_a_hand_made_span(
    framework: str,
    conversation: str,
    phoenix: PhoenixServer,
    project: str,
    traced: Callable[[str, str], str],
    tmp_path: Path,
) -> None:
    made = build_expected_span(CONVERSATIONS[framework][conversation])
    send_and_wait(phoenix.url, project, made)
    annotate(phoenix.url, made.span_id)
    traced_in = traced(framework, conversation)
    calls = find_llm_span_ids(phoenix, traced_in)
    annotate(phoenix.url, calls[0])

    (expected,) = read_back(phoenix, project, tmp_path / "made").items
    (found,) = read_back(phoenix, traced_in, tmp_path / "traced").items
    assert found.to_example().id == expected.to_example().id
    assert found.to_example().completion.content == ANSWER
    assert (found.session_id, found.prompt_key) == (expected.session_id, expected.prompt_key)
    assert set(found.source_span_ids) == set(calls)
    assert len(found.source_span_ids) == (2 if framework == "langchain-over-openai" else 1)


@pytest.mark.parametrize("framework", ["openai", "langchain", "dspy"])
def test_a_conversation_cut_by_the_tracers_attribute_limit_is_dropped_and_counted(
    framework: str, phoenix: PhoenixServer, traced: Callable[[str, str], str], tmp_path: Path
) -> None:
    project = traced(framework, "long")
    annotate(phoenix.url, find_llm_span_ids(phoenix, project)[0])
    found = read_back(phoenix, project, tmp_path)
    assert found.items == ()
    assert found.dropped == {DropReason.TRUNCATED.value: 1}
