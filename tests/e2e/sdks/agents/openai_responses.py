"""The agent on the OpenAI SDK's responses."""

import json
from typing import Any

from openai import AsyncOpenAI, AuthenticationError, NotFoundError, OpenAI

from tests.e2e.sdks import script

TOOL: Any = {
    "type": "function",
    "name": script.TOOL_NAME,
    "description": script.TOOL_DESCRIPTION,
    "parameters": script.TOOL_PARAMETERS,
    "strict": None,
}


class OpenAIResponses:
    denied, unknown = AuthenticationError, NotFoundError

    def __init__(self, url: str, key: str, model: str) -> None:
        self._client = OpenAI(base_url=f"{url}/v1", api_key=key)
        self._async_client = AsyncOpenAI(base_url=f"{url}/v1", api_key=key)
        self._asked: dict[str, Any] = {"model": model, "instructions": script.SYSTEM}

    def talk(self) -> list[str]:
        said: list[Any] = [{"role": "user", "content": script.FERRY}]
        first = self._client.responses.create(**self._asked, input=said)
        said += [*_keep(first), {"role": "user", "content": script.SUNDAY}]
        return [first.output_text, self._client.responses.create(**self._asked, input=said).output_text]

    def use_tools(self) -> str:
        said: list[Any] = [{"role": "user", "content": script.TIDES}]
        first = self._client.responses.create(**self._asked, input=said, tools=[TOOL])
        said += [*_keep(first), *_run_tools(first)]
        return str(self._client.responses.create(**self._asked, input=said, tools=[TOOL]).output_text)

    def fill_form(self) -> Any:
        said: Any = [{"role": "user", "content": script.BERTH}]
        return self._client.responses.parse(**self._asked, input=said, text_format=script.Berth).output_parsed

    async def stream_talk(self) -> list[str]:
        said: list[Any] = [{"role": "user", "content": script.FERRY}]
        first = await self._stream(input=said)
        said += [*_keep(first), {"role": "user", "content": script.SUNDAY}]
        return [first.output_text, (await self._stream(input=said)).output_text]

    async def stream_tools(self) -> str:
        said: list[Any] = [{"role": "user", "content": script.TIDES}]
        first = await self._stream(input=said, tools=[TOOL])
        said += [*_keep(first), *_run_tools(first)]
        return str((await self._stream(input=said, tools=[TOOL])).output_text)

    async def stream_form(self) -> Any:
        said = [{"role": "user", "content": script.BERTH}]
        return (await self._stream(input=said, text_format=script.Berth)).output_parsed

    async def leave(self) -> str:
        said: Any = [{"role": "user", "content": script.ENDLESS}]
        stream = await self._async_client.responses.create(**self._asked, input=said, stream=True)
        async with stream:
            async for event in stream:
                if event.type == "response.output_text.delta":
                    return str(event.delta)
        raise AssertionError("the stream ended")

    async def _stream(self, **more: Any) -> Any:
        async with self._async_client.responses.stream(**self._asked, **more) as events:
            async for _ in events:
                pass
            return await events.get_final_response()


def _keep(response: Any) -> list[Any]:
    """Return the answer as input of the next turn."""
    return [item.to_dict() for item in response.output]


def _run_tools(response: Any) -> list[Any]:
    return [
        {
            "type": "function_call_output",
            "call_id": item.call_id,
            "output": script.read_tide(**json.loads(item.arguments)),
        }
        for item in response.output
        if item.type == "function_call"
    ]
