"""A gateway process before a real vLLM, with a target for each agent, whose traces go to a real Phoenix."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import tomli_w

from daemon.data.ingest import extract_target, open_phoenix, poll_target
from daemon.demo.servers import find_free_port, run_server
from daemon.gateway.route_file import RouteFile
from daemon.runtime.context import TargetContext
from daemon.runtime.gateway_routes import GatewayRoutes, TargetRoute
from daemon.settings.load import Settings, load_settings
from extractors.examples.types import Message, SFTExample
from extractors.feedback.extract import Extraction
from extractors.phoenix.spans import Annotation
from registry.store.store import Store
from tests.support.phoenix import new_project, read_span_ids, wait_for_spans
from tests.support.runs import NOWHERE

TENANT = "harbour"
TOKEN = "the harbour's token"


@dataclass(frozen=True)
class Office:
    """The running gateway, and the settings of its targets."""

    url: str
    settings: Settings

    def learn(self, agent: str, calls: int) -> Extraction:
        """Approve the `calls` that the agent made, and return what learnd learns of them."""
        (target,) = (each for each in self.settings.targets if each.agent == agent)
        phoenix = self.settings.phoenix.url
        wait_for_spans(phoenix, target.project, calls)
        with (
            open_phoenix(self.settings) as client,
            Store.open(self.settings.data_dir, datetime.now(UTC)) as store,
        ):
            client.annotations.write([_approve(span) for span in read_span_ids(phoenix, target.project)])
            poll_target(TargetContext(self.settings, target, store, lambda: datetime.now(UTC)), client)
            return extract_target(store, target)

    def read_examples(self, agent: str, calls: int) -> list[SFTExample]:
        """Return the examples that the agent's `calls` become, oldest first."""
        extraction = self.learn(agent, calls)
        assert extraction.dropped == {}
        return [item.to_example() for item in extraction.items]

    def read_problems(self, agent: str) -> list[str]:
        """Return the message of each call that ended as an error, once there is one."""
        (target,) = (each for each in self.settings.targets if each.agent == agent)
        phoenix = self.settings.phoenix.url
        wait_for_spans(phoenix, target.project, 1)
        page = httpx.get(f"{phoenix}/v1/projects/{target.project}/spans", timeout=60).raise_for_status()
        return [span["status_message"] for span in page.json()["data"] if span["status_code"] == "ERROR"]


@contextmanager
def open_office(
    folder: Path, *, agents: Sequence[str], model: Path, vllm: str, phoenix: str
) -> Iterator[Office]:
    """Run the gateway until the block ends. The base model answers all of `agents`."""
    project = new_project()
    document = {
        "data_dir": "data",
        "phoenix": {"url": phoenix},
        "gateway": {"daemon_url": NOWHERE},
        "replicas": [{"name": "local", "url": vllm}],
        "targets": [
            {
                "tenant": TENANT,
                "agent": agent,
                "project": f"{project}-{agent}",
                "task": "chat",
                "base_model": str(model),
            }
            for agent in agents
        ],
    }
    config = folder / "learnd.toml"
    config.write_text(tomli_w.dumps(document), "utf-8")
    settings = load_settings(config)
    _write_routes(settings)
    port = find_free_port()
    url = f"http://127.0.0.1:{port}"
    environment = {
        "LEARND_GATEWAY__PORT": str(port),
        "LEARND_GATEWAY__DAEMON_TOKEN": "nobody asks for it",
        "LEARND_AGENTS__TOKENS": json.dumps({TOKEN: TENANT}),
    }
    with run_server(
        [sys.executable, "-m", "learnd", "gateway", "--config", str(config)],
        health_url=f"{url}/readyz",
        log=folder / "gateway.log",
        env=environment,
        start_seconds=60,
    ):
        yield Office(url, settings)


def _write_routes(settings: Settings) -> None:
    """Leave the routes as a daemon has told them that is down now."""
    file = RouteFile(settings.gateway_state_dir)
    file.prepare()
    file.write(GatewayRoutes(routes={target.key: TargetRoute(version=None) for target in settings.targets}))


def _approve(span_id: str) -> Annotation:
    return Annotation(
        level="span",
        subject_id=span_id,
        name="approval",
        identifier="ann",
        annotator_kind="HUMAN",
        label="approved",
        updated_at=datetime.now(UTC),
    )


def normalise(example: SFTExample) -> SFTExample:
    """Return the example without what differs by the SDK's nature, and not by what was said.

    The server draws the ids of calls anew each time: they become numbers. Pydantic AI sends the arguments of
    earlier calls without blanks: they are written anew. The Agents SDK says of each tool whether its
    schema is `strict`, the others leave it to the server.
    """
    numbers: dict[str | None, str] = {}
    for message in (*example.prompt, example.completion):
        for call in message.tool_calls:
            numbers.setdefault(call.id, f"call {len(numbers)}")

    def rewrite(message: Message) -> Message:
        calls = tuple(
            call.model_copy(
                update={"id": numbers[call.id], "arguments": json.dumps(json.loads(call.arguments))}
            )
            for call in message.tool_calls
        )
        answers = message.tool_call_id
        changes: dict[str, Any] = {"tool_calls": calls, "tool_call_id": answers and numbers[answers]}
        return message.model_copy(update=changes)

    return example.model_copy(
        update={
            "prompt": tuple(map(rewrite, example.prompt)),
            "completion": rewrite(example.completion),
            "tools": tuple(map(_leave_out_strict, example.tools)),
        }
    )


def _leave_out_strict(tool: dict[str, Any]) -> dict[str, Any]:
    function = {key: value for key, value in tool["function"].items() if key != "strict"}
    return {**tool, "function": function}
