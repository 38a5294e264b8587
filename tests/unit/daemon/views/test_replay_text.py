"""What the base wrote itself, as people read of it: in a plan, and in a report."""

from pathlib import Path

from daemon.views.plan_text import describe_replay
from daemon.views.report_text import build_circumstances
from evaluation.report import GeneralAbility, SideAbility
from tests.support.runs import DPO, NOWHERE, SFT, Runs, make_held_out, make_report
from trainers.planning.plan import Plan, ReplayMix

PLAN = Plan(stages=(SFT, DPO), reason="enough", snapshot_id="s", base_model="tiny", base_digest="base1")
TITLE = "What the base model could do before"


def test_a_plan_says_what_is_mixed_in_or_why_nothing_is() -> None:
    mixed = SFT.model_copy(update={"replay": ReplayMix(examples=24, digest="d")})
    assert describe_replay(PLAN.model_copy(update={"stages": (mixed, DPO)})) == (
        "Mixed into SFT against forgetting: 24 examples that the base model wrote itself.",
    )
    assert describe_replay(PLAN.model_copy(update={"no_replay": "it writes nothing"})) == (
        "Nothing is mixed in against forgetting: it writes nothing.",
    )
    assert describe_replay(PLAN) == ()


def test_a_report_says_what_the_candidate_can_still_do_or_why_that_is_not_known(tmp_path: Path) -> None:
    snapshot = Runs(tmp_path, NOWHERE).snapshot(make_held_out(20))
    report = make_report(snapshot, "acme.routing.v2", right=15)
    assert TITLE not in {section.title for section in build_circumstances(report)}
    side = SideAbility(name="acme.routing.v2", divergence=0.25, agreement=0.75, same=12)
    general = GeneralAbility(items=64, tokens=6000, sides=(side,), change=-0.25, interval=(-0.3, -0.2))
    measured = report.model_copy(update={"general": general})
    [section] = [each for each in build_circumstances(measured) if each.title == TITLE]
    assert section.rows == (("acme.routing.v2 (candidate)", "0.250", "0.750", "12"),)
    assert "is -0.250 against what is live (95% interval -0.300 to -0.200)" in section.words[0]
    unknown = report.model_copy(update={"no_general": "it writes nothing"})
    [section] = [each for each in build_circumstances(unknown) if each.title == TITLE]
    assert section.words == ("Not measured: it writes nothing.",)
