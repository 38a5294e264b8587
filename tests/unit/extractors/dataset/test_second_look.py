"""Tests of the traffic that a version on probation is judged by: traffic that it never saw."""

from collections.abc import Sequence
from datetime import timedelta

from extractors.dataset.holdout_split import find_common_prompts
from extractors.dataset.second_look import (
    KnownTraffic,
    build_fresh_snapshot,
    count_with_gold,
    select_fresh_items,
)
from extractors.dataset.snapshot import Snapshot, read_snapshot
from extractors.examples.types import Examples, ReviewedItem
from extractors.feedback.extract import Extraction
from tests.support.snapshots import BEGAN, make_conversation, make_example, make_item, make_snapshot

WATERMARK = BEGAN + timedelta(minutes=100)


def make_known_snapshot(tmp_path, **more: object) -> Snapshot:
    train = Examples(
        sft=(make_example(1, ("taught before", "billing")),),
        trajectories=(make_conversation(20, [("first turn", "billing"), ("second turn", "billing")]),),
    )
    folder = make_snapshot(tmp_path, train, holdout=[make_item(90, ("held out before", "billing"))])
    snapshot = read_snapshot(folder)
    manifest = snapshot.manifest.model_copy(update={"watermark": WATERMARK})
    return snapshot.model_copy(update={"manifest": manifest, **more})


def fresh(items: Sequence[ReviewedItem], snapshot: Snapshot, need: int = 100) -> list[str]:
    found = select_fresh_items(
        Extraction(items=tuple(items)), KnownTraffic.from_snapshot(snapshot), need=need, common_sessions=3
    )
    return [item.prompt[-1].content for item in found if isinstance(item, ReviewedItem)]


def test_only_newer_traffic_with_prompts_and_sessions_that_it_never_saw_counts(tmp_path) -> None:
    snapshot = make_known_snapshot(tmp_path)
    items = [
        make_item(99, ("older", "billing")),
        make_item(100, ("at the watermark", "billing")),
        make_item(101, ("new", "billing")),
        make_item(102, ("taught before", "billing")),
        make_item(103, ("second turn", "billing")),
        make_item(104, ("held out before", "billing")),
        make_item(105, ("another new", "shipping")),
    ]
    assert fresh(items, snapshot) == ["new", "another new"]
    known = make_item(106, ("new in a session it saw", "billing")).model_copy(update={"session_id": "s"})
    held_out = (make_item(91, ("before", "billing")).model_copy(update={"session_id": "s"}),)
    assert fresh([*items, known], make_known_snapshot(tmp_path, holdout=held_out)) == [
        "new",
        "held out before",
        "another new",
    ]


def test_the_oldest_items_are_taken_until_enough_have_gold(tmp_path) -> None:
    items = [
        make_item(101 + n, (f"new {n}", "billing"), outcome="rejected" if n % 2 else "corrected")
        for n in reversed(range(10))
    ]
    assert fresh(items, make_known_snapshot(tmp_path), need=3) == [
        "new 0",
        "new 1",
        "new 2",
        "new 3",
        "new 4",
    ]
    assert len(fresh(items, make_known_snapshot(tmp_path), need=6)) == 10


def test_what_repeats_counts_once_and_a_greeting_not_at_all(tmp_path) -> None:
    hello = [make_item(110 + n, ("hello", "billing")) for n in range(3)]
    twice = [make_item(120 + n, ("twice", "billing")) for n in range(2)]
    assert fresh([*hello, *twice], make_known_snapshot(tmp_path)) == ["twice"]
    # What is common was so before, too.
    earlier = make_item(50, ("twice", "billing"))
    assert fresh([earlier, *twice], make_known_snapshot(tmp_path)) == []


def test_neither_common_prompts_nor_those_it_knows_are_traffic_that_fresh_items_stand_for(tmp_path) -> None:
    hello = [make_item(110 + n, ("hello", "billing")) for n in range(3)]
    new = make_item(120, ("new", "billing"))
    extraction = Extraction(items=(*hello, new))
    common = find_common_prompts(extraction.items, 3)
    assert common == {hello[0].prompt_key}
    excluded = build_fresh_snapshot(
        [new], make_known_snapshot(tmp_path), WATERMARK, common=common
    ).manifest.excluded_prompts
    known = {make_example(1, (said, "billing")).prompt_key for said in ("taught before", "first turn")}
    assert known | common <= set(excluded)
    assert new.prompt_key not in excluded


def test_the_fresh_items_are_a_snapshot_to_judge_by_alone(tmp_path) -> None:
    older = (make_item(5, ("retained", "billing")),)
    trained_on = make_known_snapshot(tmp_path, retention=older)
    items = [make_item(101, ("new", "billing")), make_item(102, ("worse", "billing"), outcome="rejected")]
    made = build_fresh_snapshot(items, trained_on, WATERMARK)
    assert made.id not in {trained_on.id, build_fresh_snapshot(items[:1], trained_on, WATERMARK).id}
    assert (made.holdout, made.retention, made.train) == (tuple(items), older, Examples())
    assert (made.manifest.holdout, made.manifest.held_out.rejected, count_with_gold(items)) == (2, 1, 1)
