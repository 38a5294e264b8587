"""The promotion rules over years: simulated lives of a daemon, judged by the verdict's own `decide`.

A life has 100 cycles. Each trains a candidate that is worse than what is live, equal, or better, and judges
it on `n` fresh held-out items; as many are reviewed until the next. For comparison the unpaired z-test that
others use, which promotes what it calls a significant improvement.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from scipy.stats import norm

from evaluation.report import Verdict
from evaluation.rules import Gate, Look
from evaluation.verdict.decide import Evidence, decide
from evaluation.verdict.error_rates import CandidateMix
from evaluation.verdict.paired_tests import PairedCounts, compute_gain_of_counts

LIVES, CYCLES = 200, 100
SIZES = (50, 100, 300)
MIXES = {
    "10% better": CandidateMix(),
    "10% better, none worse": CandidateMix(worse=0.0),
    "40% better": CandidateMix(better=0.4),
}
ACCURACY = 0.7
"""Of what is live, which the z-test looks at."""
FRESH = 2
"""Newer items of the second look, as a multiple of the first look's."""
PLOT = Path(".bench/gate.png")


@dataclass
class Tally:
    """The fate of the candidates."""

    trained: Counter[str] = field(default_factory=Counter)
    promoted: Counter[str] = field(default_factory=Counter)
    waited: list[int] = field(default_factory=list)
    """Cycles from training to promotion, of those that were better."""

    def figures(self) -> dict[str, float]:
        promoted = self.promoted.total()
        return {
            "false_share": 1 - self.promoted["better"] / promoted if promoted else 0.0,
            "power": self.promoted["better"] / max(1, self.trained["better"]),
            "worse_promoted": 100 * self.promoted["worse"] / max(1, self.trained["worse"]),
            "waiting": float(np.mean(self.waited)) if self.waited else 0.0,
        }


@dataclass
class Waiting:
    """A candidate on probation."""

    kind: str
    effect: float
    since: int


class Life:
    """One daemon's candidates, judged by one rule."""

    def __init__(self, rule: "Judge", n: int, mix: CandidateMix, seed: int) -> None:
        self._rule = rule
        self._n = n
        self._mix = mix
        self._rng = np.random.default_rng(seed)
        self._waiting: Waiting | None = None

    def run(self, tally: Tally) -> None:
        for cycle in range(CYCLES):
            self._look_again(cycle, tally)
            kind, effect = self._candidate()
            tally.trained[kind] += 1
            drawn = self._draw(self._n, effect)
            over = self._over_waiting(drawn) if self._waiting else None
            verdict = self._rule(drawn, "first", over)
            if verdict == "PROMOTE":
                self._promote(kind, 0, tally)
            elif verdict == "PROBATION":
                self._waiting = Waiting(kind, effect, cycle)

    def _look_again(self, cycle: int, tally: Tally) -> None:
        if self._waiting and cycle - self._waiting.since >= FRESH:
            waiting, self._waiting = self._waiting, None
            if self._rule(self._draw(FRESH * self._n, waiting.effect), "second", None) == "PROMOTE":
                self._promote(waiting.kind, cycle - waiting.since, tally)

    def _promote(self, kind: str, waited: int, tally: Tally) -> None:
        # Whoever is on probation was compared with what is live no more.
        self._waiting = None
        tally.promoted[kind] += 1
        if kind == "better":
            tally.waited.append(waited)

    def _candidate(self) -> tuple[str, float]:
        mix, drawn = self._mix, self._rng.random()
        if drawn < mix.worse:
            return "worse", -mix.loss
        return ("better", mix.gain) if drawn < mix.worse + mix.better else ("equal", 0.0)

    def _draw(self, n: int, effect: float) -> tuple[PairedCounts, int]:
        """Draw how a candidate of this effect differs from what is live, and the items both get right."""
        gained, lost = (self._mix.discordance + effect) / 2, (self._mix.discordance - effect) / 2
        both = ACCURACY - lost
        counts = self._rng.multinomial(n, (gained, lost, both, 1 - gained - lost - both)).tolist()
        return PairedCounts(n=n, gained=counts[0], lost=counts[1]), counts[2]

    def _over_waiting(self, drawn: tuple[PairedCounts, int]) -> float:
        """The gain over the one on probation, which answers the same items."""
        assert self._waiting is not None
        theirs, _ = self._draw(self._n, self._waiting.effect)
        return compute_gain_of_counts(drawn[0]).effect - compute_gain_of_counts(theirs).effect


Judge = Callable[[tuple[PairedCounts, int], Look, float | None], Verdict]


def judge_by_gate(gate: Gate) -> Judge:
    def judge(drawn: tuple[PairedCounts, int], look: Look, over_waiting: float | None) -> Verdict:
        evidence = Evidence.model_construct(
            gains=(compute_gain_of_counts(drawn[0]),), over_waiting=over_waiting
        )
        return decide(evidence, gate, look).verdict

    return judge


def z_test(drawn: tuple[PairedCounts, int], _look: Look, _over: float | None) -> Verdict:
    """Two-sided at 0.05, of two accuracies as if they came from different items."""
    counts, both = drawn
    return "PROMOTE" if _z(counts.gained + both, counts.lost + both, counts.n) else "REJECT"


@cache
def _z(right: int, live_right: int, n: int) -> bool:
    pooled = (right + live_right) / (2 * n)
    deviation = sqrt(2 * pooled * (1 - pooled) / n)
    return bool(right > live_right and 2 * norm.sf((right - live_right) / n / deviation) < 0.05)


RULES: dict[str, Judge] = {
    "one-look": judge_by_gate(Gate(rule="one-look")),
    "two-looks": judge_by_gate(Gate()),
    "z-test": z_test,
}


def measure() -> dict[str, Any]:
    """The share of promotions that were not better, and so on, by n and rule; all mixes as table and plot."""
    found = {
        mix: {str(n): {rule: _lives(rule, n, MIXES[mix]) for rule in RULES} for n in SIZES} for mix in MIXES
    }
    Console().print(_table(found))
    _plot(found)
    return found["10% better"]


def _lives(rule: str, n: int, mix: CandidateMix) -> dict[str, float]:
    tally = Tally()
    for seed in range(LIVES):
        Life(RULES[rule], n, mix, seed).run(tally)
    return tally.figures()


def _table(found: dict[str, dict[str, dict[str, dict[str, float]]]]) -> Table:
    table = Table(title=f"{LIVES} lives of {CYCLES} cycles", box=None, pad_edge=False)
    for name in ("candidates", "n", "rule"):
        table.add_column(name, no_wrap=True)
    for name in ("false share", "power", "worse promoted of 100", "cycles waited"):
        table.add_column(name, justify="right")
    for mix, sizes in found.items():
        for n, rules in sizes.items():
            for rule, figures in rules.items():
                table.add_row(mix, n, rule, *(f"{figure:.3f}" for figure in figures.values()))
    return table


def _plot(found: dict[str, dict[str, dict[str, dict[str, float]]]]) -> None:
    """A row a mix: what of all promoted is not better, and what of all better is promoted."""
    figure = Figure(figsize=(9, 3 * len(found)), layout="constrained")
    axes = figure.subplots(len(found), 2, squeeze=False)
    for row, (mix, sizes) in zip(axes, found.items(), strict=True):
        for axis, (name, title) in zip(
            row, (("false_share", "promoted, not better"), ("power", "better, promoted")), strict=True
        ):
            for rule in RULES:
                axis.plot(list(sizes), [sizes[n][rule][name] for n in sizes], marker="o", label=rule)
            axis.set(title=f"{mix}: {title}", xlabel="held-out items", ylim=(0, 1))
            axis.grid(alpha=0.3)
    axes[0][0].legend()
    PLOT.parent.mkdir(exist_ok=True)
    figure.savefig(PLOT, dpi=120)
