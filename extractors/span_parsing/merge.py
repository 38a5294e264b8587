"""One call that several spans traced becomes one."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import reduce
from itertools import product

from extractors.examples.prompt_keys import to_comparable
from extractors.examples.types import Message
from extractors.phoenix.spans import Span
from extractors.span_parsing.calls import ModelCall
from extractors.values import content_id

Tracer = tuple[str, str, frozenset[str]]
"""Marks of the instrumentor that wrote a span: the span's name, its kind and its attribute roots."""


class Ancestry:
    """The parents of spans, and what wrote each. Copes with parents that are missing or go in a circle."""

    def __init__(self, spans: Iterable[Span]) -> None:
        self._parents: dict[str, str | None] = {}
        self._tracers: dict[str, Tracer] = {}
        for span in spans:
            self._parents[span.span_id] = span.parent_id
            self._tracers[span.span_id] = (span.name, span.kind, frozenset(span.attributes))

    def find_ancestors(self, span_id: str) -> Iterator[str]:
        """Yield the ids of the span's ancestors, nearest first."""
        seen = {span_id}
        parent = self._parents.get(span_id)
        while parent is not None and parent not in seen:
            yield parent
            seen.add(parent)
            parent = self._parents.get(parent)

    def find_tracer(self, span_id: str) -> Tracer | None:
        """Return the marks of what wrote the span; None for a span that is not known."""
        return self._tracers.get(span_id)


def merge_traced_twice(calls: Iterable[ModelCall], ancestry: Ancestry) -> list[ModelCall]:
    """Return one call for each set of spans that traced it.

    Spans traced one call where one lies below the other with the same answer, or where they stand in one
    trace with the same prompt and answer (some instrumentors open no context for what they call). Prompts
    and answers are compared by what they say, not by how a tracer wrote it. The innermost or later span
    lies closer to the model: its prompt is kept.

    A retry and parallel attempts may answer alike, and yet are several calls. Two signs tell: no
    instrumentor traces one call twice side by side, and a model gives each of its tool calls an id.
    """
    by_trace: defaultdict[str, list[list[ModelCall]]] = defaultdict(list)
    for group in _group_nested(calls, ancestry):
        by_trace[group[0].trace_id].append(group)
    return [
        reduce(_merge, group)
        for groups in by_trace.values()
        for group in (_group_beside(groups, ancestry) if len(groups) > 1 else groups)
    ]


def _group_nested(calls: Iterable[ModelCall], ancestry: Ancestry) -> list[list[ModelCall]]:
    """Group spans of one answer that lie below one another, the outermost first."""
    groups = {call.span_ids[0]: [call] for call in calls}
    depths = {span_id: sum(1 for _ in ancestry.find_ancestors(span_id)) for span_id in groups}
    # Deepest first, so that three spans of one call end in one. Of several attempts below one span, the
    # last gave that span's answer.
    for span_id in sorted(groups, key=lambda each: (-depths[each], -_start(groups[each]), each)):
        outer_id = next((above for above in ancestry.find_ancestors(span_id) if above in groups), None)
        if outer_id is not None and _is_traced_by(groups[span_id], groups[outer_id], ancestry):
            groups[outer_id][1:1] = groups.pop(span_id)
    return list(groups.values())


def _start(group: list[ModelCall]) -> float:
    return group[0].started_at.timestamp()


def _is_traced_by(inner: list[ModelCall], outer: list[ModelCall], ancestry: Ancestry) -> bool:
    """Return whether the first of `outer` traced the call of `inner`, too, and no other attempt below it."""
    top, *others = outer
    if to_comparable(top.response) != to_comparable(inner[0].response):
        return False
    apart = any(_answered_apart(top, call) for call in inner)
    return not apart and all(
        _list_said(one) == _list_said(other) and not _are_apart(one, other, ancestry)
        for one, other in product(others, inner)
    )


def _group_beside(groups: list[list[ModelCall]], ancestry: Ancestry) -> list[list[ModelCall]]:
    """Join the groups of one trace that say the same and stem from one call, the later one last."""
    joined: list[list[ModelCall]] = []
    alike: defaultdict[str, list[list[ModelCall]]] = defaultdict(list)
    for group in sorted(groups, key=lambda group: (reduce(_merge, group).started_at, group[0].span_ids)):
        said = content_id(_list_said(reduce(_merge, group)))
        twin = next((each for each in alike[said] if not _is_any_apart(each, group, ancestry)), None)
        if twin is None:
            joined.append(group)
            alike[said].append(group)
        else:
            twin += group
    return joined


def _is_any_apart(some: list[ModelCall], others: list[ModelCall], ancestry: Ancestry) -> bool:
    return any(_are_apart(one, other, ancestry) for one, other in product(some, others))


def _are_apart(one: ModelCall, other: ModelCall, ancestry: Ancestry) -> bool:
    """Return whether two spans side by side, which say the same, traced two calls."""
    tracers = [ancestry.find_tracer(call.span_ids[0]) for call in (one, other)]
    return _answered_apart(one, other) or (
        tracers[0] == tracers[1] and _list_words(one) == _list_words(other)
    )


def _answered_apart(one: ModelCall, other: ModelCall) -> bool:
    """Return whether the versions that answered or the ids of tool calls are known and differ."""
    versions = one.answered_by, other.answered_by
    if None not in versions and versions[0] != versions[1]:
        return True
    ids = [
        (call.id, same.id)
        for call, same in zip(one.response.tool_calls, other.response.tool_calls, strict=False)
    ]
    return any(None not in pair and pair[0] != pair[1] for pair in ids)


def _list_said(call: ModelCall) -> list[object]:
    """Return what the prompt and the answer say, wherever the system prompt stands."""
    prompt = sorted(call.prompt, key=lambda message: message.role != "system")
    return [to_comparable(message) for message in (*prompt, call.response)]


def _list_words(call: ModelCall) -> tuple[tuple[Message, ...], str, list[tuple[str, str]]]:
    """Return the prompt and the answer as they were written, without what each answer has of its own."""
    called = [(each.name, each.arguments) for each in call.response.tool_calls]
    return call.prompt, call.response.content, called


def _merge(outer: ModelCall, inner: ModelCall) -> ModelCall:
    reasoning = inner.response.reasoning or outer.response.reasoning
    return inner.model_copy(
        update={
            "span_ids": outer.span_ids + inner.span_ids,
            "session_id": inner.session_id or outer.session_id,
            "started_at": max(outer.started_at, inner.started_at),
            "tools": inner.tools or outer.tools,
            "response": inner.response.model_copy(update={"reasoning": reasoning}),
            "answered_by": inner.answered_by or outer.answered_by,
        }
    )
