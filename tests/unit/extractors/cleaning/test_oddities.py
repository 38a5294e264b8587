"""Examples that look odd beside the others, and those that must not."""

from datetime import UTC, datetime
from typing import Any

import pytest

from extractors.cleaning.oddities import Oddity, find_oddities
from extractors.examples.types import (
    Document,
    Examples,
    Message,
    PreferencePair,
    SFTExample,
    ToolCall,
    Trajectory,
    Triplet,
)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ANSWER = "Your parcel left our warehouse this morning and should be with you by tomorrow evening."


def build_example(asked: str = "Where is my parcel?", answer: str = ANSWER, **changes: Any) -> SFTExample:
    """An example with one question and one answer."""
    given: dict[str, Any] = {
        "prompt": (Message(role="user", content=asked),),
        "completion": Message(role="assistant", content=answer),
        "prompt_key": asked,
        "started_at": NOON,
    }
    return SFTExample(**{**given, **changes})


def build_others(count: int = 40) -> tuple[SFTExample, ...]:
    """Examples whose answers differ a little in length, in English."""
    return tuple(
        build_example(f"Where is parcel {n}?", f"{ANSWER} It is number {n} of {'many ' * (n % 4)}today.")
        for n in range(count)
    )


def find(example: SFTExample, *, others: int = 40) -> set[Oddity]:
    """Return what is odd about the example beside the others, of which none is odd."""
    *rest, last = find_oddities(Examples(sft=(*build_others(others), example)))["sft"]
    assert not any(rest)
    return set(last)


def test_an_answer_far_from_the_lengths_of_the_others_is_odd_either_way() -> None:
    assert find(build_example(answer="Ok.")) == {Oddity.SHORT}
    assert find(build_example(answer=f"{ANSWER} " * 12)) == {Oddity.LONG}
    assert find(build_example(answer=f"{ANSWER} {ANSWER}")) == set()


def test_lengths_are_compared_only_where_there_are_enough_others() -> None:
    assert find(build_example(answer="Ok."), others=10) == set()


def test_labels_of_different_lengths_are_not_odd() -> None:
    labels = [*["billing"] * 30, *["shipping"] * 20, *["technical support"] * 10]
    examples = tuple(build_example(f"question {n}", label) for n, label in enumerate(labels))
    assert not any(find_oddities(Examples(sft=examples))["sft"])


@pytest.mark.parametrize(
    "answer",
    [
        "Ваша посылка сегодня утром покинула наш склад и должна прибыть завтра вечером, номер 7.",
        "Ihr Paket hat heute Morgen unser Lager verlassen und sollte morgen Abend bei Ihnen ankommen.",
    ],
)
def test_a_language_that_few_others_have_is_odd(answer: str) -> None:
    assert find(build_example(answer=answer)) == {Oddity.LANGUAGE}


def test_a_language_that_many_others_have_is_not_odd() -> None:
    german = tuple(
        build_example(
            f"Wo ist Paket {n}?", f"Ihr Paket {n} hat heute unser Lager verlassen und kommt morgen an."
        )
        for n in range(15)
    )
    assert not any(find_oddities(Examples(sft=(*build_others(), *german)))["sft"])


@pytest.mark.parametrize(
    "text",
    [
        f"{ANSWER} Regards, [Your Name]",
        f"Dear {{{{customer_name}}}}, {ANSWER}",
        f"Dear {{customer_name}}, {ANSWER}",
        f"Dear ${{NAME}}, {ANSWER}",
        f"{ANSWER} TODO: add the date.",
        f"__REDACTED__ {ANSWER}",
        f"<redacted> {ANSWER}",
        f"Lorem ipsum dolor sit amet. {ANSWER}",
        f"Your order [object Object] is on its way. {ANSWER}",
    ],
)
def test_placeholders_are_odd(text: str) -> None:
    assert Oddity.PLACEHOLDER in find(build_example(answer=text))


@pytest.mark.parametrize(
    "text",
    [
        f"{ANSWER} Write to <EMAIL_ADDRESS>.",
        f"{ANSWER} Call `send({{name}})` or ```json\n{{{{x}}}}\n```.",
        f'{ANSWER} {{"name": "Ann"}} and \\frac{{abc}}{{def}}.',
        f"{ANSWER} [Add it to the cart](https://example.com).",
    ],
)
def test_what_only_looks_like_a_placeholder_is_not_odd(text: str) -> None:
    assert find(build_example(answer=text)) == set()


def test_an_answer_that_says_only_nothing_is_a_placeholder() -> None:
    examples = (build_example(answer="None"), build_example(answer="none of these"))
    assert find_oddities(Examples(sft=examples))["sft"] == ((Oddity.PLACEHOLDER,), ())


@pytest.mark.parametrize(
    "asked",
    [
        '{"question": "where is it?"}',
        '[{"type": "text", "text": "where is it?"}]',
        "[{'type': 'text', 'text': 'where is it?'}]",
        "{'question': 'where is it?'}",
        "[TextBlock(text='where is it?', type='text')]",
        "ChatMessage(content='where is it?')",
        '[{"type": "text", "text": "where is',
    ],
)
def test_a_user_who_speaks_in_data_is_odd(asked: str) -> None:
    assert find(build_example(asked)) == {Oddity.SERIALISED}


@pytest.mark.parametrize(
    "asked", ["[urgent] where is it?", "{1, 2} has two members?", "f(x) = 3?", "Print(x) fails"]
)
def test_a_user_who_begins_with_a_bracket_is_not_odd(asked: str) -> None:
    assert find(build_example(asked)) == set()


def test_an_answer_may_be_json_but_no_list_of_blocks() -> None:
    data = '{"parcel": 7, "state": "under way", "since": "this morning", "expected": "tomorrow evening"}'
    blocks = "[{'type': 'text', 'text': 'Your parcel is under way since this morning.'}]"
    assert find(build_example(answer=data)) == set()
    assert find(build_example(answer=blocks)) == {Oddity.SERIALISED}


def test_an_answer_that_begins_with_what_the_user_said_is_odd() -> None:
    asked = "Please tell me where the parcel with number 7 is."
    assert find(build_example(asked, f"{asked.upper()}\n\n{ANSWER}")) == {Oddity.ECHO}
    assert find(build_example("Hello", f"Hello, {ANSWER}")) == set()


def test_a_text_that_ends_with_the_beginning_of_a_word_that_others_use_is_odd() -> None:
    start = "Your parcel left this morning and should be with you by then, so please be at home "
    assert find(build_example(answer=f"{start} tomor")) == {Oddity.CUT}
    assert find(build_example(answer=f"{start} parcels")) == set()
    assert find(build_example(answer=f"{start} tomorrow")) == set()
    assert find(build_example(answer=f"{ANSWER} And then … [truncated]")) == {Oddity.CUT}


@pytest.mark.parametrize(
    ("arguments", "odd"),
    [('{"id": 7}', False), ("", False), ("null", False), ('{"id": 7', True), ("id=7", True), ("[7]", True)],
)
def test_arguments_that_are_no_json_object_are_odd(arguments: str, odd: bool) -> None:
    call = ToolCall(id="c1", name="find_parcel", arguments=arguments)
    told = (
        Message(role="user", content="Where is my parcel?"),
        Message(role="assistant", tool_calls=(call,)),
        Message(role="tool", content="{'state': 'under way'}", tool_call_id="c1"),
    )
    assert find(build_example(prompt=told)) == ({Oddity.ARGUMENTS} if odd else set())


def test_each_kind_is_looked_at_by_its_own_parts() -> None:
    asked = (Message(role="user", content="Please tell me where the parcel is."),)
    echo = Message(role="assistant", content="Please tell me where the parcel is.")
    good = Message(role="assistant", content=ANSWER)
    pair: dict[str, Any] = {
        "prompt": asked,
        "prompt_key": "p",
        "preferred_by": "correction",
        "started_at": NOON,
    }
    later: dict[str, Any] = {"outcome": "approved", "prompt_keys": ("a", "b"), "started_at": NOON}
    found = find_oddities(
        Examples(
            pairs=(
                PreferencePair(chosen=good, rejected=echo, **pair),
                PreferencePair(chosen=echo, rejected=good, **pair),
            ),
            trajectories=(
                Trajectory(messages=(*asked, good, *asked, echo), learned=(1, 3), **later),
                Trajectory(messages=(*asked, good, *asked, echo), learned=(1,), **later),
            ),
            triplets=(
                Triplet(
                    query="{{query}}",
                    positive=Document(text="one"),
                    negative=Document(text="two"),
                    prompt_key="q",
                    started_at=NOON,
                ),
            ),
        )
    )
    assert found["pairs"] == ((), (Oddity.ECHO,))
    assert found["trajectories"] == ((Oddity.ECHO,), ())
    assert found["triplets"] == ((Oddity.PLACEHOLDER,),)
    assert found["sft"] == ()
