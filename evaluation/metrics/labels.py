"""Figures of a classification beyond its accuracy: class by class, and the confidence of the model.

Labels are compared as the scorer compares them (`normalise_label`). Pure functions: texts and
log-likelihoods in, figures out.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import scipy

from evaluation.metrics.scoring import normalise_label
from extractors.values import Value

MOST_K = 3
BINS = 10


class ClassFigures(Value):
    """One label, over the items with gold."""

    label: str
    precision: float
    """Share of the answers with this label that are right; 0 without such answers."""
    recall: float
    """Share of the items with this label that were answered so; 0 without such items."""
    f1: float
    """Harmonic mean of the two; 0 where both are 0."""
    support: int
    """Items whose gold answer is this label."""


class ConfusionCell(Value):
    """One cell of the confusion matrix."""

    gold: str
    answered: str | None
    """None for all answers outside the output space."""
    n: int


class LabelMeasures(Value):
    """Figures of the answers of one side."""

    error_rate: float
    """Share of the items with gold whose answer is another one."""
    hallucination_rate: float
    """Share of all answers that are outside the output space."""
    macro_f1: float
    """Mean F1 of the labels that are gold anywhere, which are the same for every side."""
    classes: tuple[ClassFigures, ...]
    """One for every label that is gold or was answered, by name."""
    confusion: tuple[ConfusionCell, ...]
    """The cells that are not 0, by gold label and answer."""

    @property
    def figures(self) -> dict[str, float]:
        return self.model_dump(include={"error_rate", "hallucination_rate", "macro_f1"})


class ReliabilityBin(Value):
    """The items whose likeliest label has a probability above `low` and up to `high`."""

    low: float
    high: float
    n: int
    confidence: float
    """Mean probability of the likeliest label."""
    accuracy: float
    """Share of the items whose likeliest label is right."""


class ConfidenceMeasures(Value):
    """Figures from the likelihoods of the labels, for one side."""

    k: int
    """Labels that count for `top_k_accuracy`: 3, but fewer than the output space has."""
    top_k_accuracy: float
    """Share of the items whose gold label is one of the k likeliest."""
    confidence: float
    """Mean probability of the likeliest label."""
    confidence_calibration: float
    """Expected calibration error, 0 (best) to 1: the mean distance of the confidence from the share that is
    right (Guo et al. 2017, 10 bins of equal width)."""
    reliability: tuple[ReliabilityBin, ...]
    """The bins that hold items."""

    @property
    def figures(self) -> dict[str, float]:
        return self.model_dump(include={"top_k_accuracy", "confidence", "confidence_calibration"})


def measure_labels(
    answers: Sequence[str], golds: Sequence[str | None], output_space: Iterable[str]
) -> LabelMeasures:
    """Measure one answer an item; the gold of an item without gold is None. At least one item must have gold.

    Gold labels are part of the output space. Pass an empty text for an answer that was cut off.
    """
    wanted = [None if gold is None else normalise_label(gold) for gold in golds]
    space = {*map(normalise_label, output_space), *wanted} - {None}
    said = [label if (label := normalise_label(answer)) in space else None for answer in answers]
    cells = Counter((gold, label) for gold, label in zip(wanted, said, strict=True) if gold is not None)
    classes = _measure_classes(cells)
    f1 = [each.f1 for each in classes if each.support]
    return LabelMeasures(
        error_rate=sum(n for (gold, label), n in cells.items() if gold != label) / cells.total(),
        hallucination_rate=said.count(None) / len(said),
        macro_f1=sum(f1) / len(f1),
        classes=classes,
        confusion=tuple(
            ConfusionCell(gold=gold, answered=label, n=n)
            for (gold, label), n in sorted(cells.items(), key=lambda cell: (cell[0][0], cell[0][1] or ""))
        ),
    )


def _measure_classes(cells: Counter[tuple[str, str | None]]) -> tuple[ClassFigures, ...]:
    support, answered = Counter[str](), Counter[str]()
    for (gold, label), n in cells.items():
        support[gold] += n
        if label is not None:
            answered[label] += n
    return tuple(
        ClassFigures(
            label=label,
            precision=_divide(cells[label, label], answered[label]),
            recall=_divide(cells[label, label], support[label]),
            f1=_divide(2 * cells[label, label], answered[label] + support[label]),
            support=support[label],
        )
        for label in sorted({*support, *answered})
    )


def _divide(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def measure_confidence(
    likelihoods: Sequence[Mapping[str, float]], golds: Sequence[str]
) -> ConfidenceMeasures:
    """Measure the log-likelihoods (nats) of the labels of the output space, item by item.

    There must be at least one item, and each must have gold. A label counts as likelier only if it is
    strictly likelier: a model that cannot tell labels apart is not right by their order.
    """
    probabilities = [compute_label_probabilities(item) for item in likelihoods]
    k = min(MOST_K, max(1, min(map(len, probabilities)) - 1))
    ranks = [_find_rank(item, normalise_label(gold)) for item, gold in zip(probabilities, golds, strict=True)]
    confidence = np.array([max(item.values()) for item in probabilities])
    reliability = _build_bins(confidence, np.array([rank == 1 for rank in ranks]))
    return ConfidenceMeasures(
        k=k,
        top_k_accuracy=sum(rank <= k for rank in ranks) / len(ranks),
        confidence=float(confidence.mean()),
        confidence_calibration=sum(b.n * abs(b.accuracy - b.confidence) for b in reliability) / len(ranks),
        reliability=reliability,
    )


def compute_label_probabilities(likelihoods: Mapping[str, float]) -> dict[str, float]:
    """Return the probability of each normalised label, given that the answer is one of them.

    `likelihoods` are in nats. Where none is a number above -inf, all labels are equally probable.
    """
    nats = np.nan_to_num(np.array(list(likelihoods.values()), dtype=float), nan=-np.inf, neginf=-np.inf)
    shares = scipy.special.softmax(nats if np.isfinite(nats).any() else np.zeros_like(nats))
    found: dict[str, float] = {}
    for label, share in zip(likelihoods, shares.tolist(), strict=True):
        found[normalise_label(label)] = found.get(normalise_label(label), 0.0) + share
    return found


def _find_rank(probabilities: Mapping[str, float], label: str) -> int:
    """Return the label's rank from 1; it comes last where it is not among the `probabilities`."""
    own = probabilities.get(label, -1.0)
    return 1 + sum(share >= own for other, share in probabilities.items() if other != label)


def _build_bins(
    confidence: np.ndarray[tuple[int], np.dtype[np.float64]], right: np.ndarray[tuple[int], np.dtype[np.bool]]
) -> tuple[ReliabilityBin, ...]:
    edges = np.linspace(0, 1, BINS + 1)
    which = np.digitize(confidence, edges[1:-1], right=True)
    return tuple(
        ReliabilityBin(
            low=round(float(edges[number]), 6),
            high=round(float(edges[number + 1]), 6),
            n=int((which == number).sum()),
            confidence=float(confidence[which == number].mean()),
            accuracy=float(right[which == number].mean()),
        )
        for number in sorted(set(which.tolist()))
    )
