"""From what the sides answered to the report: metrics that gate, guards, retention, a judge, two engines."""

import pytest

from evaluation.metrics.llm_judge import Preference, Preferences
from evaluation.metrics.measures import Overhead
from evaluation.metrics.scoring import build_scorer
from evaluation.report import GeneralAbility, Report, SideAbility
from evaluation.rules import Gate
from evaluation.score_side import RawAnswer, SideAnswers, score_answers, score_golden, score_side
from evaluation.verdict.findings import Findings
from evaluation.verdict.judge_findings import confirm_by_replica, judge_findings, map_sessions
from evaluation.weighting.weights import weigh
from extractors.examples.types import Message, ReviewedItem
from tests.support.snapshots import make_example, make_item
from trainers.planning.method_rules import Task

LABELS = ("billing", "shipping")
ROUTING = build_scorer("classification", LABELS, ())
WRITING = build_scorer("generation", (), ())
LIVE, CANDIDATE = "acme.routing.v1", "acme.routing.v2"


def make_routing_items(count: int) -> list[ReviewedItem]:
    return [make_item(number, (f"question {number}", LABELS[number % 2])) for number in range(count)]


def answers(
    items: list[ReviewedItem], wrong: set[int], *, says: str = "shipping please"
) -> tuple[RawAnswer, ...]:
    return tuple(
        RawAnswer(text=says if number in wrong else str(item.gold and item.gold.content), ended=True)
        for number, item in enumerate(items)
    )


def findings(
    items: list[ReviewedItem], live_wrong: set[int], candidate_wrong: set[int], **more: object
) -> Findings:
    by_side = {
        "base": answers(items, set(range(len(items)))),
        LIVE: answers(items, live_wrong),
        CANDIDATE: answers(items, candidate_wrong),
    }
    sides = tuple(
        score_side(name, items, SideAnswers(held_out=said), ROUTING) for name, said in by_side.items()
    )
    sessions = {item.id: item.session_id or item.id for item in items}
    return Findings(**{"sides": sides, "live": LIVE, "sessions": sessions, **more})


def judge(found: Findings, gate: Gate | None = None, task: Task = "classification") -> Report:
    return judge_findings(found, gate or Gate(), task, snapshot_id="s", held_out=len(found.sides[0].answers))


def test_a_better_candidate_is_compared_with_every_side_and_promoted() -> None:
    report = judge(findings(make_routing_items(100), set(range(30)), set(range(5))))
    assert (report.verdict, report.condition) == ("PROMOTE", "better")
    assert [(each.against, each.metric) for each in report.comparisons] == [
        ("base", "accuracy"),
        (LIVE, "accuracy"),
    ]
    assert (report.find_comparison(LIVE).gained, report.find_comparison(LIVE).lost) == (25, 0)
    assert [(guard.name, guard.state) for guard in report.guards] == [("valid answers", "kept")]


def test_more_invalid_answers_than_allowed_keep_a_better_one_out() -> None:
    items = make_routing_items(100)
    by_side = {
        LIVE: answers(items, set(range(0, 80, 2)), says="shipping"),
        CANDIDATE: answers(items, set(range(15)), says="no idea"),
    }
    sides = tuple(
        score_side(name, items, SideAnswers(held_out=said), ROUTING) for name, said in by_side.items()
    )
    found = Findings(sides=sides, live=LIVE, sessions={item.id: item.id for item in items})
    report = judge(found)
    assert (report.verdict, report.condition) == ("REJECT", "broken guard")
    words = "valid answers 85.0% against 100.0% of what is live (15 of 100 lost; between -2"
    assert report.reason.startswith(words)
    assert judge(found, Gate(valid_margin=0.3)).verdict == "PROMOTE"


@pytest.mark.parametrize(("count", "mended"), [(50, 20), (12, 11)])
@pytest.mark.parametrize("gate", [Gate(), Gate(rule="one-look")])
def test_where_no_valid_answer_was_lost_few_items_suffice(count: int, mended: int, gate: Gate) -> None:
    report = judge(findings(make_routing_items(count), set(range(mended)), set()), gate)
    assert (report.verdict, report.condition) == ("PROMOTE", "better"), report.reason
    assert report.guards[0].words.endswith("of what is live; none was lost")


def test_a_few_lost_valid_answers_leave_it_open_where_items_are_few() -> None:
    items = make_routing_items(50)
    sides = tuple(
        score_side(name, items, SideAnswers(held_out=said), ROUTING)
        for name, said in (
            (LIVE, answers(items, set(range(1, 40, 2)), says="billing")),
            (CANDIDATE, answers(items, {48}, says="no idea")),
        )
    )
    report = judge(Findings(sides=sides, live=LIVE, sessions={item.id: item.id for item in items}))
    assert (report.verdict, report.condition) == ("PROBATION", "open guard")
    assert "(1 of 50 lost; between" in report.reason


def write_findings(general: GeneralAbility | None, no_general: str = "") -> Findings:
    """A candidate that writes better, and what it can do beside that."""
    found = findings(make_routing_items(100), set(range(30)), set(range(5)))
    return found.model_copy(update={"general": general, "no_general": no_general})


def make_ability(low: float, change: float, high: float) -> GeneralAbility:
    sides = (
        SideAbility(name=LIVE, divergence=0.2, agreement=0.8, same=20),
        SideAbility(name=CANDIDATE, divergence=0.5, agreement=0.8 + change, same=9),
    )
    return GeneralAbility(items=64, tokens=6000, sides=sides, change=change, interval=(low, high))


@pytest.mark.parametrize(
    ("interval", "state", "verdict"),
    [
        ((-0.15, -0.1, -0.05), "kept", "PROMOTE"),
        ((-0.3, -0.2, -0.1), "open", "PROBATION"),
        ((-0.5, -0.4, -0.3), "broken", "REJECT"),
    ],
)
def test_general_ability_is_a_guard_where_a_margin_is_set(
    interval: tuple[float, float, float], state: str, verdict: str
) -> None:
    found = write_findings(make_ability(*interval))
    free = judge(found, task="generation")
    assert (free.verdict, free.general) == ("PROMOTE", found.general)
    assert "general ability" not in {guard.name for guard in free.guards}
    report = judge(found, Gate(general_margin=0.2), "generation")
    assert (report.guards[-1].name, report.guards[-1].state) == ("general ability", state)
    assert report.verdict == verdict
    assert f"{interval[1]:+.2f} against what is live" in report.guards[-1].words


def test_general_ability_that_could_not_be_measured_leaves_its_guard_open() -> None:
    report = judge(write_findings(None, "it wrote nothing"), Gate(general_margin=0.2), "generation")
    assert report.guards[-1].words == "general ability is not known: it wrote nothing"
    assert (report.verdict, report.condition) == ("PROBATION", "open guard")


def test_a_margin_for_general_ability_does_not_concern_a_classification() -> None:
    report = judge(write_findings(None), Gate(general_margin=0.2))
    assert "general ability" not in {guard.name for guard in report.guards}


@pytest.mark.parametrize(
    ("lower", "upper", "state", "verdict"),
    [(1.1, 1.5, "kept", "PROMOTE"), (2.5, 3.5, "open", "PROBATION"), (3.2, 3.5, "broken", "REJECT")],
)
def test_latency_is_a_guard(lower: float, upper: float, state: str, verdict: str) -> None:
    overhead = Overhead(against=LIVE, n=16, ratio=1.9, interval=(lower, upper), lower=lower, upper=upper)
    report = judge(findings(make_routing_items(100), set(range(30)), set(), overheads=(overhead,)))
    assert (report.guards[-1].state, report.verdict) == (state, verdict)
    assert "1.90 times as long as what is live" in report.guards[-1].words


def test_what_is_forgotten_on_the_retention_set_rejects() -> None:
    items, older = (
        make_routing_items(100),
        [make_item(n, (f"older {n}", LABELS[n % 2])) for n in range(500, 560)],
    )
    retention = tuple(
        score_answers(older, answers(older, wrong), ROUTING) for wrong in (set(), set(range(20)))
    )
    sessions = {item.id: item.id for item in (*items, *older)}
    report = judge(findings(items, set(range(30)), set(), retention=retention, sessions=sessions))
    assert (report.verdict, report.condition) == ("REJECT", "forgetting")
    assert report.retention is not None
    assert (report.retention.lost, report.retention.n) == (20, 60)
    assert report.retention.level == 0.025, "of two tests for something worse"
    assert report.find_comparison(LIVE).level == 0.2, "what is promising goes on"


def test_golden_cases_that_are_broken_are_listed() -> None:
    cases = [make_example(number, (f"golden {number}", LABELS[number % 2])) for number in range(4)]
    live = [RawAnswer(text=case.completion.content, ended=True) for case in cases[:3]]
    live.append(RawAnswer(text="dunno", ended=True))
    candidate = [RawAnswer(text="dunno", ended=True), *live[1:3], RawAnswer(text="dunno", ended=True)]
    golden = score_golden(cases, live, candidate, ROUTING)
    assert [(each.number, each.broken) for each in golden.failed] == [(1, True), (4, False)]
    report = judge(findings(make_routing_items(100), set(range(30)), set(), golden=golden))
    assert report.verdict == "REJECT"
    assert "it breaks 1 golden case of 4" in report.reason
    assert "'golden 0' is answered 'dunno', not 'billing'" in report.reason


def test_golden_cases_that_the_template_refuses_are_passed_by_nobody_and_listed() -> None:
    cases = [make_example(number, (f"golden {number}", LABELS[number % 2])) for number in range(3)]
    said = [RawAnswer(text=case.completion.content, ended=True) for case in cases]
    asked = [said[0], None, said[2]]
    golden = score_golden(cases, asked, [*asked[:2], RawAnswer(text="dunno", ended=True)], ROUTING)
    assert golden.cases == 3
    assert [(each.number, each.refused, each.broken) for each in golden.failed] == [
        (2, True, False),
        (3, False, True),
    ]
    report = judge(
        findings(
            make_routing_items(100), set(range(30)), set(), golden=score_golden(cases, asked, asked, ROUTING)
        )
    )
    assert (report.verdict, report.guards[0].words) == (
        "PROMOTE",
        "no golden case of 3 is broken; the chat template refuses to ask 1 of them",
    )


def test_a_waiting_version_is_replaced_only_by_a_better_one() -> None:
    items = make_routing_items(80)
    waiting = score_side(
        "acme.routing.v3", items, SideAnswers(held_out=answers(items, set(range(6)))), ROUTING
    )
    for wrong, verdict in ((6, "REJECT"), (5, "PROBATION")):
        found = findings(items, set(range(10)), set(range(wrong)))
        sides = (*found.sides[:2], waiting, found.sides[2])
        gate = Gate(at_once=1e-6)
        report = judge(found.model_copy(update={"sides": sides, "waiting": waiting.name}), gate)
        assert report.verdict == verdict, report.reason


def make_written_items(count: int) -> list[ReviewedItem]:
    return [
        make_item(number, (f"question {number}", f"Dear customer {number}, we refund you at once"))
        for number in range(count)
    ]


def test_texts_gate_by_nearness_and_a_judge_decides_where_it_is_asked_to() -> None:
    items = make_written_items(60)
    near = tuple(RawAnswer(text=f"Dear customer {n}, we refund you soon", ended=True) for n in range(60))
    far = tuple(RawAnswer(text="I do not know", ended=True) for _ in range(60))
    sides = tuple(
        score_side(name, items, SideAnswers(held_out=said), WRITING)
        for name, said in ((LIVE, far), (CANDIDATE, near))
    )
    sessions = {item.id: item.id for item in items}
    report = judge(Findings(sides=sides, live=LIVE, sessions=sessions), task="generation")
    assert report.verdict == "PROMOTE"
    assert [(each.metric, each.effect > 0.5) for each in report.comparisons] == [
        ("token_f1", True),
        ("accuracy", False),
    ]
    assert report.candidate.measures["bleu"] > report.find_side(LIVE).measures["bleu"]

    preferences = Preferences(
        model="judge", of_pairs=(-1,) * 50 + (0,) * 10, asked=60, contradicted=0.1, unread=0, calls=120
    )
    found = Findings(sides=sides, live=LIVE, sessions=sessions, preferences=preferences)
    shown = judge(found, task="generation")
    assert shown.verdict == "PROMOTE", "a judge that is not asked to decide is only reported"
    assert shown.comparisons[-1].metric == "judge"
    asked = judge(found, Gate(metrics=("token_f1", "judge")), task="generation")
    assert (asked.verdict, asked.condition) == ("REJECT", "regression")


def writing(items: list[ReviewedItem], words: int) -> tuple[RawAnswer, ...]:
    """The gold answers with so many of their eight words, and as many others."""
    golds = [str(item.gold and item.gold.content).split() for item in items]
    return tuple(RawAnswer(text=" ".join([*gold[:words], *"abcdefgh"[words:]]), ended=True) for gold in golds)


def texts(
    items: list[ReviewedItem],
    words: dict[str, int],
    *,
    retained: tuple[int, int] | None = None,
    **more: object,
) -> Findings:
    """Sides whose answers have so many of the words that are gold; none is exactly gold."""
    sides = tuple(
        score_side(name, items, SideAnswers(held_out=writing(items, count)), WRITING)
        for name, count in words.items()
    )
    older = make_written_items(30)
    retention = retained and tuple(score_answers(older, writing(older, count), WRITING) for count in retained)
    sessions = {item.id: item.id for item in (*items, *older)}
    return Findings(**{"sides": sides, "live": LIVE, "sessions": sessions, "retention": retention, **more})


def test_of_texts_that_are_never_exactly_gold_the_nearer_one_wins() -> None:
    items = make_written_items(60)
    waiting = {"base": 0, LIVE: 1, "waiting": 3, CANDIDATE: 6}
    report = judge(texts(items, waiting), task="generation")
    assert (report.verdict, report.condition) == ("PROMOTE", "better"), report.reason
    assert {side.accuracy for side in report.sides} == {0}
    doubtful = Gate(at_once=1e-30)
    report = judge(texts(items, waiting, waiting="waiting"), doubtful, task="generation")
    assert report.verdict == "PROBATION", "it is nearer than the one that waits, too"
    assert report.find_comparison("waiting").effect == pytest.approx(3 / 8, abs=0.01)
    worse = waiting | {"waiting": 7}
    report = judge(texts(items, worse, waiting="waiting"), doubtful, task="generation")
    assert report.condition == "another is on probation"


def test_older_texts_are_forgotten_where_they_are_further_from_gold() -> None:
    sides = {"base": 0, LIVE: 1, CANDIDATE: 6}
    report = judge(texts(make_written_items(60), sides, retained=(7, 1)), task="generation")
    assert (report.verdict, report.condition) == ("REJECT", "forgetting")
    assert "it forgets: token_f1 -0.7" in report.reason
    assert report.retention is not None
    assert report.retention.metric == "token_f1"


@pytest.mark.parametrize(("count", "words"), [(1, 2), (3, 1), (8, 1)])
def test_a_few_texts_that_come_as_near_to_gold_are_too_few_to_tell(count: int, words: int) -> None:
    report = judge(texts(make_written_items(count), {LIVE: 1, CANDIDATE: words}), task="generation")
    assert (report.verdict, report.condition) == ("INCONCLUSIVE", "too few items"), report.reason


def test_many_texts_that_come_as_near_to_gold_are_no_better() -> None:
    report = judge(texts(make_written_items(120), {LIVE: 1, CANDIDATE: 1}), task="generation")
    assert (report.verdict, report.condition) == ("REJECT", "not better")


def test_an_agent_that_calls_tools_is_judged_by_whether_the_calls_are_right() -> None:
    call = Message.model_validate({"role": "assistant", "tool_calls": [CALL]})
    items = [item.model_copy(update={"gold": call}) for item in make_written_items(80)]
    right, wrong = (
        RawAnswer(text='{"name": "track", "arguments": {}}', ended=True),
        RawAnswer(text="hm", ended=True),
    )
    sides = tuple(
        score_side(name, items, SideAnswers(held_out=(right,) * count + (wrong,) * (80 - count)), WRITING)
        for name, count in ((LIVE, 20), (CANDIDATE, 60))
    )
    report = judge(
        Findings(sides=sides, live=LIVE, sessions={item.id: item.id for item in items}), task="generation"
    )
    assert report.verdict == "PROMOTE"
    assert (report.find_comparison(LIVE).metric, report.find_comparison(LIVE).effect) == ("token_f1", 0.5)
    assert report.candidate.average("token_f1") == 0.75


def test_turns_of_a_conversation_count_together() -> None:
    items = [
        item.model_copy(update={"session_id": f"session {number // 10}"})
        for number, item in enumerate(make_routing_items(100))
    ]
    report = judge(findings(items, set(range(30)), set()))
    assert report.find_comparison(LIVE).effective_n == 10
    assert report.find_comparison(LIVE).p_value == pytest.approx(2**-3)
    assert report.verdict == "PROBATION"
    assert "on 100 items (worth 10 independent ones)" in report.reason


def test_what_was_asked_in_one_trace_counts_together_where_there_are_no_sessions() -> None:
    items = [
        item.model_copy(update={"trace_id": f"trace {number // 10}"})
        for number, item in enumerate(make_routing_items(100))
    ]
    report = judge(findings(items, set(range(30)), set(), sessions=map_sessions(items)))
    assert report.find_comparison(LIVE).effective_n == 10


def test_without_gold_nobody_can_be_judged() -> None:
    items = [make_item(number, (f"question {number}", "billing"), outcome="rejected") for number in range(90)]
    report = judge(findings(items, set(), set()))
    assert (report.verdict, report.condition) == ("INCONCLUSIVE", "unfair holdout")
    assert "no held-out item has gold" in report.reason


def test_two_engines_must_lead_to_the_same_verdict() -> None:
    items = make_routing_items(100)
    report = judge(findings(items, set(range(30)), set()))
    agreeing = confirm_by_replica(report, findings(items, set(range(30)), {7}), "classification")
    assert (agreeing.verdict, agreeing.served and agreeing.served.agreement) == ("PROMOTE", 0.99)
    denying = confirm_by_replica(report, findings(items, set(range(30)), set(range(30))), "classification")
    assert (denying.verdict, denying.condition) == ("INCONCLUSIVE", "engines disagree")
    assert "the engines do not agree: PROMOTE by transformers" in denying.reason


def test_a_tool_call_is_right_or_wrong_and_no_text_to_come_near_to() -> None:
    item = make_item(1, ("where is it", "x")).model_copy(
        update={"gold": Message.model_validate({"role": "assistant", "tool_calls": [CALL]})}
    )
    side = score_side("base", [item], SideAnswers(held_out=(RawAnswer(text="hm", ended=True),)), WRITING)
    assert (side.accuracy, side.answers[0].scores) == (0.0, {})


CALL = {"name": "track", "arguments": "{}"}


def test_a_judge_that_cannot_be_asked_decides_nothing_and_loses_nothing() -> None:
    found = findings(make_routing_items(100), set(range(30)), set(), no_judge="it does not answer")
    assert judge(found).verdict == "PROMOTE"
    writing = judge(found, Gate(metrics=("accuracy", "judge")), task="generation")
    assert (writing.verdict, writing.reason) == (
        "INCONCLUSIVE",
        "without the judge nothing is decided: it does not answer",
    )


def preferring(of_pairs: tuple[Preference, ...], *, unread: int = 0) -> Preferences:
    asked = len(of_pairs)
    return Preferences(
        model="judge-1", of_pairs=of_pairs, asked=asked, contradicted=0, unread=unread, calls=2 * asked
    )


@pytest.mark.parametrize("metrics", [("judge",), ("accuracy", "judge")])
def test_a_judge_of_whom_nothing_can_be_read_is_none(metrics: tuple[str, ...]) -> None:
    found = findings(
        make_routing_items(100), set(range(30)), set(), preferences=preferring((0,) * 100, unread=100)
    )
    writing = judge(found, Gate(metrics=metrics), task="generation")
    assert (writing.verdict, writing.preferences) == ("INCONCLUSIVE", None)
    assert writing.no_judge == "judge-1 named no preference between any of 100 pairs of answers"
    assert judge(found).verdict == "PROMOTE", "where it does not gate it does not matter"
    some = found.model_copy(update={"preferences": preferring((1,) * 100, unread=99)})
    assert judge(some, Gate(metrics=("judge",)), task="generation").verdict == "PROMOTE"


def test_a_judge_that_stands_first_decides() -> None:
    found = findings(make_routing_items(100), set(range(30)), set(), preferences=preferring((0,) * 100))
    report = judge(found, Gate(metrics=("judge", "accuracy")), task="generation")
    assert report.verdict == "REJECT"
    assert report.reason.startswith("not better than what is live: judge +0.000")


def test_rejected_items_do_not_count_twice_where_corrected_ones_stand_for_them() -> None:
    items = [
        make_item(n, (f"question {n}", LABELS[n % 2]), outcome="rejected" if n < 40 else "corrected")
        for n in range(80)
    ]
    weights = {item.id: 1.0 for item in items if item.gold}
    found = findings(
        items,
        set(),
        set(),
        preferences=preferring((-1,) * 40 + (1,) * 40),
        weighting=weigh(items).model_copy(update={"weights": weights}),
    )
    report = judge(found, Gate(metrics=("accuracy", "judge")), task="generation")
    by_judge = report.find_comparison(LIVE, "judge")
    assert (by_judge.n, by_judge.effect) == (40, 1)
    everything = judge(found.model_copy(update={"weighting": None}), Gate(), task="generation")
    assert (
        everything.find_comparison(LIVE, "judge").n,
        everything.find_comparison(LIVE, "judge").effect,
    ) == (80, 0)


def test_of_searches_none_is_left_out_by_a_template() -> None:
    found = findings(make_routing_items(40), set(range(30)), set())
    for task, left_out in (("classification", 5), ("embedding", 0)):
        report = judge_findings(found, Gate(metrics=("accuracy",)), task, snapshot_id="s", held_out=45)
        assert report.unanswerable == left_out
