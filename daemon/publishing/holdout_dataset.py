"""The holdout as a Phoenix dataset, and each side's answers as an experiment."""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

from pydantic import JsonValue

from daemon.publishing.measured_run import ExampleRun, ExperimentSide, MeasuredRun
from daemon.publishing.run import FinishedRun
from daemon.views.report_text import describe_answer, find_role, format_side
from evaluation.metrics.retrieval import build_library
from evaluation.report import Report, ScoredAnswer, Side
from extractors.dataset.snapshot import Snapshot
from extractors.examples.types import Message, ReviewedItem
from extractors.phoenix.dataset_client import DatasetExample

SYSTEM = frozenset({"system", "developer"})


def build_measured_run(run: FinishedRun) -> MeasuredRun | None:
    """The held-out items and every side's answers to them; None where either is not there (any more)."""
    report = run.cycle.report
    if report is None or run.snapshot is None:
        return None
    examples = {example.id: example for example in _build_examples(run.snapshot)}
    asked = [examples[answer.item_id] for answer in report.candidate.answers if answer.item_id in examples]
    if not asked:
        return None
    live, candidate = report.find_side(report.live), report.candidate
    others = [side for side in report.sides if side.name not in {live.name, candidate.name}]
    began, _ = run.find_times("evaluate")
    return MeasuredRun(
        run_id=run.cycle.id,
        dataset=f"learnd {run.target.key} holdout",
        description=f"Reviewed traffic of {run.target.key} that nothing is trained on: learnd judges "
        "adapters by it. Each version is one window of the traffic.",
        examples=tuple(asked),
        sides=tuple(_build_side(run, report, side, examples, began) for side in (live, candidate, *others)),
    )


def _build_examples(snapshot: Snapshot) -> Iterator[DatasetExample]:
    for item in snapshot.holdout:
        yield DatasetExample(
            id=item.id,
            input=_build_input(item),
            output=_build_output(item.gold),
            metadata=_build_metadata(item),
            span_id=item.source_span_ids[0] if item.source_span_ids else None,
        )
    if not snapshot.retrievals:
        return
    # As the evaluation asks them: searches with one query are one.
    searches = {search.id: search for search in snapshot.retrievals}
    shelf = build_library(snapshot.retrievals)
    for query in shelf.queries:
        yield DatasetExample(
            id=query.item_id,
            input={"query": query.text},
            output={"relevant": [shelf.documents[number] for number in query.relevant]},
            span_id=next(iter(searches[query.item_id].source_span_ids), None),
        )


def _build_input(item: ReviewedItem) -> dict[str, JsonValue]:
    """The one question behind the system prompt, or the conversation."""
    said = [message for message in item.prompt if message.role not in SYSTEM]
    if [message.role for message in said] == ["user"]:
        return {"question": said[0].content}
    return {"messages": [message.to_chat() for message in said]}


def _build_output(gold: Message | None) -> dict[str, JsonValue]:
    if gold is None:
        return {}
    return {"message": gold.to_chat()} if gold.tool_calls else {"answer": gold.content}


def _build_metadata(item: ReviewedItem) -> dict[str, JsonValue]:
    system = "\n\n".join(message.content for message in item.prompt if message.role in SYSTEM)
    known: dict[str, JsonValue] = {
        "system": system or None,
        "tools": list(item.tools) or None,
        "session": item.session_id,
        "outcome": item.outcome,
        "answered": item.response.content,
        "answered_by": item.answered_by,
    }
    return {name: value for name, value in known.items() if value is not None}


def _build_side(
    run: FinishedRun, report: Report, side: Side, examples: Mapping[str, DatasetExample], began: datetime
) -> ExperimentSide:
    known = {
        "target": run.target.key,
        "role": find_role(report, side.name),
        "look": report.look,
        "verdict": report.verdict if side is report.candidate else None,
        "accuracy": side.accuracy,
        "valid_rate": side.valid_rate,
        "latency_ms": side.latency_ms or None,
        **side.measures,
    }
    return ExperimentSide(
        name=side.name,
        title=format_side(report, side.name),
        description=report.reason if side is report.candidate else f"beside {report.candidate.name}",
        metadata={name: value for name, value in known.items() if value is not None},
        runs=tuple(
            _build_example_run(side, answer, began) for answer in side.answers if answer.item_id in examples
        ),
    )


def _build_example_run(side: Side, answer: ScoredAnswer, began: datetime) -> ExampleRun:
    """Answers come in batches, so that none has a time of its own: each begins with the evaluation, and
    takes what the same work was measured to take this side.
    """
    return ExampleRun(
        example_id=answer.item_id,
        output=describe_answer(answer),
        started_at=began,
        ended_at=began + timedelta(milliseconds=side.latency_ms),
        correct=answer.correct,
        valid=answer.valid,
        measures=answer.scores,
    )
