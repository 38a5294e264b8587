"""The agent on Google's GenAI SDK."""

import base64
from typing import Any

from google import genai
from google.genai import types
from google.genai.errors import APIError
from opentelemetry.sdk.trace import TracerProvider

from tests.corpus import script
from tests.corpus.agents.conversations import one_trace, speak
from tests.corpus.agents.recording import Tracer, record_agent
from tests.corpus.stand_in import StandIn

TOOLS = [
    types.Tool(
        function_declarations=[
            types.FunctionDeclaration(
                name=name,
                description=script.DESCRIPTIONS[name],
                parameters_json_schema=script.PARAMETERS[name],
            )
            for name in script.FUNCTIONS
        ]
    )
]


class GeminiAgent:
    errors = APIError

    def __init__(self, url: str) -> None:
        self._client = build_client(url)
        self._contents: list[types.Content] = []

    def say(self, text: str, image: str | None = None) -> None:
        parts = [types.Part(text=text)]
        if image:
            parts.append(types.Part.from_bytes(data=base64.b64decode(image), mime_type="image/png"))
        self._contents.append(types.Content(role="user", parts=parts))

    def ask(self, *, streamed: bool = False, max_tokens: int | None = None) -> None:
        config = types.GenerateContentConfig(
            system_instruction=script.SYSTEM,
            tools=TOOLS,
            max_output_tokens=max_tokens,
            automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
        )
        asked: dict[str, Any] = {"model": script.MODEL, "contents": self._contents, "config": config}
        if streamed:
            parts = [
                part
                for chunk in self._client.models.generate_content_stream(**asked)
                for part in chunk.candidates[0].content.parts
            ]
            text = "".join(part.text for part in parts if part.text)
            parts = [types.Part(text=text), *(part for part in parts if not part.text)]
        else:
            parts = self._client.models.generate_content(**asked).candidates[0].content.parts
        self._contents.append(types.Content(role="model", parts=parts))

    def run_tools(self) -> None:
        calls = [part.function_call for part in self._contents[-1].parts or [] if part.function_call]
        results = [
            types.Part.from_function_response(
                name=call.name, response={"result": script.FUNCTIONS[call.name](**call.args)}
            )
            for call in calls
        ]
        self._contents.append(types.Content(role="user", parts=results))


def build_client(url: str) -> genai.Client:
    return genai.Client(api_key="none", http_options=types.HttpOptions(base_url=url))


def converse(stand_in: StandIn) -> None:
    speak(stand_in, lambda: GeminiAgent(stand_in.url))
    client = build_client(stand_in.url)
    with one_trace("thoughts"):
        stand_in.expect("thoughts")
        client.models.generate_content(model=script.MODEL, contents=script.THOUGHT)
    with one_trace("several answers"):
        stand_in.expect("several answers")
        client.models.generate_content(
            model=script.MODEL,
            contents=script.SEVERAL,
            config=types.GenerateContentConfig(candidate_count=2),
        )


def trace_openinference(provider: TracerProvider) -> None:
    from openinference.instrumentation.google_genai import GoogleGenAIInstrumentor

    GoogleGenAIInstrumentor().instrument(tracer_provider=provider)


def trace_openllmetry(provider: TracerProvider) -> None:
    from opentelemetry.instrumentation.google_generativeai import GoogleGenerativeAiInstrumentor

    GoogleGenerativeAiInstrumentor().instrument(tracer_provider=provider)


TRACERS = {
    "openinference-google-genai": Tracer(
        trace_openinference, ("openinference-instrumentation-google-genai", "google-genai"), converse
    ),
    "openllmetry-google-genai": Tracer(
        trace_openllmetry, ("opentelemetry-instrumentation-google-generativeai", "google-genai"), converse
    ),
}

if __name__ == "__main__":
    record_agent(TRACERS)
