"""Tests of the statistics of a set of examples."""

from extractors.cleaning.statistics import describe
from extractors.examples.types import Examples
from tests.unit.extractors.cleaning.hand_made import (
    SYSTEM,
    make_conversation,
    make_pair,
    make_sft,
    make_triplet,
)


def test_statistics_tell_counts_lengths_languages_and_balance() -> None:
    english = [
        make_sft(f"I would like to know when my order number {n} arrives", "shipping") for n in range(17)
    ]
    german = [make_sft("Wo ist meine Rechnung vom letzten Monat geblieben?", "billing")] * 2 + [
        make_sft("hm", "Billing")
    ]
    statistics = describe(
        Examples(sft=(*english, *german), pairs=(make_pair("abc", "de", "f"),)),
        output_space=("billing", "shipping", "returns"),
    )
    assert {kind: of.count for kind, of in statistics.kinds.items()} == {"sft": 20, "pairs": 1}
    lengths = statistics.kinds["pairs"]
    assert lengths.prompt.model_dump() == dict.fromkeys(("p50", "p95", "max"), len(SYSTEM.content) + 3)
    assert (lengths.answer.max, statistics.kinds["sft"].answer.p50) == (3, 8)
    assert statistics.languages == {"en": 17 / 20, "und": 2 / 20, "de": 1 / 20}
    assert statistics.labels is not None
    assert statistics.labels.counts == {"shipping": 17, "billing": 3, "returns": 0}
    assert (statistics.labels.ratio, statistics.labels.rare) == (None, 2)
    assert statistics.warnings == (
        "85% of the examples say shipping",
        "no example says returns",
        "fewer than 5 examples say billing",
    )


def test_balanced_labels_warn_of_nothing() -> None:
    examples = Examples(sft=tuple(make_sft(f"q{n}", "a" if n % 3 else "b") for n in range(30)))
    statistics = describe(examples, output_space=("a", "b"))
    assert statistics.labels is not None
    assert (statistics.labels.ratio, statistics.warnings) == (2.0, ())
    assert describe(examples).labels is None


def test_of_no_examples_there_is_nothing_to_say() -> None:
    statistics = describe(Examples(), output_space=("a",))
    assert (statistics.kinds, statistics.languages, statistics.warnings) == ({}, {}, ())


def test_conversations_and_triplets_are_measured_by_what_they_teach() -> None:
    statistics = describe(
        Examples(
            triplets=(make_triplet("four", "yes", "no"),),
            trajectories=(make_conversation("abc", "de", "f", "g", learned=(4,)),),
        )
    )
    assert (statistics.kinds["triplets"].prompt.max, statistics.kinds["triplets"].answer.max) == (4, 5)
    turns = statistics.kinds["trajectories"]
    assert (turns.prompt.max, turns.answer.max) == (len(SYSTEM.content) + 6, 1)


def test_percentiles_are_by_nearest_rank() -> None:
    statistics = describe(Examples(sft=tuple(make_sft("q", "x" * n) for n in range(1, 101))))
    assert statistics.kinds["sft"].answer.model_dump() == {"p50": 50, "p95": 95, "max": 100}
