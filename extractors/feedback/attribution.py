"""Attribution of feedback to calls: from a call's own spans, ancestor spans, the trace and the session."""

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

    Feedback above several calls approves or rejects all that it reaches, but a correction or a
    candidate answer stands for one answer, the last below it.
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
        for call in calls:
            for scope in self._iterate_scopes(call):
                self._below[scope].append(call.span_ids)

    def find_feedback(self, call: TracedCall) -> Iterator[list[Annotation]]:
        """Yield annotations by scope, the nearest first: the call's own spans, ancestors, trace, session."""
        own = (self._annotations.get(("span", span_id), []) for span_id in call.span_ids)
        yield [annotation for annotations in own for annotation in annotations]
        for scope in self._iterate_scopes(call):
            if scope in self._annotations:
                yield self._select_inherited(scope, call)

    def _select_inherited(self, scope: SubjectKey, call: TracedCall) -> list[Annotation]:
        """Return the feedback on `scope` that is about the call's answer."""
        below, annotations = self._below[scope], self._annotations[scope]
        is_last = below[-1] == call.span_ids
        match self._rules.inherit:
            case "only":
                return annotations if below == [call.span_ids] else []
            case "last":
                return annotations if is_last else []
            case "all":
                return annotations if is_last else select_outcome_feedback(annotations, self._rules)
            case "never":
                return []

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
