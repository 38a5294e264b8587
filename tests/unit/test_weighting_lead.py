"""What a held-out item counts for: as in its traffic, and for those that lack a correction."""

from random import Random

import pytest

from evaluation.weighting import GREATEST, weigh
from extractors.examples import Outcome, ReviewedItem
from extractors.traffic import TrafficCall
from tests.snapshots import reviewed

KINDS = {
    "billing": "invoice {} charges my credit card twice, I want the refund now",
    "shipping": "where is parcel {}, the courier was to bring it yesterday",
}


def text(number: int, kind: str) -> str:
    """Numbers look alike wherever they stand: else they would tell items from calls."""
    return KINDS[kind].format(Random(number).randrange(10_000, 100_000))


def item(number: int, kind: str, outcome: Outcome = "corrected", by: str | None = None) -> ReviewedItem:
    made = reviewed(number, (text(number, kind), kind), outcome=outcome)
    return made.model_copy(update={"answered_by": by})


def call(number: int, kind: str) -> TrafficCall:
    return TrafficCall(
        span_id=f"{number:016x}",
        trace_id=f"{number:032x}",
        text=text(number, kind),
        prompt_key=f"call {number}",
    )


def traffic(count: int = 600) -> list[TrafficCall]:
    """Half of each kind."""
    return [call(10_000 + number, ("billing", "shipping")[number % 2]) for number in range(count)]


@pytest.mark.parametrize("seed", range(5))
def test_reviewers_who_do_not_pick_leave_every_item_its_own_weight(seed: int) -> None:
    random = Random(seed)
    items = [item(number, random.choice(list(KINDS))) for number in range(100)]
    found = weigh(items, traffic())
    assert not found.selected
    assert set(found.weights.values()) == {1.0}
    assert found.effective_n == pytest.approx(100)


def test_what_reviewers_picked_is_weighted_back_to_the_traffic() -> None:
    # Nine of ten reviewed calls are about billing, where half of the traffic is.
    items = [item(number, "shipping" if number % 10 == 0 else "billing") for number in range(100)]
    found = weigh(items, traffic())
    assert found.selected
    assert found.p_value is not None
    assert found.p_value < 0.01
    shipping = sum(found.weights[each.id] for number, each in enumerate(items) if number % 10 == 0)
    assert shipping / sum(found.weights.values()) == pytest.approx(0.5, abs=0.06)
    assert found.effective_n < 60
    assert "Reviewers picked what to review" in found.words
    # A side that is right about shipping alone is right on half of the traffic, not on a tenth.
    assert sum(found.weights.values()) == pytest.approx(100)


def test_those_corrected_stand_for_those_rejected_and_not_corrected() -> None:
    outcomes: list[Outcome] = ["approved"] * 60 + ["corrected"] * 10 + ["rejected"] * 30
    items = [item(number, "billing", outcome) for number, outcome in enumerate(outcomes)]
    found = weigh(items)
    assert len(found.weights) == 70, "what was rejected without a correction has no gold"
    corrected = sum(found.weights[each.id] for each in items if each.outcome == "corrected")
    assert corrected / sum(found.weights.values()) == pytest.approx(0.4)
    assert sum(found.weights.values()) == pytest.approx(70)
    assert found.p_value is None
    assert not found.unfair


def test_no_item_counts_for_more_than_ten() -> None:
    outcomes: list[Outcome] = ["approved"] * 20 + ["corrected"] + ["rejected"] * 79
    found = weigh([item(number, "billing", outcome) for number, outcome in enumerate(outcomes)])
    assert max(found.weights.values()) == pytest.approx(GREATEST)
    assert found.capped == 1
    assert "count for 10" in found.words


def test_where_nothing_was_corrected_the_holdout_can_judge_nobody() -> None:
    outcomes: list[Outcome] = ["approved"] * 60 + ["rejected"]
    found = weigh([item(number, "billing", outcome) for number, outcome in enumerate(outcomes)])
    assert found.unfair.startswith("1 held-out answers were rejected and none was corrected")


def test_what_the_live_version_answered_is_flagged() -> None:
    items = [item(number, "billing", by="v2" if number < 3 else "v1") for number in range(30)]
    assert weigh(items, live="v2").by_live == tuple(each.id for each in items[:3])


def test_calls_that_could_not_be_held_out_are_not_compared_with() -> None:
    items = [item(number, "billing") for number in range(60)]
    shipping = [call(20_000 + number, "shipping") for number in range(500)]
    billing = [call(30_000 + number, "billing") for number in range(300)]
    excluded = [each.prompt_key for each in shipping]
    assert weigh(items, [*shipping, *billing]).selected
    assert not weigh(items, [*shipping, *billing], excluded_prompts=excluded).selected


def test_an_empty_holdout_weighs_nothing() -> None:
    found = weigh([], traffic(10))
    assert (found.weights, found.effective_n, found.selected) == ({}, 0.0, False)
