"""From mirrored spans and annotations to reviewed items, with everything dropped counted.

spans ──> calls (each traced once or twice) ──> verdicts ──> reviewed items
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

from extractors.attributes import at
from extractors.calls import Call, read_call
from extractors.drops import DropReason
from extractors.examples import Message, Outcome, ReviewedItem
from extractors.feedback import FeedbackRules, Verdict, resolve
from extractors.reach import Ancestry, Candidate, Reach, merge_traced_twice
from extractors.spans import Annotation, Span
from extractors.values import Value, content_id

NEVER_ANSWERED = frozenset(
    {DropReason.INTERNAL, DropReason.OTHER_TARGET, DropReason.FAILED, DropReason.NO_ANSWER}
)
"""Nobody judges these: feedback on what lies above them is about their siblings."""


class Extraction(Value):
    """What the mirror of one target teaches."""

    items: tuple[ReviewedItem, ...]
    """Oldest first."""
    dropped: dict[str, int]
    """Calls that became no item, by reason in words."""

    @property
    def approved(self) -> int:
        return self._count("approved")

    @property
    def corrected(self) -> int:
        return self._count("corrected")

    @property
    def rejected(self) -> int:
        """Rejected and not corrected."""
        return self._count("rejected")

    def _count(self, outcome: Outcome) -> int:
        return sum(item.outcome == outcome for item in self.items)


def extract(
    spans: Iterable[Span],
    annotations: Iterable[Annotation],
    rules: FeedbackRules,
    output_space: Sequence[str] = (),
    *,
    target: str | None = None,
) -> Extraction:
    """The reviewed items among `spans`; the order of spans and annotations does not matter.

    With a `target` (`tenant/agent`), calls that the gateway answered for another one are dropped:
    a span joins its caller's trace, and so may lie in another target's project.
    With an `output_space` every gold answer is one of its labels, in its spelling. Never
    raises on what spans and annotations hold: what cannot be used is counted in `dropped`.
    """
    spans = sorted({span.span_id: span for span in spans}.values(), key=lambda s: (s.started_at, s.span_id))
    ancestry = Ancestry(spans)
    calls, unreadable, dropped = _read(spans, target)
    calls = merge_traced_twice(_with_sessions(calls, spans), ancestry)
    reach = Reach(_candidates(calls, unreadable, ancestry), ancestry, annotations, rules.inherit)
    items: list[ReviewedItem] = []
    for call in calls:
        item = _review(call, reach, rules, output_space)
        if isinstance(item, DropReason):
            dropped[item] += 1
        else:
            items.append(item)
    items.sort(key=lambda item: (item.started_at, item.source_span_ids))
    once = _once_a_session(items)
    dropped[DropReason.REPEATED] += len(items) - len(once)
    return Extraction(
        items=tuple(once), dropped={reason.value: n for reason, n in sorted(dropped.items()) if n}
    )


def prompt_key(prompt: Sequence[Message]) -> str:
    """One key for prompts that differ only in system prompt, case, white space or Unicode form.

    Tool calls and results count by content, not by their random ids.
    """
    turns = [message for message in prompt if message.role != "system"] or prompt
    return content_id(
        [
            [
                turn.role,
                _normalised(turn.content),
                [[call.name, _normalised(call.arguments)] for call in turn.tool_calls],
            ]
            for turn in turns
        ]
    )


def _normalised(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _read(spans: Sequence[Span], target: str | None) -> tuple[list[Call], list[Span], Counter[DropReason]]:
    """The calls that can be read, the spans of those that answered but cannot be, and why."""
    calls: list[Call] = []
    unreadable: list[Span] = []
    dropped: Counter[DropReason] = Counter()
    for span in spans:
        if not span.selected:
            continue
        call = DropReason.OTHER_TARGET if _is_anothers(span, target) else read_call(span)
        if isinstance(call, Call):
            calls.append(call)
            continue
        dropped[call] += 1
        if call not in NEVER_ANSWERED:
            unreadable.append(span)
    return calls, unreadable, dropped


def _is_anothers(span: Span, target: str | None) -> bool:
    tenant, agent = at(span.attributes, "learnd.tenant"), at(span.attributes, "learnd.agent")
    return target is not None and tenant is not None and f"{tenant}/{agent}" != target


def _with_sessions(calls: Iterable[Call], spans: Iterable[Span]) -> list[Call]:
    """Calls that name no session belong to that of their trace."""
    sessions = {span.trace_id: span.session_id for span in spans if span.session_id}
    sessions |= {call.trace_id: call.session_id for call in calls if call.session_id}
    return [
        call.model_copy(update={"session_id": call.session_id or sessions.get(call.trace_id)})
        for call in calls
    ]


def _candidates(calls: Iterable[Call], unreadable: Iterable[Span], ancestry: Ancestry) -> list[Candidate]:
    candidates = [_candidate(call) for call in calls]
    # A span that cannot be read but has a call below it traced that same call.
    traced = (span_id for candidate in candidates for span_id in candidate.span_ids)
    above = {ancestor for span_id in traced for ancestor in ancestry.of(span_id)}
    lost = [span for span in unreadable if span.span_id not in above]
    return candidates + [
        Candidate(
            span_ids=(span.span_id,),
            trace_id=span.trace_id,
            session_id=span.session_id,
            started_at=span.started_at,
        )
        for span in lost
    ]


def _candidate(call: Call) -> Candidate:
    return Candidate(
        span_ids=call.span_ids, trace_id=call.trace_id, session_id=call.session_id, started_at=call.started_at
    )


def _review(
    call: Call, reach: Reach, rules: FeedbackRules, output_space: Sequence[str]
) -> ReviewedItem | DropReason:
    verdicts = (resolve(said, call.response, rules) for said in reach.feedback(_candidate(call)))
    verdict = next((found for found in verdicts if found is not None), DropReason.NO_FEEDBACK)
    if isinstance(verdict, DropReason):
        return verdict
    gold = _in_space(verdict, output_space)
    if isinstance(gold, DropReason):
        return gold
    return ReviewedItem(
        prompt=call.prompt,
        tools=call.tools,
        response=call.response,
        outcome=verdict.outcome,
        gold=gold,
        source_span_ids=call.span_ids,
        trace_id=call.trace_id,
        session_id=call.session_id,
        user_id=call.user_id,
        prompt_key=prompt_key(call.prompt),
        started_at=call.started_at,
        answered_by=call.answered_by,
    )


def _in_space(verdict: Verdict, output_space: Sequence[str]) -> Message | DropReason | None:
    """The gold answer in the spelling of the output space."""
    if verdict.gold is None or not output_space:
        return verdict.gold
    labels = {_normalised(label): label for label in output_space}
    label = labels.get(_normalised(verdict.gold.content))
    if label is None:
        return DropReason.OUTSIDE_OUTPUT_SPACE
    return Message(role="assistant", content=label)


def _once_a_session(items: Sequence[ReviewedItem]) -> list[ReviewedItem]:
    """The newest of exact repetitions within one session (or trace), oldest item first."""
    # Across sessions they stay: that many sessions share a prompt says that it is a greeting.
    newest = {(item.session_id or item.trace_id, item.id, item.outcome): item for item in items}
    return sorted(newest.values(), key=lambda item: (item.started_at, item.source_span_ids))
