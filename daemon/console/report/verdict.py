"""Why a candidate was promoted or was not: what was compared, what must not get worse, golden cases."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nicegui import ui

from daemon.console.base.charts import interval_chart
from daemon.console.base.page_session import Console
from daemon.console.base.widgets import Link, Tagged, Tone, chip, facts, outward, section, table, text
from daemon.console.report.answers import answer_line
from daemon.console.report.measures import changed, is_weighed, measured, named
from daemon.views.experiments import compare_url, in_phoenix
from daemon.views.report_text import chance, titled
from daemon.views.status import waits_for
from evaluation.report import Comparison, Condition, Golden, GoldenAnswer, Guard, Report
from evaluation.rules import JUDGE
from evaluation.verdict.paired_tests import holm
from registry.cycles import Cycle
from registry.versions import Version

GOLDEN = 20
"""Golden cases that are shown."""
CONDITIONS: dict[Condition, str] = {
    "unfair holdout": "The held-out traffic cannot judge anybody fairly.",
    "regression": "Worse than what was live.",
    "forgetting": "It forgets what older traffic asks for.",
    "broken guard": "Something got worse that must not.",
    "better": "Better than what was live, and nothing got worse.",
    "open guard": "Better than what was live; that nothing got worse is not shown.",
    "promising": "Promising, and not proven yet.",
    "another is on probation": "Promising, but no better than the version on probation.",
    "nothing to improve": "What was live made no mistake that could be mended.",
    "too few items": "Too few held-out items to tell.",
    "not better": "Not better than what was live.",
    "engines disagree": "The evaluation and a replica come to different verdicts.",
    "no replica": "Better by the evaluation, and no replica could be asked to confirm it.",
}
SMALLEST = "smallest change that would show"
LOOKS: dict[str, tuple[str, Tone]] = {"kept": ("check_circle", "good"), "open": ("help", "warn")}
"""Icon and tone of a guard's state; a broken one has the others."""


@dataclass(frozen=True)
class Judged:
    """A cycle that was evaluated, and what else is known of its candidate."""

    cycle: Cycle
    report: Report
    candidate: Version | None
    """As it is now."""
    looks: Sequence[Cycle]
    """All cycles that judged it, oldest first."""
    waits: str
    """What it waits for, if it is on probation."""

    @classmethod
    def read(cls, console: Console, cycle: Cycle) -> "Judged | None":
        """None where the cycle has no report. Takes a moment."""
        if cycle.report is None:
            return None
        looks = console.store.looks_at(cycle.version_id) if cycle.version_id else [cycle]
        candidate = console.store.version(cycle.version_id) if cycle.version_id else None
        entry = next((each for each in console.entries.of() if each["target"] == cycle.target), None)
        waits = waits_for(entry) if entry and candidate and _waits(entry, candidate) else ""
        return cls(cycle, cycle.report, candidate, looks, waits)

    @property
    def first(self) -> Report:
        """The report of the candidate's first look."""
        return next((look.report for look in self.looks if look.report), self.report)


def verdict_section(judged: Judged, console: Console) -> None:
    """What decided, and the comparisons that it rests on."""
    report = judged.report
    with section("Verdict", _compared_on(report)):
        text(CONDITIONS[report.condition], "lead")
        if report.reason not in judged.cycle.reason:
            text(report.reason)
        facts(dict(_about(judged)))
        drawn = {named(each.metric, report): each for each in _decisive(report)}
        if report.retention:
            drawn["on older traffic"] = report.retention
        interval_chart(
            {name: (each.interval[0], each.effect, each.interval[1]) for name, each in drawn.items()},
            report.gate.min_effect,
            "Changes against what is live with their 95% intervals; numbers below",
        )
        _comparisons(report)
        if url := compare_url(judged.cycle, console.settings.phoenix):
            outward("Compare all answers in Phoenix", url)
        else:
            text(f"In Phoenix: {in_phoenix(judged.cycle, console.settings.phoenix)}", "muted")


def _waits(entry: Mapping[str, Any], candidate: Version) -> bool:
    return entry["probation"] is not None and entry["probation"]["version"] == candidate.id


def _compared_on(report: Report) -> str:
    found = report.against(report.live)
    worth = round(found.effective_n)
    items = f"{found.n} held-out items with a known answer"
    items += f", which tell as much as {worth} independent ones" if worth < found.n else ""
    return f"{items}; compared with {report.live}, which was live."


def _about(judged: Judged) -> Iterator[tuple[str, Any]]:
    """Which look this is, and where the others are."""
    report, here = judged.report, judged.cycle.id
    yield "Look", "second, on traffic newer than its training" if report.look == "second" else "first"
    for look in judged.looks:
        if look.id != here:
            which = "First look" if look.plan else "Second look"
            yield which, Link(f"{look.verdict or look.state} in cycle {look.id}", f"/experiments/{look.id}")
    if judged.candidate:
        yield "Its version now", Link(f"{judged.candidate.id} is {judged.candidate.state}", "/adapters")
    yield "It waits for", judged.waits


def _decisive(report: Report) -> list[Comparison]:
    """By the metrics that gate, with what is live."""
    return [
        each
        for each in report.comparisons
        if each.against == report.live and (each.metric != JUDGE or JUDGE in report.gate.metrics)
    ]


def _comparisons(report: Report) -> None:
    decisive = _decisive(report)
    adjusted = dict(zip([each.metric for each in decisive], holm([e.p_value for e in decisive]), strict=True))
    others = [each for each in report.comparisons if each not in decisive]
    rows = [_comparison(report, each, adjusted if len(decisive) > 1 else {}) for each in decisive]
    rows += [_comparison(report, each, {}) for each in others]
    if report.retention:
        older = {"against": f"{titled(report, report.live)}, on older traffic"}
        rows.append(_comparison(report, report.retention, {}) | older)
    columns = [name for name in rows[0] if any(row[name] is not None for row in rows)]
    table("The candidate against the others", rows, columns, numbers=columns[2:])
    level = report.against(report.live).level
    shown = f"p ≤ {level:g}" if level else "the rule's p"
    text(f"{SMALLEST.capitalize()}: by so many items, in 8 of 10 tests that take {shown}.", "muted")
    if len(decisive) > 1:
        text(
            f"By the first of these {len(decisive)} metrics it must be better, by none worse; as one of "
            "several each must be the more certain (Holm).",
            "muted",
        )
    if is_weighed(report):
        text("Items count for the traffic that they stand for, not each for one.", "muted")
    if report.retention:
        text("Older traffic is reserved to tell what is forgotten; nothing trains on it.", "muted")


def _comparison(report: Report, found: Comparison, adjusted: dict[str, float]) -> dict[str, Any]:
    low, high = (changed(found.metric, end) for end in found.interval)
    corrected = adjusted.get(found.metric)
    return {
        "by": named(found.metric, report),
        "against": titled(report, found.against),
        "change": changed(found.metric, found.effect),
        "candidate": None if found.means is None else measured(found.metric, found.means[0]),
        "the other": None if found.means is None else measured(found.metric, found.means[1]),
        "95% interval": f"{low} to {high}",
        "p (better)": chance(found.p_value),
        "p, as one of several": None if corrected is None else chance(corrected),
        "p (worse)": chance(found.p_worse),
        "gained": found.gained,
        "lost": found.lost,
        "items": found.n,
        "worth": round(found.effective_n),
        SMALLEST: changed(found.metric, found.smallest_effect).removeprefix("+"),
    }


# ---- what must not get worse


def guards_section(report: Report) -> None:
    """Guards with their states, the golden cases that fail, and latency; nothing in a report without any."""
    if not (report.guards or report.golden or report.overheads):
        return
    with section("What must not get worse"):
        with ui.element("ul").classes("guards"):
            for guard in report.guards:
                _guard(guard)
        if report.golden and report.golden.failed:
            _golden(report, report.golden)
        if report.overheads:
            _latency(report)


def _guard(guard: Guard) -> None:
    icon, tone = LOOKS.get(guard.state, ("cancel", "bad"))
    with ui.element("li").classes("guard"):
        ui.icon(icon).classes(f"tone {tone}").props("aria-hidden=true")
        Tagged("strong", guard.name)
        chip(guard.state, tone)
        Tagged("span", guard.words)


def _golden(report: Report, golden: Golden) -> None:
    """Broken ones first, then those that neither passes, then those that the candidate mended."""
    shown = sorted(golden.failed, key=lambda case: (not case.broken, case.candidate_passes, case.number))
    words = f"Golden cases: {golden.cases - len(golden.failed)} of {golden.cases} are passed by both"
    with ui.expansion(f"{words}; these {len(shown)} are not", value=bool(golden.broken)).classes("reason"):
        for case in shown[:GOLDEN]:
            _golden_answer(report, case)
        if len(shown) > GOLDEN:
            text(f"And {len(shown) - GOLDEN} more; the adapter's report.json has all.", "muted")


def _golden_answer(report: Report, case: GoldenAnswer) -> None:
    became = "broken" if case.broken else "mended" if case.candidate_passes else "passed by neither"
    if case.refused:
        became = "refused by the chat template"
    with ui.element("article").classes("answers"):
        with ui.element("div").classes("line"):
            Tagged("strong", f"Case {case.number}")
            chip(became, "bad" if case.broken else "good" if case.candidate_passes else "plain")
        Tagged("pre", case.asked).classes("said")
        answer_line("should be", case.expected)
        for side, words, passes in (
            (titled(report, report.live), case.live, case.live_passes),
            (titled(report, report.candidate.name), case.candidate, case.candidate_passes),
        ):
            answer_line(side, words, "right" if passes else "wrong")


def _latency(report: Report) -> None:
    rows = [
        {
            "the candidate's time over that of": titled(report, each.against),
            "times as long": f"{each.ratio:.2f}",
            "95% interval": f"{each.interval[0]:.2f} to {each.interval[1]:.2f}",
            "questions": each.n,
        }
        for each in report.overheads
    ]
    table("Latency for the same work", rows, tuple(rows[0]), numbers=tuple(rows[0])[1:])
