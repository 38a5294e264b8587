"""Whose feedback reaches which call: down from ancestor spans, the trace and the session.

Also which spans traced one and the same call: an agent's instrumentor and our gateway below it.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import datetime

from extractors.feedback.rules import FeedbackRules, select_outcome_feedback
from extractors.phoenix.spans import Annotation, SubjectKey, group_by_subject
from extractors.span_parsing.merge import Ancestry
from extractors.values import Value


class TracedCall(Value):
    """One call that feedback from above could be about, readable or not."""

    span_ids: tuple[str, ...]
    trace_id: str
    session_id: str | None
    started_at: datetime


class FeedbackAttribution:
    """The feedback that reaches each call, by the rule `inherit`.

    What is said above several calls approves or rejects all that it reaches, but a correction or a
    candidate answer stands for one answer, the last below it.
    """

    def __init__(
        self,
        candidates: Iterable[TracedCall],
        ancestry: Ancestry,
        annotations: Iterable[Annotation],
        rules: FeedbackRules,
    ) -> None:
        self._ancestry = ancestry
        self._rules = rules
        self._said = group_by_subject(annotations)
        candidates = sorted(candidates, key=lambda candidate: (candidate.started_at, candidate.span_ids))
        self._own = {span_id for candidate in candidates for span_id in candidate.span_ids}
        self._below: defaultdict[SubjectKey, list[tuple[str, ...]]] = defaultdict(list)
        for candidate in candidates:
            for scope in self._above(candidate):
                self._below[scope].append(candidate.span_ids)

    def feedback(self, candidate: TracedCall) -> Iterator[list[Annotation]]:
        """Annotations by scope, what is nearest first: the call's own spans, ancestors, trace, session."""
        yield [said for span_id in candidate.span_ids for said in self._said.get(("span", span_id), [])]
        for scope in self._above(candidate):
            if scope in self._said:
                yield self._inherited(scope, candidate)

    def _inherited(self, scope: SubjectKey, candidate: TracedCall) -> list[Annotation]:
        """What of the feedback on `scope` is about the candidate's answer."""
        below, said = self._below[scope], self._said[scope]
        last = below[-1] == candidate.span_ids
        match self._rules.inherit:
            case "only":
                return said if below == [candidate.span_ids] else []
            case "last":
                return said if last else []
            case "all":
                return said if last else select_outcome_feedback(said, self._rules)
            case "never":
                return []

    def _above(self, candidate: TracedCall) -> Iterator[SubjectKey]:
        ancestors = (
            above for span_id in reversed(candidate.span_ids) for above in self._ancestry.of(span_id)
        )
        for span_id in dict.fromkeys(ancestors):
            # What is said about another call is about that one's answer.
            if span_id not in self._own:
                yield ("span", span_id)
        yield ("trace", candidate.trace_id)
        if candidate.session_id is not None:
            yield ("session", candidate.session_id)
