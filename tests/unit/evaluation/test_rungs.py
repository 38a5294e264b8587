"""Who enters a race, who goes on, and how often contenders that are no better displace the default."""

import random

import pytest

from evaluation.race.rungs import (
    compare,
    count_entrants,
    find_level,
    pick_better,
    plan_rungs,
    share_time,
)

ITEMS = 60
RACES = 500


@pytest.mark.parametrize(
    ("challengers", "rungs"), [(1, [1, 1]), (2, [2, 1]), (3, [3, 2, 1]), (5, [5, 3, 2, 1]), (8, [8, 4, 2, 1])]
)
def test_half_of_the_challengers_go_on_from_each_rung(challengers: int, rungs: list[int]) -> None:
    assert plan_rungs(challengers) == rungs


def test_every_rung_has_the_same_time() -> None:
    rungs, left = plan_rungs(4), 90.0
    while rungs:
        each = share_time(rungs, answers=0.0, left=left)
        assert each * rungs[0] == pytest.approx(30.0)
        left -= each * rungs[0]
        rungs = rungs[1:]
    assert left == pytest.approx(0.0)


def test_answers_take_their_part_of_the_time() -> None:
    assert share_time([2, 1], answers=5.0, left=85.0) == pytest.approx((85 - 15) / 2 / 2)


def test_only_as_many_enter_as_there_is_time_for() -> None:
    def count(left: float) -> int:
        return count_entrants(4, default=100.0, answers=2.0, left=left)

    assert count(90) == 4
    assert count(85) == 3
    assert count(30) == 1
    assert count(10) == 0
    assert count_entrants(0, default=100.0, answers=2.0, left=85.0) == 0


def test_of_equal_scores_the_first_are_the_better_ones() -> None:
    assert pick_better({"a": 0.5, "b": 0.6, "c": 0.5}, 2) == ["b", "a"]


def test_of_equal_contenders_the_default_stays_in_four_of_five_races() -> None:
    draw = random.Random(0)
    for challengers in (1, 3):
        stays = sum(_simulate(draw, challengers) for _ in range(RACES))
        assert stays >= 0.8 * RACES


def _simulate(draw: random.Random, challengers: int) -> bool:
    """Race equal contenders, each right on 70% of the items, and return whether the default stays."""

    def answer() -> list[float]:
        return [float(draw.random() < 0.7) for _ in range(ITEMS)]

    first = {str(number): answer() for number in range(challengers)}
    [best] = pick_better({name: sum(values) for name, values in first.items()}, 1)
    # Half of its answers have changed at the end of its training.
    last = [old if draw.random() < 0.5 else new for old, new in zip(first[best], answer(), strict=True)]
    gain = compare(last, answer(), range(ITEMS), "accuracy")
    return gain.p_better > find_level(challengers)


def test_a_much_better_challenger_displaces_the_default() -> None:
    better, default = [1.0] * 50 + [0.0] * 10, [1.0] * 35 + [0.0] * 25
    assert compare(better, default, range(ITEMS), "accuracy").p_better <= find_level(4)


def test_items_of_one_session_count_once() -> None:
    better, default = [1.0] * 60, [0.0] * 60
    assert compare(better, default, ["one"] * 60, "accuracy").p_better == 0.5
