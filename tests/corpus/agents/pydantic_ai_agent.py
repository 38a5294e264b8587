"""The agent on Pydantic AI, which has a tracer of its own. It runs the tools and asks again by itself."""

import base64
from collections.abc import AsyncIterable, Sequence
from typing import Any

from openai import AsyncOpenAI
from opentelemetry.sdk.trace import TracerProvider
from pydantic_ai import Agent, BinaryContent, InstrumentationSettings
from pydantic_ai.exceptions import ModelHTTPError, UnexpectedModelBehavior
from pydantic_ai.messages import ModelMessage
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from tests.corpus import script
from tests.corpus.agents.conversations import one_trace
from tests.corpus.agents.recording import Tracer, record_agent
from tests.corpus.stand_in import StandIn


def build_agent(url: str) -> Agent:
    client = AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    model = OpenAIChatModel(script.MODEL, provider=OpenAIProvider(openai_client=client))
    return Agent(model, system_prompt=script.SYSTEM, tools=list(script.FUNCTIONS.values()))


def converse(stand_in: StandIn) -> None:
    with one_trace("five turns"):
        speak_five_turns(stand_in)
    with one_trace("cut off"):
        stand_in.expect("cut off")
        build_agent(stand_in.url).run_sync(
            script.CUT_OFF, model_settings={"max_tokens": script.CUT_OFF_TOKENS}
        )
    with one_trace("streamed calls"):
        stand_in.expect("streamed calls", "streamed results")
        _stream(build_agent(stand_in.url), script.CALLS_STREAMED, [])
    with one_trace("thoughts"):
        stand_in.expect("thoughts")
        build_agent(stand_in.url).run_sync(script.THOUGHT)


def speak_five_turns(stand_in: StandIn) -> None:
    agent = build_agent(stand_in.url)
    stand_in.expect("plain")
    history = agent.run_sync(script.PLAIN).all_messages()
    stand_in.expect("parallel calls", "tool results")
    history = agent.run_sync(script.CALLS, message_history=history).all_messages()
    stand_in.expect("streamed")
    history = _stream(agent, script.STREAMED, history)
    stand_in.expect("error", "retry")
    try:
        answer = agent.run_sync(script.FAILED, message_history=history)
    except (ModelHTTPError, UnexpectedModelBehavior):
        answer = agent.run_sync(script.FAILED, message_history=history)
    stand_in.expect("image")
    picture = BinaryContent(base64.b64decode(script.IMAGE), media_type="image/png")
    agent.run_sync([script.PICTURED, picture], message_history=answer.all_messages())


def _stream(agent: Agent, text: str, history: Sequence[ModelMessage]) -> list[ModelMessage]:
    return agent.run_sync(text, message_history=history, event_stream_handler=_listen).all_messages()


async def _listen(context: Any, events: AsyncIterable[Any]) -> None:  # noqa: ARG001
    """Take the events of each answer: that has the SDK ask for streams."""
    async for _ in events:
        pass


def trace_itself(provider: TracerProvider) -> None:
    Agent.instrument_all(InstrumentationSettings(tracer_provider=provider))


def trace_openinference(provider: TracerProvider) -> None:
    from openinference.instrumentation.pydantic_ai import OpenInferenceSpanProcessor

    provider.add_span_processor(OpenInferenceSpanProcessor())
    trace_itself(provider)


TRACERS = {
    "pydantic-ai": Tracer(trace_itself, ("pydantic-ai-slim", "openai"), converse),
    "openinference-pydantic-ai": Tracer(
        trace_openinference, ("openinference-instrumentation-pydantic-ai", "pydantic-ai-slim"), converse
    ),
}

if __name__ == "__main__":
    record_agent(TRACERS)
