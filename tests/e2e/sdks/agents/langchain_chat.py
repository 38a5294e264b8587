"""The agent on LangChain's chat models for OpenAI's API and Anthropic's."""

from collections.abc import AsyncIterator
from typing import Any

import anthropic
import openai
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
from langchain_openai import ChatOpenAI

from tests.e2e.sdks import script

TOOL = {
    "name": script.TOOL_NAME,
    "description": script.TOOL_DESCRIPTION,
    "parameters": script.TOOL_PARAMETERS,
}


class LangChainOpenAI:
    denied: type[Exception] = openai.AuthenticationError
    unknown: type[Exception] = openai.NotFoundError

    def __init__(self, url: str, key: str, model: str) -> None:
        self._model = self.build_model(url, key, model)

    def build_model(self, url: str, key: str, model: str) -> Any:
        return ChatOpenAI(model=model, base_url=f"{url}/v1", api_key=key)

    def talk(self) -> list[str]:
        chat = _begin(script.FERRY)
        first = self._model.invoke(chat)
        chat += [first, HumanMessage(script.SUNDAY)]
        return [first.text, self._model.invoke(chat).text]

    def use_tools(self) -> str:
        chat, model = _begin(script.TIDES), self._model.bind_tools([TOOL])
        first = model.invoke(chat)
        chat += [first, *_run_tools(first)]
        return str(model.invoke(chat).text)

    def fill_form(self) -> Any:
        asked = self._model.with_structured_output(script.Berth, method="json_schema")
        return asked.invoke(_begin(script.BERTH))

    async def stream_talk(self) -> list[str]:
        chat = _begin(script.FERRY)
        first = await _join(self._model.astream(chat))
        chat += [first, HumanMessage(script.SUNDAY)]
        return [first.text, (await _join(self._model.astream(chat))).text]

    async def stream_tools(self) -> str:
        chat, model = _begin(script.TIDES), self._model.bind_tools([TOOL])
        first = await _join(model.astream(chat))
        chat += [first, *_run_tools(first)]
        return str((await _join(model.astream(chat))).text)

    async def stream_form(self) -> Any:
        asked = self._model.with_structured_output(script.Berth, method="json_schema")
        return [each async for each in asked.astream(_begin(script.BERTH))][-1]

    async def leave(self) -> str:
        pieces = self._model.astream(_begin(script.ENDLESS))
        async for piece in pieces:
            if piece.text:
                await pieces.aclose()
                return str(piece.text)
        raise AssertionError("the stream ended")


class LangChainAnthropic(LangChainOpenAI):
    denied = anthropic.AuthenticationError
    unknown = anthropic.NotFoundError

    def build_model(self, url: str, key: str, model: str) -> Any:
        return ChatAnthropic(model=model, base_url=url, api_key=key, max_tokens=script.MAX_TOKENS)


def _begin(question: str) -> list[Any]:
    return [SystemMessage(script.SYSTEM), HumanMessage(question)]


def _run_tools(answer: Any) -> list[ToolMessage]:
    return [
        ToolMessage(script.read_tide(**call["args"]), tool_call_id=call["id"]) for call in answer.tool_calls
    ]


async def _join(pieces: AsyncIterator[Any]) -> Any:
    """Return the pieces of a stream as one message."""
    joined = None
    async for piece in pieces:
        joined = piece if joined is None else joined + piece
    return joined
