"""Labels that no rule names: mostly a sign of rules that do not fit what the annotators write."""

from collections import Counter
from collections.abc import Iterable

from extractors.feedback.rules import FeedbackRules, says_nothing_known
from extractors.phoenix.spans import Annotation, Level
from extractors.values import Value

LONGEST_SHOWN = 60
"""Characters of a label that are shown."""
MOST_SHOWN = 20
"""Labels that are shown for one name."""


class UnknownLabel(Value):
    """A label under a name that counts, which the rule of that name knows neither as good nor as bad."""

    name: str
    """The annotation's name."""
    label: str
    """As it is written, at most LONGEST_SHOWN characters of it."""
    annotations: int
    """How many annotations have it, and say nothing else that counts."""

    def __str__(self) -> str:
        one = self.annotations == 1
        count = "1 annotation has" if one else f"{self.annotations} annotations have"
        return f"{self.name}: {count} the label {self.label!r}, which no rule names"


def count_unknown_labels(
    annotations: Iterable[Annotation], rules: FeedbackRules, levels: frozenset[Level]
) -> tuple[UnknownLabel, ...]:
    """Count the unknown labels at these `levels`, the most frequent first; MOST_SHOWN for each name."""
    counted = Counter(
        (each.name, (each.label or "").strip()[:LONGEST_SHOWN])
        for each in annotations
        if each.level in levels and says_nothing_known(each, rules)
    )
    shown = Counter[str]()
    unknown: list[UnknownLabel] = []
    for (name, label), count in sorted(counted.items(), key=lambda each: (-each[1], each[0])):
        shown[name] += 1
        if shown[name] <= MOST_SHOWN:
            unknown.append(UnknownLabel(name=name, label=label, annotations=count))
    return tuple(unknown)
