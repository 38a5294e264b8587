"""An agent traced by a real OpenInference instrumentor: asks a server one conversation, and ends.

    python -m tests.integration.extractors.span_parsing.instrumented_agent \
        FRAMEWORK MODEL_URL PHOENIX_URL PROJECT CONVERSATION

FRAMEWORK is `openai`, `langchain`, `both` (LangChain, with openai below it traced too) or `dspy`;
CONVERSATION is JSON: `{"messages": […], "tools": […]}`. A process of its own, because
instrumentors patch what they trace.
"""

import json
import sys
from typing import Any

from openinference.instrumentation import using_session
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor


def main(framework: str, model_url: str, phoenix_url: str, project: str, conversation: str) -> None:
    provider = TracerProvider(resource=Resource({"openinference.project.name": project}))
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(f"{phoenix_url}/v1/traces")))
    ask = {"openai": ask_openai, "langchain": ask_langchain, "both": ask_both, "dspy": ask_dspy}[framework]
    agent = provider.get_tracer("agent")
    with using_session("session-1"), agent.start_as_current_span("agent"):
        ask(provider, f"{model_url}/v1", **json.loads(conversation))
    provider.shutdown()


def ask_openai(provider: TracerProvider, url: str, messages: list[Any], tools: list[Any]) -> None:
    import openai
    from openinference.instrumentation.openai import OpenAIInstrumentor

    OpenAIInstrumentor().instrument(tracer_provider=provider)
    client = openai.OpenAI(base_url=url, api_key="none")
    client.chat.completions.create(model="base", messages=messages, **({"tools": tools} if tools else {}))


def ask_langchain(provider: TracerProvider, url: str, messages: list[Any], tools: list[Any]) -> None:
    from langchain_core.messages import convert_to_messages
    from langchain_openai import ChatOpenAI
    from openinference.instrumentation.langchain import LangChainInstrumentor

    LangChainInstrumentor().instrument(tracer_provider=provider)
    model = ChatOpenAI(base_url=url, api_key="none", model="base")
    (model.bind_tools(tools) if tools else model).invoke(convert_to_messages(messages))


def ask_both(provider: TracerProvider, url: str, messages: list[Any], tools: list[Any]) -> None:
    from openinference.instrumentation.openai import OpenAIInstrumentor

    OpenAIInstrumentor().instrument(tracer_provider=provider)
    ask_langchain(provider, url, messages, tools)


def ask_dspy(provider: TracerProvider, url: str, messages: list[Any], tools: list[Any]) -> None:
    import dspy
    from openinference.instrumentation.dspy import DSPyInstrumentor

    assert not tools, "DSPy puts tools into the prompt"
    DSPyInstrumentor().instrument(tracer_provider=provider)
    dspy.LM("openai/base", api_base=url, api_key="none", cache=False)(messages=messages)


if __name__ == "__main__":
    main(*sys.argv[1:])
