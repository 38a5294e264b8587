"""The agent on Pydantic AI, which runs the tools and asks again by itself."""

from collections.abc import AsyncIterable
from typing import Any

from pydantic_ai import Agent, ModelHTTPError, ModelSettings, NativeOutput, Tool
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.profiles import ModelProfile
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

from tests.e2e.sdks import script

TOOL = Tool.from_schema(script.read_tide, script.TOOL_NAME, script.TOOL_DESCRIPTION, script.TOOL_PARAMETERS)


class PydanticAIChat:
    denied = unknown = ModelHTTPError

    def __init__(self, url: str, key: str, model: str) -> None:
        self._model = self.build_model(url, key, model)

    def build_model(self, url: str, key: str, model: str) -> Any:
        return OpenAIChatModel(model, provider=OpenAIProvider(base_url=f"{url}/v1", api_key=key))

    def talk(self) -> list[str]:
        agent = self._build()
        first = agent.run_sync(script.FERRY)
        second = agent.run_sync(script.SUNDAY, message_history=first.all_messages())
        return [first.output, second.output]

    def use_tools(self) -> str:
        return str(self._build(tools=[TOOL]).run_sync(script.TIDES).output)

    def fill_form(self) -> Any:
        return self._build(output_type=NativeOutput(script.Berth)).run_sync(script.BERTH).output

    async def stream_talk(self) -> list[str]:
        agent = self._build()
        first = await agent.run(script.FERRY, event_stream_handler=_listen)
        second = await agent.run(
            script.SUNDAY, message_history=first.all_messages(), event_stream_handler=_listen
        )
        return [first.output, second.output]

    async def stream_tools(self) -> str:
        answer = await self._build(tools=[TOOL]).run(script.TIDES, event_stream_handler=_listen)
        return str(answer.output)

    async def stream_form(self) -> Any:
        agent = self._build(output_type=NativeOutput(script.Berth))
        return (await agent.run(script.BERTH, event_stream_handler=_listen)).output

    async def leave(self) -> str:
        async with self._build().run_stream(script.ENDLESS) as run:
            async for text in run.stream_text(delta=True):
                if text:
                    return str(text)
        raise AssertionError("the stream ended")

    def _build(self, **more: Any) -> Any:
        # Over Anthropic's API it would ask for more than the model's window holds.
        limit = ModelSettings(max_tokens=script.MAX_TOKENS)
        return Agent(self._model, system_prompt=script.SYSTEM, model_settings=limit, **more)


class PydanticAIResponses(PydanticAIChat):
    def build_model(self, url: str, key: str, model: str) -> Any:
        return OpenAIResponsesModel(model, provider=OpenAIProvider(base_url=f"{url}/v1", api_key=key))


class PydanticAIAnthropic(PydanticAIChat):
    def build_model(self, url: str, key: str, model: str) -> Any:
        provider = AnthropicProvider(base_url=url, api_key=key)
        # The SDK goes by the names of Anthropic's models, and would take this one for an old one.
        profile = ModelProfile(supports_json_schema_output=True)
        return AnthropicModel(model, provider=provider, profile=profile)


async def _listen(context: Any, events: AsyncIterable[Any]) -> None:  # noqa: ARG001
    """Take the events of each answer: that has the SDK ask for streams."""
    async for _ in events:
        pass
