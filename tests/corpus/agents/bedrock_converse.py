"""The agent on Amazon Bedrock's Converse, by boto3."""

import base64
import json
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from opentelemetry.sdk.trace import TracerProvider

from tests.corpus import script
from tests.corpus.agents.conversations import speak
from tests.corpus.agents.recording import Tracer, record_agent
from tests.corpus.stand_in import StandIn

TOOLS = {
    "tools": [
        {
            "toolSpec": {
                "name": name,
                "description": script.DESCRIPTIONS[name],
                "inputSchema": {"json": script.PARAMETERS[name]},
            }
        }
        for name in script.FUNCTIONS
    ]
}


class BedrockAgent:
    errors = ClientError

    def __init__(self, url: str) -> None:
        self._client = boto3.client(
            "bedrock-runtime",
            region_name="eu-north-1",
            endpoint_url=url,
            aws_access_key_id="none",
            aws_secret_access_key="none",
            config=Config(retries={"max_attempts": 1, "mode": "standard"}),
        )
        self._messages: list[Any] = []

    def say(self, text: str, image: str | None = None) -> None:
        content: list[Any] = [{"text": text}]
        if image:
            content.append({"image": {"format": "png", "source": {"bytes": base64.b64decode(image)}}})
        self._messages.append({"role": "user", "content": content})

    def ask(self, *, streamed: bool = False, max_tokens: int | None = None) -> None:
        asked: dict[str, Any] = {
            "modelId": script.MODEL,
            "system": [{"text": script.SYSTEM}],
            "messages": self._messages,
            "toolConfig": TOOLS,
            "inferenceConfig": {"maxTokens": max_tokens or 1000},
        }
        if streamed:
            blocks = _join_blocks(self._client.converse_stream(**asked)["stream"])
        else:
            blocks = self._client.converse(**asked)["output"]["message"]["content"]
        self._messages.append({"role": "assistant", "content": blocks})

    def run_tools(self) -> None:
        uses = [block["toolUse"] for block in self._messages[-1]["content"] if "toolUse" in block]
        results = [
            {
                "toolResult": {
                    "toolUseId": use["toolUseId"],
                    "content": [{"text": script.FUNCTIONS[use["name"]](**use["input"])}],
                }
            }
            for use in uses
        ]
        self._messages.append({"role": "user", "content": results})


def _join_blocks(events: Any) -> list[Any]:
    """The blocks of a streamed answer."""
    texts: dict[int, str] = {}
    uses: dict[int, dict[str, Any]] = {}
    for event in events:
        if start := event.get("contentBlockStart"):
            uses[start["contentBlockIndex"]] = {**start["start"]["toolUse"], "input": ""}
        elif part := event.get("contentBlockDelta"):
            index = part["contentBlockIndex"]
            if use := part["delta"].get("toolUse"):
                uses[index]["input"] += use["input"]
            else:
                texts[index] = texts.get(index, "") + part["delta"]["text"]
    blocks: dict[int, Any] = {index: {"text": text} for index, text in texts.items()}
    blocks |= {index: {"toolUse": {**use, "input": json.loads(use["input"])}} for index, use in uses.items()}
    return [blocks[index] for index in sorted(blocks)]


def converse(stand_in: StandIn) -> None:
    speak(stand_in, lambda: BedrockAgent(stand_in.url))


def trace_openinference(provider: TracerProvider) -> None:
    from openinference.instrumentation.bedrock import BedrockInstrumentor

    BedrockInstrumentor().instrument(tracer_provider=provider)


def trace_openllmetry(provider: TracerProvider) -> None:
    from opentelemetry.instrumentation.bedrock import BedrockInstrumentor

    BedrockInstrumentor().instrument(tracer_provider=provider)


TRACERS = {
    "openinference-bedrock": Tracer(
        trace_openinference, ("openinference-instrumentation-bedrock", "boto3"), converse
    ),
    "openllmetry-bedrock": Tracer(
        trace_openllmetry, ("opentelemetry-instrumentation-bedrock", "boto3"), converse
    ),
}

if __name__ == "__main__":
    record_agent(TRACERS)
