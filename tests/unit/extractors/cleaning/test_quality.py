"""Tests of what is left out before training, and why."""

import random
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extractors.cleaning.quality import ExamplesInvalid, Flaw, check_examples, clean, find_flaw
from extractors.cleaning.rules import QualityRules
from extractors.examples.prompt_keys import normalise
from extractors.examples.types import Examples, SFTExample
from tests.unit.extractors.cleaning.hand_made import (
    CALL,
    SYSTEM,
    assistant,
    at_minute,
    make_conversation,
    make_pair,
    make_sft,
    make_triplet,
    make_vote,
    user,
)

QUESTION = "Can you check the status of my credit card application?"
AGAIN = "can you check on the status of my credit card application"
OTHER = "I need to transfer ten dollars from my checking to my savings account"


# ---- whole?


@pytest.mark.parametrize(
    ("example", "expected"),
    [
        (make_sft("hi"), None),
        (make_sft("hi", answer=" \n"), Flaw.NO_ANSWER),
        (make_sft(" "), None),  # its system prompt may hold the question
        (
            SFTExample(prompt=(user(" "),), completion=assistant("x"), prompt_key="k", **at_minute(0)),
            Flaw.NO_QUESTION,
        ),
        (
            SFTExample(prompt=(assistant("x"),), completion=assistant("x"), prompt_key="k", **at_minute(0)),
            Flaw.NO_QUESTION,
        ),
        (SFTExample(prompt=(), completion=assistant("x"), prompt_key="k", **at_minute(0)), Flaw.NO_QUESTION),
        (SFTExample(prompt=(user("x"),), completion=CALL, prompt_key="k", **at_minute(0)), None),
        (
            SFTExample(prompt=(user("x"),), completion=user("x"), prompt_key="k", **at_minute(0)),
            Flaw.NOT_THE_ASSISTANT,
        ),
        (make_pair("hi"), None),
        (make_pair("hi", "Billing ", " billing"), Flaw.SAME_ANSWER),
        (make_pair("hi", "billing", ""), Flaw.NO_ANSWER),
        (make_vote("hi"), None),
        (make_vote("hi", ""), Flaw.NO_ANSWER),
        (make_triplet("q"), None),
        (make_triplet(" "), Flaw.NO_QUESTION),
        (make_triplet("q", ""), Flaw.NO_ANSWER),
        (make_triplet("q", "same\ntext", "Same  text"), Flaw.SAME_ANSWER),
        (make_conversation("hi", "hello"), None),
        (make_conversation("hi", "hello", learned=()), Flaw.NOTHING_LEARNED),
        (make_conversation("hi", "hello").model_copy(update={"outcome": "rejected"}), Flaw.REJECTED),
        (make_conversation("hi", "hello", learned=(1,)), Flaw.NOT_THE_ASSISTANT),
        (make_conversation("hi", "hello", learned=(9,)), Flaw.NOT_THE_ASSISTANT),
        (make_conversation("hi", "hello", learned=(-1,)), Flaw.NOT_THE_ASSISTANT),
        (make_conversation("hi", "", "and?", "so"), Flaw.NO_ANSWER),
    ],
)
def test_what_cannot_be_trained_on_says_why(example: Any, expected: Flaw | None) -> None:
    assert find_flaw(example) is expected


def test_the_error_names_kind_and_index_of_each_example_that_is_broken() -> None:
    examples = Examples(sft=(make_sft("a"), make_sft("b", "")), pairs=(make_pair("a", "x", "X"),))
    with pytest.raises(
        ExamplesInvalid, match=r"2 examples .*: sft 1: its answer is empty; pairs 0: its better"
    ):
        check_examples(examples)
    check_examples(Examples(sft=(make_sft("a"),)))
    with pytest.raises(ExamplesInvalid, match=r"sft 19: .*; and 5 more$"):
        check_examples(Examples(sft=(make_sft("a", ""),) * 25))


# ---- repeated


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("sft", make_sft),
        ("pairs", make_pair),
        ("votes", make_vote),
        ("triplets", make_triplet),
        (
            "trajectories",
            lambda text, minute: make_conversation(text, "What is its number, please?", minute=minute),
        ),
    ],
)
def test_of_nearly_the_same_the_newest_stays(kind: str, make: Any) -> None:
    examples = Examples(**{kind: (make(QUESTION, minute=1), make(OTHER, minute=5), make(AGAIN, minute=9))})
    cleaned = clean(examples, held_out=[])
    assert [example.started_at.minute for example in getattr(cleaned.examples, kind)] == [5, 9]
    assert cleaned.left_out == {Flaw.REPEATED: 1}


@pytest.mark.parametrize(
    "examples",
    [
        Examples(sft=(make_sft(QUESTION, "billing"), make_sft(AGAIN, "cards"))),
        Examples(pairs=(make_pair(QUESTION, "a", "b"), make_pair(AGAIN, "a", "c"))),
        Examples(votes=(make_vote(QUESTION, desirable=True), make_vote(AGAIN, desirable=False))),
        Examples(triplets=(make_triplet(QUESTION, "a", "b"), make_triplet(AGAIN, "a", "c"))),
        Examples(sft=(make_sft(QUESTION),), votes=(make_vote(QUESTION),), pairs=(make_pair(QUESTION),)),
        Examples(
            trajectories=(
                make_conversation("hi", "Hello!", QUESTION, "a"),
                make_conversation("hi", "Hello!", OTHER, "a"),
            )
        ),
    ],
)
def test_another_answer_to_the_same_prompt_and_another_kind_stay(examples: Examples) -> None:
    assert clean(examples, held_out=[]).examples == examples


def test_the_very_same_example_twice_stays_once() -> None:
    one = make_sft(QUESTION)
    assert clean(Examples(sft=(one, one, one)), held_out=[]).examples.sft == (one,)


def test_only_what_differs_in_form_is_removed_where_the_rules_say_so() -> None:
    strict = QualityRules(near_duplicate=1)
    examples = Examples(
        sft=(make_sft(QUESTION), make_sft(AGAIN, minute=1), make_sft(QUESTION.upper() + "!!", minute=2))
    )
    assert [
        example.started_at.minute for example in clean(examples, held_out=[], rules=strict).examples.sft
    ] == [1, 2]


# ---- held out


@pytest.mark.parametrize("known", [QUESTION, (SYSTEM, user(QUESTION)), (user(AGAIN),), QUESTION.upper()])
def test_nothing_near_a_held_out_prompt_passes_in_any_kind(known: Any) -> None:
    examples = Examples(
        sft=(make_sft(QUESTION, "other answer"), make_sft(OTHER)),
        pairs=(make_pair(AGAIN), make_pair(OTHER)),
        votes=(make_vote(QUESTION, desirable=False), make_vote(OTHER)),
        triplets=(make_triplet(AGAIN), make_triplet(OTHER)),
        trajectories=(
            make_conversation(QUESTION, "Sure.", "Thanks", "Bye"),
            make_conversation("hello there", "Hello! What is it?", AGAIN, "Sure."),
            make_conversation(OTHER, "Sure."),
        ),
    )
    cleaned = clean(examples, held_out=[known])
    kept = cleaned.examples
    assert [len(members) for members in (kept.sft, kept.pairs, kept.votes, kept.triplets)] == [1, 1, 1, 1]
    assert kept.trajectories == examples.trajectories[2:]
    assert cleaned.left_out == {Flaw.HELD_OUT: 6}


def test_a_conversation_is_compared_turn_by_turn() -> None:
    long = make_conversation(
        "I have a question", "Yes?", OTHER, "Done.", "Thank you so much", "You are welcome."
    )
    for turns in (2, 4, 6):
        assert clean(Examples(trajectories=(long,)), held_out=[long.messages[:turns]]).left_out == {
            Flaw.HELD_OUT: 1
        }
    assert (
        clean(Examples(trajectories=(long,)), held_out=[(*long.messages[:-2], user(QUESTION))]).left_out == {}
    )


RNG = random.Random(0)
LEXICON = ["".join(RNG.choices("abcdefghijklmnopqrstuvwxyz", k=RNG.randint(3, 9))) for _ in range(3000)]


def words(count: int) -> str:
    return " ".join(RNG.choices(LEXICON, k=count))


def test_long_conversations_are_compared_in_time_proportional_to_their_length() -> None:
    long = [make_conversation(*(words(60) for _ in range(80)), minute=minute) for minute in range(30)]
    known = [*(words(20) for _ in range(80)), long[3].messages[:2], long[7].messages[:20]]
    began = time.process_time()
    cleaned = clean(Examples(trajectories=tuple(long)), held_out=known)
    assert cleaned.examples.trajectories == tuple(each for each in long if each not in (long[3], long[7]))
    assert time.process_time() - began < 8  # seconds


def test_what_all_conversations_begin_with_hides_no_held_out_turn() -> None:
    greeting = "Hello and welcome to our shop, my name is Kim and I am here to help you with anything"
    each = [make_conversation("hi", greeting, words(8), "Sure.") for _ in range(100)]
    cleaned = clean(Examples(trajectories=tuple(each)), held_out=[each[5].messages[:4]])
    assert cleaned.left_out == {Flaw.HELD_OUT: 1}
    assert each[5] not in cleaned.examples.trajectories


def test_a_common_template_gives_nothing_away() -> None:
    template = "A customer of our shop wrote this ticket; name the department that answers it. Ticket: {}"
    things = [f"{verb} my {thing}" for verb in ("lost", "sold", "broke", "dyed") for thing in THINGS]
    examples = Examples(sft=tuple(make_sft(template.format(thing)) for thing in things))
    held_out = [template.format(f"found your {thing}") for thing in THINGS]
    assert clean(examples, held_out=held_out).examples == examples
    assert clean(examples, held_out=[template.format(things[3]).upper()]).left_out == {Flaw.HELD_OUT: 1}


THINGS = ("vacuum cleaner", "electric kettle", "red sofa", "jigsaw puzzle", "toaster oven", "bicycle")

TEXTS = st.text(alphabet="ab ?", max_size=12)


@given(
    train=st.lists(st.tuples(TEXTS, st.sampled_from(["x", "X ", "y"]), st.integers(0, 9)), max_size=12),
    held_out=st.lists(TEXTS, max_size=4),
)
@settings(deadline=None)
def test_no_equal_prompt_passes_and_everything_is_counted(
    train: list[tuple[str, str, int]], held_out: list[str]
) -> None:
    examples = Examples(
        sft=tuple(make_sft(text, answer, minute) for text, answer, minute in train),
        votes=tuple(make_vote(text, answer, minute=minute) for text, answer, minute in train),
    )
    cleaned = clean(examples, held_out=held_out)
    hidden = {normalise(text) for text in held_out}
    kept = cleaned.examples
    assert not hidden & {normalise(example.prompt[-1].content) for example in (*kept.sft, *kept.votes)}
    assert len(kept.sft) + len(kept.votes) + sum(cleaned.left_out.values()) == 2 * len(train)
    in_order = iter(examples.sft)
    assert all(any(found == example for found in in_order) for example in kept.sft)
    again = clean(kept, held_out=held_out)
    assert again.examples == kept
    assert again.left_out == {}
