"""How far a verdict can be trusted: what it rests on, and how often such a rule is wrong."""

import math

from daemon.console.parts import heading, section, table, text
from daemon.console.verdict import Judged
from daemon.console.visit import Visit
from daemon.reading import Section, circumstances
from evaluation.report import Report
from evaluation.rule_quality import Mix, RuleQuality, quality
from evaluation.rules import Gate

MOST_ITEMS = 300
"""Beyond, a rule is rarely wrong, and working out how rarely takes long."""


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
        n = min(MOST_ITEMS, round(first.against(first.live).effective_n))
        if n:
            found = await self._visit.read(lambda: rule_quality(first.gate, n))
            self._quality.set_text(quality_in_words(found, n, Mix()))
        self._quality.set_visibility(bool(n))


def kept_its_rule(report: Report) -> bool:
    """Whether the report has the thresholds that it was judged by; those of before had no guards either."""
    return bool(report.guards or report.overheads)


def rule_in_words(gate: Gate) -> str:
    """What the thresholds ask of a candidate."""
    gain = f"a change of at least {gate.min_effect:+.0%}"
    if gate.rule == "one-look":
        return f"One look: live takes p ≤ {gate.alpha:g} and {gain}."
    return (
        f"Two looks: live at once takes p ≤ {gate.at_once:g} and {gain}. p ≤ {gate.promising:g} earns a "
        f"second look, at {gate.fresh_items:g} times as many reviewed items that came after the training; "
        f"live then takes p ≤ {gate.alpha:g} and as much of a change."
    )


def rule_quality(gate: Gate, n: int) -> RuleQuality:
    """What the rule does in the long run, with so many held-out items. May take seconds."""
    return quality(gate, n, math.ceil(gate.fresh_items * n), Mix())


def quality_in_words(found: RuleQuality, n: int, mix: Mix) -> str:
    """How often the rule is wrong, for people."""
    equal = 1 - mix.worse - mix.better
    return (
        f"Of 100 promotions by this rule about {100 * found.false_share:.0f} would be no better than what "
        f"they replace, and of 100 candidates that are better it would promote about {100 * found.power:.0f} "
        f"(n = {n}{' or more' if n == MOST_ITEMS else ''}; if {mix.better:.0%} of candidates are better by "
        f"{mix.gain:.0%}, {mix.worse:.0%} worse by {mix.loss:.0%}, and {equal:.0%} equal)."
    )


def _circumstance(found: Section) -> None:
    heading(found.title, 3)
    for words in found.words:
        text(words)
    if found.rows:
        rows = [dict(zip(found.columns, row, strict=True)) for row in found.rows]
        table(found.title, rows, found.columns)
