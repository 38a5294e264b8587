"""Statistics of a set of examples: counts, lengths, languages, balance of labels."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from extractors.cleaning.languages import ENOUGH_CHARACTERS, identify_language
from extractors.cleaning.quality import iterate_kinds, message_to_text
from extractors.cleaning.rules import QualityRules
from extractors.examples.prompt_keys import normalise
from extractors.examples.types import Example, Examples, PreferencePair, SFTExample, Trajectory, Triplet
from extractors.values import Value


class Lengths(Value):
    """Lengths of texts, in characters."""

    p50: int
    p95: int
    max: int


class KindStatistics(Value):
    """The examples of one kind."""

    count: int
    prompt: Lengths
    """Includes the system prompt; the query of a triplet, or all of a conversation that is not learned."""
    answer: Lengths
    """Both answers of a pair, both documents of a triplet, or the turns to learn of a conversation."""


class LabelBalance(Value):
    """Count of examples for each label of a classification."""

    counts: dict[str, int]
    """Every label of the output space, the most frequent first."""
    ratio: float | None
    """Largest to smallest count; None where a label has no example."""
    rare: int
    """Labels with fewer examples than the rules want."""


class Statistics(Value):
    """A set of examples as a whole."""

    kinds: dict[str, KindStatistics]
    """By kind; kinds without examples are left out."""
    languages: dict[str, float]
    """Share of each language (ISO 639, `und` where a text is too short to tell) in what users said."""
    labels: LabelBalance | None
    warnings: tuple[str, ...]
    """In words."""


def describe(
    examples: Examples, *, output_space: Sequence[str] = (), rules: QualityRules | None = None
) -> Statistics:
    """Measure counts, lengths, languages, and the label balance where there is an `output_space`."""
    rules = rules or QualityRules()
    labels = _count_labels(examples.sft, output_space, rules) if output_space else None
    return Statistics(
        kinds={kind: _describe_kind(members) for kind, members in iterate_kinds(examples) if members},
        languages=_measure_languages(examples),
        labels=labels,
        warnings=tuple(_list_warnings(labels, rules)) if labels else (),
    )


def _describe_kind(members: Sequence[Example]) -> KindStatistics:
    sides = [_measure_sides(example) for example in members]
    return KindStatistics(
        count=len(members),
        prompt=_summarise_lengths([prompt for prompt, _ in sides]),
        answer=_summarise_lengths([answer for _, answer in sides]),
    )


def _measure_sides(example: Any) -> tuple[int, int]:
    """Return the characters of prompt and answer."""
    match example:
        case Triplet():
            return len(example.query), len(example.positive.text) + len(example.negative.text)
        case Trajectory():
            sizes = [len(message_to_text(message)) for message in example.messages]
            learned = sum(sizes[at] for at in example.learned)
            return sum(sizes) - learned, learned
        case PreferencePair():
            answers = len(message_to_text(example.chosen)) + len(message_to_text(example.rejected))
        case _:
            answers = len(message_to_text(example.completion))
    return sum(len(message_to_text(message)) for message in example.prompt), answers


def _summarise_lengths(sizes: Sequence[int]) -> Lengths:
    """Return percentiles by nearest rank."""
    ordered = sorted(sizes)
    p50, p95 = (ordered[math.ceil(share * len(ordered)) - 1] for share in (0.5, 0.95))
    return Lengths(p50=p50, p95=p95, max=ordered[-1])


def _measure_languages(examples: Examples) -> dict[str, float]:
    texts = {
        _join_user_messages(example)[:ENOUGH_CHARACTERS]
        for _, members in iterate_kinds(examples)
        for example in members
    }
    if not texts:
        return {}
    counts = Counter(identify_language(text)[0] for text in texts)
    return {
        language: count / len(texts) for language, count in sorted(counts.items(), key=_sort_by_frequency)
    }


def _join_user_messages(example: Any) -> str:
    if isinstance(example, Triplet):
        return example.query
    messages = example.messages if isinstance(example, Trajectory) else example.prompt
    return "\n".join(message.content for message in messages if message.role == "user")


def _count_labels(
    examples: Sequence[SFTExample], output_space: Sequence[str], rules: QualityRules
) -> LabelBalance:
    spelled = {normalise(label): label for label in output_space}
    counts = Counter(dict.fromkeys(output_space, 0))
    counts.update(
        spelled.get(normalise(example.completion.content), example.completion.content) for example in examples
    )
    smallest = min(counts.values())
    return LabelBalance(
        counts=dict(sorted(counts.items(), key=_sort_by_frequency)),
        ratio=max(counts.values()) / smallest if smallest else None,
        rare=sum(count < rules.fewest_per_label for count in counts.values()),
    )


def _list_warnings(balance: LabelBalance, rules: QualityRules) -> Iterator[str]:
    total = sum(balance.counts.values())
    if not total:
        return
    most = next(iter(balance.counts))
    share = balance.counts[most] / total
    if share >= rules.one_label_share:
        yield f"{share:.0%} of the examples say {most}"
    absent = [label for label, count in balance.counts.items() if not count]
    if absent:
        yield f"no example says {_format_labels(absent)}"
    rare = [label for label, count in balance.counts.items() if 0 < count < rules.fewest_per_label]
    if rare:
        yield f"fewer than {rules.fewest_per_label} examples say {_format_labels(rare)}"


def _format_labels(labels: Sequence[str]) -> str:
    shown = ", ".join(labels[:5])
    return shown + (f" and {len(labels) - 5} other labels" if len(labels) > 5 else "")


def _sort_by_frequency(counted: tuple[str, int]) -> tuple[int, str]:
    return -counted[1], counted[0]
