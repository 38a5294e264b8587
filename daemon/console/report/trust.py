"""The trust that a verdict deserves: the evidence for it, and the error rate of its rule."""

from daemon.console.base.page_session import PageSession
from daemon.console.base.widgets import show_heading, show_section, show_table, show_text
from daemon.console.report.verdict import JudgedCycle
from daemon.views.report_text import Section, build_circumstances
from evaluation.report import Report
from evaluation.rules import Gate
from evaluation.verdict.error_rates import describe_error_rates


class TrustSection:
    """Shows what speaks for and against the verdict, apart from its numbers."""

    def __init__(self, session: PageSession, judged: JudgedCycle) -> None:
        self._session = session
        self._judged = judged
        report = judged.report
        with show_section("How far this can be trusted"):
            for found in build_circumstances(report):
                _show_circumstance(found)
            show_heading("The rule", 3)
            if not has_thresholds(report):
                show_text(
                    "An earlier learnd judged it by one look at its accuracy; its thresholds were not kept."
                )
            else:
                show_text(describe_rule(report.gate))
                self._quality = show_text("How often such a rule is wrong is being worked out …", "muted")
                self._quality.props("role=status")

    async def read(self) -> None:
        """Compute how often the rule is wrong, which may take seconds, and show it."""
        first = self._judged.first
        if not has_thresholds(first):
            return
        n = round(first.find_comparison(first.live).effective_n)
        if n:
            found = await self._session.read(lambda: describe_error_rates(first.gate, n))
            self._quality.set_text(f"{found[0].upper()}{found[1:]}.")
        self._quality.set_visibility(bool(n))


def has_thresholds(report: Report) -> bool:
    """Return True if the report has the thresholds of its verdict; old reports lack these and the guards."""
    return bool(report.guards or report.overheads)


def describe_rule(gate: Gate) -> str:
    """Return the thresholds that a candidate must reach, in words."""
    gain = f"a change of at least {gate.min_effect:+.0%} in the first metric"
    if gate.rule == "one-look":
        return f"One look: live takes p ≤ {gate.alpha:g} and {gain}."
    return (
        f"Two looks: live at once takes p ≤ {gate.at_once:g} and {gain}. p ≤ {gate.promising:g} earns a "
        f"second look, at {gate.fresh_items:g} times as many reviewed items that came after the training; "
        f"live then takes p ≤ {gate.alpha:g} and as much of a change."
    )


def _show_circumstance(found: Section) -> None:
    show_heading(found.title, 3)
    for words in found.words:
        show_text(words)
    if found.rows:
        rows = [dict(zip(found.columns, row, strict=True)) for row in found.rows]
        show_table(found.title, rows, found.columns)
