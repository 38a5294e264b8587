"""How far a verdict can be trusted: what it rests on, and how often such a rule is wrong."""

from daemon.console.base.page_session import Visit
from daemon.console.base.widgets import heading, section, table, text
from daemon.console.report.verdict import Judged
from daemon.views.report_text import Section, circumstances
from evaluation.report import Report
from evaluation.rules import Gate
from evaluation.verdict.error_rates import in_words


class Trust:
    """What speaks for and against the verdict, beside its numbers."""

    def __init__(self, visit: Visit, judged: Judged) -> None:
        self._visit = visit
        self._judged = judged
        report = judged.report
        with section("How far this can be trusted"):
            for found in circumstances(report):
                _circumstance(found)
            heading("The rule", 3)
            if not kept_its_rule(report):
                text("An earlier learnd judged it by one look at its accuracy; its thresholds were not kept.")
            else:
                text(rule_in_words(report.gate))
                self._quality = text("How often such a rule is wrong is being worked out …", "muted")
                self._quality.props("role=status")

    async def read(self) -> None:
        """Work out how often the rule is wrong, which may take seconds."""
        first = self._judged.first
        if not kept_its_rule(first):
            return
        n = round(first.against(first.live).effective_n)
        if n:
            found = await self._visit.read(lambda: in_words(first.gate, n))
            self._quality.set_text(f"{found[0].upper()}{found[1:]}.")
        self._quality.set_visibility(bool(n))


def kept_its_rule(report: Report) -> bool:
    """Whether the report has the thresholds that it was judged by; those of before had no guards either."""
    return bool(report.guards or report.overheads)


def rule_in_words(gate: Gate) -> str:
    """What the thresholds ask of a candidate."""
    gain = f"a change of at least {gate.min_effect:+.0%} in the first metric"
    if gate.rule == "one-look":
        return f"One look: live takes p ≤ {gate.alpha:g} and {gain}."
    return (
        f"Two looks: live at once takes p ≤ {gate.at_once:g} and {gain}. p ≤ {gate.promising:g} earns a "
        f"second look, at {gate.fresh_items:g} times as many reviewed items that came after the training; "
        f"live then takes p ≤ {gate.alpha:g} and as much of a change."
    )


def _circumstance(found: Section) -> None:
    heading(found.title, 3)
    for words in found.words:
        text(words)
    if found.rows:
        rows = [dict(zip(found.columns, row, strict=True)) for row in found.rows]
        table(found.title, rows, found.columns)
