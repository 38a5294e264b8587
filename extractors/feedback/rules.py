"""The rules that turn annotations into verdicts: approved, rejected or corrected.

A verdict is about a response. The highest-ranking kind of annotator that said anything
decides; within it the newest word of each reviewer counts, and all of them must agree.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import cached_property
from typing import Literal, Self

from pydantic import Field, model_validator

from extractors.examples.types import Message, Outcome
from extractors.feedback.answers import is_same_answer, read_answer, try_read_answer
from extractors.feedback.labels import APPROVED_LABELS, REJECTED_LABELS, normalise_label
from extractors.phoenix.spans import Annotation
from extractors.span_parsing.drop_reasons import DropReason, Unreadable
from extractors.values import Value

AnnotatorKind = Literal["HUMAN", "LLM", "CODE"]
Inherit = Literal["only", "last", "all", "never"]


class AnnotationRule(Value):
    """The labels and scores of one annotation name that approve or reject.

    Labels are compared without regard to case, spaces, hyphens and underscores, an emoji's skin tone and
    punctuation around them: `Thumbs-up!` is `thumbs_up`.
    """

    name: str
    """The annotation's name in Phoenix."""
    approved_labels: tuple[str, ...] = APPROVED_LABELS
    """Labels that approve the response. The default has the words that mean nothing else, whatever the
    annotation's name: add `yes` or `true` where the name asks whether the response is good."""
    rejected_labels: tuple[str, ...] = REJECTED_LABELS
    """Labels that reject it. Another label is no verdict: `learnd data summary` counts it."""
    approved_from: float | None = None
    """A score at or above this approves, where the annotation has no label that counts."""
    rejected_to: float | None = None
    """A score at or below this rejects; scores between the two are no verdict."""

    @model_validator(mode="after")
    def _check_labels_apart(self) -> Self:
        both = self._approving & self._rejecting
        if both:
            raise ValueError(f"labels {sorted(both)} both approve and reject; keep each on one side")
        if (
            self.approved_from is not None
            and self.rejected_to is not None
            and self.approved_from <= self.rejected_to
        ):
            raise ValueError(
                f"approved_from ({self.approved_from}) must lie above rejected_to ({self.rejected_to})"
            )
        return self

    @cached_property
    def _approving(self) -> frozenset[str]:
        return frozenset(map(normalise_label, self.approved_labels))

    @cached_property
    def _rejecting(self) -> frozenset[str]:
        return frozenset(map(normalise_label, self.rejected_labels))

    def approves(self, annotation: Annotation) -> bool | None:
        """Return True if the annotation approves, False if it rejects, else None. Labels outrank scores."""
        label = normalise_label(annotation.label or "")
        if label in self._approving:
            return True
        if label in self._rejecting:
            return False
        if annotation.score is None:
            return None
        if self.approved_from is not None and annotation.score >= self.approved_from:
            return True
        if self.rejected_to is not None and annotation.score <= self.rejected_to:
            return False
        return None


class FeedbackRules(Value):
    """The annotations that count, and the annotators who outrank others."""

    annotations: tuple[AnnotationRule, ...] = (AnnotationRule(name="approval"),)
    correction_names: tuple[str, ...] = ("correction",)
    """FREEFORM annotations whose explanation (or label) is the better output."""
    correction_metadata_key: str = "correction"
    """Key in an annotation's metadata that holds the better output."""
    candidate_metadata_key: str = "response"
    """Key in an annotation's metadata that holds another candidate response: it judges that one. Where a
    call gave several choices (`n` above 1), the choice with that text is judged."""
    choice_metadata_key: str = "choice"
    """Key in an annotation's metadata that holds the index, from 0, of the choice that it judges, where a
    call gave several."""
    precedence: tuple[AnnotatorKind, ...] = ("HUMAN", "LLM", "CODE")
    """Kinds of annotators, those who outrank the others first; a kind that is not named does not count."""
    inherit: Inherit = "only"
    """Feedback on an ancestor span, trace or session reaches the target's span below it if that is
    the only one, or always the last one, or all of them, or none. Of several, a correction or a
    candidate reaches the last alone."""
    min_turns: int = Field(2, ge=1)
    """Answers that a session must have to count as a conversation."""

    @model_validator(mode="after")
    def _check_names_unique(self) -> Self:
        named = Counter([*(rule.name for rule in self.annotations), *self.correction_names])
        twice = sorted(name for name, times in named.items() if times > 1)
        if twice:
            raise ValueError(
                f"annotations {twice} are named twice; give each one rule, or make it a correction"
            )
        return self

    def find_rule(self, name: str) -> AnnotationRule | None:
        return next((rule for rule in self.annotations if rule.name == name), None)


class Verdict(Value):
    """The outcome that the reviewers of one response agree on."""

    outcome: Outcome
    gold: Message | None
    """The approved response or the correction; None for a rejection without correction."""
    rank: int
    """Place in the rules' precedence of the annotators who decided; 0 outranks all others."""
    at: datetime
    """When the newest of them spoke."""


Verdicts = list[tuple[Message, Verdict]]


class Opinion(Value):
    """One annotation's word on the response."""

    annotator_kind: AnnotatorKind
    reviewer: str
    name: str
    approves: bool
    correction: Message | None = None
    updated_at: datetime


def resolve_verdict(
    annotations: Iterable[Annotation], response: Message, rules: FeedbackRules
) -> Verdict | DropReason | None:
    """Return the verdict on `response`; None where nothing that counts was said about it.

    Returns a DropReason where reviewers of the deciding kind contradict each other.
    """
    opinions = [opinion for a in annotations if (opinion := read_opinion(a, response, rules)) is not None]
    if not opinions:
        return None
    deciding = min((opinion.annotator_kind for opinion in opinions), key=rules.precedence.index)
    words = _select_newest_opinions([opinion for opinion in opinions if opinion.annotator_kind == deciding])
    if len({word.approves for word in words}) > 1:
        return DropReason.DISAGREEMENT
    corrections = [word.correction for word in words if word.correction is not None]
    if not all(is_same_answer(each, corrections[0]) for each in corrections):
        return DropReason.CORRECTIONS_DIFFER
    rank, at = rules.precedence.index(deciding), max(word.updated_at for word in words)
    if corrections:
        return Verdict(outcome="corrected", gold=corrections[0], rank=rank, at=at)
    if words[0].approves:
        return Verdict(outcome="approved", gold=response, rank=rank, at=at)
    return Verdict(outcome="rejected", gold=None, rank=rank, at=at)


def resolve_candidates(
    annotations: Iterable[Annotation], response: Message, rules: FeedbackRules
) -> Verdicts:
    """Return the verdict on each other candidate response that annotations carry, as they are found.

    Candidates about which reviewers disagree are left out.
    """
    by_candidate: list[tuple[Message, list[Annotation]]] = []
    for annotation in annotations:
        candidate = try_read_answer(annotation.metadata.get(rules.candidate_metadata_key))
        if candidate is None or is_same_answer(candidate, response):
            continue
        known = (said for answer, said in by_candidate if is_same_answer(answer, candidate))
        said = next(known, None)
        if said is None:
            by_candidate.append((candidate, [annotation]))
        else:
            said.append(annotation)
    verdicts = ((candidate, resolve_verdict(said, candidate, rules)) for candidate, said in by_candidate)
    return [(candidate, verdict) for candidate, verdict in verdicts if isinstance(verdict, Verdict)]


def select_outcome_feedback(annotations: Sequence[Annotation], rules: FeedbackRules) -> list[Annotation]:
    """Return the feedback on several answers that counts for those before the last: it approves or rejects.

    A correction or a candidate says how the last answer should have been, and as elsewhere speaks for its
    reviewer: whoever wrote one says nothing of the others.
    """
    of_answers = [each for each in annotations if not each.metadata.get(rules.candidate_metadata_key)]
    correcting = {
        _identify_reviewer(each) for each in of_answers if _find_correction(each, rules) is not None
    }
    return [each for each in of_answers if _identify_reviewer(each) not in correcting]


def read_opinion(annotation: Annotation, response: Message, rules: FeedbackRules) -> Opinion | None:
    """Return the opinion of `annotation` about `response`; None where it says nothing that counts.

    A correction that equals the response approves it.
    """
    if annotation.annotator_kind not in rules.precedence or _judges_another(annotation, response, rules):
        return None
    rule = rules.find_rule(annotation.name)
    correction = _find_correction(annotation, rules)
    if correction is not None:
        approves = is_same_answer(correction, response)
    elif rule is None or (approved := rule.approves(annotation)) is None:
        return None
    else:
        approves = approved
    return Opinion(
        annotator_kind=annotation.annotator_kind,
        reviewer=annotation.identifier,
        name=annotation.name,
        approves=approves,
        correction=None if approves else correction,
        updated_at=annotation.updated_at,
    )


def _select_newest_opinions(opinions: list[Opinion]) -> list[Opinion]:
    """Return the newest opinion of each reviewer under each name; a correction speaks for its reviewer."""
    # One call can be traced by two spans, so one reviewer's word may stand twice under one name.
    newest: dict[tuple[str, str], Opinion] = {}
    for opinion in sorted(opinions, key=lambda opinion: opinion.updated_at):
        newest[opinion.reviewer, opinion.name] = opinion
    correcting = {opinion.reviewer for opinion in newest.values() if opinion.correction is not None}
    return [
        opinion
        for opinion in newest.values()
        if opinion.correction is not None or opinion.reviewer not in correcting
    ]


def _judges_another(annotation: Annotation, response: Message, rules: FeedbackRules) -> bool:
    """Return whether the annotation carries another candidate response, which it then judges."""
    written = annotation.metadata.get(rules.candidate_metadata_key)
    if not written:
        return False
    candidate = try_read_answer(written)
    return candidate is None or not is_same_answer(candidate, response)


def has_unreadable_answer(annotation: Annotation, rules: FeedbackRules) -> bool:
    """Return whether the annotation has a correction or a candidate that is ignored: it cannot be stored."""
    corrects = annotation.name in rules.correction_names
    if rules.find_rule(annotation.name) is None and not corrects:
        return False
    keys = (rules.correction_metadata_key, rules.candidate_metadata_key)
    written = [annotation.metadata.get(key) for key in keys]
    written += [annotation.explanation, annotation.label] if corrects else []
    try:
        for answer in written:
            read_answer(answer)
    except Unreadable:
        return True
    return False


def says_nothing_known(annotation: Annotation, rules: FeedbackRules) -> bool:
    """Return whether an annotation under a name that counts has a label that no rule names.

    A score that decides, or a correction, says enough without the label.
    """
    rule = rules.find_rule(annotation.name)
    if rule is None or annotation.annotator_kind not in rules.precedence:
        return False
    label = (annotation.label or "").strip()
    return bool(label) and rule.approves(annotation) is None and _find_correction(annotation, rules) is None


def _identify_reviewer(annotation: Annotation) -> tuple[AnnotatorKind, str]:
    return annotation.annotator_kind, annotation.identifier


def _find_correction(annotation: Annotation, rules: FeedbackRules) -> Message | None:
    if rules.find_rule(annotation.name) is None and annotation.name not in rules.correction_names:
        return None
    correction = try_read_answer(annotation.metadata.get(rules.correction_metadata_key))
    if correction is None and annotation.name in rules.correction_names:
        correction = try_read_answer(annotation.explanation) or try_read_answer(annotation.label)
    return correction
