"""The agent on the OpenAI SDK's chat completions."""

import json
from collections.abc import Iterable
from typing import Any

from openai import AsyncOpenAI, AuthenticationError, NotFoundError, OpenAI

from tests.e2e.sdks import script
from tests.e2e.sdks.agents.plain_http import FORM, TOOL


class OpenAIChat:
    denied, unknown = AuthenticationError, NotFoundError

    def __init__(self, url: str, key: str, model: str) -> None:
        self._client = OpenAI(base_url=f"{url}/v1", api_key=key)
        self._async_client = AsyncOpenAI(base_url=f"{url}/v1", api_key=key)
        self._model = model

    def talk(self) -> list[str]:
        chat = _begin(script.FERRY)
        first = self._ask(chat)
        chat += [first.to_dict(), {"role": "user", "content": script.SUNDAY}]
        return [first.content, self._ask(chat).content]

    def use_tools(self) -> str:
        chat = _begin(script.TIDES)
        answer = self._ask(chat, tools=[TOOL])
        chat += [answer.to_dict(), *_run_tools(answer.tool_calls)]
        return str(self._ask(chat, tools=[TOOL]).content)

    def fill_form(self) -> Any:
        answer = self._client.chat.completions.parse(
            model=self._model, messages=_begin(script.BERTH), response_format=script.Berth
        )
        return answer.choices[0].message.parsed

    async def stream_talk(self) -> list[str]:
        chat = _begin(script.FERRY)
        first = await self._stream(chat)
        chat += [first.to_dict(), {"role": "user", "content": script.SUNDAY}]
        return [first.content, (await self._stream(chat)).content]

    async def stream_tools(self) -> str:
        chat = _begin(script.TIDES)
        answer = await self._stream(chat, tools=[TOOL])
        chat += [answer.to_dict(), *_run_tools(answer.tool_calls)]
        return str((await self._stream(chat, tools=[TOOL])).content)

    async def stream_form(self) -> Any:
        return script.Berth.model_validate_json(
            (await self._stream(_begin(script.BERTH), response_format=FORM)).content
        )

    async def leave(self) -> str:
        stream = await self._async_client.chat.completions.create(
            model=self._model, messages=_begin(script.ENDLESS), stream=True
        )
        async with stream:
            async for chunk in stream:
                if text := chunk.choices[0].delta.content:
                    return text
        raise AssertionError("the stream ended")

    def _ask(self, chat: list[Any], **more: Any) -> Any:
        answer = self._client.chat.completions.create(model=self._model, messages=chat, **more)
        return answer.choices[0].message

    async def _stream(self, chat: list[Any], **more: Any) -> Any:
        """Return the message that the SDK puts together from a stream."""
        asked = self._async_client.chat.completions.stream(model=self._model, messages=chat, **more)
        async with asked as events:
            async for _ in events:
                pass
            return (await events.get_final_completion()).choices[0].message


def _begin(question: str) -> list[Any]:
    return [{"role": "system", "content": script.SYSTEM}, {"role": "user", "content": question}]


def _run_tools(calls: Iterable[Any]) -> list[Any]:
    return [
        {
            "role": "tool",
            "tool_call_id": call.id,
            "content": script.read_tide(**json.loads(call.function.arguments)),
        }
        for call in calls
    ]
