"""Answers that rest on what their provider found, and tools that it ran itself."""

import json
from typing import Any

import pytest

from extractors.span_parsing.drop_reasons import DropReason
from tests.support.conversations import read, refuse
from tests.support.flat_attributes import write_genai, write_llm, write_part, write_text

ASK = "When does the ferry to Ven leave?"
ASKED = {"role": "user", "content": ASK}
ANSWER = "At half past nine."
FOUND = {"web_search_queries": ["ferry ven"], "grounding_chunks": [{"web": {"uri": "https://ferry.test"}}]}
CITED = {"type": "url_citation", "url_citation": {"url": "https://ferry.test", "title": "Ferries"}}


def _answer_as_chat(**message: Any) -> dict[str, Any]:
    said = {"role": "assistant", "content": ANSWER, **message}
    return {"choices": [{"finish_reason": "stop", "index": 0, "message": said}]}


def _answer_as_candidate(**candidate: Any) -> dict[str, Any]:
    content = {"role": "model", "parts": [{"text": ANSWER}]}
    return {"candidates": [{"content": content, "finish_reason": "STOP", **candidate}]}


def _answer_as_item(*annotations: Any) -> dict[str, Any]:
    part = {"type": "output_text", "text": ANSWER, "annotations": list(annotations)}
    return {"status": "completed", "output": [{"type": "message", "role": "assistant", "content": [part]}]}


def _answer_as_langchain(**given: Any) -> dict[str, Any]:
    said = {"content": ANSWER, "type": "ai", "response_metadata": {"finish_reason": "stop"}, **given}
    message = {"lc": 1, "type": "constructor", "id": ["langchain", "AIMessage"], "kwargs": said}
    return {"generations": [[{"text": ANSWER, "message": message}]]}


def _answer_as_anthropic(kind: str) -> dict[str, Any]:
    part = {**write_text(ANSWER), "citations": [{"type": kind, "cited_text": "9:30"}]}
    return {"role": "assistant", "content": [part], "stop_reason": "end_turn"}


@pytest.mark.parametrize(
    "output",
    [
        _answer_as_candidate(grounding_metadata=FOUND),
        _answer_as_candidate(groundingMetadata={"webSearchQueries": ["ferry ven"]}),
        _answer_as_candidate(groundingMetadata={"groundingChunks": [{"web": {}}]}),
        _answer_as_candidate(url_context_metadata={"url_metadata": [{"retrieved_url": "https://f.test"}]}),
        _answer_as_chat(annotations=[CITED]),
        {**_answer_as_chat(), "citations": ["https://ferry.test"]},
        {**_answer_as_chat(), "search_results": [{"title": "Ferries"}]},
        _answer_as_item({"type": "url_citation", "url": "https://ferry.test"}),
        _answer_as_item({"type": "file_citation", "file_id": "f1"}),
        _answer_as_langchain(response_metadata={"finish_reason": "STOP", "grounding_metadata": FOUND}),
        _answer_as_langchain(additional_kwargs={"tool_outputs": [{"type": "web_search_call", "id": "w"}]}),
        _answer_as_langchain(content=[{**write_text(ANSWER), "annotations": [{"type": "url_citation"}]}]),
        _answer_as_langchain(
            content=[{**write_text(ANSWER), "citations": [{"type": "web_search_result_location"}]}]
        ),
        _answer_as_anthropic("web_search_result_location"),
    ],
)
@pytest.mark.parametrize("listed", [None, ANSWER])
def test_an_answer_that_rests_on_a_search_is_refused(output: dict[str, Any], listed: str | None) -> None:
    attributes = write_llm([ASKED], listed, body={"model": "m", "messages": [ASKED]}, output=output)
    assert refuse(attributes) is DropReason.SERVER_TOOL


@pytest.mark.parametrize(
    "output",
    [
        _answer_as_candidate(grounding_metadata={}),
        _answer_as_candidate(grounding_metadata={"grounding_chunks": None, "web_search_queries": []}),
        _answer_as_candidate(url_context_metadata=None),
        _answer_as_chat(annotations=[]),
        {**_answer_as_chat(), "citations": [], "search_results": None},
        _answer_as_item(),
        _answer_as_langchain(response_metadata={"grounding_metadata": {}, "finish_reason": "STOP"}),
        _answer_as_anthropic("char_location"),
        _answer_as_anthropic("page_location"),
    ],
)
def test_an_answer_without_a_search_is_read(output: dict[str, Any]) -> None:
    assert read(write_llm([ASKED], ANSWER, output=output)).response.content == ANSWER


VERCEL = {
    "ai.operationId": "ai.generateText.doGenerate",
    "operation.name": "ai.generateText.doGenerate",
    "ai.prompt.messages": json.dumps([{"role": "user", "content": [write_text(ASK)]}]),
    "ai.response.text": ANSWER,
    "ai.response.finishReason": "stop",
    "gen_ai.request.model": "m",
}


@pytest.mark.parametrize("kind", ["provider-defined", "provider"])
def test_a_call_that_the_provider_executed_is_no_call_of_the_agent(kind: str) -> None:
    tool = {"type": kind, "id": "openai.web_search", "name": "web_search", "args": {}}
    call = {"toolCallId": "w1", "toolName": "web_search", "input": "{}", "providerExecuted": True}
    attributes = {
        **VERCEL,
        "ai.prompt.tools": [json.dumps(tool)],
        "ai.response.toolCalls": json.dumps([call]),
    }
    assert refuse(attributes) is DropReason.SERVER_TOOL


BUILT_IN = {
    "type": "tool_call",
    "id": "b1",
    "name": "web_search",
    "arguments": {"query": "x"},
    "builtin": True,
}
BUILT_IN_RESULT = {
    "type": "tool_call_response",
    "id": "b1",
    "name": "web_search",
    "result": [],
    "builtin": True,
}
PARTS_ASKED = {"role": "user", "parts": [write_part(ASK)]}


@pytest.mark.parametrize("parts", [[BUILT_IN], [BUILT_IN, BUILT_IN_RESULT]])
def test_a_built_in_tool_is_no_call_of_the_agent(parts: list[Any]) -> None:
    said = {"role": "assistant", "parts": [*parts, write_part(ANSWER)]}
    assert refuse(write_genai([PARTS_ASKED], said)) is DropReason.SERVER_TOOL
    assert refuse(write_genai([PARTS_ASKED, said, PARTS_ASKED], "Yes.")) is DropReason.SERVER_TOOL


def test_an_answer_that_holds_a_result_was_helped_by_its_provider() -> None:
    parts = [
        {"type": "tool_call", "id": "b1", "name": "web_search", "arguments": {}},
        {"type": "tool_call_response", "id": "b1", "response": "found"},
        write_part(ANSWER),
    ]
    assert refuse(write_genai([PARTS_ASKED], {"role": "assistant", "parts": parts})) is DropReason.SERVER_TOOL
