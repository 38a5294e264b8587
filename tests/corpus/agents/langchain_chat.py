"""The agent on LangChain's chat models for OpenAI and Anthropic."""

from collections.abc import Callable
from typing import Any

from anthropic import AnthropicError
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import AIMessageChunk, HumanMessage, SystemMessage, ToolMessage
from langchain_openai import ChatOpenAI
from openai import OpenAIError
from opentelemetry.sdk.trace import TracerProvider

from tests.corpus import script
from tests.corpus.agents.conversations import speak
from tests.corpus.agents.recording import Tracer, record_agent
from tests.corpus.stand_in import StandIn

TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": script.DESCRIPTIONS[name],
            "parameters": script.PARAMETERS[name],
        },
    }
    for name in script.FUNCTIONS
]
BuildModel = Callable[[str, int | None], Any]
"""Takes the stand-in's URL and a maximum of tokens."""


def build_openai(url: str, max_tokens: int | None) -> Any:
    limit: dict[str, Any] = {"max_tokens": max_tokens} if max_tokens else {}
    return ChatOpenAI(model=script.MODEL, base_url=f"{url}/v1", api_key="none", max_retries=0, **limit)


def build_anthropic(url: str, max_tokens: int | None) -> Any:
    return ChatAnthropic(
        model=script.MODEL, base_url=url, api_key="none", max_retries=0, max_tokens=max_tokens or 1000
    )


class LangChainAgent:
    errors = (OpenAIError, AnthropicError)

    def __init__(self, url: str, build_model: BuildModel) -> None:
        self._url = url
        self._build_model = build_model
        self._messages: list[Any] = [SystemMessage(script.SYSTEM)]

    def say(self, text: str, image: str | None = None) -> None:
        content: Any = text
        if image:
            picture = {"url": f"data:image/png;base64,{image}"}
            content = [{"type": "text", "text": text}, {"type": "image_url", "image_url": picture}]
        self._messages.append(HumanMessage(content))

    def ask(self, *, streamed: bool = False, max_tokens: int | None = None) -> None:
        model = self._build_model(self._url, max_tokens).bind_tools(TOOLS)
        if streamed:
            answer: Any = AIMessageChunk("")
            for chunk in model.stream(self._messages):
                answer += chunk
        else:
            answer = model.invoke(self._messages)
        self._messages.append(answer)

    def run_tools(self) -> None:
        for call in self._messages[-1].tool_calls:
            result = script.FUNCTIONS[call["name"]](**call["args"])
            self._messages.append(ToolMessage(result, tool_call_id=call["id"]))


def converse_with(build_model: BuildModel) -> Callable[[StandIn], None]:
    """Return the conversations with one of the models."""
    return lambda stand_in: speak(stand_in, lambda: LangChainAgent(stand_in.url, build_model))


def trace_openinference(provider: TracerProvider) -> None:
    from openinference.instrumentation.langchain import LangChainInstrumentor

    LangChainInstrumentor().instrument(tracer_provider=provider)


def trace_openllmetry(provider: TracerProvider) -> None:
    from opentelemetry.instrumentation.langchain import LangchainInstrumentor

    LangchainInstrumentor().instrument(tracer_provider=provider)


TRACERS = {
    "openinference-langchain": Tracer(
        trace_openinference,
        ("openinference-instrumentation-langchain", "langchain-openai", "langchain-core"),
        converse_with(build_openai),
    ),
    "openinference-langchain-anthropic": Tracer(
        trace_openinference,
        ("openinference-instrumentation-langchain", "langchain-anthropic", "langchain-core"),
        converse_with(build_anthropic),
        settings={"ANTHROPIC_OPEN_TELEMETRY": "false"},
    ),
    "openllmetry-langchain": Tracer(
        trace_openllmetry,
        ("opentelemetry-instrumentation-langchain", "langchain-openai", "langchain-core"),
        converse_with(build_openai),
    ),
}

if __name__ == "__main__":
    record_agent(TRACERS)
