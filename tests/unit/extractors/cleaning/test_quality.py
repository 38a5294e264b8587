"""What is left out before training, and why; what a set of examples is like."""

import random
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extractors.cleaning.quality import ExamplesInvalid, Flaw, QualityRules, check_examples, clean, find_flaw
from extractors.cleaning.statistics import describe
from extractors.examples.prompt_keys import compute_prompt_key, normalise
from extractors.examples.types import (
    Document,
    Examples,
    Message,
    PreferencePair,
    SFTExample,
    ToolCall,
    Trajectory,
    Triplet,
    UnpairedPreference,
)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SYSTEM = Message(role="system", content="Name the department that answers the customer.")
CALL = Message(role="assistant", tool_calls=(ToolCall(name="find", arguments='{"order": 7}'),))


def user(text: str) -> Message:
    return Message(role="user", content=text)


def said(text: str) -> Message:
    return Message(role="assistant", content=text)


def prompt(text: str) -> dict[str, Any]:
    messages = (SYSTEM, user(text))
    return {"prompt": messages, "prompt_key": compute_prompt_key(messages)}


def at(minute: int) -> dict[str, Any]:
    return {"started_at": NOON + timedelta(minutes=minute)}


def sft(text: str, answer: str = "billing", minute: int = 0) -> SFTExample:
    return SFTExample(completion=said(answer), **prompt(text), **at(minute))


def pair(text: str, chosen: str = "billing", rejected: str = "shipping", minute: int = 0) -> PreferencePair:
    return PreferencePair(
        chosen=said(chosen), rejected=said(rejected), preferred_by="correction", **prompt(text), **at(minute)
    )


def vote(text: str, answer: str = "billing", desirable: bool = True, minute: int = 0) -> UnpairedPreference:
    return UnpairedPreference(completion=said(answer), desirable=desirable, **prompt(text), **at(minute))


def triplet(query: str, positive: str = "yes", negative: str = "no", minute: int = 0) -> Triplet:
    documents = {"positive": Document(id="1", text=positive), "negative": Document(id="2", text=negative)}
    return Triplet(query=query, prompt_key=normalise(query), **documents, **at(minute))


def conversation(*texts: str, learned: Sequence[int] | None = None, minute: int = 0) -> Trajectory:
    """Turns by turns of user and assistant, after a system prompt."""
    turns = [said(text) if number % 2 else user(text) for number, text in enumerate(texts)]
    messages = (SYSTEM, *turns)
    answers = [number for number, message in enumerate(messages) if message.role == "assistant"]
    return Trajectory(
        messages=messages,
        learned=tuple(answers if learned is None else learned),
        outcome="approved",
        prompt_keys=tuple(compute_prompt_key(messages[:number]) for number in answers),
        **at(minute),
    )


QUESTION = "Can you check the status of my credit card application?"
AGAIN = "can you check on the status of my credit card application"
OTHER = "I need to transfer ten dollars from my checking to my savings account"


# ---- whole?


@pytest.mark.parametrize(
    ("example", "expected"),
    [
        (sft("hi"), None),
        (sft("hi", answer=" \n"), Flaw.NO_ANSWER),
        (sft(" "), None),  # its system prompt may hold the question
        (SFTExample(prompt=(user(" "),), completion=said("x"), prompt_key="k", **at(0)), Flaw.NO_QUESTION),
        (SFTExample(prompt=(said("x"),), completion=said("x"), prompt_key="k", **at(0)), Flaw.NO_QUESTION),
        (SFTExample(prompt=(), completion=said("x"), prompt_key="k", **at(0)), Flaw.NO_QUESTION),
        (SFTExample(prompt=(user("x"),), completion=CALL, prompt_key="k", **at(0)), None),
        (
            SFTExample(prompt=(user("x"),), completion=user("x"), prompt_key="k", **at(0)),
            Flaw.NOT_THE_ASSISTANT,
        ),
        (pair("hi"), None),
        (pair("hi", "Billing ", " billing"), Flaw.SAME_ANSWER),
        (pair("hi", "billing", ""), Flaw.NO_ANSWER),
        (vote("hi"), None),
        (vote("hi", ""), Flaw.NO_ANSWER),
        (triplet("q"), None),
        (triplet(" "), Flaw.NO_QUESTION),
        (triplet("q", ""), Flaw.NO_ANSWER),
        (triplet("q", "same\ntext", "Same  text"), Flaw.SAME_ANSWER),
        (conversation("hi", "hello"), None),
        (conversation("hi", "hello", learned=()), Flaw.NOTHING_LEARNED),
        (conversation("hi", "hello").model_copy(update={"outcome": "rejected"}), Flaw.REJECTED),
        (conversation("hi", "hello", learned=(1,)), Flaw.NOT_THE_ASSISTANT),
        (conversation("hi", "hello", learned=(9,)), Flaw.NOT_THE_ASSISTANT),
        (conversation("hi", "hello", learned=(-1,)), Flaw.NOT_THE_ASSISTANT),
        (conversation("hi", "", "and?", "so"), Flaw.NO_ANSWER),
    ],
)
def test_what_cannot_be_trained_on_says_why(example: Any, expected: Flaw | None) -> None:
    assert find_flaw(example) is expected


def test_the_error_names_kind_and_index_of_each_example_that_is_broken() -> None:
    examples = Examples(sft=(sft("a"), sft("b", "")), pairs=(pair("a", "x", "X"),))
    with pytest.raises(
        ExamplesInvalid, match=r"2 examples .*: sft 1: its answer is empty; pairs 0: its better"
    ):
        check_examples(examples)
    check_examples(Examples(sft=(sft("a"),)))
    with pytest.raises(ExamplesInvalid, match=r"sft 19: .*; and 5 more$"):
        check_examples(Examples(sft=(sft("a", ""),) * 25))


# ---- repeated


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("sft", sft),
        ("pairs", pair),
        ("votes", vote),
        ("triplets", triplet),
        (
            "trajectories",
            lambda text, minute: conversation(text, "What is its number, please?", minute=minute),
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
        Examples(sft=(sft(QUESTION, "billing"), sft(AGAIN, "cards"))),
        Examples(pairs=(pair(QUESTION, "a", "b"), pair(AGAIN, "a", "c"))),
        Examples(votes=(vote(QUESTION, desirable=True), vote(AGAIN, desirable=False))),
        Examples(triplets=(triplet(QUESTION, "a", "b"), triplet(AGAIN, "a", "c"))),
        Examples(sft=(sft(QUESTION),), votes=(vote(QUESTION),), pairs=(pair(QUESTION),)),
        Examples(
            trajectories=(
                conversation("hi", "Hello!", QUESTION, "a"),
                conversation("hi", "Hello!", OTHER, "a"),
            )
        ),
    ],
)
def test_another_answer_to_the_same_prompt_and_another_kind_stay(examples: Examples) -> None:
    assert clean(examples, held_out=[]).examples == examples


def test_the_very_same_example_twice_stays_once() -> None:
    one = sft(QUESTION)
    assert clean(Examples(sft=(one, one, one)), held_out=[]).examples.sft == (one,)


def test_only_what_differs_in_form_is_removed_where_the_rules_say_so() -> None:
    strict = QualityRules(near_duplicate=1)
    examples = Examples(sft=(sft(QUESTION), sft(AGAIN, minute=1), sft(QUESTION.upper() + "!!", minute=2)))
    assert [
        example.started_at.minute for example in clean(examples, held_out=[], rules=strict).examples.sft
    ] == [1, 2]


# ---- held out


@pytest.mark.parametrize("known", [QUESTION, (SYSTEM, user(QUESTION)), (user(AGAIN),), QUESTION.upper()])
def test_nothing_near_a_held_out_prompt_passes_in_any_kind(known: Any) -> None:
    examples = Examples(
        sft=(sft(QUESTION, "other answer"), sft(OTHER)),
        pairs=(pair(AGAIN), pair(OTHER)),
        votes=(vote(QUESTION, desirable=False), vote(OTHER)),
        triplets=(triplet(AGAIN), triplet(OTHER)),
        trajectories=(
            conversation(QUESTION, "Sure.", "Thanks", "Bye"),
            conversation("hello there", "Hello! What is it?", AGAIN, "Sure."),
            conversation(OTHER, "Sure."),
        ),
    )
    cleaned = clean(examples, held_out=[known])
    kept = cleaned.examples
    assert [len(members) for members in (kept.sft, kept.pairs, kept.votes, kept.triplets)] == [1, 1, 1, 1]
    assert kept.trajectories == examples.trajectories[2:]
    assert cleaned.left_out == {Flaw.HELD_OUT: 6}


def test_a_conversation_is_compared_turn_by_turn() -> None:
    long = conversation("I have a question", "Yes?", OTHER, "Done.", "Thank you so much", "You are welcome.")
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
    long = [conversation(*(words(60) for _ in range(80)), minute=minute) for minute in range(30)]
    known = [*(words(20) for _ in range(80)), long[3].messages[:2], long[7].messages[:20]]
    began = time.process_time()
    cleaned = clean(Examples(trajectories=tuple(long)), held_out=known)
    assert cleaned.examples.trajectories == tuple(each for each in long if each not in (long[3], long[7]))
    assert time.process_time() - began < 8  # seconds


def test_what_all_conversations_begin_with_hides_no_held_out_turn() -> None:
    greeting = "Hello and welcome to our shop, my name is Kim and I am here to help you with anything"
    each = [conversation("hi", greeting, words(8), "Sure.") for _ in range(100)]
    cleaned = clean(Examples(trajectories=tuple(each)), held_out=[each[5].messages[:4]])
    assert cleaned.left_out == {Flaw.HELD_OUT: 1}
    assert each[5] not in cleaned.examples.trajectories


def test_a_common_template_gives_nothing_away() -> None:
    template = "A customer of our shop wrote this ticket; name the department that answers it. Ticket: {}"
    things = [f"{verb} my {thing}" for verb in ("lost", "sold", "broke", "dyed") for thing in THINGS]
    examples = Examples(sft=tuple(sft(template.format(thing)) for thing in things))
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
        sft=tuple(sft(text, answer, minute) for text, answer, minute in train),
        votes=tuple(vote(text, answer, minute=minute) for text, answer, minute in train),
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


# ---- statistics


def test_statistics_tell_counts_lengths_languages_and_balance() -> None:
    english = [sft(f"I would like to know when my order number {n} arrives", "shipping") for n in range(17)]
    german = [sft("Wo ist meine Rechnung vom letzten Monat geblieben?", "billing")] * 2 + [
        sft("hm", "Billing")
    ]
    statistics = describe(
        Examples(sft=(*english, *german), pairs=(pair("abc", "de", "f"),)),
        output_space=("billing", "shipping", "returns"),
    )
    assert {kind: of.count for kind, of in statistics.kinds.items()} == {"sft": 20, "pairs": 1}
    lengths = statistics.kinds["pairs"]
    assert lengths.prompt.model_dump() == dict.fromkeys(("p50", "p95", "max"), len(SYSTEM.content) + 3)
    assert (lengths.answer.max, statistics.kinds["sft"].answer.p50) == (3, 8)
    assert statistics.languages == {"en": 17 / 20, "und": 2 / 20, "de": 1 / 20}
    assert statistics.labels is not None
    assert statistics.labels.counts == {"shipping": 17, "billing": 3, "returns": 0}
    assert (statistics.labels.ratio, statistics.labels.rare) == (None, 2)
    assert statistics.warnings == (
        "85% of the examples say shipping",
        "no example says returns",
        "fewer than 5 examples say billing",
    )


def test_balanced_labels_warn_of_nothing() -> None:
    examples = Examples(sft=tuple(sft(f"q{n}", "a" if n % 3 else "b") for n in range(30)))
    statistics = describe(examples, output_space=("a", "b"))
    assert statistics.labels is not None
    assert (statistics.labels.ratio, statistics.warnings) == (2.0, ())
    assert describe(examples).labels is None


def test_of_no_examples_there_is_nothing_to_say() -> None:
    statistics = describe(Examples(), output_space=("a",))
    assert (statistics.kinds, statistics.languages, statistics.warnings) == ({}, {}, ())


def test_conversations_and_triplets_are_measured_by_what_they_teach() -> None:
    statistics = describe(
        Examples(
            triplets=(triplet("four", "yes", "no"),),
            trajectories=(conversation("abc", "de", "f", "g", learned=(4,)),),
        )
    )
    assert (statistics.kinds["triplets"].prompt.max, statistics.kinds["triplets"].answer.max) == (4, 5)
    turns = statistics.kinds["trajectories"]
    assert (turns.prompt.max, turns.answer.max) == (len(SYSTEM.content) + 6, 1)


def test_percentiles_are_by_nearest_rank() -> None:
    statistics = describe(Examples(sft=tuple(sft("q", "x" * n) for n in range(1, 101))))
    assert statistics.kinds["sft"].answer.model_dump() == {"p50": 50, "p95": 95, "max": 100}
