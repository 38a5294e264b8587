"""The validation side as items to answer: one a prompt, with the best answer that people know."""

from pathlib import Path

from evaluation.validation_side import (
    can_validate,
    count_sessions,
    find_learned_prompts,
    hold_out_validation,
)
from extractors.dataset.holdout_split import find_group
from extractors.dataset.learned_traffic import LearnedTraffic
from extractors.dataset.snapshot import read_snapshot
from extractors.examples.types import Examples
from tests.support.searches import make_search_snapshot
from tests.support.snapshots import (
    make_conversation,
    make_example,
    make_item,
    make_pair,
    make_snapshot,
    make_vote,
)

ASKED = ("where is my parcel", "shipping")


def list_golds(folder: Path, validation: Examples) -> list[str]:
    snapshot = make_snapshot(folder, Examples(), validation, [make_item(99, ("held out", "billing"))])
    items = hold_out_validation(read_snapshot(snapshot)).holdout
    return [item.gold.content for item in items if item.gold]


def test_a_prompt_is_asked_once_with_what_people_approved(tmp_path: Path) -> None:
    both = Examples(sft=(make_example(1, ASKED),), pairs=(make_pair(1, ASKED, "billing"),))
    assert list_golds(tmp_path, both) == ["shipping"]


def test_an_answer_that_people_liked_less_than_another_is_not_gold(tmp_path: Path) -> None:
    approved = make_example(1, (ASKED[0], "billing"))
    preferred = make_pair(1, ASKED, "billing")
    assert list_golds(tmp_path, Examples(sft=(approved,), pairs=(preferred,))) == ["shipping"]


def test_liked_answers_and_last_turns_are_gold_where_there_is_nothing_better(tmp_path: Path) -> None:
    votes = (
        make_vote(1, ASKED, "billing", desirable=True),
        make_vote(2, ("another", "shipping"), "billing", desirable=False),
    )
    conversation = make_conversation(5, [("first", "billing"), ("last", "shipping")])
    assert list_golds(tmp_path, Examples(votes=votes, trajectories=(conversation,))) == ["shipping"] * 2


def test_the_holdout_has_no_say(tmp_path: Path) -> None:
    assert list_golds(tmp_path, Examples()) == []
    empty = read_snapshot(make_snapshot(tmp_path, Examples(), None, [make_item(1, ASKED)]))
    assert not can_validate(empty)


def test_only_sessions_count_whose_answers_can_be_scored(tmp_path: Path) -> None:
    votes = [make_vote(n, (f"question {n}", "billing"), "shipping", desirable=n < 3) for n in range(8)]
    of_sessions = tuple(vote.model_copy(update={"session_id": f"s{n}"}) for n, vote in enumerate(votes))
    again = make_example(9, ("another question", "billing")).model_copy(update={"session_id": "s0"})
    validation = Examples(sft=(again,), votes=of_sessions)
    assert count_sessions(read_snapshot(make_snapshot(tmp_path, Examples(), validation))) == 3


def test_what_a_version_was_trained_on_can_be_left_out_prompt_by_prompt_and_session_by_session(
    tmp_path: Path,
) -> None:
    asked = [
        make_example(n, (f"question {n}", "billing")).model_copy(update={"session_id": f"s{n}"})
        for n in range(4)
    ]
    repeated = asked[0].model_copy(update={"session_id": "another"})
    same_session = make_pair(9, ("another question", "billing"), "shipping").model_copy(
        update={"session_id": "s1"}
    )
    learned = LearnedTraffic.from_examples([Examples(sft=(repeated,)), Examples(pairs=(same_session,))])
    snapshot = read_snapshot(make_snapshot(tmp_path, Examples(), Examples(sft=tuple(asked))))
    left_out = find_learned_prompts(snapshot, learned)
    assert left_out == {asked[0].prompt_key, asked[1].prompt_key}
    assert [item.session_id for item in hold_out_validation(snapshot, left_out).holdout] == ["s2", "s3"]
    assert count_sessions(snapshot, left_out) == 2


def test_calls_of_one_trace_count_once_where_there_is_no_session(tmp_path: Path) -> None:
    items = [
        make_item(n, (f"question {n}", "billing")).model_copy(update={"session_id": None}) for n in range(4)
    ]
    asked = tuple(item.model_copy(update={"trace_id": f"t{n // 2}"}) for n, item in enumerate(items))
    validation = Examples(sft=tuple(item.to_example() for item in asked))
    snapshot = read_snapshot(make_snapshot(tmp_path, Examples(), validation))
    assert [find_group(item) for item in hold_out_validation(snapshot).holdout] == list(
        map(find_group, asked)
    )
    assert count_sessions(snapshot) == 2


def test_triplets_become_searches(tmp_path: Path) -> None:
    searched = [("query", "good", "bad"), ("query", "good", "worse"), ("other", "best", "bad")]
    snapshot = read_snapshot(make_search_snapshot(tmp_path, [], searched, []))
    one, two = hold_out_validation(snapshot).retrievals
    found = {(document.text, document.relevant) for document in one.documents}
    assert found == {("good", True), ("bad", False), ("worse", False)}
    assert two.query == "other"
