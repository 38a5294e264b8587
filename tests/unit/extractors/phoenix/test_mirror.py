"""The pure half of following Phoenix: what differs, what is selected, and which days are read."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from extractors.phoenix.mirror import PollRules, compare_annotations, compare_spans
from extractors.phoenix.spans import Annotation, Span, SpanFilter, matches
from extractors.phoenix.sweep import choose_days

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
COLD_READS = PollRules().cold_reads


def build_annotation(subject_id: str = "a", **fields: Any) -> Annotation:
    defaults = {
        "level": "span",
        "name": "approval",
        "identifier": "ann",
        "annotator_kind": "HUMAN",
        "updated_at": NOW,
    }
    return Annotation.model_validate({**defaults, "subject_id": subject_id, **fields})


def build_span(**fields: Any) -> Span:
    defaults = {
        "span_id": "a",
        "trace_id": "t",
        "name": "route",
        "kind": "LLM",
        "started_at": NOW,
        "selected": True,
    }
    return Span.model_validate({**defaults, **fields})


def test_the_same_annotations_differ_in_nothing_whatever_their_order() -> None:
    both = [build_annotation("a"), build_annotation("b")]
    assert compare_annotations(both, both[::-1]) == ([], [])


def test_an_edit_is_found_even_within_the_second_that_phoenix_resolves() -> None:
    before, edited = build_annotation(label="approved"), build_annotation(label="rejected")
    assert compare_annotations([before], [edited]) == ([edited], [])


def test_reviewers_names_and_levels_are_told_apart() -> None:
    before = [build_annotation()]
    added = [
        build_annotation(identifier="bob"),
        build_annotation(name="correction"),
        build_annotation(level="trace"),
    ]
    assert compare_annotations(before, [*before, *added]) == (added, [])


def test_a_missing_annotation_is_removed_by_its_key() -> None:
    assert compare_annotations([build_annotation("a"), build_annotation("b")], [build_annotation("b")]) == (
        [],
        [("span", "a", "approval", "ann")],
    )


def test_spans_are_new_changed_or_gone() -> None:
    kept, before, after, gone = (
        build_span(span_id="k"),
        build_span(),
        build_span(session_id="s"),
        build_span(span_id="g"),
    )
    assert compare_spans([kept, before, gone], [kept, after]) == ([after], ["g"])


@pytest.mark.parametrize(
    ("wanted", "selected"),
    [
        ({}, True),
        ({"kind": "llm"}, True),
        ({"kind": "TOOL"}, False),
        ({"name": "route"}, True),
        ({"name": "rout"}, False),
        ({"attributes": {"metadata.agent": "router"}}, True),
        ({"attributes": {"metadata.agent": "writer"}}, False),
        ({"attributes": {"metadata.app.version": 2}}, True),
        ({"attributes": {"metadata.live": 1}}, False),
        ({"attributes": {"metadata.live": True, "llm.model_name": "m"}}, True),
        ({"attributes": {"metadata.agent.name": "router"}}, False),
        ({"attributes": {"missing": "x"}}, False),
    ],
)
def test_a_span_is_selected_only_by_all_of_the_filter(wanted: dict[str, Any], selected: bool) -> None:
    metadata = {"agent": "router", "app.version": 2, "live": True}
    span = build_span(attributes={"metadata": metadata, "llm": {"model_name": "m"}})
    assert matches(span, SpanFilter.model_validate(wanted)) is selected


def test_hot_days_are_always_read_and_cold_ones_take_turns() -> None:
    today = NOW.date()
    cold = [today - timedelta(days=10 + n) for n in range(4)]
    counts = {today: 9_000, **dict.fromkeys(cold, COLD_READS // 2)}
    read_at: dict[date, datetime] = {}
    rounds = []
    for minute in range(2):
        at = NOW + timedelta(minutes=minute)
        days = choose_days(counts, read_at, at, COLD_READS)
        read_at |= dict.fromkeys(days, at)
        rounds.append(days)

    assert today in rounds[0] & rounds[1]
    assert rounds[0] | rounds[1] == counts.keys()


def test_a_cold_day_that_is_larger_than_a_poll_reads_is_read_all_the_same() -> None:
    day = NOW.date() - timedelta(days=10)
    assert choose_days({day: 2 * COLD_READS}, {}, NOW, COLD_READS) == {day}
