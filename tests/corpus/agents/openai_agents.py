"""The agent on the OpenAI Agents SDK, which runs the tools and asks again by itself."""

import asyncio
import contextlib
from typing import Any

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    trace,
)
from agents.exceptions import ModelBehaviorError
from openai import AsyncOpenAI, OpenAIError
from opentelemetry.sdk.trace import TracerProvider

from tests.corpus import script
from tests.corpus.agents.recording import Tracer, record_agent
from tests.corpus.stand_in import StandIn

TOOLS = [function_tool(function) for function in script.FUNCTIONS.values()]


def build_agent(stand_in: StandIn, model: Any, max_tokens: int | None = None) -> Agent:
    client = AsyncOpenAI(base_url=f"{stand_in.url}/v1", api_key="none", max_retries=0)
    return Agent(
        name="harbour office",
        instructions=script.SYSTEM,
        tools=list(TOOLS),
        model=model(script.MODEL, client),
        model_settings=ModelSettings(max_tokens=max_tokens),
    )


def converse_by(model: Any) -> Any:
    """The conversations, over one of the SDK's two protocols."""

    def converse(stand_in: StandIn) -> None:
        asyncio.run(_converse(stand_in, model))

    return converse


async def _converse(stand_in: StandIn, model: Any) -> None:
    with trace("five turns"):
        await _speak_five_turns(stand_in, model)
    with trace("cut off"):
        stand_in.expect("cut off")
        # Over the Responses API the SDK raises; over chat completions it returns the piece.
        with contextlib.suppress(ModelBehaviorError):
            await Runner.run(build_agent(stand_in, model, max_tokens=script.CUT_OFF_TOKENS), script.CUT_OFF)
    with trace("streamed calls"):
        stand_in.expect("streamed calls", "streamed results")
        await _stream(build_agent(stand_in, model), script.CALLS_STREAMED)


async def _speak_five_turns(stand_in: StandIn, model: Any) -> None:
    agent = build_agent(stand_in, model)
    stand_in.expect("plain")
    history = (await Runner.run(agent, script.PLAIN)).to_input_list()
    stand_in.expect("parallel calls", "tool results")
    history = (await Runner.run(agent, [*history, _say(script.CALLS)])).to_input_list()
    stand_in.expect("streamed")
    history = await _stream(agent, [*history, _say(script.STREAMED)])
    stand_in.expect("error", "retry")
    asked = [*history, _say(script.FAILED)]
    try:
        answer = await Runner.run(agent, asked)
    except OpenAIError:
        answer = await Runner.run(agent, asked)
    stand_in.expect("image")
    picture = {
        "type": "input_image",
        "image_url": f"data:image/png;base64,{script.IMAGE}",
        "detail": "auto",
    }
    pictured = [{"type": "input_text", "text": script.PICTURED}, picture]
    await Runner.run(agent, [*answer.to_input_list(), {"role": "user", "content": pictured}])


def _say(text: str) -> Any:
    return {"role": "user", "content": text}


async def _stream(agent: Agent, asked: Any) -> Any:
    answer = Runner.run_streamed(agent, asked)
    async for _ in answer.stream_events():
        pass
    return answer.to_input_list()


def trace_openinference(provider: TracerProvider) -> None:
    from openinference.instrumentation.openai_agents import OpenAIAgentsInstrumentor

    OpenAIAgentsInstrumentor().instrument(tracer_provider=provider)


PACKAGES = ("openinference-instrumentation-openai-agents", "openai-agents", "openai")
TRACERS = {
    "openinference-openai-agents": Tracer(trace_openinference, PACKAGES, converse_by(OpenAIResponsesModel)),
    "openinference-openai-agents-chat": Tracer(
        trace_openinference, PACKAGES, converse_by(OpenAIChatCompletionsModel)
    ),
}

if __name__ == "__main__":
    record_agent(TRACERS)
