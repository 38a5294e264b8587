"""The agent on the Anthropic SDK."""

from typing import Any

from anthropic import Anthropic, AsyncAnthropic, AuthenticationError, NotFoundError

from tests.e2e.sdks import script

TOOL: Any = {
    "name": script.TOOL_NAME,
    "description": script.TOOL_DESCRIPTION,
    "input_schema": script.TOOL_PARAMETERS,
}
FORM: Any = {"format": {"type": "json_schema", "schema": script.BERTH_SCHEMA}}


class AnthropicMessages:
    denied, unknown = AuthenticationError, NotFoundError

    def __init__(self, url: str, key: str, model: str) -> None:
        self._client = Anthropic(base_url=url, api_key=key)
        self._async_client = AsyncAnthropic(base_url=url, api_key=key)
        self._asked: dict[str, Any] = {
            "model": model,
            "system": script.SYSTEM,
            "max_tokens": script.MAX_TOKENS,
        }

    def talk(self) -> list[str]:
        chat: list[Any] = [{"role": "user", "content": script.FERRY}]
        first = self._client.messages.create(**self._asked, messages=chat)
        chat += [_keep(first), {"role": "user", "content": script.SUNDAY}]
        return [_read_text(first), _read_text(self._client.messages.create(**self._asked, messages=chat))]

    def use_tools(self) -> str:
        chat: list[Any] = [{"role": "user", "content": script.TIDES}]
        first = self._client.messages.create(**self._asked, messages=chat, tools=[TOOL])
        chat += [_keep(first), _run_tools(first)]
        return _read_text(self._client.messages.create(**self._asked, messages=chat, tools=[TOOL]))

    def fill_form(self) -> Any:
        chat: Any = [{"role": "user", "content": script.BERTH}]
        answer = self._client.messages.create(**self._asked, messages=chat, output_config=FORM)
        return script.Berth.model_validate_json(_read_text(answer))

    async def stream_talk(self) -> list[str]:
        chat: list[Any] = [{"role": "user", "content": script.FERRY}]
        first = await self._stream(messages=chat)
        chat += [_keep(first), {"role": "user", "content": script.SUNDAY}]
        return [_read_text(first), _read_text(await self._stream(messages=chat))]

    async def stream_tools(self) -> str:
        chat: list[Any] = [{"role": "user", "content": script.TIDES}]
        first = await self._stream(messages=chat, tools=[TOOL])
        chat += [_keep(first), _run_tools(first)]
        return _read_text(await self._stream(messages=chat, tools=[TOOL]))

    async def stream_form(self) -> Any:
        chat = [{"role": "user", "content": script.BERTH}]
        return script.Berth.model_validate_json(
            _read_text(await self._stream(messages=chat, output_config=FORM))
        )

    async def leave(self) -> str:
        chat: Any = [{"role": "user", "content": script.ENDLESS}]
        async with self._async_client.messages.stream(**self._asked, messages=chat) as events:
            async for text in events.text_stream:
                return text
        raise AssertionError("the stream ended")

    async def _stream(self, **more: Any) -> Any:
        async with self._async_client.messages.stream(**self._asked, **more) as events:
            return await events.get_final_message()


def _keep(answer: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": [block.to_dict() for block in answer.content]}


def _read_text(answer: Any) -> str:
    return "".join(block.text for block in answer.content if block.type == "text")


def _run_tools(answer: Any) -> dict[str, Any]:
    results = [
        {
            "type": "tool_result",
            "tool_use_id": block.id,
            "content": script.read_tide(**block.input),
        }
        for block in answer.content
        if block.type == "tool_use"
    ]
    return {"role": "user", "content": results}
