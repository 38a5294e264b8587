"""Calls that gave several answers (`n` above 1): verdicts that name a choice, and what they prefer.

Nothing says which of the answers was used. A verdict teaches something only where its metadata name the
choice, by its text or by its index.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

from extractors.examples.output_space import OutputSpace
from extractors.examples.types import JudgedKind, JudgedResponse
from extractors.feedback.answers import is_same_answer, try_read_answer
from extractors.feedback.judged_answers import judge_answer
from extractors.feedback.rules import FeedbackRules, Verdict, resolve_verdict
from extractors.phoenix.spans import Annotation
from extractors.span_parsing.calls import ModelCall
from extractors.span_parsing.drop_reasons import DropReason


def list_judged_choices(
    choices: Sequence[ModelCall], annotations: Iterable[Annotation], rules: FeedbackRules, space: OutputSpace
) -> list[JudgedResponse] | DropReason:
    """Return the choices of one call that the annotations on its span approve or reject.

    Where one is approved, those that nobody judged were passed over for it. Returns the reason where
    nothing is judged. An approved one that is not in the output space is left out.
    """
    named: dict[int, list[Annotation]] = {}
    for annotation in annotations:
        for at in _find_named(annotation, choices, rules):
            named.setdefault(at, []).append(annotation)
    verdicts = {at: resolve_verdict(said, choices[at].response, rules) for at, said in sorted(named.items())}
    judged: list[JudgedResponse] = []
    for at, verdict in verdicts.items():
        if isinstance(verdict, Verdict):
            judged += _judge(choices[at], verdict, space)
    if not judged:
        return _find_reason(verdicts.values())
    return judged + _list_passed_over(choices, verdicts, rules)


def _find_reason(verdicts: Collection[Verdict | DropReason | None]) -> DropReason:
    """Return the reason why none of the verdicts teaches anything."""
    if any(isinstance(verdict, Verdict) for verdict in verdicts):
        return DropReason.OUTSIDE_OUTPUT_SPACE
    disputes = (verdict for verdict in verdicts if isinstance(verdict, DropReason))
    return next(disputes, DropReason.SEVERAL_ANSWERS)


def _find_named(annotation: Annotation, choices: Sequence[ModelCall], rules: FeedbackRules) -> set[int]:
    """Return the indices of the choices that the annotation names: several only where they are equal.

    Empty where it names none, or one by its text and another by its index.
    """
    written = annotation.metadata.get(rules.candidate_metadata_key)
    index = annotation.metadata.get(rules.choice_metadata_key)
    found = set(range(len(choices)))
    if written:
        answer = try_read_answer(written)
        found = {at for at in found if answer and is_same_answer(answer, choices[at].response)}
    if index is not None:
        pointed = next((call.response for at, call in enumerate(choices) if _is_index(index, at)), None)
        found = {at for at in found if pointed and is_same_answer(pointed, choices[at].response)}
    return found if written or index is not None else set()


def _is_index(written: object, at: int) -> bool:
    """Return whether metadata hold this index, as a number or as text."""
    return type(written) in (int, str) and str(written).strip() == str(at)


def _judge(choice: ModelCall, verdict: Verdict, space: OutputSpace) -> Iterable[JudgedResponse]:
    if verdict.outcome != "approved":
        yield judge_answer(choice, choice.response, verdict, approved=False, judged="choice")
    if verdict.gold is not None and (gold := space.to_label(verdict.gold)) is not None:
        judged: JudgedKind = "correction" if verdict.outcome == "corrected" else "choice"
        yield judge_answer(choice, gold, verdict, approved=True, judged=judged)


def _list_passed_over(
    choices: Sequence[ModelCall], verdicts: Mapping[int, object], rules: FeedbackRules
) -> list[JudgedResponse]:
    """Return the choices about which nobody said anything, where another one was approved."""
    approvals = [
        verdict
        for verdict in verdicts.values()
        if isinstance(verdict, Verdict) and verdict.outcome == "approved"
    ]
    if not approvals:
        return []
    # Nobody spoke about these: any word on such an answer outranks that it was passed over.
    verdict = approvals[-1].model_copy(update={"rank": len(rules.precedence)})
    return [
        judge_answer(call, call.response, verdict, approved=False, judged="passed over")
        for at, call in enumerate(choices)
        if at not in verdicts
    ]
