"""A report as people read it: sections of words and tables, for the terminal and for the model card."""

from collections.abc import Iterator, Sequence

from daemon.runtime.units import format_duration
from evaluation.metrics.measures import ClassFigures
from evaluation.metrics.retrieval import DEPTH
from evaluation.race_report import RacedContender, RaceReport
from evaluation.report import FailedGoldenCase, PairedComparison, Report, ScoredAnswer, Side
from extractors.values import Value

CONFUSIONS = 10
"""How many confusions are shown: the most frequent ones."""
STRATA = 20
"""How many strata are shown: those with the most traffic."""
COMPARED = (
    "against",
    "metric",
    "candidate",
    "the other",
    "effect",
    "95% interval",
    "p (better)",
    "p (worse)",
    "gained",
    "lost",
    "items",
    "worth",
    "smallest effect that shows",
)
RUNGS = {
    **{name: f"{name} rung" for name in ("first", "second", "third", "fourth", "fifth")},
    "last": "at the end",
}
"""Points of a race at which contenders are scored, for people."""
Rows = tuple[tuple[str, ...], ...]


class Section(Value):
    """A heading with paragraphs and a table."""

    title: str
    words: tuple[str, ...] = ()
    """Paragraphs."""
    columns: tuple[str, ...] = ()
    rows: Rows = ()


def build_sections(report: Report, *, quoting: bool = True) -> Iterator[Section]:
    """Yield the report's sections, most important first; with `quoting` they quote what users asked."""
    yield _build_measures(report)
    yield _build_comparisons(report)
    yield _build_guards(report)
    for section in (
        _build_golden(report),
        _build_latency(report),
        build_race(report.race) if report.race else None,
        *build_circumstances(report, quoting=quoting),
        *_build_labels(report),
        *_build_confidence(report),
    ):
        if section is not None:
            yield section


def build_circumstances(report: Report, *, quoting: bool = True) -> Iterator[Section]:
    """Yield the sections about how far the verdict can be trusted: held-out items, judge, replica, seeds, and
    what the candidate can do beside the target's task.
    """
    for section in (
        _build_weighting(report, quoting=quoting),
        _build_judge(report),
        _build_replica(report),
        _build_seeds(report),
        _build_general(report),
    ):
        if section is not None:
            yield section


def build_race(race: RaceReport) -> Section:
    """Build the section about a race: its winner, its cost, and how far every contender came."""
    rungs = [rung for rung in RUNGS if any(rung in _map_scores(each) for each in race.contenders)]
    return Section(
        title="Race between ways to train",
        words=(_describe_race(race),),
        columns=(
            "contender",
            "steps",
            "time",
            *(f"{race.metric}, {RUNGS[rung]}" for rung in rungs),
            "effect",
            "p",
            "why it left",
        ),
        rows=tuple(_build_contender_row(race, each, rungs) for each in race.contenders),
    )


def _describe_race(race: RaceReport) -> str:
    alone = f"{format_duration(race.default_seconds)} that the default alone takes"
    return (
        f"{race.winner} won. {len(race.contenders) - 1} challenged {race.contenders[0].name}, which stays "
        f"unless one is better at p ≤ {format_p_value(race.level)}: by {race.metric}, on {race.items} "
        f"validation items of {race.sessions} sessions. The race took {format_duration(race.seconds)}, "
        f"{race.cost:.2f} times the {alone}; at most {race.cost_bound:g} times was allowed."
    )


def _build_contender_row(
    race: RaceReport, contender: RacedContender, rungs: Sequence[str]
) -> tuple[str, ...]:
    scores = _map_scores(contender)
    return (
        contender.name,
        str(contender.steps) if contender.entered else "–",
        format_duration(contender.seconds) if contender.entered else "–",
        *(format_number(scores.get(rung)) for rung in rungs),
        "–" if contender.effect is None else f"{contender.effect:+.3f}",
        "–" if contender.p_value is None else format_p_value(contender.p_value),
        "it won" if contender.name == race.winner else contender.left,
    )


def _map_scores(contender: RacedContender) -> dict[str, float]:
    return {score.rung: score.mean for score in contender.scores}


def find_role(report: Report, side: str) -> str:
    """Return the side's role in the comparison; empty for a base that is not live."""
    if side == report.candidate.name:
        return "candidate"
    if side == report.live:
        return "live"
    return "" if side == report.sides[0].name else "on probation"


def format_side(report: Report, side: str) -> str:
    """Return the side's name with its role."""
    known = find_role(report, side)
    return f"{side} ({known})" if known else side


def describe_answer(answer: ScoredAnswer) -> str:
    """Return the answer's text; for a search, the rank of the first relevant document, in words."""
    reciprocal = answer.scores.get("mrr@10")
    if reciprocal is None:
        return answer.text
    if not reciprocal:
        return f"no relevant document among the first {DEPTH}"
    return f"first relevant document at rank {round(1 / reciprocal)}"


def format_number(value: float | None) -> str:
    """Format a number with three decimals; one decimal from 10 on."""
    if value is None:
        return "–"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def format_p_value(p: float) -> str:
    """Format a p-value."""
    return f"{p:.2g}"


def format_interval(bounds: tuple[float, float], *, signed: bool = True) -> str:
    """Format an interval."""
    low, high = (f"{bound:+.3f}" if signed else format_number(bound) for bound in bounds)
    return f"{low} to {high}"


def _build_measures(report: Report) -> Section:
    names = list(dict.fromkeys(name for side in report.sides for name in side.measures))
    words = f"{report.gold_size} of {report.holdout_size} held-out items have a known right answer."
    if report.unanswerable:
        words += f" {report.unanswerable} more were left out: the chat template cannot express their prompts."
    if report.rejected_without_correction:
        words += (
            f" To {report.rejected_without_correction} people rejected the answer and gave no better one; "
            "these count for valid answers alone."
        )
    return Section(
        title="Measures",
        words=(words,),
        columns=("side", "accuracy", "valid answers", "ms an answer", "rejected answers again", *names),
        rows=tuple(_build_side_row(report, side, names) for side in report.sides),
    )


def _build_side_row(report: Report, side: Side, names: Sequence[str]) -> tuple[str, ...]:
    return (
        format_side(report, side.name),
        format_number(side.accuracy) if report.gold_size else "–",
        format_number(side.valid_rate),
        format_number(side.latency_ms or None),
        str(side.repeated_rejected),
        *(format_number(side.measures.get(name)) for name in names),
    )


def _build_comparisons(report: Report) -> Section:
    older = (("older traffic", report.retention),) if report.retention else ()
    compared = (*((format_side(report, each.against), each) for each in report.comparisons), *older)
    words = (
        "Paired, item by item. p is one-sided: how often a candidate that is no better gains as much by "
        "chance, or one that is no worse loses as much. The interval is a 95% bootstrap over sessions. All "
        "are weighted as the items are, so they may differ from the measures."
    )
    if report.retention:
        words += f" Older traffic is what is reserved and never trained on; there it meets {report.live}."
    return Section(
        title="The candidate against the others",
        words=(words,),
        columns=COMPARED,
        rows=tuple(_build_comparison_row(against, each) for against, each in compared),
    )


def _build_comparison_row(against: str, found: PairedComparison) -> tuple[str, ...]:
    return (
        against,
        found.metric,
        *(map(format_number, found.means or (None, None))),
        f"{found.effect:+.3f}",
        format_interval(found.interval),
        format_p_value(found.p_value),
        format_p_value(found.p_worse),
        str(found.gained),
        str(found.lost),
        str(found.n),
        f"{found.effective_n:.0f}",
        format_number(found.smallest_effect),
    )


def _build_guards(report: Report) -> Section:
    return Section(
        title="What must not get worse",
        words=() if report.guards else ("Nothing of it was measured.",),
        columns=("guard", "state", "found"),
        rows=tuple((guard.name, guard.state, guard.words) for guard in report.guards),
    )


def _build_golden(report: Report) -> Section | None:
    golden = report.golden
    if golden is None:
        return None
    return Section(
        title="Golden cases",
        words=(
            f"{golden.cases - len(golden.failed)} of {golden.cases} are passed by both; the candidate breaks "
            f"{len(golden.broken)} that {report.live} passes.",
        ),
        columns=("case", "asked", "expected", f"{report.live} says", "the candidate says", ""),
        rows=tuple(
            (
                str(case.number),
                case.asked,
                case.expected,
                case.live,
                case.candidate,
                _describe_golden_case(case),
            )
            for case in golden.failed
        ),
    )


def _describe_golden_case(case: FailedGoldenCase) -> str:
    if case.refused:
        return "refused by the chat template"
    if case.broken:
        return "broken"
    return "mended" if case.candidate_passes else "failed by both"


def _build_latency(report: Report) -> Section | None:
    if not report.overheads:
        return None
    return Section(
        title="Latency",
        words=("The candidate's time for the same work, as a multiple of the other side's.",),
        columns=("against", "median", "95% interval", "questions"),
        rows=tuple(
            (
                format_side(report, each.against),
                format_number(each.ratio),
                format_interval(each.interval, signed=False),
                str(each.n),
            )
            for each in report.overheads
        ),
    )


def _build_weighting(report: Report, *, quoting: bool) -> Section | None:
    found = report.weighting
    if found is None:
        return None
    columns = ("answered by", "like", "reviewed", "share", "traffic", "share of it", "rejected", "weight")
    rows = tuple(
        (
            ", ".join(version or "unknown" for version in each.answered_by),
            each.like,
            str(each.reviewed),
            format_number(each.reviewed_share),
            str(each.traffic),
            format_number(each.traffic_share),
            f"{each.rejected + each.corrected}, {each.corrected} of them corrected",
            format_number(each.weight),
        )
        for each in found.strata[:STRATA]
    )
    return Section(
        title="How fair the held-out items are",
        words=(found.words,),
        columns=columns if quoting else (columns[0], *columns[2:]),
        rows=rows if quoting else tuple((row[0], *row[2:]) for row in rows),
    )


def _build_judge(report: Report) -> Section | None:
    found = report.preferences
    if found is None:
        return Section(title="What a judge prefers", words=(report.no_judge,)) if report.no_judge else None
    better, worse = found.of_pairs.count(1), found.of_pairs.count(-1)
    return Section(
        title="What a judge prefers",
        words=(
            f"{found.model} prefers the candidate's answer {better} times, that of {report.live} {worse} "
            f"times, and neither {found.of_pairs.count(0)} times. Of {found.asked} pairs that it was asked "
            f"about it contradicted itself on {found.contradicted:.0%} when their order was swapped; these "
            f"count as ties, as do {found.unread} whose reply could not be read.",
        ),
    )


def _build_replica(report: Report) -> Section | None:
    found = report.served
    if found is None:
        return None
    return Section(
        title="By a replica's answers",
        words=(
            f"{found.verdict}: {found.reason}. {found.agreement:.0%} of the candidate's answers are the same "
            "as above.",
        ),
        columns=COMPARED,
        rows=(_build_comparison_row(format_side(report, found.comparison.against), found.comparison),),
    )


def _build_seeds(report: Report) -> Section | None:
    seeds = report.seeds
    if seeds is None:
        return None
    return Section(
        title="Several seeds",
        words=(
            f"{len(seeds.scores)} runs of the plan: {seeds.metric} {seeds.mean:.3f} ± {seeds.deviation:.3f} "
            f"(mean and standard deviation); the candidate is the median one.",
        ),
        columns=("run", seeds.metric),
        rows=tuple((str(run), format_number(score)) for run, score in enumerate(seeds.scores)),
    )


def _build_general(report: Report) -> Section | None:
    found, title = report.general, "What the base model could do before"
    if found is None:
        return (
            Section(title=title, words=(f"Not measured: {report.no_general}.",))
            if report.no_general
            else None
        )
    return Section(
        title=title,
        words=(
            f"{found.items} questions that the base model wrote itself, and that no training learns. The "
            f"divergence is that of a side's next token from the base's, in nats, at each of {found.tokens} "
            "tokens of the base's answers. The agreement is the F1 of the words that a side's answer and the "
            f"base's have in common. The candidate's is {found.change:+.3f} against what is live (95% "
            f"interval {format_interval(found.interval)}).",
        ),
        columns=("side", "divergence", "agreement", "the same answers"),
        rows=tuple(
            (
                format_side(report, each.name),
                format_number(each.divergence),
                format_number(each.agreement),
                str(each.same),
            )
            for each in found.sides
        ),
    )


def _build_labels(report: Report) -> Iterator[Section]:
    measured = report.candidate.labels
    if measured is None:
        return
    before = report.find_side(report.live).labels
    live = {each.label: each for each in before.classes} if before else {}
    yield Section(
        title="Label by label",
        columns=("label", "items", "precision", "recall", "F1", f"F1 of {report.live}"),
        rows=tuple(_build_label_row(each, live.get(each.label)) for each in measured.classes),
    )
    wrong = sorted((cell for cell in measured.confusion if cell.answered != cell.gold), key=lambda c: -c.n)
    yield Section(
        title="What the candidate confuses",
        words=(_describe_confusions(len(wrong)),),
        columns=("should be", "is answered", "items"),
        rows=tuple(
            (cell.gold, cell.answered or "something outside the output space", str(cell.n))
            for cell in wrong[:CONFUSIONS]
        ),
    )


def _build_label_row(found: ClassFigures, live: ClassFigures | None) -> tuple[str, ...]:
    shares = (found.precision, found.recall, found.f1, live.f1 if live else None)
    return (found.label, str(found.support), *map(format_number, shares))


def _describe_confusions(kinds: int) -> str:
    if not kinds:
        return "Nothing."
    return f"The {CONFUSIONS} most frequent of {kinds}." if kinds > CONFUSIONS else ""


def _build_confidence(report: Report) -> Iterator[Section]:
    measured = [(side, side.confidence) for side in report.sides if side.confidence]
    if not measured:
        return
    k = measured[0][1].k
    yield Section(
        title="Confidence",
        words=(
            "From the likelihoods of the labels. The calibration error says how far the confidence is from "
            "the share that is right, 0 being best.",
        ),
        columns=("side", "confidence", "calibration error", f"right label among the {k} most likely"),
        rows=tuple(
            (
                format_side(report, side.name),
                format_number(found.confidence),
                format_number(found.confidence_calibration),
                format_number(found.top_k_accuracy),
            )
            for side, found in measured
        ),
    )
    if report.candidate.confidence:
        yield Section(
            title="How often the candidate is right when it is so sure",
            columns=("confidence", "items", "mean confidence", "share right"),
            rows=tuple(
                (
                    f"{each.low:.1f} to {each.high:.1f}",
                    str(each.n),
                    format_number(each.confidence),
                    format_number(each.accuracy),
                )
                for each in report.candidate.confidence.reliability
            ),
        )
