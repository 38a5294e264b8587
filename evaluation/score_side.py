"""Score the answers of one side of the comparison: right, valid, near to gold, and how sure the side is.

Pure: held-out items and their answers in, a side of the report out.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from evaluation.metrics.fields import compute_field_figures, score_fields
from evaluation.metrics.labels import measure_confidence, measure_labels
from evaluation.metrics.measures import ConfidenceMeasures, LabelMeasures
from evaluation.metrics.retrieval import SideRankings
from evaluation.metrics.scoring import Scorer
from evaluation.report import FailedGoldenCase, GoldenResults, ScoredAnswer, Side
from extractors.dataset.holdout_split import find_group
from extractors.examples.thoughts import get_answer, split_thoughts
from extractors.examples.types import ReviewedItem, SFTExample
from extractors.values import Value

Logprobs = tuple[float, ...]


class RawAnswer(Value):
    """One answer, before it is scored."""

    text: str
    ended: bool
    """True if the model ended the answer, not the limit."""


def build_raw_answer(text: str, *, ended: bool) -> RawAnswer:
    """Return the answer in what a model wrote, without its thoughts; one that only thought did not end."""
    thoughts, answer = split_thoughts(text)
    return RawAnswer(text=answer, ended=ended and (thoughts is None or bool(answer)))


class SideAnswers(Value):
    """All answers of one side."""

    held_out: tuple[RawAnswer, ...]
    retention: tuple[RawAnswer, ...] = ()
    golden: tuple[RawAnswer, ...] = ()
    labels: tuple[Logprobs, ...] = ()
    """For classification: the log-likelihood (nats) of each label, for each held-out item."""
    gold: tuple[Logprobs, ...] = ()
    """For other tasks: the log-probability (nats) of each token of each gold answer."""


def score_side(
    name: str,
    items: Sequence[ReviewedItem],
    answers: SideAnswers,
    scorer: Scorer,
    labels: Sequence[str] = (),
    latency_ms: float = 0.0,
) -> Side:
    """Score the answers of side `name` to the held-out `items`.

    `labels` are those whose likelihoods `answers` has.
    """
    scored = score_answers(items, answers.held_out, scorer)
    judged = [answer.correct for answer in scored if answer.correct is not None]
    classes = confidence = None
    if scorer.task == "classification" and any(_has_gold_text(item) for item in items):
        classes, confidence = _measure_labels(items, answers, scorer, labels)
    return Side(
        name=name,
        accuracy=compute_share(judged),
        valid_rate=compute_share([answer.valid for answer in scored]),
        latency_ms=latency_ms,
        repeated_rejected=sum(
            item.gold is None and scorer.is_correct(answer.text, ended=answer.ended, gold=item.response)
            for item, answer in zip(items, answers.held_out, strict=True)
        ),
        answers=scored,
        measures=_measure_texts(items, answers, scorer)
        | _average_scores(scored)
        | (_measure_sessions(items, scored) if scorer.task == "chat" else {})
        | (classes.figures if classes else {})
        | (confidence.figures if confidence else {}),
        labels=classes,
        confidence=confidence,
    )


def _measure_labels(
    items: Sequence[ReviewedItem], answers: SideAnswers, scorer: Scorer, labels: Sequence[str]
) -> tuple[LabelMeasures, ConfidenceMeasures | None]:
    """Measure each class, and the confidence where there are likelihoods of the labels."""
    golds = [get_answer(item.gold) if item.gold and _has_gold_text(item) else None for item in items]
    classes = measure_labels([_drop_cut_off(answer) for answer in answers.held_out], golds, scorer.labels)
    weighed = [
        (dict(zip(labels, likelihoods, strict=True)), gold)
        for likelihoods, gold in zip(answers.labels, golds, strict=False)
        if gold is not None
    ]
    return classes, measure_confidence(*zip(*weighed, strict=True)) if weighed else None


def _drop_cut_off(answer: RawAnswer) -> str:
    """Return the text of the answer; empty for one that was cut off."""
    return answer.text if answer.ended else ""


def score_searches(found: SideRankings, latency_ms: float = 0.0) -> Side:
    """Return a side of the report; a search is right if it finds a relevant document first."""
    recall = {f"recall@{k}": share for k, share in found.recall.items()}
    return Side(
        name=found.name,
        accuracy=found.hit_rate,
        valid_rate=1.0,
        latency_ms=latency_ms,
        repeated_rejected=0,
        answers=tuple(
            ScoredAnswer(
                item_id=query.item_id,
                text="",
                correct=query.hit,
                valid=True,
                scores={f"recall@{k}": share for k, share in query.recall.items()}
                | {"mrr@10": query.mrr, "ndcg@10": query.ndcg},
            )
            for query in found.ranked
        ),
        measures=recall | {"mrr@10": found.mrr, "ndcg@10": found.ndcg},
    )


def score_answers(
    items: Sequence[ReviewedItem], answers: Sequence[RawAnswer], scorer: Scorer
) -> tuple[ScoredAnswer, ...]:
    """Score one answer an item, in their order."""
    graded = _grade(items, answers, scorer)
    return tuple(
        ScoredAnswer(
            item_id=item.id,
            text=answer.text,
            correct=(
                scorer.is_correct(answer.text, ended=answer.ended, gold=item.gold) if item.gold else None
            ),
            valid=scorer.is_valid(answer.text, ended=answer.ended),
            scores=dict(scores),
        )
        for item, answer, scores in zip(items, answers, graded, strict=True)
    )


def score_golden(
    cases: Sequence[SFTExample],
    live: Sequence[RawAnswer | None],
    candidate: Sequence[RawAnswer | None],
    scorer: Scorer,
) -> GoldenResults:
    """Score the candidate and what is live on golden cases; None is a prompt that cannot be rendered."""

    def passes(case: SFTExample, answer: RawAnswer | None) -> bool:
        return answer is not None and scorer.is_correct(answer.text, ended=answer.ended, gold=case.completion)

    answered = [
        FailedGoldenCase(
            number=number,
            asked=case.prompt[-1].content if case.prompt else "",
            refused=before is None,
            expected=get_answer(case.completion),
            live=before.text if before else "",
            candidate=after.text if after else "",
            live_passes=passes(case, before),
            candidate_passes=passes(case, after),
        )
        for number, (case, before, after) in enumerate(zip(cases, live, candidate, strict=True), start=1)
    ]
    failed = tuple(each for each in answered if not (each.live_passes and each.candidate_passes))
    return GoldenResults(cases=len(answered), failed=failed)


def compute_share(outcomes: Sequence[bool]) -> float:
    """Return the share of True, 0 to 1; 0 without outcomes."""
    return sum(outcomes) / len(outcomes) if outcomes else 0.0


def _grade(
    items: Sequence[ReviewedItem], answers: Sequence[RawAnswer], scorer: Scorer
) -> Sequence[Mapping[str, float]]:
    """Return how near each answer comes to gold; empty for items without gold, and for classification."""
    if scorer.task == "classification":
        return [{}] * len(items)
    # An answer that was cut off is graded by the part that there is.
    texts = [answer.text for answer in answers]
    golds = [get_answer(item.gold) if item.gold else "" for item in items]
    if scorer.task == "extraction":
        found = score_fields(texts, golds)
    else:
        from evaluation.metrics.text import score_texts

        found = tuple(
            {name: value for name, value in each.items() if name != "exact_match"}
            for each in score_texts(texts, golds)
        )
    return [each if _has_gold_text(item) else {} for each, item in zip(found, items, strict=True)]


def _has_gold_text(item: ReviewedItem) -> bool:
    """Return True if there is a gold text to come near to; a tool call is right or wrong."""
    return item.gold is not None and not item.gold.tool_calls


def _measure_texts(items: Sequence[ReviewedItem], answers: SideAnswers, scorer: Scorer) -> dict[str, float]:
    """Return the figures over the whole holdout that are no means of the items' figures."""
    compared = [
        (_drop_cut_off(answer), get_answer(item.gold))
        for item, answer in zip(items, answers.held_out, strict=True)
        if item.gold and _has_gold_text(item)
    ]
    if not compared or scorer.task == "classification":
        return {}
    from evaluation.metrics.text import compute_corpus_figures, compute_perplexity

    texts, golds = [text for text, _ in compared], [gold for _, gold in compared]
    perplexity = compute_perplexity(answers.gold)
    known = {"reference_perplexity": perplexity} if perplexity is not None else {}
    if scorer.task == "extraction":
        return compute_field_figures(texts, golds) | known
    return compute_corpus_figures(texts, golds) | known


def _average_scores(answers: Sequence[ScoredAnswer]) -> dict[str, float]:
    """Return the mean of each graded score over the items that have it."""
    scores = defaultdict[str, list[float]](list)
    for answer in answers:
        for name, value in answer.scores.items():
            scores[name].append(value)
    return {name: sum(values) / len(values) for name, values in scores.items()}


def _measure_sessions(items: Sequence[ReviewedItem], answers: Sequence[ScoredAnswer]) -> dict[str, float]:
    """Return `sessions_right`: the share of conversations of which every held-out turn with gold is right."""
    sessions = defaultdict[str, list[bool]](list)
    for item, answer in zip(items, answers, strict=True):
        if answer.correct is not None:
            sessions[find_group(item)].append(answer.correct)
    return {"sessions_right": compute_share([all(turns) for turns in sessions.values()])} if sessions else {}
