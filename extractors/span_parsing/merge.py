"""One call that was traced twice becomes one."""

from collections.abc import Iterable, Iterator
from typing import Any

from extractors.phoenix.spans import Span
from extractors.span_parsing.calls import ModelCall


class Ancestry:
    """The parents of spans. Copes with parents that are missing or go in a circle."""

    def __init__(self, spans: Iterable[Span]) -> None:
        self._parents = {span.span_id: span.parent_id for span in spans}

    def find_ancestors(self, span_id: str) -> Iterator[str]:
        """Ids of the span's ancestors, nearest first."""
        seen = {span_id}
        parent = self._parents.get(span_id)
        while parent is not None and parent not in seen:
            yield parent
            seen.add(parent)
            parent = self._parents.get(parent)


def merge_traced_twice(calls: Iterable[ModelCall], ancestry: Ancestry) -> list[ModelCall]:
    """One call for each set of spans that traced it.

    Spans traced one call where one lies below the other with the same answer, or where they
    stand in one trace with the same prompt and answer (some instrumentors open no context for
    what they call). The innermost or later span lies closer to the model: its prompt is kept.
    """
    merged = {call.span_ids[0]: call for call in calls}
    # Deepest first, so that three spans of one call end in one.
    for span_id in sorted(merged, key=lambda span_id: -sum(1 for _ in ancestry.find_ancestors(span_id))):
        outer_id = next((above for above in ancestry.find_ancestors(span_id) if above in merged), None)
        if outer_id is not None and merged[outer_id].response == merged[span_id].response:
            merged[outer_id] = _merge(merged[outer_id], merged.pop(span_id))
    beside: dict[tuple[Any, ...], ModelCall] = {}
    for call in sorted(merged.values(), key=lambda call: (call.started_at, call.span_ids)):
        said = (call.trace_id, call.prompt, call.response)
        beside[said] = _merge(beside[said], call) if said in beside else call
    return list(beside.values())


def _merge(outer: ModelCall, inner: ModelCall) -> ModelCall:
    return inner.model_copy(
        update={
            "span_ids": outer.span_ids + inner.span_ids,
            "session_id": inner.session_id or outer.session_id,
            "started_at": max(outer.started_at, inner.started_at),
            "tools": inner.tools or outer.tools,
            "answered_by": inner.answered_by or outer.answered_by,
        }
    )
