"""The verdict on a candidate, and the comparisons that it rests on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from daemon.console.base.cache import TtlCache
from daemon.console.base.charts import show_interval_chart
from daemon.console.base.widgets import (
    Link,
    show_external_link,
    show_facts,
    show_section,
    show_table,
    show_text,
)
from daemon.console.report.measures import format_change, format_measure, is_weighted, name_metric
from daemon.settings.servers import PhoenixSettings
from daemon.views.experiments import build_compare_url, describe_phoenix_page
from daemon.views.report_text import format_p_value, format_side
from daemon.views.status import RunningTargetStatus, describe_wait
from evaluation.report import Condition, PairedComparison, Report
from evaluation.rules import JUDGE
from evaluation.verdict.paired_tests import adjust_by_holm
from registry.cycles import Cycle
from registry.store.store import Store
from registry.versions import Version

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
SMALLEST_CHANGE = "smallest change that would show"


@dataclass(frozen=True)
class JudgedCycle:
    """A cycle that was evaluated, and what else is known about its candidate."""

    cycle: Cycle
    report: Report
    candidate: Version | None
    """As it is now."""
    looks: Sequence[Cycle]
    """All cycles that judged the candidate, oldest first."""
    wait: str
    """What the candidate waits for, if it is on probation."""

    @property
    def first(self) -> Report:
        """The report of the candidate's first look."""
        return next((look.report for look in self.looks if look.report), self.report)


def read_judged_cycle(
    store: Store, statuses: TtlCache[list[RunningTargetStatus]], cycle: Cycle
) -> JudgedCycle | None:
    """Return the cycle with its report; None where it has none. Reads the store, so it takes a moment."""
    if cycle.report is None:
        return None
    looks = store.find_looks_at(cycle.version_id) if cycle.version_id else [cycle]
    candidate = store.version(cycle.version_id) if cycle.version_id else None
    status = next((each for each in statuses.get() if each.target == cycle.target), None)
    wait = _describe_wait(status, candidate) if status and candidate else ""
    return JudgedCycle(cycle, cycle.report, candidate, looks, wait)


def show_verdict(judged: JudgedCycle, phoenix: PhoenixSettings) -> None:
    """Show what decided, and the comparisons that the verdict rests on."""
    report = judged.report
    with show_section("Verdict", _describe_holdout(report)):
        show_text(CONDITIONS[report.condition], "lead")
        if report.reason not in judged.cycle.reason:
            show_text(report.reason)
        show_facts(dict(_list_looks(judged)))
        drawn = {name_metric(each.metric, report): each for each in _find_decisive(report)}
        if report.retention:
            drawn["on older traffic"] = report.retention
        show_interval_chart(
            {name: (each.interval[0], each.effect, each.interval[1]) for name, each in drawn.items()},
            report.gate.min_effect,
            "Changes against what is live with their 95% intervals; numbers below",
        )
        _show_comparisons(report)
        if url := build_compare_url(judged.cycle, phoenix):
            show_external_link("Compare all answers in Phoenix", url)
        else:
            show_text(f"In Phoenix: {describe_phoenix_page(judged.cycle, phoenix)}", "muted")


def _describe_wait(status: RunningTargetStatus, candidate: Version) -> str:
    if status.probation is None or status.probation.version != candidate.id:
        return ""
    return describe_wait(status.probation, status.probation_reviewed)


def _describe_holdout(report: Report) -> str:
    found = report.find_comparison(report.live)
    worth = round(found.effective_n)
    items = f"{found.n} held-out items with a known answer"
    items += f", which tell as much as {worth} independent ones" if worth < found.n else ""
    return f"{items}; compared with {report.live}, which was live."


def _list_looks(judged: JudgedCycle) -> Iterator[tuple[str, Any]]:
    """List which look this is, with links to the others, and what became of the candidate."""
    report = judged.report
    yield "Look", "second, on traffic newer than its training" if report.look == "second" else "first"
    for look in judged.looks:
        if look.id != judged.cycle.id:
            which = "First look" if look.plan else "Second look"
            yield which, Link(f"{look.verdict or look.state} in cycle {look.id}", f"/experiments/{look.id}")
    if judged.candidate:
        yield "Its version now", Link(f"{judged.candidate.id} is {judged.candidate.state}", "/adapters")
    yield "It waits for", judged.wait


def _find_decisive(report: Report) -> list[PairedComparison]:
    """Return the comparisons with what is live, by the metrics that gate."""
    return [
        each
        for each in report.comparisons
        if each.against == report.live and (each.metric != JUDGE or JUDGE in report.gate.metrics)
    ]


def _show_comparisons(report: Report) -> None:
    decisive = _find_decisive(report)
    adjusted = dict(
        zip([each.metric for each in decisive], adjust_by_holm([e.p_value for e in decisive]), strict=True)
    )
    others = [each for each in report.comparisons if each not in decisive]
    rows = [_build_comparison_row(report, each, adjusted if len(decisive) > 1 else {}) for each in decisive]
    rows += [_build_comparison_row(report, each, {}) for each in others]
    if report.retention:
        older = {"against": f"{format_side(report, report.live)}, on older traffic"}
        rows.append(_build_comparison_row(report, report.retention, {}) | older)
    columns = [name for name in rows[0] if any(row[name] is not None for row in rows)]
    show_table("The candidate against the others", rows, columns, numbers=columns[2:])
    level = report.find_comparison(report.live).level
    shown = f"p ≤ {level:g}" if level else "the rule's p"
    show_text(
        f"{SMALLEST_CHANGE.capitalize()}: with that number of items, in 8 of 10 tests that take {shown}.",
        "muted",
    )
    if len(decisive) > 1:
        show_text(
            f"It must be better by the first of these {len(decisive)} metrics, and worse by none; because "
            "there are several, each must be more certain (Holm).",
            "muted",
        )
    if is_weighted(report):
        show_text("Items count for the traffic that they stand for, not one each.", "muted")
    if report.retention:
        show_text("Older traffic is reserved to tell what is forgotten; nothing trains on it.", "muted")


def _build_comparison_row(
    report: Report, found: PairedComparison, adjusted: dict[str, float]
) -> dict[str, Any]:
    low, high = (format_change(found.metric, end) for end in found.interval)
    corrected = adjusted.get(found.metric)
    return {
        "by": name_metric(found.metric, report),
        "against": format_side(report, found.against),
        "change": format_change(found.metric, found.effect),
        "candidate": None if found.means is None else format_measure(found.metric, found.means[0]),
        "the other": None if found.means is None else format_measure(found.metric, found.means[1]),
        "95% interval": f"{low} to {high}",
        "p (better)": format_p_value(found.p_value),
        "p, as one of several": None if corrected is None else format_p_value(corrected),
        "p (worse)": format_p_value(found.p_worse),
        "gained": found.gained,
        "lost": found.lost,
        "items": found.n,
        "worth": round(found.effective_n),
        SMALLEST_CHANGE: format_change(found.metric, found.smallest_effect).removeprefix("+"),
    }
