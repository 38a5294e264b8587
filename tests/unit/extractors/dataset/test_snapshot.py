"""What is trained on, what is held out, and the files that keep it."""

import random
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extractors.dataset.build import ExtraData
from extractors.dataset.holdout_split import (
    HoldoutRules,
    LeftOutReason,
    Window,
    choose_validation,
    find_group,
    split,
)
from extractors.dataset.snapshot import (
    Provenance,
    Snapshot,
    SnapshotDamaged,
    build_snapshot,
    read_snapshot,
    write_snapshot,
)
from extractors.examples.prompt_keys import compute_prompt_key
from extractors.examples.types import Examples, Message, ReviewedItem, SFTExample, ToolCall, Trajectory
from extractors.feedback.extract import Extraction
from tests.unit.traffic import NOON, item

SMALL = HoldoutRules(share=0.2, least=4, greatest=8, common_prompt_sessions=3, retention_share=0)


def snapshot(
    items: Sequence[ReviewedItem], rules: HoldoutRules = SMALL, window: Window | None = None, **changes: Any
) -> Snapshot:
    given = {"now": NOON, "provenance": Provenance("acme/routing", {"kind": "LLM"})}
    return build_snapshot(Extraction(items=tuple(items)), rules, window=window, **{**given, **changes})


def numbers(items: Sequence[ReviewedItem]) -> list[int]:
    return [int(found.trace_id.removeprefix("trace-")) for found in items]


def learned(made: Snapshot) -> set[str]:
    return {example.completion.content for example in (*made.train.sft, *made.validation.sft)}


def rejected(number: int, **changes: Any) -> ReviewedItem:
    return item(number, outcome="rejected", gold=None, **changes)


# ---- the window


@pytest.mark.parametrize(("reviewed", "held_out"), [(3, 3), (10, 4), (30, 6), (100, 8)])
def test_the_holdout_is_the_newest_share_within_its_bounds(reviewed: int, held_out: int) -> None:
    sides = split([item(n) for n in range(reviewed)], SMALL, None)
    assert numbers(sides.holdout) == list(range(reviewed - held_out, reviewed))
    assert numbers(sides.train) == list(range(reviewed - held_out))


def test_the_window_stays_and_takes_in_newer_items_until_they_fill_a_new_one() -> None:
    first = split([item(n) for n in range(20)], SMALL, None)
    assert numbers(first.holdout) == [16, 17, 18, 19]
    second = split([item(n) for n in range(23)], SMALL, first.window)
    assert second.window == first.window
    assert numbers(second.train) == list(range(16))
    assert numbers(second.holdout) == list(range(16, 23))
    third = split([item(n) for n in range(25)], SMALL, second.window)
    assert numbers(third.holdout) == [20, 21, 22, 23, 24]
    assert numbers(third.train) == list(range(20))


def test_a_holdout_that_is_full_lets_newer_items_wait() -> None:
    first = split([item(n) for n in range(40)], SMALL, None)
    assert len(first.holdout) == 8
    second = split([item(n) for n in range(44)], SMALL, first.window)
    assert numbers(second.holdout) == numbers(first.holdout)
    assert second.left_out[LeftOutReason.BEYOND_HOLDOUT] == 4


def test_feedback_that_comes_late_on_old_traffic_is_trained_on() -> None:
    first = split([item(n) for n in range(1, 20)], SMALL, None)
    assert 0 in numbers(split([item(n) for n in range(20)], SMALL, first.window).train)


def test_prompts_that_many_sessions_share_stay_out_of_the_holdout() -> None:
    greetings = [item(100 + n, minute=n * 6, text="Hello!") for n in range(4)]
    sides = split([*greetings, *(item(n) for n in range(20))], SMALL, None)
    assert numbers(sides.holdout) == [15, 16, 17, 18, 19]
    assert {100, 101, 102} <= set(numbers(sides.train))
    assert sides.left_out[LeftOutReason.COMMON_PROMPT] == 1
    made = snapshot([*greetings, *(item(n) for n in range(20))])
    assert made.manifest.excluded_prompts == (greetings[0].prompt_key,)


def test_sessions_and_prompts_of_the_holdout_are_not_trained_on() -> None:
    same_session = item(100, minute=0, session_id="session-19")
    same_prompt = item(101, minute=1, text="  QUESTION 18")
    sides = split([same_session, same_prompt, *(item(n, minute=n + 2) for n in range(20))], SMALL, None)
    assert set(numbers(sides.train)).isdisjoint({100, 101})
    assert sides.left_out[LeftOutReason.SESSION_HELD_OUT] == 1
    assert sides.left_out[LeftOutReason.PROMPT_HELD_OUT] == 1


def test_the_holdout_samples_all_reviewed_traffic() -> None:
    made = snapshot(
        [*(item(n) for n in range(17)), rejected(17), rejected(18), item(19, outcome="corrected")]
    )
    assert made.manifest.held_out.model_dump() == {"approved": 1, "corrected": 1, "rejected": 2}


def test_bounds_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(ValueError, match="must not exceed"):
        HoldoutRules(least=10, greatest=5)


TRAFFIC = st.lists(
    st.builds(
        lambda number, minute, session, text, kept: item(
            number,
            minute,
            text=text,
            session_id=session and f"session-{session}",
            **({} if kept else {"outcome": "rejected", "gold": None}),
        ),
        st.integers(0, 200),
        st.integers(0, 40),
        st.none() | st.integers(1, 12),
        st.sampled_from("abcdefghijklmnop"),
        st.booleans(),
    ),
    max_size=60,
    unique_by=lambda found: found.source_span_ids,
)


@given(traffic=TRAFFIC, shuffle=st.randoms(), opened=st.none() | st.integers(0, 40))
@settings(deadline=None)
def test_no_split_leaks_whatever_the_traffic(
    traffic: list[ReviewedItem], shuffle: random.Random, opened: int | None
) -> None:
    at = None if opened is None else NOON + timedelta(minutes=opened)
    window = at and Window(start=at, end=at + timedelta(minutes=3))
    sides = split(traffic, SMALL, window)
    assert not {find_group(i) for i in sides.train} & {find_group(i) for i in sides.holdout}
    assert not {i.prompt_key for i in sides.train} & {i.prompt_key for i in sides.holdout}
    if sides.window is not None:
        assert all(i.started_at < sides.window.start for i in sides.train)
        assert all(i.started_at >= sides.window.start for i in sides.holdout)
    assert len(sides.train) + len(sides.holdout) + sum(sides.left_out.values()) == len(traffic)
    made = snapshot(traffic, window=window)
    train, validation = (
        {(kind, key) for e in side for kind, key in (("p", e.prompt_key), ("s", e.session_id)) if key}
        for side in (made.train.sft, made.validation.sft)
    )
    assert not train & validation
    shuffled = list(traffic)
    shuffle.shuffle(shuffled)
    assert snapshot(shuffled, window=window) == made


# ---- what is taught


def test_gold_is_taught_once_a_prompt_and_the_newest_answer_wins() -> None:
    older = [
        item(0, text="a", answer="old"),
        item(1, text="a", answer="new"),
        item(2, text="b", answer="same"),
        item(3, text="b", answer="same"),
        item(4, text="c", answer="approved first"),
        rejected(5, text="c", answer="approved first"),
        item(6, text="d", outcome="corrected", gold=Message(role="assistant", content="better")),
    ]
    made = snapshot([*older, *(item(n) for n in range(10, 14))])
    assert learned(made) == {"new", "same", "better"}
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
    items = [rejected(0, text="a", answer="x", **said[0]), item(1, text="a", answer="x", **said[1])]
    assert learned(snapshot([*items, *(item(n) for n in range(10, 14))])) == taught


def test_validation_takes_whole_sessions_and_a_share_of_the_rest() -> None:
    items = [item(n, session_id=f"session-{n // 3}") for n in range(300)]
    made = snapshot(items)
    together = {example.session_id for example in made.train.sft} & {
        e.session_id for e in made.validation.sft
    }
    assert not together
    assert len(made.validation.sft) == pytest.approx(0.1 * len(made.train.sft), rel=0.25)


def test_sessions_that_all_begin_with_the_same_greeting_are_validated_on() -> None:
    greetings = [item(n, 2 * n, session_id=f"s{n}", text="hi", answer=f"hello {n % 7}") for n in range(200)]
    asked = [item(1000 + n, 2 * n + 1, session_id=f"s{n}") for n in range(200)]
    made = snapshot([*greetings, *asked])
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
        refused = rejected(last, minute=40, session_id=f"s{last}", text="hi", answer="hello")
        newest = [item(200 + n, 50 + n) for n in range(12)]
        assert "hello" not in learned(snapshot([*asked, *own, refused, *newest]))


def test_a_dataset_without_anything_to_validate_on_says_so() -> None:
    made = snapshot([item(n, session_id="all" if n < 52 else None) for n in range(60)])
    assert made.validation == Examples()
    assert made.manifest.statistics is not None
    assert any("to validate on" in warning for warning in made.manifest.statistics.warnings)
    unasked = SMALL.model_copy(update={"validation_share": 0})
    made = snapshot([item(n) for n in range(60)], unasked)
    assert made.manifest.statistics is not None
    assert made.manifest.statistics.warnings == ()


def test_what_is_set_apart_grows_with_the_sessions_and_takes_time_in_proportion() -> None:
    seen = [(f"session {n}", (prompt,)) for n in range(20_000) for prompt in ("hi", f"question {n}")]
    chained = [(f"trace {n}", (f"{n}", f"{n + 1}")) for n in range(20_000)]
    began = time.process_time()
    assert len(choose_validation(seen, 0.1).groups) == 2000
    assert len(choose_validation(chained, 0.1).groups) == pytest.approx(2000, rel=0.1)
    assert time.process_time() - began < 10  # seconds


def calling(call_id: str) -> Message:
    return Message(role="assistant", tool_calls=(ToolCall(id=call_id, name="f", arguments="{}"),))


def test_an_answer_is_known_again_whatever_the_ids_of_its_tool_calls() -> None:
    approved = item(0, text="do it", response=calling("call_1"), gold=calling("call_1"))
    refused = rejected(1, text="Do  it", response=calling("call_2"))
    made = snapshot([approved, refused, *(item(n) for n in range(10, 14))])
    assert (made.train.sft, made.validation.sft) == ((), ())
    assert made.manifest.left_out[LeftOutReason.REJECTED_LATER.value] == 1


def test_one_prompt_in_two_spellings_is_taught_one_answer_but_each_system_prompt_its_own() -> None:
    spelled = [item(0, text="Where is it?", answer="old"), item(1, text="where is  IT?", answer="new")]
    told = (Message(role="system", content="Be brief."), Message(role="user", content="where is it?"))
    other = item(2, prompt=told, answer="there", prompt_key=spelled[0].prompt_key)
    made = snapshot([*spelled, other, *(item(n) for n in range(10, 14))])
    assert learned(made) == {"new", "there"}
    assert made.manifest.left_out[LeftOutReason.ANSWERED_ANEW.value] == 1


# ---- imports


def imported(text: str = "a question from elsewhere", **changes: Any) -> SFTExample:
    return item(999, text=text).to_example().model_copy(update={"session_id": None, **changes})


def trained_with(items: Sequence[ReviewedItem], *more: SFTExample | Trajectory) -> Snapshot:
    extra = ExtraData(
        imported=Examples(
            sft=tuple(example for example in more if isinstance(example, SFTExample)),
            trajectories=tuple(example for example in more if isinstance(example, Trajectory)),
        )
    )
    return snapshot(items, extra=extra)


def distinct(number: int, **changes: Any) -> ReviewedItem:
    rng = random.Random(number)
    return item(number, text="".join(rng.choices("abcdefghijklmnopqrstuvwxyz ", k=60)), **changes)


def test_what_was_exported_and_is_imported_again_changes_nothing() -> None:
    items = [distinct(n) for n in range(100)]
    made = snapshot(items)
    again = trained_with(items, *made.train.sft, *made.validation.sft)
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
    made = snapshot(items)
    known = made.holdout[3] if side == "holdout" else made.validation.sft[3]
    alike = imported(**told(known))
    again = trained_with(items, alike, imported("something else that was asked"))
    trained = {example.prompt[-1].content for example in again.train.sft}
    assert "something else that was asked" in trained
    assert alike.prompt[-1].content not in trained
    assert len(again.train.sft) == len(made.train.sft) + 1
    assert sum(again.manifest.left_out.values()) == sum(made.manifest.left_out.values()) + 1


def test_an_imported_conversation_may_begin_as_one_that_is_validated_on() -> None:
    items = [distinct(n) for n in range(100)]
    made = snapshot(items)
    known = made.validation.sft[0]
    turns = (*known.prompt, known.completion, Message(role="user", content="and then what do I do?"))
    conversation = Trajectory(
        messages=(*turns, known.completion),
        learned=(3,),
        outcome="approved",
        prompt_keys=(known.prompt_key, compute_prompt_key(turns)),
        started_at=NOON,
    )
    again = trained_with(items, conversation)
    assert again.train.trajectories == (conversation,)
    traced = conversation.model_copy(update={"trace_ids": (made.holdout[0].trace_id,)})
    without_session = [each.model_copy(update={"session_id": None}) for each in items]
    assert trained_with(without_session, traced).train.trajectories == ()


def test_with_few_items_everything_is_held_out_and_the_manifest_says_so() -> None:
    made = snapshot([item(n) for n in range(3)])
    assert (made.train, made.validation, made.manifest.holdout) == (Examples(), Examples(), 3)
    nothing = snapshot([]).manifest
    assert (nothing.holdout, nothing.window, nothing.watermark) == (0, None, None)


def test_the_manifest_counts_what_it_was_built_from() -> None:
    made = snapshot([item(0), rejected(1), *(item(n) for n in range(2, 20))]).manifest
    assert made.reviewed.model_dump() == {"approved": 19, "corrected": 0, "rejected": 1}
    assert made.train["sft"] + made.validation["sft"] == 15
    assert made.watermark == NOON + timedelta(minutes=19)
    opened = Window(start=NOON + timedelta(minutes=16), end=NOON + timedelta(minutes=19), retained_to=0)
    assert made.window == opened


# ---- files


def rich_items() -> list[ReviewedItem]:
    """Items with every column in use: tools, tool calls, nulls, emoji."""
    calling = Message(role="assistant", tool_calls=(ToolCall(id="c1", name="f", arguments='{"a": 1}'),))
    prompt = (
        Message(role="system", content=""),
        Message(role="user", content="Où est mon colis ? 📦\n\0"),
        calling,
        Message(role="tool", content="{}", tool_call_id="c1", name="f"),
    )
    tools: tuple[dict[str, Any], ...] = (
        {"type": "function", "function": {"name": "f", "parameters": {"a": [None, 1.5]}}},
    )
    rich: dict[str, Any] = {
        "prompt": prompt,
        "tools": tools,
        "verdict_rank": 1,
        "verdict_at": NOON,
        "answered_by": "acme.v1",
        "gold": calling,
    }
    precise = NOON + timedelta(microseconds=123456)
    return [
        item(0, started_at=precise, prompt_key="rich", **rich),
        *(item(n) for n in range(1, 20)),
        rejected(20, session_id=None),
    ]  # fmt: skip


def test_a_snapshot_reads_back_as_it_was_written(tmp_path: Path) -> None:
    made = snapshot(rich_items())
    folder = write_snapshot(made, tmp_path / "snapshots")
    assert folder == tmp_path / "snapshots" / made.id
    found = read_snapshot(folder)
    assert (found.train, found.validation, found.holdout) == (made.train, made.validation, made.holdout)
    assert sorted(found.manifest.files) == [
        "holdout.parquet",
        "train-sft.parquet",
        "validation-sft.parquet",
    ]
    assert found.manifest.model_copy(update={"files": {}}) == made.manifest
    assert [entry.name for entry in folder.parent.iterdir()] == [made.id]


def test_an_empty_snapshot_reads_back_too(tmp_path: Path) -> None:
    made = snapshot([])
    assert read_snapshot(write_snapshot(made, tmp_path)).train == Examples()


def test_equal_content_has_equal_id_and_files(tmp_path: Path) -> None:
    once = write_snapshot(snapshot(rich_items()), tmp_path / "one")
    later = snapshot(rich_items()[::-1], now=NOON + timedelta(days=1))
    again = write_snapshot(later, tmp_path / "two")
    assert once.name == again.name
    assert read_snapshot(once).manifest.files == read_snapshot(again).manifest.files
    assert snapshot(rich_items(), provenance=Provenance("acme/routing", {})).id != once.name
    assert snapshot(rich_items(), provenance=Provenance("acme/other", {"kind": "LLM"})).id != once.name


def test_writing_twice_keeps_the_first_and_heals_a_damaged_or_interrupted_one(tmp_path: Path) -> None:
    made = snapshot(rich_items())
    (tmp_path / f".writing-{made.id}").mkdir()
    folder = write_snapshot(made, tmp_path)
    manifest = (folder / "manifest.json").read_bytes()
    assert write_snapshot(snapshot(rich_items(), now=NOON + timedelta(days=1)), tmp_path) == folder
    assert (folder / "manifest.json").read_bytes() == manifest
    (folder / "train-sft.parquet").write_bytes(b"half")
    write_snapshot(made, tmp_path)
    assert read_snapshot(folder).train == made.train


@pytest.mark.parametrize("name", ["train-sft.parquet", "holdout.parquet", "manifest.json"])
def test_a_changed_or_missing_file_is_named(tmp_path: Path, name: str) -> None:
    folder = write_snapshot(snapshot(rich_items()), tmp_path)
    (folder / name).write_bytes((folder / name).read_bytes()[:-1])
    with pytest.raises(SnapshotDamaged, match=name):
        read_snapshot(folder)
    (folder / name).unlink()
    with pytest.raises(SnapshotDamaged, match=name):
        read_snapshot(folder)


# ---- synthetic examples


@pytest.mark.parametrize(("share", "kept"), [(0.5, 20), (0.25, 6), (0.1, 2)])
def test_of_synthetic_examples_only_their_share_is_trained_on(share: float, kept: int) -> None:
    items = [distinct(n) for n in range(100)]
    made = [distinct(500 + n).to_example() for n in range(40)]
    synthetic = tuple(each.model_copy(update={"origin": "synthetic", "session_id": None}) for each in made)
    extra = ExtraData(synthetic=Examples(sft=synthetic), synthetic_share=share)
    found = snapshot(items, HoldoutRules(least=78, validation_share=0.1), extra=extra)
    assert sum(each.origin == "telemetry" for each in found.train.sft) == 20
    assert sum(each.origin == "synthetic" for each in found.train.sft) == kept
    assert found.manifest.left_out[LeftOutReason.TOO_MUCH_SYNTHETIC.value] == 40 - kept
    assert all(each.origin == "telemetry" for each in found.validation.sft)
