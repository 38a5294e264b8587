"""The agent without any SDK: chat completions over plain HTTP. The others are compared with it."""

import json
from typing import Any

import httpx

from tests.e2e.sdks import script

TOOL = {
    "type": "function",
    "function": {
        "name": script.TOOL_NAME,
        "description": script.TOOL_DESCRIPTION,
        "parameters": script.TOOL_PARAMETERS,
    },
}
FORM = {
    "type": "json_schema",
    "json_schema": {"name": "berth", "schema": script.BERTH_SCHEMA, "strict": True},
}


class PlainHttp:
    def __init__(self, url: str, key: str, model: str) -> None:
        self._url = f"{url}/v1/chat/completions"
        self._headers = {"authorization": f"Bearer {key}"}
        self._model = model

    def talk(self) -> list[str]:
        chat = [{"role": "system", "content": script.SYSTEM}]
        answers = []
        for question in (script.FERRY, script.SUNDAY):
            chat.append({"role": "user", "content": question})
            chat.append(self._ask(chat))
            answers.append(chat[-1]["content"])
        return answers

    def use_tools(self) -> str:
        chat = _begin(script.TIDES)
        answer = self._ask(chat, tools=[TOOL])
        chat.append({"role": "assistant", "content": None, "tool_calls": answer["tool_calls"]})
        for call in answer["tool_calls"]:
            height = script.read_tide(**json.loads(call["function"]["arguments"]))
            chat.append({"role": "tool", "tool_call_id": call["id"], "content": height})
        return str(self._ask(chat, tools=[TOOL])["content"])

    def fill_form(self) -> Any:
        return json.loads(self._ask(_begin(script.BERTH), response_format=FORM)["content"])

    def _ask(self, chat: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        body = {"model": self._model, "messages": chat, **more}
        answer = httpx.post(self._url, json=body, headers=self._headers, timeout=60)
        message = answer.raise_for_status().json()["choices"][0]["message"]
        kept = ("role", "content", "tool_calls")
        return {key: message[key] for key in kept if message.get(key)}


def _begin(question: str) -> list[dict[str, Any]]:
    return [{"role": "system", "content": script.SYSTEM}, {"role": "user", "content": question}]
