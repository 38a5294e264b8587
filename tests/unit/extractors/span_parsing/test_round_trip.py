"""A conversation drawn at random, written by each convention's rules, is read as it was said, or refused.

`make test` draws 2,000 conversations, the same ones every time, so that only a change turns it red.
`make soak` draws 100,000 others, and prints the blob that draws a failing one again.
"""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, event, given, note, settings
from hypothesis import strategies as st

from extractors.examples.types import Message, ToolCall
from extractors.span_parsing.calls import read_call
from extractors.span_parsing.drop_reasons import DropReason
from tests.support.conventions import DOUBLE, SINGLE, Conversation, Double, Style
from tests.support.conversations import Turn, outline
from tests.support.otlp import decode

settings.register_profile(
    "every-commit",
    max_examples=2_000,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
settings.register_profile(
    "soak",
    settings.get_profile("every-commit"),
    max_examples=100_000,
    derandomize=False,
    print_blob=True,
)
PROFILE = settings.get_profile(os.environ.get("ROUND_TRIP_PROFILE", "every-commit"))


def share(parts: int) -> settings:
    """Return the profile with this part of its draws: each convention has its own, lest one has most."""
    return settings(PROFILE, max_examples=PROFILE.max_examples // parts)


NAMES = ("find_berth", "read_tide", "log-entry")
ODD_TEXTS = (
    "{}",
    "[]",
    "null",
    "0",
    "-",
    "true",
    "{berth}",
    "{{berth}}",
    '{"berth": 14}',
    '[{"berth": [14]}]',
    '"quoted"',
    '{"broken": ',
    "first line\nsecond line",
    "  padded\t",
    "⛵ 港 ñ \u202e",
    "a\u0301",
    "None",
    "user: what? assistant: that.",
    "<b>bold</b> & 'quoted' \\ \\n",
    "```json\n{}\n```",
)
CHARACTERS = st.characters(exclude_categories=["Cs", "Cc", "Co", "Cn"], include_characters="\n\t")
TEXTS = st.one_of(
    st.sampled_from(ODD_TEXTS),
    st.lists(
        st.sampled_from(["tide", "bar", "and", "14", "{", "}", "[", '"', "öl", "?"]), min_size=1, max_size=5
    ).map(" ".join),
    # As single characters: into texts Hypothesis puts words of our own sources, such as placeholders.
    st.lists(CHARACTERS, min_size=1, max_size=12).map("".join).filter(str.strip),
)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**40), 2**40), st.sampled_from(ODD_TEXTS), st.just(0.5)
)
ARGUMENTS = st.dictionaries(
    st.sampled_from(["place", "n", "dotted.key", "größe", ""]),
    st.one_of(
        SCALARS,
        st.lists(SCALARS, max_size=2),
        st.dictionaries(st.sampled_from(["a", "b"]), SCALARS, max_size=2),
    ),
    max_size=3,
)
STYLES = st.builds(Style, st.booleans(), st.booleans(), st.booleans())


@st.composite
def draw_conversations(draw: st.DrawFn) -> Conversation:
    """Draw a system prompt or none, one to three rounds of words, calls and results, and the answer."""
    prompt: list[Message] = []
    calls = 0

    def draw_assistant(*, must_call: bool) -> Message:
        nonlocal calls
        made = []
        for _ in range(draw(st.integers(1 if must_call else 0, 3 if must_call else 2))):
            calls += 1
            arguments = json.dumps(draw(ARGUMENTS), ensure_ascii=draw(st.booleans()))
            made.append(ToolCall(id=f"call_{calls}", name=draw(st.sampled_from(NAMES)), arguments=arguments))
        speaks = not made or draw(st.booleans())
        return Message(role="assistant", content=draw(TEXTS) if speaks else "", tool_calls=tuple(made))

    if draw(st.booleans()):
        prompt.append(Message(role="system", content=draw(TEXTS)))
    rounds = draw(st.integers(1, 3))
    for number in range(rounds):
        prompt.append(Message(role="user", content=draw(TEXTS)))
        for _ in range(draw(st.integers(0, 2))):
            calling = draw_assistant(must_call=True)
            results = [
                Message(role="tool", content=draw(TEXTS), tool_call_id=call.id) for call in calling.tool_calls
            ]
            prompt += [calling, *draw(st.permutations(results))]
        last = number == rounds - 1
        # A user may speak again before the assistant says what it made of the results.
        if not last and (prompt[-1].role == "user" or draw(st.booleans())):
            prompt.append(Message(role="assistant", content=draw(TEXTS)))
    tools = NAMES if draw(st.booleans()) else ()
    return Conversation(tuple(prompt), draw_assistant(must_call=False), tools)


CONVERSATIONS = draw_conversations()


def try_to_read(attributes: dict[str, Any]) -> list[Turn] | DropReason:
    found = read_call(decode(attributes))
    return found if isinstance(found, DropReason) else outline(found)


def is_complete(convention: str, said: Conversation) -> bool:
    """Return whether every record of the convention holds all of this conversation.

    Of several results in one turn, the list of Anthropic's instrumentor keeps the last.
    """
    turns = zip(said.prompt, said.prompt[1:], strict=False)
    return convention != "anthropic" or not any(
        one.role == "tool" and next_one.role in ("tool", "user") for one, next_one in turns
    )


@pytest.mark.parametrize("convention", [*SINGLE, *DOUBLE])
@given(said=CONVERSATIONS, style=STYLES)
@share(2 * len(SINGLE | DOUBLE))
def test_a_conversation_is_read_as_it_was_said(convention: str, said: Conversation, style: Style) -> None:
    attributes = (
        SINGLE[convention](said, style) if convention in SINGLE else DOUBLE[convention](said, said, style)
    )
    note(json.dumps(attributes, indent=1, ensure_ascii=False))
    span = decode(attributes)
    found = read_call(span)
    if isinstance(found, DropReason):
        event(f"{convention}: refused, {found.name}")
        assert not is_complete(convention, said), f"refused: {found.name}"
        return
    event(f"{convention}: read")
    assert outline(found) == said.outline()
    assert [tool["function"]["name"] for tool in found.tools] == list(said.tools)


# Damage.


def change(said: Conversation, index: int, **update: Any) -> Conversation:
    """Return the conversation with another message at `index`; the answer is the last one."""
    return put(said, index, [said.messages[index].model_copy(update=update)])


def put(said: Conversation, index: int, messages: list[Message]) -> Conversation:
    """Return the conversation with `messages` in the place of the one at `index`."""
    if index == len(said.prompt):
        # An answer that is doubled moves the first one into the history.
        return replace(said, prompt=(*said.prompt, *messages[:-1]), answer=messages[-1] if messages else None)
    return replace(said, prompt=(*said.prompt[:index], *messages, *said.prompt[index + 1 :]))


Damage = Callable[[Conversation, int, Callable[[int], int]], Conversation | None]
"""Takes a conversation, the index of a message, and a draw below a limit; None where it does not apply."""


def lose_message(said: Conversation, index: int, _: Callable[[int], int]) -> Conversation:
    return put(said, index, [])


def double_message(said: Conversation, index: int, _: Callable[[int], int]) -> Conversation:
    return put(said, index, [said.messages[index]] * 2)


def move_message(said: Conversation, index: int, pick: Callable[[int], int]) -> Conversation | None:
    others = [message for number, message in enumerate(said.prompt) if number != index]
    if index >= len(said.prompt) or not others:
        return None
    place = pick(len(others) + 1)
    return replace(said, prompt=(*others[:place], said.prompt[index], *others[place:]))


def change_role(said: Conversation, index: int, pick: Callable[[int], int]) -> Conversation | None:
    if index == len(said.prompt):
        return None
    return change(said, index, role=("system", "user", "assistant", "tool")[pick(4)])


def lose_text(said: Conversation, index: int, _: Callable[[int], int]) -> Conversation:
    return change(said, index, content="")


def change_text(said: Conversation, index: int, pick: Callable[[int], int]) -> Conversation | None:
    text = said.messages[index].content
    if not text:
        return None
    return change(
        said, index, content=(text + " not", text[: pick(len(text))], text + text, "other")[pick(4)]
    )


def lose_call(said: Conversation, index: int, pick: Callable[[int], int]) -> Conversation | None:
    calls = list(said.messages[index].tool_calls)
    if not calls:
        return None
    del calls[pick(len(calls))]
    return change(said, index, tool_calls=tuple(calls))


def double_call(said: Conversation, index: int, pick: Callable[[int], int]) -> Conversation | None:
    calls = said.messages[index].tool_calls
    if not calls:
        return None
    again = calls[pick(len(calls))]
    return change(said, index, tool_calls=(*calls, again))


def move_calls(said: Conversation, index: int, _: Callable[[int], int]) -> Conversation | None:
    calls = said.messages[index].tool_calls
    return change(said, index, tool_calls=calls[::-1]) if len(calls) > 1 else None


def change_call(said: Conversation, index: int, pick: Callable[[int], int]) -> Conversation | None:
    calls = list(said.messages[index].tool_calls)
    if not calls:
        return None
    place = pick(len(calls))
    updates: tuple[dict[str, Any], ...] = (
        {"name": NAMES[pick(len(NAMES))]},
        {"arguments": '{"place": "elsewhere"}'},
        {"arguments": "{}"},
        {"id": "call_99"},
        {"id": None},
    )
    calls[place] = calls[place].model_copy(update=updates[pick(len(updates))])
    return change(said, index, tool_calls=tuple(calls))


def change_result_id(said: Conversation, index: int, pick: Callable[[int], int]) -> Conversation | None:
    if said.messages[index].role != "tool":
        return None
    ids = [message.tool_call_id for message in said.prompt if message.role == "tool"]
    return change(said, index, tool_call_id=[*ids, "call_99", None][pick(len(ids) + 2)])


DAMAGES: tuple[Damage, ...] = (
    lose_message,
    double_message,
    move_message,
    change_role,
    lose_text,
    change_text,
    lose_call,
    double_call,
    move_calls,
    change_call,
    change_result_id,
)
BODIES = ("input.value", "output.value")
# Hypothesis prefers what comes first among samples; each kind of damage is to have its share.
CHANCES = st.builds(Random, st.integers(0, 2**32))


@st.composite
def draw_structural_damage(draw: st.DrawFn, said: Conversation, damages: Sequence[Damage]) -> Conversation:
    """Draw a damage that applies to the conversation, and return what it leaves."""
    applicable = [
        (damage, index)
        for damage in damages
        for index in range(len(said.messages) if damages is DAMAGES else len(said.prompt))
        if damage(said, index, lambda _: 0) is not None
    ]
    chance = draw(CHANCES)
    damage, index = chance.choice(applicable)
    damaged = damage(said, index, chance.randrange)
    assume(damaged is not None and damaged != said)
    assert damaged is not None
    note(f"{damage.__name__} of message {index}")
    event(damage.__name__)
    return damaged


def _is_said_in_one_record(said: Conversation, damaged: Conversation, write: Double, style: Style) -> bool:
    """Return whether a body alone shows what was damaged.

    Anthropic's list keeps the last of several results: nothing tells the texts of the others, or their
    order. A result that is lost, doubled or given to another call must be noticed all the same.
    """
    return _list_links(said) == _list_links(damaged) and write(said, said, style) == write(
        damaged, said, style
    )


def _list_links(said: Conversation) -> list[tuple[Any, ...]]:
    """Return roles, calls and ids of the prompt, without texts and the order of the results of one turn."""
    links: list[tuple[Any, ...]] = []
    results: list[tuple[Any, ...]] = []
    for message in said.prompt:
        link = (message.role, message.tool_calls, message.tool_call_id)
        if message.role == "tool":
            results.append(link)
            continue
        links += [*sorted(results, key=repr), link]
        results = []
    return [*links, *sorted(results, key=repr), (said.answer, said.tools)]


@st.composite
def draw_damaged(draw: st.DrawFn, said: Conversation, convention: str, style: Style) -> dict[str, Any]:
    """Draw a way to damage one of two records, and return the attributes with it."""
    write = DOUBLE[convention]
    if convention == "anthropic":
        # A system prompt that one record alone holds cannot be missed.
        style = replace(style, system_apart=False)
    chance = draw(CHANCES)
    kind = chance.choice(["structure", "structure", "structure", "attributes", "cut"])
    if kind == "structure":
        damaged = draw(draw_structural_damage(said, DAMAGES))
        if chance.random() < 0.5:
            return write(damaged, said, style)
        assume(not _is_said_in_one_record(said, damaged, write, style))
        return write(said, damaged, style)
    event(kind)
    attributes = write(said, said, style)
    if kind == "cut":
        bodies = [
            key for key in (*BODIES, "gen_ai.input.messages", "gen_ai.output.messages") if key in attributes
        ]
        body = chance.choice(bodies)
        attributes[body] = attributes[body][: chance.randrange(len(attributes[body]))]
        return attributes
    listed = [
        key
        for key in attributes
        if key.startswith(("llm.input_messages", "llm.output_messages", "llm.tools"))
    ]
    lost = chance.sample([*listed, *(key for key in BODIES if key in attributes)], chance.randint(1, 4))
    if set(lost) & set(BODIES):
        # One record is damaged, not both.
        lost = [key for key in lost if key in BODIES]
    return {key: value for key, value in attributes.items() if key not in lost}


@pytest.mark.parametrize("convention", DOUBLE)
@given(data=st.data(), said=CONVERSATIONS, style=STYLES)
@share(2 * len(DOUBLE))
def test_a_conversation_with_one_damaged_record_is_read_as_it_was_said_or_refused(
    convention: str, data: st.DataObject, said: Conversation, style: Style
) -> None:
    attributes = data.draw(draw_damaged(said, convention, style), label="attributes")
    found = try_to_read(attributes)
    event(f"{convention}: {'refused' if isinstance(found, DropReason) else 'read'}")
    if not isinstance(found, DropReason):
        assert found == said.outline()


LINKS: tuple[Damage, ...] = (lose_call, double_call, change_result_id)
"""Damages that one record alone shows: a call without its result, or a result without its call."""


@pytest.mark.parametrize("convention", SINGLE)
@given(data=st.data(), said=CONVERSATIONS, style=STYLES)
@share(8 * len(SINGLE))
def test_a_single_record_in_which_calls_and_results_do_not_meet_is_refused(
    convention: str, data: st.DataObject, said: Conversation, style: Style
) -> None:
    assume(any(message.tool_calls for message in said.prompt))
    damaged = data.draw(draw_structural_damage(said, LINKS))
    attributes = SINGLE[convention](damaged, style)
    note(json.dumps(attributes, indent=1, ensure_ascii=False))
    found = try_to_read(attributes)
    if not isinstance(found, DropReason):
        assert found == said.outline()
