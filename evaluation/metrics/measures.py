"""Records of what the metrics find, as a report holds them. Reading them loads no library of metrics."""

from extractors.values import Value


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


class Overhead(Value):
    """The candidate's time over that of one other side."""

    against: str
    n: int
    """Questions that both sides answered."""
    ratio: float
    """Median over the questions, above 0: 1.2 is 20% slower."""
    interval: tuple[float, float]
    """95% interval of that median."""
    lower: float
    """The median is above this, one-sided at the test's level."""
    upper: float
    """The median is below this, one-sided at the test's level. Non-inferiority is judged by it."""
