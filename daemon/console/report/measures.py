"""What every side of an evaluation measured, under names that say what it is."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from daemon.console.base.charts import bar_chart
from daemon.console.base.widgets import percent, section, table
from daemon.views.report_text import titled
from evaluation.report import Report, Side
from evaluation.rules import JUDGE


class Measure(NamedTuple):
    """How a measure is called and shown."""

    words: str
    share: bool = True
    """In percent; else as a number."""


MEASURES: Mapping[str, Measure] = {
    "accuracy": Measure("answered right"),
    "sessions_right": Measure("conversations answered right from end to end"),
    "valid_rate": Measure("valid answers"),
    "hallucination_rate": Measure("answers outside the output space"),
    "macro_f1": Measure("F1, mean of the labels", share=False),
    "top_k_accuracy": Measure("right label among the likeliest"),
    "confidence": Measure("confidence, on average"),
    "confidence_calibration": Measure("calibration error (0 is best)", share=False),
    "field_f1": Measure("fields, mean F1 of the answers", share=False),
    "field_precision": Measure("answered fields that are right"),
    "field_recall": Measure("wanted fields that were answered right"),
    "field_micro_f1": Measure("fields, F1 of all together", share=False),
    "valid_json_rate": Measure("answers that are JSON"),
    "token_f1": Measure("words in common (token F1)", share=False),
    "rouge_l": Measure("ROUGE-L", share=False),
    "chrf": Measure("chrF, mean of the answers", share=False),
    "corpus_chrf": Measure("chrF of all together", share=False),
    "bleu": Measure("BLEU of all together", share=False),
    "reference_perplexity": Measure("perplexity of the right answers (1 is best)", share=False),
    "recall@1": Measure("relevant documents found first"),
    "recall@5": Measure("relevant documents among the first 5"),
    "recall@10": Measure("relevant documents among the first 10"),
    "mrr@10": Measure("MRR@10: how soon the first relevant one comes", share=False),
    "ndcg@10": Measure("nDCG@10: how well they are ordered", share=False),
    JUDGE: Measure("preferred by the judge"),
}
SAID_OTHERWISE = frozenset({"error_rate"})
"""Measures that another one implies."""


def named(metric: str, report: Report) -> str:
    """What people call the metric."""
    if metric == "accuracy" and is_search(report):
        return "a relevant document first"
    if metric == "top_k_accuracy" and report.candidate.confidence:
        return f"right label among the {report.candidate.confidence.k} likeliest"
    known = MEASURES.get(metric)
    return known.words if known else metric.replace("_", " ")


def measured(metric: str, value: float | None) -> str:
    """A value of the metric."""
    if value is None:
        return "–"
    return percent(value) if _is_share(metric) else f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def changed(metric: str, effect: float) -> str:
    """A change in the metric, or an end of its interval."""
    return f"{effect:+.1%}" if _is_share(metric) else f"{effect:+.3f}"


def is_search(report: Report) -> bool:
    """Whether the sides are encoders, which searched."""
    return "ndcg@10" in report.candidate.measures


def _is_share(metric: str) -> bool:
    return metric in MEASURES and MEASURES[metric].share


def measures_section(report: Report) -> None:
    """A row for each measure, a column for each side."""
    with section("Measures", _counted(report)):
        sides = {titled(report, side.name): side for side in report.sides}
        primary = report.comparisons[0].metric
        bars = {name: _as_items_count(report, side) for name, side in sides.items()}
        bar_chart(bars, f"{named(primary, report)}: each side, in percent")
        table(
            "What each side measured",
            _rows(report, sides),
            ("", *sides, "change"),
            numbers=(*sides, "change"),
            headed=True,
        )


def is_weighed(report: Report) -> bool:
    """Whether some items count for more than others."""
    return report.weighting is not None and bool(set(report.weighting.weights.values()) - {1.0})


def _as_items_count(report: Report, side: Side) -> float:
    """The side's mean by the primary metric, weighted as the verdict weighs it."""
    found = report.comparisons[0] if side is report.candidate else report.against(side.name)
    if found.means is None:
        return side.mean(found.metric)
    return found.means[0] if side is report.candidate else found.means[1]


def _counted(report: Report) -> str:
    words = f"{report.gold_size} of {report.holdout_size} held-out items have a known answer."
    if report.unanswerable:
        words += f" {report.unanswerable} more were left out: the chat template refuses their prompts."
    if report.rejected_without_correction:
        words += (
            f" Of {report.rejected_without_correction} people rejected the answer and gave no better one."
        )
    if is_weighed(report):
        words += " The first row weighs them as the verdict does; in the others each counts once."
    return words


def _rows(report: Report, sides: Mapping[str, Side]) -> Iterator[Mapping[str, Any]]:
    live = report.side(report.live)
    if is_weighed(report):
        primary = report.against(report.live)
        yield {
            "": f"{named(primary.metric, report)}, weighted",
            "change": changed(primary.metric, primary.effect),
        } | {name: measured(primary.metric, _as_items_count(report, side)) for name, side in sides.items()}
    for metric in _metrics(report):
        found = {name: _value(side, metric) for name, side in sides.items()}
        before, after = _value(live, metric), _value(report.candidate, metric)
        change = None if before is None or after is None else changed(metric, after - before)
        yield {"": named(metric, report), "change": change} | {
            name: measured(metric, value) for name, value in found.items()
        }
    if any(side.latency_ms for side in sides.values()):
        latencies = {name: f"{side.latency_ms:.0f}" for name, side in sides.items()}
        yield {"": "milliseconds for the same work", **latencies}
    if any(side.repeated_rejected for side in sides.values()):
        yield {"": "rejected answers given again"} | {
            name: side.repeated_rejected for name, side in sides.items()
        }


def _metrics(report: Report) -> list[str]:
    """Those of any side: known ones in their order, then others."""
    found = {"accuracy", *(name for side in report.sides for name in side.measures)} - SAID_OTHERWISE
    if not is_search(report):
        found.add("valid_rate")
    known = [name for name in MEASURES if name in found]
    return [*known, *sorted(found.difference(known))]


def _value(side: Side, metric: str) -> float | None:
    if metric == "accuracy":
        return side.accuracy
    return side.valid_rate if metric == "valid_rate" else side.measures.get(metric)
