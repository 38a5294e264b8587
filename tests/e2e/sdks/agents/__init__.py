"""One agent for each SDK. All have the same conversations, each in its SDK's own words."""

from typing import Any, NamedTuple, Protocol


class AgentClass(NamedTuple):
    """The place of an agent's class; its module imports an SDK, which takes seconds."""

    module: str
    class_name: str


AGENTS = {
    "openai-chat": AgentClass("openai_chat", "OpenAIChat"),
    "openai-responses": AgentClass("openai_responses", "OpenAIResponses"),
    "anthropic": AgentClass("anthropic_messages", "AnthropicMessages"),
    "agents-chat": AgentClass("openai_agents", "AgentsChat"),
    "agents-responses": AgentClass("openai_agents", "AgentsResponses"),
    "langchain-openai": AgentClass("langchain_chat", "LangChainOpenAI"),
    "langchain-anthropic": AgentClass("langchain_chat", "LangChainAnthropic"),
    "pydantic-ai-chat": AgentClass("pydantic_ai_agent", "PydanticAIChat"),
    "pydantic-ai-responses": AgentClass("pydantic_ai_agent", "PydanticAIResponses"),
    "pydantic-ai-anthropic": AgentClass("pydantic_ai_agent", "PydanticAIAnthropic"),
    "litellm-openai": AgentClass("litellm_chat", "LiteLLMOpenAI"),
    "litellm-anthropic": AgentClass("litellm_chat", "LiteLLMAnthropic"),
}


class Agent(Protocol):
    """An agent of `model` at the gateway."""

    denied: type[Exception]
    """The SDK's error where the token is wrong."""
    unknown: type[Exception]
    """The SDK's error where there is no such model."""

    def __init__(self, url: str, key: str, model: str) -> None: ...

    def talk(self) -> list[str]:
        """Ask two questions in one conversation, and return the answers."""

    def use_tools(self) -> str:
        """Have the model call a tool twice at once, and return what it makes of the results."""

    def fill_form(self) -> Any:
        """Return an answer that follows a JSON schema, parsed."""

    async def stream_talk(self) -> list[str]: ...

    async def stream_tools(self) -> str: ...

    async def stream_form(self) -> Any: ...

    async def leave(self) -> str:
        """Ask for a stream that has no end, take the first piece of text, return it and hang up."""
