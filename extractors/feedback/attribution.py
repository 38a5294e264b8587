"""Attribution of feedback to calls: from a call's own spans, ancestor spans, the trace and the session."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from extractors.feedback.copied_votes import is_same_vote
from extractors.feedback.rules import FeedbackRules, select_outcome_feedback
from extractors.feedback.traced_calls import TracedCall
from extractors.phoenix.spans import Annotation, SubjectKey, group_by_subject
from extractors.span_parsing.merge import Ancestry


class ScopeFeedback(NamedTuple):
    """The feedback on a call, or on something above it, that is about the call's answer."""

    annotations: list[Annotation]
    is_narrow: bool
    """Whether it is about some calls of the session alone, and not about all of them."""


class FeedbackAttribution:
    """The feedback that reaches each call, by the rule `inherit`.

    Feedback above several calls approves or rejects all that it reaches, but a correction or a
    candidate answer stands for one answer, the last below it. A vote on a trace that stands on the trace's
    root span, too, is one vote: where the last call is meant, it is the last one below that span.
    """

    def __init__(
        self,
        calls: Iterable[TracedCall],
        ancestry: Ancestry,
        annotations: Iterable[Annotation],
        rules: FeedbackRules,
    ) -> None:
        self._ancestry = ancestry
        self._rules = rules
        self._annotations = group_by_subject(annotations)
        calls = sorted(calls, key=lambda call: (call.started_at, call.span_ids))
        self._call_spans = {span_id for call in calls for span_id in call.span_ids}
        self._below: defaultdict[SubjectKey, list[tuple[str, ...]]] = defaultdict(list)
        self._roots: defaultdict[str, set[str]] = defaultdict(set)
        for call in calls:
            *_, root = call.span_ids[0], *self._ancestry.find_ancestors(call.span_ids[0])
            self._roots[call.trace_id].add(root)
            for scope in self._iterate_scopes(call):
                self._below[scope].append(call.span_ids)

    def find_feedback(self, call: TracedCall) -> Iterator[ScopeFeedback]:
        """Yield feedback by scope, the nearest first: the call's own spans, ancestors, trace, session."""
        own = (self._annotations.get(("span", span_id), []) for span_id in call.span_ids)
        yield ScopeFeedback([each for annotations in own for each in annotations], is_narrow=True)
        session = len(self._below["session", call.session_id]) if call.session_id is not None else 0
        for scope in self._iterate_scopes(call):
            if scope in self._annotations:
                is_narrow = len(self._below[scope]) < session
                yield ScopeFeedback(self._select_inherited(scope, call), is_narrow)

    def _select_inherited(self, scope: SubjectKey, call: TracedCall) -> list[Annotation]:
        """Return the feedback on `scope` that is about the call's answer."""
        below, annotations = self._below[scope], self._annotations[scope]
        is_last = below[-1] == call.span_ids
        match self._rules.inherit:
            case "only":
                return annotations if below == [call.span_ids] else []
            case "last":
                return self._drop_root_votes(scope, annotations) if is_last else []
            case "all":
                return annotations if is_last else select_outcome_feedback(annotations, self._rules)
            case "never":
                return []

    def _drop_root_votes(self, scope: SubjectKey, annotations: list[Annotation]) -> list[Annotation]:
        """Leave out the votes on a trace that stand on its root span, too."""
        level, subject_id = scope
        if level != "trace":
            return annotations
        roots = sorted(self._roots[subject_id])
        on_root = [each for root in roots for each in self._annotations.get(("span", root), [])]
        return [vote for vote in annotations if not any(is_same_vote(vote, each) for each in on_root)]

    def _iterate_scopes(self, call: TracedCall) -> Iterator[SubjectKey]:
        """Yield what lies above the call, the nearest first: ancestor spans, its trace, its session."""
        ancestors = (
            above for span_id in reversed(call.span_ids) for above in self._ancestry.find_ancestors(span_id)
        )
        for span_id in dict.fromkeys(ancestors):
            # Feedback on another call is about that call's answer.
            if span_id not in self._call_spans:
                yield ("span", span_id)
        yield ("trace", call.trace_id)
        if call.session_id is not None:
            yield ("session", call.session_id)
