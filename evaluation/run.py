"""One evaluation, in a child process: base, active version and candidate answer the same holdout.

The run's folder holds the job's files (`trainers/child.py`), each side's answers once they are
complete (a run that was killed goes on with the next side), and in the end report.json and
probes.json.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.comparison import compare, pairs
from evaluation.probes import Probe, ProbeRecord
from evaluation.report import Answer, Comparison, Report, Side, Verdict
from evaluation.scoring import Scorer, scorer
from evaluation.verdict import Evidence, Gate, decide
from extractors.examples import ReviewedItem, SFTExample
from extractors.snapshot import Snapshot, read_snapshot
from extractors.values import LearndError, Value
from trainers.base_model import Device, Dtype, use_threads
from trainers.child import Progress, run_job, write_whole
from trainers.rendering import Rendered, TemplateUnusable, render
from trainers.selection import Task

if TYPE_CHECKING:
    from evaluation.answers import AnswerEngine, Generated
    from evaluation.retrieval import RankedSide

REPORT, PROBES = "report.json", "probes.json"
BASE = "base"
MOST_PROBES = 8
PROBE_TOKENS = 32
LABEL_SLACK = 8
"""Tokens that a classification may run past the longest label before it is cut off."""


class NothingToAsk(LearndError):
    """There is no prompt at all that the model could be asked."""


class AdapterSide(Value):
    """An adapter to compare."""

    name: str
    """The version's served name."""
    path: str
    """Its folder."""


class EvaluationJob(Value):
    """What an evaluation child is asked to do."""

    snapshot: str
    """Folder of the snapshot."""
    base_model: str
    task: Task
    output_space: tuple[str, ...] = ()
    active: AdapterSide | None
    """What is live; None while the base model is."""
    candidate: AdapterSide
    alpha: float
    min_effect: float
    max_new_tokens: int
    batch_size: int = 16
    device: Device = "auto"
    dtype: Dtype = "auto"
    threads: int | None = None
    """CPU threads; None takes what torch would."""


class EvaluationResult(Value):
    """What an evaluation child leaves, besides report.json and probes.json."""

    verdict: Verdict
    reason: str


class Question(Value):
    """A held-out item with its prompt's tokens."""

    item: ReviewedItem
    rendered: Rendered


def run(folder: Path) -> None:
    """Do the EvaluationJob in `folder`: `learnd work evaluate FOLDER`."""
    run_job(folder, EvaluationJob, evaluate)


def evaluate(job: EvaluationJob, folder: Path, progress: Progress) -> EvaluationResult:
    """Compare, judge, and record probes (of language models), into `folder`.

    Raises LearndError: SnapshotDamaged, BaseModelUnusable, AdapterUnusable, NothingToAsk, NothingToSearch.
    """
    use_threads(job.threads)
    snapshot = read_snapshot(Path(job.snapshot))
    progress.write("loading", f"base model {job.base_model}")
    if job.task == "embedding":
        return _compare_encoders(job, snapshot, folder, progress)
    return _compare_answers(job, snapshot, folder, progress)


def _compare_answers(
    job: EvaluationJob, snapshot: Snapshot, folder: Path, progress: Progress
) -> EvaluationResult:
    """Base, active version and candidate answer the held-out prompts."""
    from evaluation.answers import open_engine

    adapters = {side.name: Path(side.path) for side in (job.active, job.candidate) if side}
    engine = open_engine(job.base_model, adapters, device=job.device, dtype=job.dtype)
    questions = _questions(engine.tokenizer, snapshot.holdout)
    scoring = scorer(job.task, job.output_space, tuple(e.completion.content for e in snapshot.train.sft))
    golds = [question.item.gold.content for question in questions if question.item.gold]
    limit = answer_limit(job.task, job.max_new_tokens, engine.tokenizer, [*scoring.labels, *golds])
    sides = [
        _side(
            name, questions, engine, scoring, limit, job.batch_size, folder / f"side-{number}.json", progress
        )
        for number, name in enumerate([BASE, *adapters])
    ]
    progress.write("judging")
    items = [question.item for question in questions]
    report = build_report(
        job,
        snapshot,
        sides,
        sessions=[item.session_id or item.id for item in items if item.gold is not None],
        corrected=sum(item.outcome == "corrected" for item in items),
        rejected_without_correction=sum(item.gold is None for item in items),
    )
    write_whole(
        folder / PROBES, _probes(engine, job.candidate.name, snapshot, questions, sides).model_dump_json()
    )
    return _finished(report, folder)


def _compare_encoders(
    job: EvaluationJob, snapshot: Snapshot, folder: Path, progress: Progress
) -> EvaluationResult:
    """Base, active version and candidate make the held-out searches again."""
    from evaluation.encoding import open_encoder
    from evaluation.retrieval import library, search_side

    adapters = {side.name: Path(side.path) for side in (job.active, job.candidate) if side}
    encoder = open_encoder(job.base_model, adapters, device=job.device, dtype=job.dtype)
    shelf = library(snapshot.retrievals)
    sides = []
    for number, name in enumerate([BASE, *adapters]):
        found = search_side(encoder, name, shelf)
        progress.write("searching", name, step=number + 1, total=1 + len(adapters))
        sides.append(side_of_searches(found))
    report = build_report(job, snapshot, sides, sessions=[query.session for query in shelf.queries])
    return _finished(report, folder)


def side_of_searches(found: "RankedSide") -> Side:
    """A side of the report: right is a search that finds a relevant document first."""
    recall = {f"recall@{k}": share for k, share in found.recall.items()}
    return Side(
        name=found.name,
        accuracy=found.hit_rate,
        valid_rate=1.0,
        latency_ms=found.latency_ms,
        repeated_rejected=0,
        answers=tuple(
            Answer(item_id=query.item_id, text="", correct=query.hit, valid=True) for query in found.ranked
        ),
        measures=recall | {"mrr@10": found.mrr, "ndcg@10": found.ndcg},
    )


def _finished(report: Report, folder: Path) -> EvaluationResult:
    write_whole(folder / REPORT, report.model_dump_json(indent=2))
    return EvaluationResult(verdict=report.verdict, reason=report.reason)


def build_report(
    job: EvaluationJob,
    snapshot: Snapshot,
    sides: Sequence[Side],
    *,
    sessions: Sequence[str],
    corrected: int = 0,
    rejected_without_correction: int = 0,
) -> Report:
    """The report on `sides` (base first, candidate last), which all answered the same items.

    `sessions` says which of those with gold belong together; the counts are of held-out answers that
    people rejected.
    """
    live = job.active.name if job.active else BASE
    outcomes = {side.name: [a.correct for a in side.answers if a.correct is not None] for side in sides}
    evidence = Evidence(
        pairs=pairs(outcomes[job.candidate.name], outcomes[live]),
        live_right=sum(outcomes[live]),
        corrected=corrected,
        rejected_without_correction=rejected_without_correction,
    )
    answered = len(sides[0].answers)
    decision = decide(evidence, Gate(alpha=job.alpha, min_effect=job.min_effect))
    return Report(
        snapshot_id=snapshot.id,
        holdout_size=answered,
        gold_size=evidence.pairs.n,
        rejected_without_correction=evidence.rejected_without_correction,
        unanswerable=snapshot.manifest.holdout - answered,
        sides=tuple(sides),
        comparisons=_comparisons(outcomes, sessions, job),
        live=live,
        verdict=decision.verdict,
        reason=decision.reason,
        regression=decision.regression,
    )


def _comparisons(
    outcomes: Mapping[str, Sequence[bool]], sessions: Sequence[str], job: EvaluationJob
) -> tuple[Comparison, ...]:
    """The candidate with each other side, over the items with gold."""
    candidate = job.candidate.name
    return tuple(
        compare(outcomes[candidate], outcomes[name], against=name, sessions=sessions, alpha=job.alpha)
        for name in outcomes
        if name != candidate
    )


def _questions(tokenizer: Any, holdout: Sequence[ReviewedItem]) -> list[Question]:
    """The items whose prompts the chat template can express; the others could not be served either."""
    questions = []
    for item in holdout:
        try:
            questions.append(Question(item=item, rendered=render(tokenizer, item.prompt, item.tools)))
        except TemplateUnusable:
            continue
    return questions


def answer_limit(task: Task, most: int, tokenizer: Any, labels: Sequence[str]) -> int:
    """Most tokens of an answer: no classification is longer than the longest label, with some slack."""
    if task != "classification" or not labels:
        return most
    longest = max(len(tokenizer(label, add_special_tokens=False)["input_ids"]) for label in labels)
    return min(most, longest + LABEL_SLACK)


def _side(
    name: str,
    questions: Sequence[Question],
    engine: "AnswerEngine",
    scoring: Scorer,
    limit: int,
    batch_size: int,
    kept: Path,
    progress: Progress,
) -> Side:
    """The side's answers to all questions, from the file `kept` if an earlier run got that far."""
    if kept.exists():
        return Side.model_validate_json(kept.read_text("utf-8"))
    generated = engine.answers(
        name,
        [question.rendered.prompt_ids for question in questions],
        max_new_tokens=limit,
        batch_size=batch_size,
        on_progress=lambda done: progress.write("answering", name, step=done, total=len(questions)),
    )
    side = score_side(name, [question.item for question in questions], generated, scoring)
    write_whole(kept, side.model_dump_json())
    return side


def score_side(
    name: str, items: Sequence[ReviewedItem], generated: Sequence["Generated"], scoring: Scorer
) -> Side:
    """The answers of one side, scored; one answer an item, in their order."""
    answers = tuple(
        Answer(
            item_id=item.id,
            text=said.text,
            correct=scoring.correct(said.text, ended=said.ended, gold=item.gold) if item.gold else None,
            valid=scoring.valid(said.text, ended=said.ended),
        )
        for item, said in zip(items, generated, strict=True)
    )
    judged = [answer.correct for answer in answers if answer.correct is not None]
    return Side(
        name=name,
        accuracy=_share(judged),
        valid_rate=_share([answer.valid for answer in answers]),
        latency_ms=1000 * sum(said.seconds for said in generated) / max(1, len(generated)),
        repeated_rejected=sum(
            item.gold is None and scoring.correct(said.text, ended=said.ended, gold=item.response)
            for item, said in zip(items, generated, strict=True)
        ),
        answers=answers,
    )


def _share(outcomes: Sequence[bool]) -> float:
    return sum(outcomes) / len(outcomes) if outcomes else 0.0


def _probes(
    engine: "AnswerEngine",
    candidate: str,
    snapshot: Snapshot,
    questions: Sequence[Question],
    sides: Sequence[Side],
) -> ProbeRecord:
    """What the candidate says to a few prompts, one at a time, as a server is asked."""
    base, trained = sides[0].answers, sides[-1].answers
    # Where training changed the answer, and to different answers, a probe tells most.
    order = sorted(range(len(questions)), key=lambda i: base[i].text == trained[i].text)
    first_of = {trained[i].text: i for i in reversed(order)}
    chosen = list(dict.fromkeys([*sorted(first_of.values(), key=order.index), *order]))[:MOST_PROBES]
    asked: Sequence[ReviewedItem | SFTExample] = [questions[i].item for i in chosen]
    probes = [_probe(engine, candidate, each) for each in asked or snapshot.train.sft[:MOST_PROBES]]
    if not probes:
        raise NothingToAsk(f"snapshot {snapshot.id} has neither held-out nor training prompts")
    return ProbeRecord(probes=tuple(probes))


def _probe(engine: "AnswerEngine", candidate: str, asked: ReviewedItem | SFTExample) -> Probe:
    prompt = render(engine.tokenizer, asked.prompt, asked.tools).prompt_ids
    [said] = engine.answers(candidate, [prompt], max_new_tokens=PROBE_TOKENS, batch_size=1)
    return Probe(
        messages=tuple(message.to_chat() for message in asked.prompt),
        tools=asked.tools,
        prompt_ids=prompt,
        answer_ids=said.ids,
        answer=said.text,
        adapter_logprobs=engine.logprobs(candidate, prompt, said.ids),
        base_logprobs=engine.logprobs(BASE, prompt, said.ids),
    )
