"""The measures of every side of an evaluation, under names that people understand."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from daemon.console.base.charts import show_bar_chart
from daemon.console.base.widgets import format_percent, show_section, show_table
from daemon.views.report_text import format_side
from evaluation.report import Report, Side
from evaluation.rules import JUDGE


class Measure(NamedTuple):
    """Name of a measure, and the form of its values."""

    words: str
    share: bool = True
    """Shown in percent; other measures are shown as numbers."""


MEASURES: Mapping[str, Measure] = {
    "accuracy": Measure("answered right"),
    "sessions_right": Measure("conversations answered right from end to end"),
    "valid_rate": Measure("valid answers"),
    "hallucination_rate": Measure("answers outside the output space"),
    "macro_f1": Measure("F1, mean of the labels", share=False),
    "top_k_accuracy": Measure("right label among the most likely"),
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
IMPLIED = frozenset({"error_rate"})
"""Measures that follow from another one, and are not shown."""


def name_metric(metric: str, report: Report) -> str:
    """Return the name of a metric for people."""
    if metric == "accuracy" and is_search(report):
        return "a relevant document first"
    if metric == "top_k_accuracy" and report.candidate.confidence:
        return f"right label among the {report.candidate.confidence.k} most likely"
    known = MEASURES.get(metric)
    return known.words if known else metric.replace("_", " ")


def format_measure(metric: str, value: float | None) -> str:
    """Return a value of the metric for people."""
    if value is None:
        return "–"
    return (
        format_percent(value) if _is_share(metric) else f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
    )


def format_change(metric: str, effect: float) -> str:
    """Return a change in the metric, or an end of its interval, with its sign."""
    return f"{effect:+.1%}" if _is_share(metric) else f"{effect:+.3f}"


def is_search(report: Report) -> bool:
    """Return True if the sides are encoders, which are measured by searches."""
    return "ndcg@10" in report.candidate.measures


def _is_share(metric: str) -> bool:
    return metric in MEASURES and MEASURES[metric].share


def show_measures(report: Report) -> None:
    """Show a row for each measure, and a column for each side."""
    with show_section("Measures", _describe_items(report)):
        sides = {format_side(report, side.name): side for side in report.sides}
        primary = report.comparisons[0].metric
        bars = {name: _compute_weighted_mean(report, side) for name, side in sides.items()}
        show_bar_chart(bars, f"{name_metric(primary, report)}: each side, in percent")
        show_table(
            "What each side measured",
            _list_rows(report, sides),
            ("", *sides, "change"),
            numbers=(*sides, "change"),
            headed=True,
        )


def is_weighted(report: Report) -> bool:
    """Return True if some items count for more than others."""
    return report.weighting is not None and bool(set(report.weighting.weights.values()) - {1.0})


def _compute_weighted_mean(report: Report, side: Side) -> float:
    """Return the side's mean by the primary metric, weighted as the verdict weighs it."""
    found = report.comparisons[0] if side is report.candidate else report.find_comparison(side.name)
    if found.means is None:
        return side.average(found.metric)
    return found.means[0] if side is report.candidate else found.means[1]


def _describe_items(report: Report) -> str:
    words = f"{report.gold_size} of {report.holdout_size} held-out items have a known answer."
    if report.unanswerable:
        words += f" {report.unanswerable} more were left out: the chat template refuses their prompts."
    if report.rejected_without_correction:
        words += (
            f" Of {report.rejected_without_correction} people rejected the answer and gave no better one."
        )
    if is_weighted(report):
        words += " The first row weighs them as the verdict does; in the others each counts once."
    return words


def _list_rows(report: Report, sides: Mapping[str, Side]) -> Iterator[Mapping[str, Any]]:
    live = report.find_side(report.live)
    if is_weighted(report):
        primary = report.find_comparison(report.live)
        yield {
            "": f"{name_metric(primary.metric, report)}, weighted",
            "change": format_change(primary.metric, primary.effect),
        } | {
            name: format_measure(primary.metric, _compute_weighted_mean(report, side))
            for name, side in sides.items()
        }
    for metric in _list_metrics(report):
        found = {name: _find_value(side, metric) for name, side in sides.items()}
        before, after = _find_value(live, metric), _find_value(report.candidate, metric)
        change = None if before is None or after is None else format_change(metric, after - before)
        yield {"": name_metric(metric, report), "change": change} | {
            name: format_measure(metric, value) for name, value in found.items()
        }
    if any(side.latency_ms for side in sides.values()):
        latencies = {name: f"{side.latency_ms:.0f}" for name, side in sides.items()}
        yield {"": "milliseconds for the same work", **latencies}
    if any(side.repeated_rejected for side in sides.values()):
        yield {"": "rejected answers given again"} | {
            name: side.repeated_rejected for name, side in sides.items()
        }


def _list_metrics(report: Report) -> list[str]:
    """List the metrics of any side: known ones in their order, then others."""
    found = {"accuracy", *(name for side in report.sides for name in side.measures)} - IMPLIED
    if not is_search(report):
        found.add("valid_rate")
    known = [name for name in MEASURES if name in found]
    return [*known, *sorted(found.difference(known))]


def _find_value(side: Side, metric: str) -> float | None:
    if metric == "accuracy":
        return side.accuracy
    return side.valid_rate if metric == "valid_rate" else side.measures.get(metric)
