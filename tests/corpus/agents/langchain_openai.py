"""The agent on LangChain's chat model for OpenAI."""

from typing import Any

from langchain_core.messages import AIMessageChunk, HumanMessage, SystemMessage, ToolMessage
from langchain_openai import ChatOpenAI
from openai import OpenAIError
from opentelemetry.sdk.trace import TracerProvider

from tests.corpus import script
from tests.corpus.agents.conversations import speak
from tests.corpus.agents.openai_chat import TOOLS
from tests.corpus.agents.recording import Tracer, record_agent
from tests.corpus.stand_in import StandIn


class LangChainAgent:
    errors = OpenAIError

    def __init__(self, url: str) -> None:
        self._url = url
        self._messages: list[Any] = [SystemMessage(script.SYSTEM)]

    def say(self, text: str, image: str | None = None) -> None:
        content: Any = text
        if image:
            picture = {"url": f"data:image/png;base64,{image}"}
            content = [{"type": "text", "text": text}, {"type": "image_url", "image_url": picture}]
        self._messages.append(HumanMessage(content))

    def ask(self, *, streamed: bool = False, max_tokens: int | None = None) -> None:
        limit: dict[str, Any] = {"max_tokens": max_tokens} if max_tokens else {}
        model = ChatOpenAI(
            model=script.MODEL, base_url=f"{self._url}/v1", api_key="none", max_retries=0, **limit
        ).bind_tools(TOOLS)
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


def converse(stand_in: StandIn) -> None:
    speak(stand_in, lambda: LangChainAgent(stand_in.url))


def trace_openinference(provider: TracerProvider) -> None:
    from openinference.instrumentation.langchain import LangChainInstrumentor

    LangChainInstrumentor().instrument(tracer_provider=provider)


TRACERS = {
    "openinference-langchain": Tracer(
        trace_openinference,
        ("openinference-instrumentation-langchain", "langchain-openai", "langchain-core"),
        converse,
    ),
}

if __name__ == "__main__":
    record_agent(TRACERS)
