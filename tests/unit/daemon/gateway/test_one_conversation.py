"""A conversation is traced, and read, as the same one whichever API carried it, in one piece or streamed."""

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.gateway.apis import APIS
from daemon.gateway.attributes import Attributes, describe_answer, describe_request
from extractors.examples.prompt_keys import compute_prompt_key
from extractors.examples.types import Message, SFTExample, ToolCall
from extractors.span_parsing.calls import ModelCall
from tests.support.api_carriers import CARRIERS, Said
from tests.support.conversations import read

ALIKE = ("llm.input_messages.", "llm.output_messages.", "llm.tools.", "llm.token_count.", "llm.finish_reason")
"""Beginnings of the attributes that are the same; the bodies and the parameters are each API's own."""
TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30).map(
    lambda text: f"a{text}b"
)
THOUGHTS = st.none() | TEXTS
ARGUMENTS = st.dictionaries(
    st.sampled_from(["place", "day"]),
    st.recursive(
        st.none() | st.booleans() | st.integers(-99, 99) | TEXTS, lambda inner: st.lists(inner, max_size=2)
    ),
    max_size=2,
)
TOOLS = ("berth", "tide")


@st.composite
def conversations(draw: st.DrawFn) -> Said:
    """Draw a system prompt or none, some turns with parallel calls and results, and an answer."""
    numbers = iter(range(1000))
    prompt: list[Message] = []
    if draw(st.booleans()):
        prompt.append(Message(role="system", content=draw(TEXTS)))
    for _ in range(draw(st.integers(0, 2))):
        prompt.append(Message(role="user", content=draw(TEXTS)))
        turn = draw_turn(draw, numbers)
        prompt.append(turn)
        prompt += [
            Message(role="tool", tool_call_id=call.id, content=draw(TEXTS | st.just("")))
            for call in turn.tool_calls
        ]
    if prompt[-1:] == [] or prompt[-1].role != "tool" or draw(st.booleans()):
        prompt.append(Message(role="user", content=draw(TEXTS)))
    return Said(tuple(prompt), draw_turn(draw, numbers), TOOLS)


def draw_turn(draw: st.DrawFn, numbers: Any) -> Message:
    """Draw what the assistant says: thoughts, a text, calls; a text or a call at least."""
    calls = tuple(
        ToolCall(
            id=f"call_{next(numbers)}", name=name, arguments=json.dumps(draw(ARGUMENTS), ensure_ascii=False)
        )
        for name in draw(st.lists(st.sampled_from(TOOLS), max_size=3))
    )
    text = draw(st.just("") | TEXTS) if calls else draw(TEXTS)
    return Message(role="assistant", content=text, tool_calls=calls, reasoning=draw(THOUGHTS))


def trace(said: Said, name: str, *, size: int | None) -> Attributes:
    """Return the attributes of a call over this API; `size` is that of a stream's pieces."""
    carrier = CARRIERS[name]
    api, request = APIS[carrier.path], carrier.ask(said)
    if size is None:
        answer = carrier.answer(said)
    else:
        chunks = carrier.stream(said, size)
        answer = api.assemble(chunks)
        assert api.find_stream_fault(chunks) is None
    told = api.read_answer(answer)
    assert [choice.finish_reason for choice in told.choices] == [
        "tool_calls" if said.answer.tool_calls else "stop"
    ]
    return {
        "openinference.span.kind": "LLM",
        **describe_request(request, api.read_request(request)),
        **describe_answer(answer, told),
    }


def to_example(call: ModelCall) -> SFTExample:
    return SFTExample(
        prompt=call.prompt,
        completion=call.response,
        tools=call.tools,
        prompt_key=compute_prompt_key(call.prompt),
        started_at=call.started_at,
    )


@settings(
    max_examples=100, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)
@given(conversations(), st.integers(1, 20))
def test_each_api_tells_the_same_conversation(said: Said, size: int) -> None:
    expected = trace(said, "chat", size=None)
    example = to_example(read(expected))
    assert (example.prompt, example.completion) == (said.prompt, said.answer)
    for name in CARRIERS:
        for pieces in (None, size):
            attributes = trace(said, name, size=pieces)
            assert select_alike(attributes) == select_alike(expected), (name, pieces)
            found = to_example(read(attributes))
            assert (found.prompt, found.completion, found.tools) == (
                example.prompt,
                example.completion,
                example.tools,
            ), (name, pieces)
            assert found.id == example.id


def select_alike(attributes: Attributes) -> Attributes:
    """Return what is the same; a text that is empty, as chunks begin, is none."""
    return {key: value for key, value in attributes.items() if key.startswith(ALIKE) and value != ""}
