"""The agent on the OpenAI Agents SDK, which runs the tools and asks again by itself."""

import json
from typing import Any

from agents import (
    Agent,
    FunctionTool,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    set_tracing_disabled,
)
from openai import AsyncOpenAI, AuthenticationError, NotFoundError

from tests.e2e.sdks import script

set_tracing_disabled(True)  # else it sends traces to OpenAI


async def _call_tool(context: Any, arguments: str) -> str:  # noqa: ARG001
    return script.read_tide(**json.loads(arguments))


TOOL = FunctionTool(
    name=script.TOOL_NAME,
    description=script.TOOL_DESCRIPTION,
    params_json_schema=script.TOOL_PARAMETERS,
    on_invoke_tool=_call_tool,
    strict_json_schema=False,
)


class AgentsResponses:
    denied, unknown = AuthenticationError, NotFoundError
    protocol: Any = OpenAIResponsesModel

    def __init__(self, url: str, key: str, model: str) -> None:
        self._url, self._key, self._name = url, key, model

    def talk(self) -> list[str]:
        agent = self._build()
        first = Runner.run_sync(agent, script.FERRY)
        said: Any = [*first.to_input_list(), {"role": "user", "content": script.SUNDAY}]
        return [first.final_output, Runner.run_sync(agent, said).final_output]

    def use_tools(self) -> str:
        return str(Runner.run_sync(self._build(tools=[TOOL]), script.TIDES).final_output)

    def fill_form(self) -> Any:
        return Runner.run_sync(self._build(output_type=script.Berth), script.BERTH).final_output

    async def stream_talk(self) -> list[str]:
        agent = self._build()
        first = await _stream(agent, script.FERRY)
        said = [*first.to_input_list(), {"role": "user", "content": script.SUNDAY}]
        return [first.final_output, (await _stream(agent, said)).final_output]

    async def stream_tools(self) -> str:
        return str((await _stream(self._build(tools=[TOOL]), script.TIDES)).final_output)

    async def stream_form(self) -> Any:
        return (await _stream(self._build(output_type=script.Berth), script.BERTH)).final_output

    async def leave(self) -> str:
        run = Runner.run_streamed(self._build(), script.ENDLESS)
        async for event in run.stream_events():
            if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
                run.cancel()
                return str(event.data.delta)
        raise AssertionError("the stream ended")

    def _build(self, **more: Any) -> Agent:
        client = AsyncOpenAI(base_url=f"{self._url}/v1", api_key=self._key)
        model = self.protocol(self._name, client)
        return Agent(name="harbour office", instructions=script.SYSTEM, model=model, **more)


class AgentsChat(AgentsResponses):
    protocol = OpenAIChatCompletionsModel


async def _stream(agent: Agent, said: Any) -> Any:
    run = Runner.run_streamed(agent, said)
    async for _ in run.stream_events():
        pass
    return run
