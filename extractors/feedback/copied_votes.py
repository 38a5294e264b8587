"""One vote that was written twice: by two SDKs, or on a trace and on its root span."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import timedelta

from extractors.feedback.labels import normalise_label
from extractors.phoenix.spans import Annotation

SAME_MOMENT = timedelta(seconds=10)
"""The longest time between two copies of one vote, where one of them does not say whose it is."""


def drop_copied_votes(annotations: Iterable[Annotation]) -> list[Annotation]:
    """Leave out votes without an identifier that another vote on the same subject repeats with one.

    A reviewer whom two SDKs name differently stays two: that they say the same proves nothing.
    """
    annotations = list(annotations)
    named: defaultdict[tuple[str, str, str], list[Annotation]] = defaultdict(list)
    for each in annotations:
        if each.identifier:
            named[each.level, each.subject_id, each.name].append(each)
    return [
        each
        for each in annotations
        if each.identifier
        or not any(is_same_vote(each, other) for other in named[each.level, each.subject_id, each.name])
    ]


def is_same_vote(one: Annotation, other: Annotation) -> bool:
    """Return whether two annotations, whatever they are on, are one vote of one reviewer.

    They say the same under the same name. The reviewer is the same, or one of them names none and both were
    written at nearly the same time.
    """
    if _list_content(one) != _list_content(other):
        return False
    if one.identifier == other.identifier:
        return True
    unnamed = not one.identifier or not other.identifier
    return unnamed and abs(one.updated_at - other.updated_at) <= SAME_MOMENT


def _list_content(vote: Annotation) -> tuple[object, ...]:
    label = normalise_label(vote.label or "")
    return vote.name, vote.annotator_kind, label, vote.score, vote.explanation or "", vote.metadata
