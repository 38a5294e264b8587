"""Whose feedback reaches which call: down from ancestor spans, the trace and the session.

Also which spans traced one and the same call: an agent's instrumentor and our gateway below it.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from extractors.feedback.rules import FeedbackRules, beyond_the_last
from extractors.phoenix.spans import Annotation, Span, Subject, by_subject
from extractors.span_parsing.calls import Call
from extractors.values import Value


class Ancestry:
    """Which span lies below which. Copes with parents that are missing or go in a circle."""

    def __init__(self, spans: Iterable[Span]) -> None:
        self._parents = {span.span_id: span.parent_id for span in spans}

    def of(self, span_id: str) -> Iterator[str]:
        """Ids of the span's ancestors, nearest first."""
        seen = {span_id}
        parent = self._parents.get(span_id)
        while parent is not None and parent not in seen:
            yield parent
            seen.add(parent)
            parent = self._parents.get(parent)


def merge_traced_twice(calls: Iterable[Call], ancestry: Ancestry) -> list[Call]:
    """One call for each set of spans that traced it.

    Spans traced one call where one lies below the other with the same answer, or where they
    stand in one trace with the same prompt and answer (some instrumentors open no context for
    what they call). The innermost or later span lies closer to the model: its prompt is kept.
    """
    merged = {call.span_ids[0]: call for call in calls}
    # Deepest first, so that three spans of one call end in one.
    for span_id in sorted(merged, key=lambda span_id: -sum(1 for _ in ancestry.of(span_id))):
        outer_id = next((above for above in ancestry.of(span_id) if above in merged), None)
        if outer_id is not None and merged[outer_id].response == merged[span_id].response:
            merged[outer_id] = _joined(merged[outer_id], merged.pop(span_id))
    beside: dict[tuple[Any, ...], Call] = {}
    for call in sorted(merged.values(), key=lambda call: (call.started_at, call.span_ids)):
        said = (call.trace_id, call.prompt, call.response)
        beside[said] = _joined(beside[said], call) if said in beside else call
    return list(beside.values())


def _joined(outer: Call, inner: Call) -> Call:
    return inner.model_copy(
        update={
            "span_ids": outer.span_ids + inner.span_ids,
            "session_id": inner.session_id or outer.session_id,
            "started_at": max(outer.started_at, inner.started_at),
            "tools": inner.tools or outer.tools,
            "answered_by": inner.answered_by or outer.answered_by,
        }
    )


class Candidate(Value):
    """One call that feedback from above could be about, readable or not."""

    span_ids: tuple[str, ...]
    trace_id: str
    session_id: str | None
    started_at: datetime


class Reach:
    """The feedback that reaches each call, by the rule `inherit`.

    What is said above several calls approves or rejects all that it reaches, but a correction or a
    candidate answer stands for one answer, the last below it.
    """

    def __init__(
        self,
        candidates: Iterable[Candidate],
        ancestry: Ancestry,
        annotations: Iterable[Annotation],
        rules: FeedbackRules,
    ) -> None:
        self._ancestry = ancestry
        self._rules = rules
        self._said = by_subject(annotations)
        candidates = sorted(candidates, key=lambda candidate: (candidate.started_at, candidate.span_ids))
        self._own = {span_id for candidate in candidates for span_id in candidate.span_ids}
        self._below: defaultdict[Subject, list[tuple[str, ...]]] = defaultdict(list)
        for candidate in candidates:
            for scope in self._above(candidate):
                self._below[scope].append(candidate.span_ids)

    def feedback(self, candidate: Candidate) -> Iterator[list[Annotation]]:
        """Annotations by scope, what is nearest first: the call's own spans, ancestors, trace, session."""
        yield [said for span_id in candidate.span_ids for said in self._said.get(("span", span_id), [])]
        for scope in self._above(candidate):
            if scope in self._said:
                yield self._inherited(scope, candidate)

    def _inherited(self, scope: Subject, candidate: Candidate) -> list[Annotation]:
        """What of the feedback on `scope` is about the candidate's answer."""
        below, said = self._below[scope], self._said[scope]
        last = below[-1] == candidate.span_ids
        match self._rules.inherit:
            case "only":
                return said if below == [candidate.span_ids] else []
            case "last":
                return said if last else []
            case "all":
                return said if last else beyond_the_last(said, self._rules)
            case "never":
                return []

    def _above(self, candidate: Candidate) -> Iterator[Subject]:
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
