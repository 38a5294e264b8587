"""The part of a report on what must not get worse: guards, golden cases and latency."""

from nicegui import ui

from daemon.console.base.widgets import TextTag, Tone, show_chip, show_section, show_table, show_text
from daemon.console.report.answers import show_answer
from daemon.views.report_text import format_side
from evaluation.report import FailedGoldenCase, GoldenResults, PromotionGuard, Report

MOST_GOLDEN = 20
"""Golden cases that are shown."""
GUARD_LOOKS: dict[str, tuple[str, Tone]] = {"kept": ("check_circle", "good"), "open": ("help", "warn")}
"""Icon and tone of a guard's state; those of a broken guard are the default."""


def show_guards(report: Report) -> None:
    """Show the guards with their states, the golden cases that fail, and the latency.

    Shows nothing for a report that has none of them.
    """
    if not (report.guards or report.golden or report.overheads):
        return
    with show_section("What must not get worse"):
        with ui.element("ul").classes("guards"):
            for guard in report.guards:
                _show_guard(guard)
        if report.golden and report.golden.failed:
            _show_golden(report, report.golden)
        if report.overheads:
            _show_latency(report)


def _show_guard(guard: PromotionGuard) -> None:
    icon, tone = GUARD_LOOKS.get(guard.state, ("cancel", "bad"))
    with ui.element("li").classes("guard"):
        ui.icon(icon).classes(f"tone {tone}").props("aria-hidden=true")
        TextTag("strong", guard.name)
        show_chip(guard.state, tone)
        TextTag("span", guard.words)


def _show_golden(report: Report, golden: GoldenResults) -> None:
    """Show broken cases first, then those that neither side passes, then those that the candidate mended."""
    shown = sorted(golden.failed, key=lambda case: (not case.broken, case.candidate_passes, case.number))
    words = f"Golden cases: {golden.cases - len(golden.failed)} of {golden.cases} are passed by both"
    with ui.expansion(f"{words}; these {len(shown)} are not", value=bool(golden.broken)).classes("reason"):
        for case in shown[:MOST_GOLDEN]:
            _show_golden_answer(report, case)
        if len(shown) > MOST_GOLDEN:
            show_text(f"And {len(shown) - MOST_GOLDEN} more; the adapter's report.json has all.", "muted")


def _show_golden_answer(report: Report, case: FailedGoldenCase) -> None:
    became = "broken" if case.broken else "mended" if case.candidate_passes else "passed by neither"
    if case.refused:
        became = "refused by the chat template"
    with ui.element("article").classes("answers"):
        with ui.element("div").classes("line"):
            TextTag("strong", f"Case {case.number}")
            show_chip(became, "bad" if case.broken else "good" if case.candidate_passes else "plain")
        TextTag("pre", case.asked).classes("said")
        show_answer("should be", case.expected)
        for side, words, passes in (
            (format_side(report, report.live), case.live, case.live_passes),
            (format_side(report, report.candidate.name), case.candidate, case.candidate_passes),
        ):
            show_answer(side, words, "right" if passes else "wrong")


def _show_latency(report: Report) -> None:
    rows = [
        {
            "the candidate's time over that of": format_side(report, each.against),
            "times as long": f"{each.ratio:.2f}",
            "95% interval": f"{each.interval[0]:.2f} to {each.interval[1]:.2f}",
            "questions": each.n,
        }
        for each in report.overheads
    ]
    show_table("Latency for the same work", rows, tuple(rows[0]), numbers=tuple(rows[0])[1:])
