"""The agent on the Anthropic SDK."""

from typing import Any

from anthropic import Anthropic, AnthropicError
from opentelemetry.sdk.trace import TracerProvider

from tests.corpus import script
from tests.corpus.agents.conversations import one_trace, speak
from tests.corpus.agents.recording import Tracer, record_agent
from tests.corpus.stand_in import StandIn

TOOLS: list[Any] = [
    {"name": name, "description": script.DESCRIPTIONS[name], "input_schema": script.PARAMETERS[name]}
    for name in script.FUNCTIONS
]


class AnthropicAgent:
    errors = AnthropicError

    def __init__(self, url: str) -> None:
        self._client = Anthropic(base_url=url, api_key="none", max_retries=0)
        self._messages: list[Any] = []

    def say(self, text: str, image: str | None = None) -> None:
        content: Any = text
        if image:
            source = {"type": "base64", "media_type": "image/png", "data": image}
            content = [{"type": "text", "text": text}, {"type": "image", "source": source}]
        self._messages.append({"role": "user", "content": content})

    def ask(self, *, streamed: bool = False, max_tokens: int | None = None) -> None:
        asked: dict[str, Any] = {
            "model": script.MODEL,
            "system": script.SYSTEM,
            "messages": self._messages,
            "tools": TOOLS,
            "max_tokens": max_tokens or 1000,
        }
        if streamed:
            with self._client.messages.stream(**asked) as events:
                for _ in events:
                    pass
                answer = events.get_final_message()
        else:
            answer = self._client.messages.create(**asked)
        blocks = [block.model_dump(include=KEPT[block.type]) for block in answer.content]
        self._messages.append({"role": "assistant", "content": blocks})

    def run_tools(self) -> None:
        results = [
            {
                "type": "tool_result",
                "tool_use_id": block["id"],
                "content": script.FUNCTIONS[block["name"]](**block["input"]),
            }
            for block in self._messages[-1]["content"]
            if block["type"] == "tool_use"
        ]
        self._messages.append({"role": "user", "content": results})


KEPT = {"text": {"type", "text"}, "tool_use": {"type", "id", "name", "input"}}


def converse(stand_in: StandIn) -> None:
    speak(stand_in, lambda: AnthropicAgent(stand_in.url))
    client = Anthropic(base_url=stand_in.url, api_key="none", max_retries=0)
    with one_trace("thoughts"):
        stand_in.expect("thoughts")
        client.messages.create(
            model=script.MODEL,
            max_tokens=4000,
            thinking={"type": "enabled", "budget_tokens": 2000},
            messages=[{"role": "user", "content": script.THOUGHT}],
        )


def trace_openinference(provider: TracerProvider) -> None:
    from openinference.instrumentation.anthropic import AnthropicInstrumentor

    AnthropicInstrumentor().instrument(tracer_provider=provider)


def trace_openllmetry(provider: TracerProvider) -> None:
    from opentelemetry.instrumentation.anthropic import AnthropicInstrumentor

    AnthropicInstrumentor().instrument(tracer_provider=provider)


def trace_itself(provider: TracerProvider) -> None:
    """The SDK traces to the global provider."""


NOT_TWICE = {"ANTHROPIC_OPEN_TELEMETRY": "false"}
"""Keeps the SDK from tracing by itself, which it does since its version 2."""
TRACERS = {
    "openinference-anthropic": Tracer(
        trace_openinference, ("openinference-instrumentation-anthropic", "anthropic"), converse, NOT_TWICE
    ),
    "openllmetry-anthropic": Tracer(
        trace_openllmetry, ("opentelemetry-instrumentation-anthropic", "anthropic"), converse, NOT_TWICE
    ),
    "anthropic-sdk": Tracer(
        trace_itself, ("anthropic",), converse, {"ANTHROPIC_OPEN_TELEMETRY_TRACES_CONTENT_MODE": "content"}
    ),
}

if __name__ == "__main__":
    record_agent(TRACERS)
