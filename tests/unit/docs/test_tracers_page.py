"""The page of tracers is written from the corpus, and leaves nothing of it out."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "docs"))

from reference_pages.tracers_page import MEANINGS, number_reasons, summarise, tracers_page

from extractors.span_parsing.drop_reasons import DropReason
from tests.corpus.recorded import TRACERS, read_expected
from tests.corpus.script import ANSWERS


def test_each_tracer_has_a_row_with_its_versions_and_a_row_with_its_calls() -> None:
    page = tracers_page()
    assert [tracer for tracer in TRACERS if page.count(f"\n| {tracer} |") != 2] == []


def test_each_reason_that_occurs_is_written_out() -> None:
    page = tracers_page()
    numbers = number_reasons(read_expected())
    assert numbers
    assert [name for name in numbers if f"{numbers[name]}. {DropReason[name].value}\n" not in page] == []


def test_each_situation_that_was_recorded_has_a_column() -> None:
    # One situation only prepares another.
    assert set(MEANINGS) == set(ANSWERS) - {"before reference"}


def test_a_tracer_is_read_in_full_only_where_every_call_that_can_teach_is() -> None:
    assert summarise({"plain": "read", "image": "NOT_TEXT", "error": "FAILED"}) == "in full"
    assert summarise({"plain": "read", "tool results": "NOT_WHOLE"}) == "in part"
    assert summarise({"plain": "read without tools"}) == "in part"
    assert summarise({"plain": "NO_PROMPT", "image": "NOT_TEXT"}) == "refused"
