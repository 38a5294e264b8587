"""The agent on LiteLLM, which knows OpenAI's API as `openai/…` and Anthropic's as `anthropic/…`."""

import json
from typing import Any

import litellm
from litellm.exceptions import AuthenticationError, NotFoundError

from tests.e2e.sdks import script
from tests.e2e.sdks.agents.plain_http import FORM, TOOL

litellm.telemetry = False


class LiteLLMOpenAI:
    denied, unknown = AuthenticationError, NotFoundError
    api, path = "openai", "/v1"
    form: dict[str, Any] = {"response_format": FORM}

    def __init__(self, url: str, key: str, model: str) -> None:
        self._asked: dict[str, Any] = {
            "model": f"{self.api}/{model}",
            "api_base": f"{url}{self.path}",
            "api_key": key,
            # Over Anthropic's API it would ask for more than the model's window holds.
            "max_tokens": script.MAX_TOKENS,
        }

    def talk(self) -> list[str]:
        chat = _begin(script.FERRY)
        first = self._ask(chat)
        chat += [_keep(first), {"role": "user", "content": script.SUNDAY}]
        return [first.content, self._ask(chat).content]

    def use_tools(self) -> str:
        chat = _begin(script.TIDES)
        first = self._ask(chat, tools=[TOOL])
        chat += [_keep(first), *_run_tools(first)]
        return str(self._ask(chat, tools=[TOOL]).content)

    def fill_form(self) -> Any:
        answer = self._ask(_begin(script.BERTH), **self.form)
        return script.Berth.model_validate_json(answer.content)

    async def stream_talk(self) -> list[str]:
        chat = _begin(script.FERRY)
        first = await self._stream(chat)
        chat += [_keep(first), {"role": "user", "content": script.SUNDAY}]
        return [first.content, (await self._stream(chat)).content]

    async def stream_tools(self) -> str:
        chat = _begin(script.TIDES)
        first = await self._stream(chat, tools=[TOOL])
        chat += [_keep(first), *_run_tools(first)]
        return str((await self._stream(chat, tools=[TOOL])).content)

    async def stream_form(self) -> Any:
        answer = await self._stream(_begin(script.BERTH), **self.form)
        return script.Berth.model_validate_json(answer.content)

    async def leave(self) -> str:
        chunks = await litellm.acompletion(**self._asked, messages=_begin(script.ENDLESS), stream=True)
        async for chunk in chunks:
            if text := chunk.choices[0].delta.content:
                await chunks.aclose()
                return str(text)
        raise AssertionError("the stream ended")

    def _ask(self, chat: list[Any], **more: Any) -> Any:
        return litellm.completion(**self._asked, messages=chat, **more).choices[0].message

    async def _stream(self, chat: list[Any], **more: Any) -> Any:
        chunks = await litellm.acompletion(**self._asked, messages=chat, stream=True, **more)
        whole: Any = litellm.stream_chunk_builder([chunk async for chunk in chunks], messages=chat)
        return whole.choices[0].message


class LiteLLMAnthropic(LiteLLMOpenAI):
    api, path = "anthropic", ""
    # Of `response_format` it would make a tool here, as for Anthropic's older models.
    form = {"output_config": {"format": {"type": "json_schema", "schema": script.BERTH_SCHEMA}}}


def _begin(question: str) -> list[Any]:
    return [{"role": "system", "content": script.SYSTEM}, {"role": "user", "content": question}]


def _keep(message: Any) -> dict[str, Any]:
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
    return kept


def _run_tools(message: Any) -> list[Any]:
    return [
        {
            "role": "tool",
            "tool_call_id": call.id,
            "content": script.read_tide(**json.loads(call.function.arguments)),
        }
        for call in message.tool_calls
    ]
