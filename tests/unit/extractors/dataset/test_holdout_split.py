"""Tests of the holdout's window, of what stays reserved of earlier holdouts, and of what is validated on."""

import json
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
    draw_lot,
    find_group,
    split,
)
from extractors.dataset.snapshot import (
    Provenance,
    Snapshot,
    build_snapshot,
    read_manifest,
    read_snapshot,
    write_snapshot,
)
from extractors.examples.prompt_keys import compute_query_key
from extractors.examples.types import (
    Examples,
    JudgedDocument,
    JudgedResponse,
    Message,
    ReviewedItem,
    ReviewedRetrieval,
)
from extractors.feedback.extract import Extraction
from tests.support.traffic import NOON, item, rejected_item
from tests.unit.extractors.dataset.small_snapshots import SMALL, build_small, list_numbers

RULES = HoldoutRules(share=0.2, least=4, greatest=8, retention_share=0.5, retention_greatest=20)


def minute(number: float) -> Any:
    return NOON + timedelta(minutes=number)


def window(first: float, start: float, retained_to: float = 1.0) -> Window:
    return Window(first=minute(first), start=minute(start), end=minute(start + 100), retained_to=retained_to)


def number_set(items: Sequence[ReviewedItem]) -> set[int]:
    return {int(found.trace_id.removeprefix("trace-")) for found in items}


def list_reserved(count: int, most: float = RULES.retention_share) -> list[int]:
    """Numbers of items whose session the lot reserves."""
    return [n for n in range(count) if draw_lot(f"session session-{n}") <= most]


def snapshot(items: Sequence[ReviewedItem], at: Window | None, **changes: Any) -> Snapshot:
    given = {"now": NOON, "provenance": Provenance("acme/routing", {}), "rules": RULES}
    return build_snapshot(Extraction(items=tuple(items)), window=at, **{**given, **changes})


# ---- the window


@pytest.mark.parametrize(("reviewed", "held_out"), [(3, 3), (10, 4), (30, 6), (100, 8)])
def test_the_holdout_is_the_newest_share_within_its_bounds(reviewed: int, held_out: int) -> None:
    sides = split([item(n) for n in range(reviewed)], SMALL, None)
    assert list_numbers(sides.holdout) == list(range(reviewed - held_out, reviewed))
    assert list_numbers(sides.train) == list(range(reviewed - held_out))


def test_the_window_stays_and_takes_in_newer_items_until_they_fill_a_new_one() -> None:
    first = split([item(n) for n in range(20)], SMALL, None)
    assert list_numbers(first.holdout) == [16, 17, 18, 19]
    second = split([item(n) for n in range(23)], SMALL, first.window)
    assert second.window == first.window
    assert list_numbers(second.train) == list(range(16))
    assert list_numbers(second.holdout) == list(range(16, 23))
    third = split([item(n) for n in range(25)], SMALL, second.window)
    assert list_numbers(third.holdout) == [20, 21, 22, 23, 24]
    assert list_numbers(third.train) == list(range(20))


def test_a_holdout_that_is_full_lets_newer_items_wait() -> None:
    first = split([item(n) for n in range(40)], SMALL, None)
    assert len(first.holdout) == 8
    second = split([item(n) for n in range(44)], SMALL, first.window)
    assert list_numbers(second.holdout) == list_numbers(first.holdout)
    assert second.left_out[LeftOutReason.BEYOND_HOLDOUT] == 4


def test_feedback_that_comes_late_on_old_traffic_is_trained_on() -> None:
    first = split([item(n) for n in range(1, 20)], SMALL, None)
    assert 0 in list_numbers(split([item(n) for n in range(20)], SMALL, first.window).train)


def test_prompts_that_many_sessions_share_stay_out_of_the_holdout() -> None:
    greetings = [item(100 + n, minute=n * 6, text="Hello!") for n in range(4)]
    sides = split([*greetings, *(item(n) for n in range(20))], SMALL, None)
    assert list_numbers(sides.holdout) == [15, 16, 17, 18, 19]
    assert {100, 101, 102} <= set(list_numbers(sides.train))
    assert sides.left_out[LeftOutReason.COMMON_PROMPT] == 1
    made = build_small([*greetings, *(item(n) for n in range(20))])
    assert made.manifest.excluded_prompts == (greetings[0].prompt_key,)


def test_sessions_and_prompts_of_the_holdout_are_not_trained_on() -> None:
    same_session = item(100, minute=0, session_id="session-19")
    same_prompt = item(101, minute=1, text="  QUESTION 18")
    sides = split([same_session, same_prompt, *(item(n, minute=n + 2) for n in range(20))], SMALL, None)
    assert set(list_numbers(sides.train)).isdisjoint({100, 101})
    assert sides.left_out[LeftOutReason.SESSION_HELD_OUT] == 1
    assert sides.left_out[LeftOutReason.PROMPT_HELD_OUT] == 1


def test_the_holdout_samples_all_reviewed_traffic() -> None:
    made = build_small(
        [*(item(n) for n in range(17)), rejected_item(17), rejected_item(18), item(19, outcome="corrected")]
    )
    assert made.manifest.held_out.model_dump() == {"approved": 1, "corrected": 1, "rejected": 2}


def test_bounds_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(ValueError, match="must not exceed"):
        HoldoutRules(least=10, greatest=5)


ANY_TRAFFIC = st.lists(
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


@given(traffic=ANY_TRAFFIC, shuffle=st.randoms(), opened=st.none() | st.integers(0, 40))
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
    made = build_small(traffic, window=window)
    train, validation = (
        {(kind, key) for e in side for kind, key in (("p", e.prompt_key), ("s", e.session_id)) if key}
        for side in (made.train.sft, made.validation.sft)
    )
    assert not train & validation
    shuffled = list(traffic)
    shuffle.shuffle(shuffled)
    assert build_small(shuffled, window=window) == made


def test_what_is_set_apart_grows_with_the_sessions_and_takes_time_in_proportion() -> None:
    seen = [(f"session {n}", (prompt,)) for n in range(20_000) for prompt in ("hi", f"question {n}")]
    chained = [(f"trace {n}", (f"{n}", f"{n + 1}")) for n in range(20_000)]
    began = time.process_time()
    assert len(choose_validation(seen, 0.1).groups) == 2000
    assert len(choose_validation(chained, 0.1).groups) == pytest.approx(2000, rel=0.1)
    assert time.process_time() - began < 10  # seconds


# ---- what is reserved


def test_a_share_of_the_sessions_once_held_out_is_retained_when_the_window_moves_on() -> None:
    items = [item(n) for n in range(40)]
    first = split(items[:20], RULES, None)
    assert first.window is not None
    assert (first.retention, first.window.first) == ((), first.window.start)
    later = split(items, RULES, first.window)
    assert later.window is not None
    assert (later.window.first, later.window.start) == (minute(16), minute(32))
    assert number_set(later.retention) == {n for n in list_reserved(32) if n >= 16}
    assert number_set(later.train) == set(range(32)) - number_set(later.retention)
    assert number_set(later.holdout) == set(range(32, 40))


def test_about_the_wanted_share_is_reserved() -> None:
    rules = RULES.model_copy(update={"retention_share": 0.2, "retention_greatest": 10_000})
    sides = split([item(n) for n in range(5008)], rules, window(0, 4000))
    assert len(sides.retention) == pytest.approx(1000, abs=85)  # 3 standard deviations


def test_of_many_reviewed_items_only_so_many_are_reserved_and_the_others_are_trained_on() -> None:
    sides = split([item(n) for n in range(500)], RULES, window(0, 400))
    assert len(sides.retention) == 20
    assert len(sides.train) == 380
    lots = sorted(draw_lot(f"session session-{n}") for n in range(400))
    assert {draw_lot(find_group(each)) for each in sides.retention} == set(lots[:20])


def test_a_prompt_of_a_session_that_the_limit_sets_free_is_trained_on_and_not_retained() -> None:
    by_lot = sorted(range(400), key=lambda n: draw_lot(f"session session-{n}"))
    lowest, freed = by_lot[0], by_lot[150]
    items = [item(n, text="the same") if n in (lowest, freed) else item(n) for n in range(500)]
    sides = split(items, RULES, window(0, 400))
    assert freed in number_set(sides.train)
    assert number_set(sides.retention) == set(by_lot[1:20])


def test_one_long_session_stays_reserved_as_a_whole_though_the_set_takes_only_some_of_it() -> None:
    lowest = min(range(400), key=lambda n: draw_lot(f"session session-{n}"))
    long = [item(1000 + n, n, session_id=f"session-{lowest}") for n in range(50)]
    sides = split([*long, *(item(n) for n in range(500))], RULES, window(0, 400))
    assert len(sides.retention) == 20
    assert {find_group(each) for each in sides.retention} == {f"session session-{lowest}"}
    assert sides.left_out[LeftOutReason.RESERVED] == 31
    assert not number_set(sides.train) & number_set(long)


def test_what_came_before_the_first_window_is_never_retained_nor_are_sessions_that_began_there() -> None:
    kept, *_ = [n for n in list_reserved(40) if n >= 20]
    began = item(100, minute=5, session_id=f"session-{kept}")
    sides = split([began, *(item(n) for n in range(50))], RULES, window(20, 40))
    assert number_set(sides.retention) == {n for n in list_reserved(40) if n >= 20} - {kept}
    assert 100 in number_set(sides.train)
    assert kept not in number_set(sides.train)


def test_what_has_no_gold_or_a_prompt_that_others_share_is_not_retained() -> None:
    rejected, shared, greeting, *rest = list_reserved(40)
    other = next(n for n in range(40) if n not in list_reserved(40))
    changed = {
        rejected: {"outcome": "rejected", "gold": None},
        shared: {"text": "the same"},
        other: {"text": "The  same"},
        greeting: {"text": "hi"},
    }
    greetings = [item(200 + n, n, session_id=f"session-{rest[n]}", text="hi") for n in range(3)]
    sides = split([*greetings, *(item(n, **changed.get(n, {})) for n in range(50))], RULES, window(0, 40))
    assert number_set(sides.retention) == set(rest)
    assert other in number_set(sides.train)
    assert sides.left_out[LeftOutReason.RESERVED] == 6


def test_the_holdout_comes_before_the_retention_set() -> None:
    one, other, *rest = list_reserved(40)
    newest = [item(300, 49, session_id=f"session-{one}"), item(301, 49, text=f"question {other}")]
    sides = split([*newest, *(item(n) for n in range(40))], RULES, window(0, 40))
    assert number_set(sides.holdout) == {300, 301}
    assert number_set(sides.retention) == set(rest)
    assert not {one, other} & number_set(sides.train)


# ---- for ever


def test_what_was_trained_on_is_not_reserved_though_what_is_retained_is_deleted() -> None:
    items = [item(n) for n in range(500)]
    before = split(items, RULES, window(0, 400))
    left = [each for each in items if each not in before.retention]
    after = split(left, RULES, before.window)
    assert after.retention == ()
    assert after.train == before.train


def test_a_share_can_be_lowered_but_raised_only_from_a_new_beginning() -> None:
    items = [item(n) for n in range(60)]

    def find_retained(share: float, previous: Window | None) -> tuple[set[int], Window | None]:
        sides = split(items, RULES.model_copy(update={"retention_share": share}), previous)
        return number_set(sides.retention), sides.window

    some, lower = find_retained(0.2, window(0, 50))
    assert some == set(list_reserved(50, 0.2))
    assert find_retained(0.5, lower)[0] == some
    none, off = find_retained(0, lower)
    assert none == set()
    again, anew = find_retained(0.5, off)
    assert again == set()
    assert anew is not None
    assert (anew.first, anew.retained_to) == (anew.start, 0.5)


TRAFFIC = st.lists(
    st.tuples(
        st.integers(0, 100),  # minute
        st.none() | st.integers(1, 25),  # session
        st.sampled_from("abcdefghijklmnopqrst"),  # question
        st.booleans(),  # has gold
        st.integers(0, 5),  # the step at which it is reviewed
        st.integers(1, 9),  # the step at which the review is taken back
    ),
    max_size=70,
)


def met(side: Examples | Sequence[ReviewedItem]) -> dict[str, set[str]]:
    """Sessions, prompts and spans of one side."""
    members: Sequence[Any] = side.sft if isinstance(side, Examples) else side
    return {
        "session": {each.session_id for each in members if each.session_id},
        "prompt": {each.prompt_key for each in members},
        "span": {span for each in members for span in each.source_span_ids},
    }


@given(traffic=TRAFFIC)
@settings(deadline=None, max_examples=200)
def test_nothing_that_was_ever_trained_on_is_retained_later(traffic: list[tuple[Any, ...]]) -> None:
    reviewed = [
        (
            begins,
            ends,
            item(
                n,
                at,
                text=text,
                session_id=session and f"s{session}",
                **({} if gold else {"outcome": "rejected", "gold": None}),
            ),
        )
        for n, (at, session, text, gold, begins, ends) in enumerate(traffic)
    ]
    rules = RULES.model_copy(update={"retention_greatest": 2, "common_prompt_sessions": 5})
    at: Window | None = None
    learned: dict[str, set[str]] = {"session": set(), "prompt": set(), "span": set()}
    for step in range(6):
        # Up to then the traffic of so much time is there; feedback comes late, and may be taken back.
        known = [
            each
            for begins, ends, each in reviewed
            if begins <= step < ends + begins and each.started_at <= minute(20 * (step + 1))
        ]
        made = snapshot(known, at, rules=rules)
        at = made.manifest.window
        retained, sides = met(made.retention), [met(made.train), met(made.validation)]
        assert len(made.retention) == made.manifest.retention <= 2
        for side in (*sides, met(made.holdout)):
            assert all(retained[kind].isdisjoint(side[kind]) for kind in retained)
        assert learned["span"].isdisjoint(retained["span"])
        if all(begins + ends > step for begins, ends, _ in reviewed):
            # Nothing was taken back so far.
            assert all(learned[kind].isdisjoint(retained[kind]) for kind in retained)
        for side in sides:
            for kind, there in side.items():
                learned[kind] |= there


# ---- kept apart everywhere


@pytest.mark.parametrize(
    "told",
    [
        lambda kept: {"session_id": kept.session_id},
        lambda kept: {"session_id": None, "source_span_ids": kept.source_span_ids},
        lambda kept: {"session_id": None, "prompt_key": kept.prompt_key},
        lambda kept: {
            "session_id": None,
            "prompt": (Message(role="user", content=kept.prompt[-1].content + "!"),),
        },
    ],
)
def test_imports_that_meet_the_retention_set_are_left_out(told: Any) -> None:
    items = [item(n) for n in range(50)]
    known = snapshot(items, window(0, 40)).retention[0]
    elsewhere = item(999, text="a question from elsewhere").to_example()
    alike = elsewhere.model_copy(update=told(known))
    made = snapshot(items, window(0, 40), extra=ExtraData(imported=Examples(sft=(alike,))))
    assert alike.id not in {each.id for each in made.train.sft}
    assert made.retention == snapshot(items, window(0, 40)).retention


def test_other_answers_of_reserved_sessions_are_not_trained_on() -> None:
    kept, *_ = list_reserved(40)
    free = next(n for n in range(40) if n not in list_reserved(40))
    said = [
        JudgedResponse(
            prompt=(Message(role="user", content=f"another question {n}"),),
            response=Message(role="assistant", content="an answer"),
            approved=True,
            judged="candidate",
            source_span_ids=(f"other-{n}",),
            trace_id=f"other-{n}",
            session_id=f"session-{n}",
            prompt_key=f"other {n}",
            started_at=minute(n),
        )
        for n in (kept, free)
    ]
    # The retention set itself cannot use the session: the agent's own answer was rejected.
    own = {kept: {"outcome": "rejected", "gold": None}}
    items = tuple(item(n, **own.get(n, {})) for n in range(50))
    extraction = Extraction(items=items, judged=tuple(said))
    made = build_snapshot(
        extraction, RULES, window=window(0, 40), now=NOON, provenance=Provenance("acme/a", {})
    )
    voted = {each.session_id for side in (made.train, made.validation) for each in side.votes}
    assert f"session-{free}" in voted
    assert f"session-{kept}" not in voted


def search(number: int, relevant: bool = True) -> ReviewedRetrieval:
    query = f"question {number}"
    documents = (JudgedDocument(text="yes", relevant=relevant), JudgedDocument(text="no", relevant=False))
    return ReviewedRetrieval(
        query=query,
        documents=documents,
        source_span_ids=(f"span-{number}",),
        trace_id=f"trace-{number}",
        session_id=f"session-{number}",
        prompt_key=compute_query_key(query),
        started_at=minute(number),
    )


def test_searches_are_retained_if_a_document_is_relevant(tmp_path: Path) -> None:
    useless, *rest = list_reserved(40)
    extraction = Extraction(retrievals=tuple(search(n, relevant=n != useless) for n in range(50)))
    made = build_snapshot(
        extraction, RULES, window=window(0, 40), now=NOON, provenance=Provenance("acme/find", {})
    )
    assert {each.query for each in made.retained_retrievals} == {f"question {n}" for n in rest}
    assert made.manifest.retention == len(rest)
    assert read_snapshot(write_snapshot(made, tmp_path)).retained_retrievals == made.retained_retrievals


# ---- files


def test_a_retention_set_reads_back_as_it_was_written(tmp_path: Path) -> None:
    made = snapshot([item(n) for n in range(50)], window(0, 40))
    folder = write_snapshot(made, tmp_path)
    assert "retention.parquet" in {file.name for file in folder.iterdir()}
    assert read_snapshot(folder).retention == made.retention
    assert len(made.retention) == read_manifest(folder).retention > 0


def test_a_snapshot_of_before_there_was_a_retention_set_can_be_read(tmp_path: Path) -> None:
    folder = write_snapshot(snapshot([item(n) for n in range(20)], None), tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    del manifest["retention"], manifest["window"]["first"], manifest["window"]["retained_to"]
    for setting in ("retention_share", "retention_greatest"):
        del manifest["rules"][setting]
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    found = read_snapshot(folder)
    assert (found.retention, found.manifest.retention) == ((), 0)
    assert found.manifest.window is not None
    assert found.manifest.window.first == found.manifest.window.start
