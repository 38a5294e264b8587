"""Sessions drawn at random: what a conversation shows before an answer is what the model was asked."""

from collections.abc import Sequence
from datetime import timedelta
from itertools import dropwhile

from hypothesis import given, settings
from hypothesis import strategies as st

from extractors.examples.prompt_keys import to_comparable
from extractors.examples.types import Message
from extractors.feedback.exchange import Exchange, join_calls
from extractors.span_parsing.calls import ModelCall
from tests.support.traffic import NOON

WORDS = st.sampled_from("abc")
SAID = st.tuples(st.sampled_from(["user", "user", "assistant", "system"]), WORDS)
ACTS = st.sampled_from(["go on", "go on", "go on", "again", "edit", "trim", "forget", "summarise", "other"])


def make_call(number: int, prompt: Sequence[Message], answer: str) -> ModelCall:
    return ModelCall(
        span_ids=(f"s{number}",),
        trace_id="t",
        session_id="s",
        started_at=NOON + timedelta(minutes=number),
        prompt=tuple(prompt),
        response=Message(role="assistant", content=answer),
        answered_by=None,
    )


def say(role: str, word: str) -> Message:
    return Message(role=role, content=word)


@st.composite
def draw_junk(draw: st.DrawFn) -> list[ModelCall]:
    """Calls whose prompts have nothing to do with each other, but say few different things."""
    prompts = draw(st.lists(st.lists(SAID, max_size=4), min_size=1, max_size=5))
    return [
        make_call(n, [*(say(*said) for said in prompt), say("user", draw(WORDS))], draw(WORDS))
        for n, prompt in enumerate(prompts)
    ]


@st.composite
def draw_session(draw: st.DrawFn) -> list[ModelCall]:
    """Calls of an agent that sends histories, which it and its user treat in all kinds of ways."""
    system = [say("system", "Help.")] if draw(st.booleans()) else []
    history: list[Message] = []
    calls: list[ModelCall] = []
    for number in range(draw(st.integers(1, 6))):
        act = draw(ACTS) if calls else "go on"
        asked = say("user", draw(WORDS))
        if act == "again":
            history, asked = history[:-2], history[-2]
        elif act == "edit":
            history = history[:-2]
        elif act == "trim":
            history = history[-draw(st.integers(0, 3)) :]
        elif act == "forget":
            history = []
        elif act == "summarise":
            history = [say(draw(st.sampled_from(["user", "assistant", "system"])), "so far: a")]
        elif act == "other":
            calls.append(make_call(number, [*system, asked], draw(WORDS)))
            continue
        calls.append(make_call(number, [*system, *history, asked], draw(WORDS)))
        history = [*history, asked, calls[-1].response]
    return calls


def is_beginning_and_end(prompt: Sequence[Message], before: Sequence[Message]) -> bool:
    """Return whether `prompt` is `before`, or what remains of it where its middle was left out.

    The system prompt may be missing: where it is not sent again, it still holds.
    """
    bare = [dropwhile(lambda message: message.role == "system", each) for each in (prompt, before)]
    asked, said = ([to_comparable(message) for message in each] for each in bare)
    return any(
        asked[:kept] == said[:kept] and (kept == len(asked) or asked[kept:] == said[kept - len(asked) :])
        for kept in range(len(asked) + 1)
    )


@given(calls=draw_session() | draw_junk())
@settings(deadline=None, max_examples=1500)
def test_before_each_answer_stands_what_the_model_was_asked(calls: list[ModelCall]) -> None:
    found = join_calls(calls)
    if isinstance(found, Exchange):
        assert found.messages[-1] == calls[-1].response
        assert len(found.messages) - 1 in found.answered
        for at, call in found.answered.items():
            assert found.messages[at] == call.response
            assert is_beginning_and_end(call.prompt, found.messages[:at])
