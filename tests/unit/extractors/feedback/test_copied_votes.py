"""Tests of one vote that was written twice."""

from datetime import timedelta

import pytest

from extractors.feedback.copied_votes import SAME_MOMENT
from extractors.feedback.extract import Extraction, extract
from extractors.feedback.rules import FeedbackRules
from extractors.phoenix.spans import Annotation, Span
from extractors.span_parsing.drop_reasons import DropReason
from tests.support.traffic import NOON, annotation, openinference, span

SOON, LATER = NOON + SAME_MOMENT, NOON + SAME_MOMENT + timedelta(seconds=1)
LAST = FeedbackRules(inherit="last")


def make_trace() -> list[Span]:
    """An agent's root span with two calls below it, and a call beside it that began after them."""
    root = span("root", trace_id="t", selected=False, kind="AGENT", attributes={})
    below = [span(f"c{n}", n, trace_id="t", parent_id="root") for n in (1, 2)]
    return [root, *below, span("title", 3, trace_id="t")]


def list_approved(found: Extraction) -> list[str]:
    return [item.source_span_ids[0] for item in found.items if item.outcome == "approved"]


ON_TRACE, ON_ROOT = annotation("t", level="trace"), annotation("root")


def test_a_vote_on_a_trace_and_on_its_root_span_is_one_vote() -> None:
    assert list_approved(extract(make_trace(), [ON_TRACE], LAST)) == ["title"]
    assert list_approved(extract(make_trace(), [ON_ROOT], LAST)) == ["c2"]
    assert list_approved(extract(make_trace(), [ON_TRACE, ON_ROOT], LAST)) == ["c2"]


def test_a_vote_on_a_trace_and_on_the_call_that_is_its_root_is_one_vote() -> None:
    outer = span("outer", trace_id="t")
    inner = span("inner", 1, trace_id="t", parent_id="outer", attributes=openinference(("user", "Guard?")))
    inner.attributes["llm"]["output_messages"][0]["message"]["content"] = "safe"
    votes = [annotation("outer"), annotation("t", level="trace")]
    assert list_approved(extract([outer, inner], votes, LAST)) == ["outer"]


@pytest.mark.parametrize("rules", [LAST, FeedbackRules(inherit="all"), FeedbackRules()])
def test_a_vote_written_twice_gives_each_call_one_item_with_one_verdict(rules: FeedbackRules) -> None:
    found = extract(make_trace()[:2], [ON_TRACE, ON_ROOT], rules)
    assert [(item.outcome, item.verdict_at) for item in found.items] == [("approved", NOON)]
    assert len(found.judged) == 1


def test_two_sdks_that_write_one_vote_are_one_reviewer() -> None:
    wrong = annotation(label="approved", metadata={"correction": "shipping"})
    copy = wrong.model_copy(update={"identifier": "", "updated_at": SOON})
    other = copy.model_copy(update={"metadata": {}})
    assert extract([span()], [wrong, copy], LAST).items[0].outcome == "corrected"
    # It may be another reviewer's: it says something else.
    assert extract([span()], [wrong, other], LAST).dropped == {DropReason.DISAGREEMENT.value: 1}


def test_a_vote_without_a_name_much_later_or_with_another_label_is_another_reviewers() -> None:
    vote = annotation("t", level="trace")
    for other in (
        annotation("root", identifier="", updated_at=LATER),
        annotation("root", identifier="bob"),
        annotation("root", score=0.5),
        annotation("root", annotator_kind="LLM"),
    ):
        assert list_approved(extract(make_trace(), [vote, other], LAST)) == ["c2", "title"]
    near = annotation("root", "Approved!", identifier="", updated_at=SOON)
    assert list_approved(extract(make_trace(), [vote, near], LAST)) == ["c2"]


def test_the_candidate_of_a_vote_written_twice_answers_one_call() -> None:
    def carry(vote: Annotation) -> Annotation:
        return vote.model_copy(update={"metadata": {"response": "42"}})

    found = extract(make_trace(), [carry(ON_TRACE), carry(ON_ROOT)], LAST)
    assert [(each.response.content, each.source_span_ids) for each in found.judged] == [("42", ("c2",))]
