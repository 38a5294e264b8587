"""A race as people read it: before it is run, and after."""

from daemon.views.plan_text import build_planned_race
from daemon.views.report_text import build_race
from tests.support.runs import DPO, FROM_LIVE, FROM_PAIRS, ON_TOP, SFT, make_race
from trainers.planning.plan import Contender, Plan

ALONE = Plan(
    name="sft", stages=(SFT,), reason="sft: enough", snapshot_id="s", base_model="tiny", base_digest="base1"
)


def test_every_contender_is_shown_with_its_scores_its_cost_and_why_it_left() -> None:
    found = build_race(make_race())
    assert found.words == (
        f"{ON_TOP} won. 3 challenged sft, which stays unless one is better at p ≤ 0.067: by accuracy, on 48 "
        "validation items of 44 sessions. The race took 2 min, 1.75 times the 80 s that the default alone "
        "takes; at most 1.85 times was allowed.",
    )
    assert found.columns == (
        "contender",
        "steps",
        "time",
        "accuracy, first rung",
        "accuracy, at the end",
        "effect",
        "p",
        "why it left",
    )
    behind = f"behind {ON_TOP} at the first rung: accuracy 0.438 against 0.750"
    left = "did not enter: there is no time left for it (race_cost = 1.85, no limit)"
    assert found.rows == (
        ("sft", "30", "80 s", "–", "0.750", "–", "–", f"beaten by {ON_TOP}"),
        (FROM_LIVE, "3", "14 s", "0.438", "–", "–", "–", behind),
        (ON_TOP, "12", "46 s", "0.750", "0.875", "+0.125", "0.031", "it won"),
        (FROM_PAIRS, "–", "–", "–", "–", "–", "–", left),
    )


def test_a_plan_shows_its_challengers_with_reasons_and_the_bound_of_the_cost() -> None:
    challengers = (
        Contender(name=ON_TOP, stages=(SFT, DPO), reason=f"{ON_TOP}: 40 pairs"),
        Contender(name=FROM_LIVE, stages=(SFT,), start_version="acme.routing.v1", reason=f"{FROM_LIVE}: ok"),
    )
    found = build_planned_race(ALONE.model_copy(update={"challengers": challengers, "race_cost": 1.85}))
    assert found is not None
    assert found.words == (
        "2 other ways to train have to beat sft, which is taken unless one of them is better. All together "
        "take at most 1.85 times the time of sft alone.",
    )
    assert found.rows == (
        ("1", ON_TOP, "the base model", "40 pairs"),
        ("2", FROM_LIVE, "acme.routing.v1", "ok"),
    )


def test_a_plan_without_a_race_says_why_and_one_that_won_a_race_says_nothing() -> None:
    off = build_planned_race(ALONE.model_copy(update={"no_race": "`race` is off"}))
    assert off is not None
    assert off.words == ("None: `race` is off.",)
    assert off.rows == ()
    assert build_planned_race(ALONE) is None
