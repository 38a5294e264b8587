"""The agent on the OpenAI SDK's Responses API."""

import json
from typing import Any

from openai import OpenAI, OpenAIError

from tests.corpus import script
from tests.corpus.agents.conversations import one_trace, speak
from tests.corpus.agents.openai_chat import trace_openinference, trace_openllmetry
from tests.corpus.agents.recording import Tracer, record_agent
from tests.corpus.stand_in import StandIn

TOOLS: list[Any] = [
    {
        "type": "function",
        "name": name,
        "description": script.DESCRIPTIONS[name],
        "parameters": script.PARAMETERS[name],
        "strict": False,
    }
    for name in script.FUNCTIONS
]


class ResponsesAgent:
    errors = OpenAIError

    def __init__(self, url: str) -> None:
        self._client = OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        self._items: list[Any] = []

    def say(self, text: str, image: str | None = None) -> None:
        content: Any = text
        if image:
            picture = {"type": "input_image", "image_url": f"data:image/png;base64,{image}"}
            content = [{"type": "input_text", "text": text}, picture]
        self._items.append({"role": "user", "content": content})

    def ask(self, *, streamed: bool = False, max_tokens: int | None = None) -> None:
        limit = {"max_output_tokens": max_tokens} if max_tokens else {}
        asked: dict[str, Any] = {
            "model": script.MODEL,
            "instructions": script.SYSTEM,
            "input": self._items,
            "tools": TOOLS,
            **limit,
        }
        if streamed:
            with self._client.responses.stream(**asked) as events:
                for _ in events:
                    pass
                answer = events.get_final_response()
        else:
            answer = self._client.responses.create(**asked)
        for item in answer.output:
            kept = item.model_dump(exclude_none=True)
            kept.pop("parsed_arguments", None)
            for part in kept.get("content", ()):
                part.pop("parsed", None)
            self._items.append(kept)

    def run_tools(self) -> None:
        for item in list(self._items):
            if item.get("type") == "function_call" and not self._is_answered(item["call_id"]):
                result = script.FUNCTIONS[item["name"]](**json.loads(item["arguments"]))
                self._items.append(
                    {"type": "function_call_output", "call_id": item["call_id"], "output": result}
                )

    def _is_answered(self, call_id: str) -> bool:
        return any(
            item.get("type") == "function_call_output" and item["call_id"] == call_id for item in self._items
        )


def converse(stand_in: StandIn) -> None:
    speak(stand_in, lambda: ResponsesAgent(stand_in.url))
    client = OpenAI(base_url=f"{stand_in.url}/v1", api_key="none", max_retries=0)
    with one_trace("referenced history"):
        stand_in.expect("before reference")
        first = client.responses.create(model=script.MODEL, input=script.FAILED)
        stand_in.expect("referenced history")
        client.responses.create(model=script.MODEL, input=script.REFERENCED, previous_response_id=first.id)
    with one_trace("thoughts"):
        stand_in.expect("thoughts")
        client.responses.create(model=script.MODEL, input=script.THOUGHT)


TRACERS = {
    "openinference-openai-responses": Tracer(
        trace_openinference, ("openinference-instrumentation-openai", "openai"), converse
    ),
    "openllmetry-openai-responses": Tracer(
        trace_openllmetry, ("opentelemetry-instrumentation-openai", "openai"), converse
    ),
}

if __name__ == "__main__":
    record_agent(TRACERS)
