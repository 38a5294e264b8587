"""The agent on LiteLLM."""

import json
import os
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it asks the internet for prices

import litellm
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


class LiteLLMAgent:
    errors = Exception  # LiteLLM has no class of its own above those of the OpenAI SDK

    def __init__(self, url: str) -> None:
        self._url = url
        self._messages: list[Any] = [{"role": "system", "content": script.SYSTEM}]

    def say(self, text: str, image: str | None = None) -> None:
        content: Any = text
        if image:
            picture = {"url": f"data:image/png;base64,{image}"}
            content = [{"type": "text", "text": text}, {"type": "image_url", "image_url": picture}]
        self._messages.append({"role": "user", "content": content})

    def ask(self, *, streamed: bool = False, max_tokens: int | None = None) -> None:
        answer = litellm.completion(
            model=f"openai/{script.MODEL}",
            messages=self._messages,
            tools=TOOLS,
            max_tokens=max_tokens,
            stream=streamed,
            api_base=f"{self._url}/v1",
            api_key="none",
            max_retries=0,
        )
        if streamed:
            answer = litellm.stream_chunk_builder(list(answer), messages=self._messages)
        message = answer.choices[0].message
        kept: dict[str, Any] = {"role": "assistant", "content": message.content}
        if message.tool_calls:
            kept["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.function.name, "arguments": call.function.arguments},
                }
                for call in message.tool_calls
            ]
        self._messages.append(kept)

    def run_tools(self) -> None:
        for call in self._messages[-1]["tool_calls"]:
            function = script.FUNCTIONS[call["function"]["name"]]
            result = function(**json.loads(call["function"]["arguments"]))
            self._messages.append({"role": "tool", "tool_call_id": call["id"], "content": result})


def converse(stand_in: StandIn) -> None:
    speak(stand_in, lambda: LiteLLMAgent(stand_in.url))


def trace_openinference(provider: TracerProvider) -> None:
    from openinference.instrumentation.litellm import LiteLLMInstrumentor

    LiteLLMInstrumentor().instrument(tracer_provider=provider)


TRACERS = {
    "openinference-litellm": Tracer(
        trace_openinference, ("openinference-instrumentation-litellm", "litellm"), converse
    ),
}

if __name__ == "__main__":
    record_agent(TRACERS)
