"""Builds the holdout as a Phoenix dataset, and each side's answers as an experiment."""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

from pydantic import JsonValue

from daemon.publishing.measured_run import ExampleRun, ExperimentSide, MeasuredRun
from daemon.publishing.run import FinishedRun
from daemon.views.report_text import describe_answer, find_role, format_side
from evaluation.metrics.retrieval import build_library
from evaluation.report import Report, ScoredAnswer, Side
from extractors.dataset.snapshot import Snapshot
from extractors.examples.thoughts import get_answer
from extractors.examples.types import Message, ReviewedItem
from extractors.phoenix.dataset_client import DatasetExample

SYSTEM = frozenset({"system", "developer"})


def build_measured_run(run: FinishedRun) -> MeasuredRun | None:
    """Build the held-out items and every side's answers; None where the report or the snapshot is missing."""
    report = run.cycle.report
    if report is None or run.snapshot is None:
        return None
    examples = {example.id: example for example in _build_examples(run.snapshot)}
    answered = [examples[answer.item_id] for answer in report.candidate.answers if answer.item_id in examples]
    if not answered:
        return None
    live, candidate = report.find_side(report.live), report.candidate
    others = [side for side in report.sides if side.name not in {live.name, candidate.name}]
    started_at, _ = run.find_times("evaluate")
    return MeasuredRun(
        run_id=run.cycle.id,
        dataset=f"learnd {run.target.key} holdout",
        description=f"Reviewed traffic of {run.target.key} that nothing is trained on: learnd judges "
        "adapters by it. Each version is one window of the traffic.",
        examples=tuple(answered),
        sides=tuple(
            _build_side(run.target.key, report, side, examples, started_at)
            for side in (live, candidate, *others)
        ),
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
    # As in the evaluation: searches with the same query are one.
    searches = {search.id: search for search in snapshot.retrievals}
    library = build_library(snapshot.retrievals)
    for query in library.queries:
        yield DatasetExample(
            id=query.item_id,
            input={"query": query.text},
            output={"relevant": [library.documents[number] for number in query.relevant]},
            span_id=next(iter(searches[query.item_id].source_span_ids), None),
        )


def _build_input(item: ReviewedItem) -> dict[str, JsonValue]:
    """Return the one question after the system prompt, or the conversation."""
    messages = [message for message in item.prompt if message.role not in SYSTEM]
    if [message.role for message in messages] == ["user"]:
        return {"question": messages[0].content}
    return {"messages": [message.to_chat() for message in messages]}


def _build_output(gold: Message | None) -> dict[str, JsonValue]:
    """Return the right answer, without the thoughts before it: what a side answers has none."""
    if gold is None:
        return {}
    answer = gold.model_copy(update={"content": get_answer(gold), "reasoning": None})
    return {"message": answer.to_chat()} if gold.tool_calls else {"answer": answer.content}


def _build_metadata(item: ReviewedItem) -> dict[str, JsonValue]:
    system = "\n\n".join(message.content for message in item.prompt if message.role in SYSTEM)
    known: dict[str, JsonValue] = {
        "system": system or None,
        "tools": list(item.tools) or None,
        "session": item.session_id,
        "outcome": item.outcome,
        "answered": get_answer(item.response),
        "answered_by": item.answered_by,
    }
    return {name: value for name, value in known.items() if value is not None}


def _build_side(
    target: str, report: Report, side: Side, examples: Mapping[str, DatasetExample], started_at: datetime
) -> ExperimentSide:
    known = {
        "target": target,
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
            _build_example_run(side, answer, started_at)
            for answer in side.answers
            if answer.item_id in examples
        ),
    )


def _build_example_run(side: Side, answer: ScoredAnswer, started_at: datetime) -> ExampleRun:
    """Build the run of one example.

    Answers come in batches, so none has a time of its own: each begins with the evaluation and takes the
    latency that was measured for this side.
    """
    return ExampleRun(
        example_id=answer.item_id,
        output=describe_answer(answer),
        started_at=started_at,
        ended_at=started_at + timedelta(milliseconds=side.latency_ms),
        correct=answer.correct,
        valid=answer.valid,
        measures=answer.scores,
    )
