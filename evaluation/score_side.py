"""What one side of the comparison answered, scored: right, valid, near to gold, sure of itself.

Pure: held-out items and what was said to them in, a side of the report out.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from evaluation.metrics.fields import compute_field_figures, score_fields
from evaluation.metrics.labels import ConfidenceMeasures, LabelMeasures, measure_confidence, measure_labels
from evaluation.metrics.retrieval import SideRankings
from evaluation.metrics.scoring import Scorer
from evaluation.report import FailedGoldenCase, GoldenResults, ScoredAnswer, Side
from extractors.dataset.holdout_split import find_group
from extractors.examples.types import ReviewedItem, SFTExample
from extractors.values import Value

Logprobs = tuple[float, ...]


class RawAnswer(Value):
    """One answer."""

    text: str
    ended: bool
    """By itself, not by the limit."""


class SideAnswers(Value):
    """All that one side was asked, and answered."""

    held_out: tuple[RawAnswer, ...]
    retention: tuple[RawAnswer, ...] = ()
    golden: tuple[RawAnswer, ...] = ()
    labels: tuple[Logprobs, ...] = ()
    """Of a classification: for each held-out item the log-likelihood (nats) of each label."""
    gold: tuple[Logprobs, ...] = ()
    """Otherwise: for each held-out item with gold the log-probability (nats) of each of its tokens."""


def score_side(
    name: str,
    items: Sequence[ReviewedItem],
    heard: SideAnswers,
    scorer: Scorer,
    labels: Sequence[str] = (),
    latency_ms: float = 0.0,
) -> Side:
    """The answers of one side to held-out `items`, scored; `labels` name those that `heard` weighs."""
    answers = score_answers(items, heard.held_out, scorer)
    judged = [answer.correct for answer in answers if answer.correct is not None]
    with_gold = [(item, said) for item, said in zip(items, heard.held_out, strict=True) if _is_text(item)]
    texts = [_read_whole_text(said) for _, said in with_gold]
    golds = [item.gold.content for item, _ in with_gold if item.gold]
    classes = confidence = None
    if scorer.task == "classification" and golds:
        classes, confidence = _measure_labels(items, heard, scorer, labels)
    return Side(
        name=name,
        accuracy=compute_share(judged),
        valid_rate=compute_share([answer.valid for answer in answers]),
        latency_ms=latency_ms,
        repeated_rejected=sum(
            item.gold is None and scorer.correct(said.text, ended=said.ended, gold=item.response)
            for item, said in zip(items, heard.held_out, strict=True)
        ),
        answers=answers,
        measures=_measure_texts(texts, golds, scorer, heard)
        | _average_scores(answers)
        | (_measure_sessions(items, answers) if scorer.task == "chat" else {})
        | (classes.figures if classes else {})
        | (confidence.figures if confidence else {}),
        labels=classes,
        confidence=confidence,
    )


def _measure_labels(
    items: Sequence[ReviewedItem], heard: SideAnswers, scorer: Scorer, labels: Sequence[str]
) -> tuple[LabelMeasures, ConfidenceMeasures | None]:
    """Class by class, and how sure, where there are the labels' likelihoods."""
    golds = [item.gold.content if item.gold and _is_text(item) else None for item in items]
    classes = measure_labels([_read_whole_text(said) for said in heard.held_out], golds, scorer.labels)
    weighed = [
        (dict(zip(labels, found, strict=True)), gold)
        for found, gold in zip(heard.labels, golds, strict=False)
        if gold is not None
    ]
    return classes, measure_confidence(*zip(*weighed, strict=True)) if weighed else None


def _read_whole_text(said: RawAnswer) -> str:
    """The text of an answer; one that was cut off says nothing."""
    return said.text if said.ended else ""


def score_searches(found: SideRankings, latency_ms: float = 0.0) -> Side:
    """A side of the report: right is a search that finds a relevant document first."""
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
    items: Sequence[ReviewedItem], said: Sequence[RawAnswer], scorer: Scorer
) -> tuple[ScoredAnswer, ...]:
    """One answer an item, in their order."""
    graded = _grade(items, said, scorer)
    return tuple(
        ScoredAnswer(
            item_id=item.id,
            text=each.text,
            correct=scorer.correct(each.text, ended=each.ended, gold=item.gold) if item.gold else None,
            valid=scorer.valid(each.text, ended=each.ended),
            scores=scores,
        )
        for item, each, scores in zip(items, said, graded, strict=True)
    )


def score_golden(
    cases: Sequence[SFTExample],
    live: Sequence[RawAnswer | None],
    candidate: Sequence[RawAnswer | None],
    scorer: Scorer,
) -> GoldenResults:
    """How the candidate and what is live do on the golden cases; None where the template refuses one."""

    def passes(case: SFTExample, said: RawAnswer | None) -> bool:
        return said is not None and scorer.correct(said.text, ended=said.ended, gold=case.completion)

    answered = [
        FailedGoldenCase(
            number=number,
            asked=case.prompt[-1].content if case.prompt else "",
            refused=before is None,
            expected=case.completion.content,
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
    """0 without any."""
    return sum(outcomes) / len(outcomes) if outcomes else 0.0


def _grade(
    items: Sequence[ReviewedItem], said: Sequence[RawAnswer], scorer: Scorer
) -> Sequence[Mapping[str, float]]:
    """How near each answer comes to gold; nothing for items without gold, and for classifications."""
    if scorer.task == "classification":
        return [{}] * len(items)
    # An answer that was cut off is judged by what is there.
    texts = [each.text for each in said]
    golds = [item.gold.content if item.gold else "" for item in items]
    if scorer.task == "extraction":
        found = score_fields(texts, golds)
    else:
        from evaluation.metrics.text import score_texts

        found = tuple(
            {name: value for name, value in each.items() if name != "exact_match"}
            for each in score_texts(texts, golds)
        )
    return [each if _is_text(item) else {} for each, item in zip(found, items, strict=True)]


def _is_text(item: ReviewedItem) -> bool:
    """Whether there is a gold text to come near to; a tool call is right or wrong."""
    return item.gold is not None and not item.gold.tool_calls


def _measure_texts(
    texts: Sequence[str], golds: Sequence[str], scorer: Scorer, heard: SideAnswers
) -> dict[str, float]:
    """Figures over the whole holdout that are no means of its items'."""
    if not golds or scorer.task == "classification":
        return {}
    from evaluation.metrics.text import compute_corpus_figures, compute_perplexity

    unlikely = compute_perplexity(heard.gold)
    known = {"reference_perplexity": unlikely} if unlikely is not None else {}
    if scorer.task == "extraction":
        return compute_field_figures(texts, golds) | known
    return compute_corpus_figures(texts, golds) | known


def _average_scores(answers: Sequence[ScoredAnswer]) -> dict[str, float]:
    """Means of the graded scores over the items that have them."""
    scores = defaultdict[str, list[float]](list)
    for answer in answers:
        for name, value in answer.scores.items():
            scores[name].append(value)
    return {name: sum(values) / len(values) for name, values in scores.items()}


def _measure_sessions(items: Sequence[ReviewedItem], answers: Sequence[ScoredAnswer]) -> dict[str, float]:
    """`sessions_right`: the share of conversations whose every held-out turn with gold is answered right."""
    sessions = defaultdict[str, list[bool]](list)
    for item, answer in zip(items, answers, strict=True):
        if answer.correct is not None:
            sessions[find_group(item)].append(answer.correct)
    return {"sessions_right": compute_share([all(turns) for turns in sessions.values()])} if sessions else {}
