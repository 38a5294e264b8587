"""The agent on the OpenAI SDK's chat completions."""

import json
from typing import Any

from openai import OpenAI, OpenAIError
from opentelemetry.sdk.trace import TracerProvider

from tests.corpus import script
from tests.corpus.agents.conversations import one_trace, speak
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


class ChatAgent:
    errors = OpenAIError

    def __init__(self, url: str) -> None:
        self._client = OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        self._messages: list[Any] = [{"role": "system", "content": script.SYSTEM}]

    def say(self, text: str, image: str | None = None) -> None:
        content: Any = text
        if image:
            picture = {"url": f"data:image/png;base64,{image}"}
            content = [{"type": "text", "text": text}, {"type": "image_url", "image_url": picture}]
        self._messages.append({"role": "user", "content": content})

    def ask(self, *, streamed: bool = False, max_tokens: int | None = None) -> None:
        limit = {"max_tokens": max_tokens} if max_tokens else {}
        asked: dict[str, Any] = {"model": script.MODEL, "messages": self._messages, "tools": TOOLS, **limit}
        if streamed:
            with self._client.chat.completions.stream(**asked) as events:
                for _ in events:
                    pass
                message = events.get_final_completion().choices[0].message
        else:
            message = self._client.chat.completions.create(**asked).choices[0].message
        kept = {key: value for key, value in message.model_dump().items() if value and key != "parsed"}
        for call in kept.get("tool_calls", ()):
            call["function"].pop("parsed_arguments", None)
            call.pop("index", None)
        self._messages.append({"content": None, **kept})

    def run_tools(self) -> None:
        for call in self._messages[-1]["tool_calls"]:
            function = script.FUNCTIONS[call["function"]["name"]]
            result = function(**json.loads(call["function"]["arguments"]))
            self._messages.append({"role": "tool", "tool_call_id": call["id"], "content": result})


def converse(stand_in: StandIn) -> None:
    speak(stand_in, lambda: ChatAgent(stand_in.url))
    client = OpenAI(base_url=f"{stand_in.url}/v1", api_key="none", max_retries=0)
    with one_trace("thoughts"):
        stand_in.expect("thoughts")
        client.chat.completions.create(
            model=script.MODEL, messages=[{"role": "user", "content": script.THOUGHT}]
        )
    with one_trace("several answers"):
        stand_in.expect("several answers")
        client.chat.completions.create(
            model=script.MODEL, messages=[{"role": "user", "content": script.SEVERAL}], n=2
        )


def trace_openinference(provider: TracerProvider) -> None:
    from openinference.instrumentation.openai import OpenAIInstrumentor

    OpenAIInstrumentor().instrument(tracer_provider=provider)


def trace_openllmetry(provider: TracerProvider) -> None:
    from opentelemetry.instrumentation.openai import OpenAIInstrumentor

    OpenAIInstrumentor().instrument(tracer_provider=provider)


def trace_opentelemetry(provider: TracerProvider) -> None:
    from opentelemetry.instrumentation.openai_v2 import OpenAIInstrumentor

    OpenAIInstrumentor().instrument(tracer_provider=provider)


TRACERS = {
    "openinference-openai-chat": Tracer(
        trace_openinference, ("openinference-instrumentation-openai", "openai"), converse
    ),
    "openllmetry-openai-chat": Tracer(
        trace_openllmetry, ("opentelemetry-instrumentation-openai", "openai"), converse
    ),
    "opentelemetry-openai-chat": Tracer(
        trace_opentelemetry,
        ("opentelemetry-instrumentation-openai-v2", "openai"),
        converse,
        settings={
            "OTEL_SEMCONV_STABILITY_OPT_IN": "gen_ai_latest_experimental",
            "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "SPAN_ONLY",
        },
    ),
}

if __name__ == "__main__":
    record_agent(TRACERS)
