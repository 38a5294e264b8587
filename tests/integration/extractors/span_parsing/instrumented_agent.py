"""An agent traced by a real OpenInference instrumentor: asks a server some conversations, and ends.

    python -m tests.integration.extractors.span_parsing.instrumented_agent \
        FRAMEWORK MODEL_URL PHOENIX_URL CONVERSATIONS

FRAMEWORK is a key of `FRAMEWORKS`; in `langchain-over-openai` the openai client below LangChain is
traced, too. CONVERSATIONS is JSON: `[[PROJECT, {"messages": […], "tools": […]}], …]`. It runs in a
process of its own, because instrumentors patch what they trace.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

from openinference.instrumentation import using_session
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

Ask = Callable[[str, list[Any], list[Any]], object]
"""Asks the server at a URL with messages and tools."""


def main(framework: str, model_url: str, phoenix_url: str, conversations: str) -> None:
    for project, conversation in json.loads(conversations):
        provider = TracerProvider(resource=Resource({"openinference.project.name": project}))
        provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(f"{phoenix_url}/v1/traces")))
        instrumentors, ask = FRAMEWORKS[framework]()
        for instrumentor in instrumentors:
            instrumentor.instrument(tracer_provider=provider)
        agent = provider.get_tracer("agent")
        with using_session("session-1"), agent.start_as_current_span("agent"):
            ask(f"{model_url}/v1", conversation["messages"], conversation["tools"])
        for instrumentor in instrumentors:
            instrumentor.uninstrument()
        provider.shutdown()


def openai_agent() -> tuple[list[Any], Ask]:
    import openai
    from openinference.instrumentation.openai import OpenAIInstrumentor

    def ask(url: str, messages: list[Any], tools: list[Any]) -> object:
        client = openai.OpenAI(base_url=url, api_key="none")
        offered = {"tools": tools} if tools else {}
        return client.chat.completions.create(model="base", messages=messages, **offered)

    return [OpenAIInstrumentor()], ask


def langchain_agent() -> tuple[list[Any], Ask]:
    from langchain_core.messages import convert_to_messages
    from langchain_openai import ChatOpenAI
    from openinference.instrumentation.langchain import LangChainInstrumentor

    def ask(url: str, messages: list[Any], tools: list[Any]) -> object:
        model = ChatOpenAI(base_url=url, api_key="none", model="base")
        return (model.bind_tools(tools) if tools else model).invoke(convert_to_messages(messages))

    return [LangChainInstrumentor()], ask


def langchain_over_openai_agent() -> tuple[list[Any], Ask]:
    (openai_instrumentors, _), (instrumentors, ask) = openai_agent(), langchain_agent()
    return [*openai_instrumentors, *instrumentors], ask


def dspy_agent() -> tuple[list[Any], Ask]:
    import dspy
    from openinference.instrumentation.dspy import DSPyInstrumentor

    def ask(url: str, messages: list[Any], tools: list[Any]) -> object:
        assert not tools, "DSPy puts tools into the prompt"
        return dspy.LM("openai/base", api_base=url, api_key="none", cache=False)(messages=messages)

    return [DSPyInstrumentor()], ask


FRAMEWORKS = {
    "openai": openai_agent,
    "langchain": langchain_agent,
    "langchain-over-openai": langchain_over_openai_agent,
    "dspy": dspy_agent,
}


if __name__ == "__main__":
    main(*sys.argv[1:])
