"""Has agents' conversations, as a program of its own, and writes what each got into a file of its name.

python -m tests.e2e.sdks.agents.run FOLDER URL TOKEN TENANT AGENT…
"""

import asyncio
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from tests.e2e.sdks.agents import AGENTS, Agent


class Answers(BaseModel):
    """The model's answers in the conversations."""

    talk: list[str]
    tools: str
    form: dict[str, Any]


class Refusal(BaseModel):
    """The SDK's own error."""

    error: str
    """The name of its class."""
    message: str


class Report(BaseModel):
    """The answers that one agent got."""

    left_after: str
    """What it heard of an answer without an end before it hung up."""
    whole: Answers
    streamed: Answers
    denied: Refusal
    unknown: Refusal


async def converse(name: str, url: str, token: str, tenant: str) -> Report:
    """Return what the agent got. Its targets are `name` with `-left`, `-whole` and `-streamed`."""
    place = AGENTS[name]
    module = import_module(f"tests.e2e.sdks.agents.{place.module}")
    build: Callable[[str, str, str], Agent] = getattr(module, place.class_name)
    target = f"{tenant}/{name}"
    return Report(
        left_after=await build(url, token, f"{target}-left").leave(),
        whole=await asyncio.to_thread(_ask_whole, build(url, token, f"{target}-whole")),
        streamed=await _ask_for_streams(build(url, token, f"{target}-streamed")),
        denied=await asyncio.to_thread(_be_refused, build(url, "a wrong token", f"{target}-whole"), "denied"),
        unknown=await asyncio.to_thread(_be_refused, build(url, token, f"{tenant}/nobody"), "unknown"),
    )


def _ask_whole(agent: Agent) -> Answers:
    return Answers(talk=agent.talk(), tools=agent.use_tools(), form=_dump(agent.fill_form()))


async def _ask_for_streams(agent: Agent) -> Answers:
    return Answers(
        talk=await agent.stream_talk(),
        tools=await agent.stream_tools(),
        form=_dump(await agent.stream_form()),
    )


def _be_refused(agent: Agent, why: str) -> Refusal:
    try:
        agent.talk()
    except getattr(agent, why) as refused:
        return Refusal(error=type(refused).__name__, message=str(refused))
    raise AssertionError("the gateway answered")


def _dump(form: BaseModel | Mapping[str, Any]) -> dict[str, Any]:
    return form.model_dump() if isinstance(form, BaseModel) else dict(form)


def main(folder: str, url: str, token: str, tenant: str, *agents: str) -> None:
    """Have the conversations, one agent after the other."""
    for agent in agents:
        report = asyncio.run(converse(agent, url, token, tenant))
        # Not to the output: SDKs print what they like.
        Path(folder, f"{agent}.json").write_text(report.model_dump_json(), "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
