"""Figures of a classification beyond its accuracy: class by class, and the confidence of the model.

Labels are compared as the scorer compares them (`normalise_label`). Pure functions: texts and
log-likelihoods in, figures out.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import scipy

from evaluation.metrics.measures import (
    ClassFigures,
    ConfidenceMeasures,
    ConfusionCell,
    LabelMeasures,
    ReliabilityBin,
)
from evaluation.metrics.scoring import normalise_label

MOST_K = 3
BINS = 10


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
