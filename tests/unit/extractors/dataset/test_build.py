"""Tests of what a dataset trains on, validates on and leaves out."""

import random
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from extractors.dataset.build import ExtraData
from extractors.dataset.holdout_split import HoldoutRules, LeftOutReason
from extractors.dataset.snapshot import Snapshot
from extractors.examples.prompt_keys import compute_prompt_key
from extractors.examples.types import Examples, Message, ReviewedItem, SFTExample, ToolCall, Trajectory
from tests.support.traffic import NOON, item, rejected_item
from tests.unit.extractors.dataset.small_snapshots import SMALL, build_small, list_learned_answers


def test_gold_is_taught_once_a_prompt_and_the_newest_answer_wins() -> None:
    older = [
        item(0, text="a", answer="old"),
        item(1, text="a", answer="new"),
        item(2, text="b", answer="same"),
        item(3, text="b", answer="same"),
        item(4, text="c", answer="approved first"),
        rejected_item(5, text="c", answer="approved first"),
        item(6, text="d", outcome="corrected", gold=Message(role="assistant", content="better")),
    ]
    made = build_small([*older, *(item(n) for n in range(10, 14))])
    assert list_learned_answers(made) == {"new", "same", "better"}
    assert made.manifest.left_out == {
        LeftOutReason.ANSWERED_ANEW.value: 1,
        LeftOutReason.REPEATED.value: 1,
        LeftOutReason.REJECTED_LATER.value: 1,
        LeftOutReason.NO_GOLD.value: 1,
    }


@pytest.mark.parametrize(
    ("older", "newer", "taught"),
    [
        ({"verdict_rank": 0, "day": 30}, {"verdict_rank": 1, "day": 1}, set()),
        ({"verdict_rank": 0, "day": 1}, {"verdict_rank": 1, "day": 30}, set()),
        ({"verdict_rank": 0, "day": 30}, {"verdict_rank": 0, "day": 1}, set()),
        ({"verdict_rank": 1, "day": 30}, {"verdict_rank": 0, "day": 1}, {"x"}),
        ({"verdict_rank": 0, "day": 1}, {"verdict_rank": 0, "day": 30}, {"x"}),
    ],
)
def test_an_answer_is_taught_if_who_approved_it_has_the_last_word(
    older: dict[str, int], newer: dict[str, int], taught: set[str]
) -> None:
    said = [
        {"verdict_rank": each["verdict_rank"], "verdict_at": NOON + timedelta(days=each["day"])}
        for each in (older, newer)
    ]
    items = [rejected_item(0, text="a", answer="x", **said[0]), item(1, text="a", answer="x", **said[1])]
    assert list_learned_answers(build_small([*items, *(item(n) for n in range(10, 14))])) == taught


def test_validation_takes_whole_sessions_and_a_share_of_the_rest() -> None:
    items = [item(n, session_id=f"session-{n // 3}") for n in range(300)]
    made = build_small(items)
    together = {example.session_id for example in made.train.sft} & {
        e.session_id for e in made.validation.sft
    }
    assert not together
    assert len(made.validation.sft) == pytest.approx(0.1 * len(made.train.sft), rel=0.25)


def test_sessions_that_all_begin_with_the_same_greeting_are_validated_on() -> None:
    greetings = [item(n, 2 * n, session_id=f"s{n}", text="hi", answer=f"hello {n % 7}") for n in range(200)]
    asked = [item(1000 + n, 2 * n + 1, session_id=f"s{n}") for n in range(200)]
    made = build_small([*greetings, *asked])
    sides = [{example.session_id for example in side.sft} for side in (made.train, made.validation)]
    assert sides[0].isdisjoint(sides[1])
    assert len(sides[1]) == pytest.approx(20, abs=2)
    assert "hi" not in {example.prompt[-1].content for example in made.validation.sft}
    assert made.manifest.statistics is not None
    assert made.manifest.statistics.warnings == ()


def test_a_prompt_of_both_sides_is_judged_by_all_that_was_said_about_it() -> None:
    # Everybody asks the same; the newest word, whichever session it is from, rejects the answer.
    for last in range(20):
        asked = [item(n, session_id=f"s{n}", text="hi", answer="hello") for n in range(20) if n != last]
        own = [item(100 + n, 20 + n, session_id=f"s{n}") for n in range(20)]
        refused = rejected_item(last, minute=40, session_id=f"s{last}", text="hi", answer="hello")
        newest = [item(200 + n, 50 + n) for n in range(12)]
        assert "hello" not in list_learned_answers(build_small([*asked, *own, refused, *newest]))


def test_a_dataset_without_anything_to_validate_on_says_so() -> None:
    made = build_small([item(n, session_id="all" if n < 52 else None) for n in range(60)])
    assert made.validation == Examples()
    assert made.manifest.statistics is not None
    assert any("to validate on" in warning for warning in made.manifest.statistics.warnings)
    unasked = SMALL.model_copy(update={"validation_share": 0})
    made = build_small([item(n) for n in range(60)], unasked)
    assert made.manifest.statistics is not None
    assert made.manifest.statistics.warnings == ()


def calling(call_id: str) -> Message:
    return Message(role="assistant", tool_calls=(ToolCall(id=call_id, name="f", arguments="{}"),))


def test_an_answer_is_known_again_whatever_the_ids_of_its_tool_calls() -> None:
    approved = item(0, text="do it", response=calling("call_1"), gold=calling("call_1"))
    refused = rejected_item(1, text="Do  it", response=calling("call_2"))
    made = build_small([approved, refused, *(item(n) for n in range(10, 14))])
    assert (made.train.sft, made.validation.sft) == ((), ())
    assert made.manifest.left_out[LeftOutReason.REJECTED_LATER.value] == 1


def test_one_prompt_in_two_spellings_is_taught_one_answer_but_each_system_prompt_its_own() -> None:
    spelled = [item(0, text="Where is it?", answer="old"), item(1, text="where is  IT?", answer="new")]
    told = (Message(role="system", content="Be brief."), Message(role="user", content="where is it?"))
    other = item(2, prompt=told, answer="there", prompt_key=spelled[0].prompt_key)
    made = build_small([*spelled, other, *(item(n) for n in range(10, 14))])
    assert list_learned_answers(made) == {"new", "there"}
    assert made.manifest.left_out[LeftOutReason.ANSWERED_ANEW.value] == 1


def make_import(text: str = "a question from elsewhere", **changes: Any) -> SFTExample:
    return item(999, text=text).to_example().model_copy(update={"session_id": None, **changes})


def build_with_imports(items: Sequence[ReviewedItem], *more: SFTExample | Trajectory) -> Snapshot:
    extra = ExtraData(
        imported=Examples(
            sft=tuple(example for example in more if isinstance(example, SFTExample)),
            trajectories=tuple(example for example in more if isinstance(example, Trajectory)),
        )
    )
    return build_small(items, extra=extra)


def distinct(number: int, **changes: Any) -> ReviewedItem:
    rng = random.Random(number)
    return item(number, text="".join(rng.choices("abcdefghijklmnopqrstuvwxyz ", k=60)), **changes)


def test_what_was_exported_and_is_imported_again_changes_nothing() -> None:
    items = [distinct(n) for n in range(100)]
    made = build_small(items)
    again = build_with_imports(items, *made.train.sft, *made.validation.sft)
    assert len(made.validation.sft) == 9
    assert (again.validation, set(again.train.sft)) == (made.validation, set(made.train.sft))
    assert again.manifest.left_out[LeftOutReason.IMPORT_VALIDATED.value] == 9


@pytest.mark.parametrize(
    "told",
    [
        lambda held: {"session_id": held.session_id},
        lambda held: {"source_span_ids": ("another", *held.source_span_ids)},
        lambda held: {"prompt_key": held.prompt_key},
        lambda held: {"prompt": (Message(role="user", content=held.prompt[-1].content.upper() + "!"),)},
    ],
)
@pytest.mark.parametrize("side", ["holdout", "validation"])
def test_an_import_that_stands_in_the_holdout_or_is_validated_on_is_left_out(side: str, told: Any) -> None:
    items = [distinct(n) for n in range(100)]
    made = build_small(items)
    known = made.holdout[3] if side == "holdout" else made.validation.sft[3]
    alike = make_import(**told(known))
    again = build_with_imports(items, alike, make_import("something else that was asked"))
    trained = {example.prompt[-1].content for example in again.train.sft}
    assert "something else that was asked" in trained
    assert alike.prompt[-1].content not in trained
    assert len(again.train.sft) == len(made.train.sft) + 1
    assert sum(again.manifest.left_out.values()) == sum(made.manifest.left_out.values()) + 1


def test_an_imported_conversation_may_begin_as_one_that_is_validated_on() -> None:
    items = [distinct(n) for n in range(100)]
    made = build_small(items)
    known = made.validation.sft[0]
    turns = (*known.prompt, known.completion, Message(role="user", content="and then what do I do?"))
    conversation = Trajectory(
        messages=(*turns, known.completion),
        learned=(3,),
        outcome="approved",
        prompt_keys=(known.prompt_key, compute_prompt_key(turns)),
        started_at=NOON,
    )
    again = build_with_imports(items, conversation)
    assert again.train.trajectories == (conversation,)
    traced = conversation.model_copy(update={"trace_ids": (made.holdout[0].trace_id,)})
    without_session = [each.model_copy(update={"session_id": None}) for each in items]
    assert build_with_imports(without_session, traced).train.trajectories == ()


def test_an_imported_example_of_a_trace_that_is_held_out_is_left_out() -> None:
    items = [distinct(n).model_copy(update={"session_id": None}) for n in range(100)]
    made = build_small(items)
    known = made.holdout[0].trace_id
    told = [make_import("something else that was asked", trace_id=trace) for trace in ("unknown", known)]
    assert [len(build_with_imports(items, each).train.sft) - len(made.train.sft) for each in told] == [1, 0]
    assert {each.trace_id for each in made.train.sft} < {each.trace_id for each in items}


@pytest.mark.parametrize(("share", "kept"), [(0.5, 20), (0.25, 6), (0.1, 2)])
def test_of_synthetic_examples_only_their_share_is_trained_on(share: float, kept: int) -> None:
    items = [distinct(n) for n in range(100)]
    made = [distinct(500 + n).to_example() for n in range(40)]
    synthetic = tuple(each.model_copy(update={"origin": "synthetic", "session_id": None}) for each in made)
    extra = ExtraData(synthetic=Examples(sft=synthetic), synthetic_share=share)
    found = build_small(items, HoldoutRules(least=78, validation_share=0.1), extra=extra)
    assert sum(each.origin == "telemetry" for each in found.train.sft) == 20
    assert sum(each.origin == "synthetic" for each in found.train.sft) == kept
    assert found.manifest.left_out[LeftOutReason.TOO_MUCH_SYNTHETIC.value] == 40 - kept
    assert all(each.origin == "telemetry" for each in found.validation.sft)
