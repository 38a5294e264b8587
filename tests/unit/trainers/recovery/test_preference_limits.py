"""When a training on preferences has nothing left to teach, and when it costs the chosen answers."""

import pytest

from trainers.planning.hyperparameters import Hyperparameters
from trainers.recovery.preference_limits import IN_A_ROW, PreferenceWatch, measure_chosen_tokens


def make_watch(chosen_tokens: float = 4.0, **hyperparameters: object) -> PreferenceWatch:
    return PreferenceWatch(Hyperparameters.model_validate(hyperparameters), chosen_tokens)


def test_pairs_that_are_all_told_apart_by_far_have_nothing_left_to_teach() -> None:
    watch = make_watch()
    found = [watch.find_settled(1.0, 4.0) for _ in range(IN_A_ROW)]
    assert found[:-1] == [None] * (IN_A_ROW - 1)
    assert found[-1] is not None
    assert "nothing left to teach" in found[-1]


def test_a_small_margin_or_one_wrong_pair_has_something_to_teach() -> None:
    narrow, wrong = make_watch(), make_watch()
    assert not any(narrow.find_settled(1.0, 1.0) for _ in range(50))
    assert not any(wrong.find_settled(1.0 if step % IN_A_ROW else 0.9, 9.0) for step in range(50))


def test_margins_of_the_length_normalised_loss_count_by_token() -> None:
    watch = make_watch(chosen_tokens=4.0, dpo_loss="sigmoid_norm")
    assert not any(watch.find_settled(1.0, 4.0) for _ in range(50))
    assert any(watch.find_settled(1.0, 16.0) for _ in range(50))


def test_votes_that_are_all_far_on_their_side_have_nothing_left_to_teach() -> None:
    watch = make_watch()
    found = [watch.find_settled_votes(0.04, 8) for _ in range(IN_A_ROW)]
    assert found[:-1] == [None] * (IN_A_ROW - 1)
    assert found[-1] is not None
    assert "nothing left to teach" in found[-1]


def test_votes_near_the_reference_point_or_one_on_the_wrong_side_have_something_to_teach() -> None:
    near, wrong = make_watch(), make_watch()
    assert not any(near.find_settled_votes(0.2, 2) for _ in range(50))
    # All others have no loss at all.
    assert not any(wrong.find_settled_votes(0.0 if step % IN_A_ROW else 0.5 / 32, 32) for step in range(50))


@pytest.mark.parametrize(("reward", "falls"), [(0.5, False), (-0.1, False), (-0.19, False), (-0.21, True)])
def test_a_fall_is_measured_in_nats_a_token_of_the_chosen_answers(reward: float, falls: bool) -> None:
    assert (make_watch(chosen_tokens=4.0, beta=0.1).find_fall(reward) is not None) == falls


def test_one_bad_batch_is_no_fall() -> None:
    watch = make_watch()
    rewards = [0.0] * 9 + [-1.0] + [0.0] * 20
    assert not any(watch.find_fall_in_steps(reward) for reward in rewards)
    assert any(watch.find_fall_in_steps(-0.3) for _ in range(IN_A_ROW))


def test_only_answers_that_people_chose_or_liked_are_measured() -> None:
    assert measure_chosen_tokens([{"chosen_ids": [1, 2], "rejected_ids": [1]}]) == 2
    votes = [{"completion_ids": [1], "label": True}, {"completion_ids": [1] * 9, "label": False}]
    assert measure_chosen_tokens(votes) == 1
    assert measure_chosen_tokens(votes[1:]) == 1
