"""Every answer that people judged: the agent's own, corrections, and candidates that annotations carry."""

from collections.abc import Iterable

from extractors.examples.output_space import OutputSpace
from extractors.examples.prompt_keys import compute_prompt_key
from extractors.examples.types import JudgedKind, JudgedResponse, Message, ReviewedItem
from extractors.feedback.rules import FeedbackRules, Verdict, resolve_candidates
from extractors.phoenix.spans import Annotation
from extractors.span_parsing.calls import ModelCall


def list_judged_answers(item: ReviewedItem) -> list[JudgedResponse]:
    """Return the agent's answer with people's verdict, and the correction that they gave instead."""
    if item.outcome == "rejected" or item.gold is None:
        return [_judge_item(item, item.response, approved=False, judged="response")]
    if item.outcome == "approved":
        return [_judge_item(item, item.gold, approved=True, judged="response")]
    return [
        _judge_item(item, item.response, approved=False, judged="response"),
        _judge_item(item, item.gold, approved=True, judged="correction"),
    ]


def list_judged_candidates(
    call: ModelCall, annotations: Iterable[Annotation], rules: FeedbackRules, space: OutputSpace
) -> list[JudgedResponse]:
    """Return the candidate answers to `call` that its annotations carry and judge.

    An approved one that is not in the output space is left out.
    """
    judged: list[JudgedResponse] = []
    for candidate, verdict in resolve_candidates(annotations, call.response, rules):
        if verdict.outcome != "approved":
            judged.append(judge_answer(call, candidate, verdict, approved=False, judged="candidate"))
        if verdict.gold is not None and (gold := space.to_label(verdict.gold)) is not None:
            judged.append(judge_answer(call, gold, verdict, approved=True, judged="candidate"))
    return judged


def _judge_item(item: ReviewedItem, answer: Message, *, approved: bool, judged: JudgedKind) -> JudgedResponse:
    return JudgedResponse(
        prompt=item.prompt,
        tools=item.tools,
        response=answer,
        approved=approved,
        judged=judged,
        source_span_ids=item.source_span_ids,
        trace_id=item.trace_id,
        session_id=item.session_id,
        prompt_key=item.prompt_key,
        started_at=item.started_at,
        verdict_rank=item.verdict_rank,
        verdict_at=item.verdict_at,
    )


def judge_answer(
    call: ModelCall, answer: Message, verdict: Verdict, *, approved: bool, judged: JudgedKind
) -> JudgedResponse:
    """Return an answer to `call`, one that it gave or another, with people's verdict on it."""
    return JudgedResponse(
        prompt=call.prompt,
        tools=call.tools,
        response=answer,
        approved=approved,
        judged=judged,
        source_span_ids=call.span_ids,
        trace_id=call.trace_id,
        session_id=call.session_id,
        prompt_key=compute_prompt_key(call.prompt),
        started_at=call.started_at,
        verdict_rank=verdict.rank,
        verdict_at=verdict.at,
    )
