"""The holdout as a Phoenix dataset, and each side's answers as an experiment."""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

from pydantic import JsonValue

from daemon.publishing.run import Run
from daemon.views.report_text import answer_words, role, titled
from evaluation.metrics.retrieval import library
from evaluation.report import Answer, Report, Side
from extractors.dataset.snapshot import Snapshot
from extractors.examples.types import Message, ReviewedItem
from extractors.phoenix.write_experiments import (
    ExampleRun,
    ExperimentSide,
    HoldoutExample,
    RunExperiments,
)

SYSTEM = frozenset({"system", "developer"})


def experiments_of(run: Run) -> RunExperiments | None:
    """The held-out items and every side's answers to them; None where either is not there (any more)."""
    report = run.cycle.report
    if report is None or run.snapshot is None:
        return None
    examples = {example.id: example for example in _examples(run.snapshot)}
    asked = [examples[answer.item_id] for answer in report.candidate.answers if answer.item_id in examples]
    if not asked:
        return None
    live, candidate = report.side(report.live), report.candidate
    others = [side for side in report.sides if side.name not in {live.name, candidate.name}]
    began, _ = run.times("evaluate")
    return RunExperiments(
        run_id=run.cycle.id,
        dataset=f"learnd {run.context.target.key} holdout",
        description=f"Reviewed traffic of {run.context.target.key} that nothing is trained on: learnd judges "
        "adapters by it. Each version is one window of the traffic.",
        examples=tuple(asked),
        sides=tuple(_side(run, report, side, examples, began) for side in (live, candidate, *others)),
    )


def _examples(snapshot: Snapshot) -> Iterator[HoldoutExample]:
    for item in snapshot.holdout:
        yield HoldoutExample(
            id=item.id,
            input=_asked(item),
            output=_gold(item.gold),
            metadata=_about(item),
            span_id=item.source_span_ids[0] if item.source_span_ids else None,
        )
    if not snapshot.retrievals:
        return
    # As the evaluation asks them: searches with one query are one.
    searches = {search.id: search for search in snapshot.retrievals}
    shelf = library(snapshot.retrievals)
    for query in shelf.queries:
        yield HoldoutExample(
            id=query.item_id,
            input={"query": query.text},
            output={"relevant": [shelf.documents[number] for number in query.relevant]},
            span_id=next(iter(searches[query.item_id].source_span_ids), None),
        )


def _asked(item: ReviewedItem) -> dict[str, JsonValue]:
    """The one question behind the system prompt, or the conversation."""
    said = [message for message in item.prompt if message.role not in SYSTEM]
    if [message.role for message in said] == ["user"]:
        return {"question": said[0].content}
    return {"messages": [message.to_chat() for message in said]}


def _gold(gold: Message | None) -> dict[str, JsonValue]:
    if gold is None:
        return {}
    return {"message": gold.to_chat()} if gold.tool_calls else {"answer": gold.content}


def _about(item: ReviewedItem) -> dict[str, JsonValue]:
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


def _side(
    run: Run, report: Report, side: Side, examples: Mapping[str, HoldoutExample], began: datetime
) -> ExperimentSide:
    known = {
        "target": run.context.target.key,
        "role": role(report, side.name),
        "look": report.look,
        "verdict": report.verdict if side is report.candidate else None,
        "accuracy": side.accuracy,
        "valid_rate": side.valid_rate,
        "latency_ms": side.latency_ms or None,
        **side.measures,
    }
    return ExperimentSide(
        name=side.name,
        title=titled(report, side.name),
        description=report.reason if side is report.candidate else f"beside {report.candidate.name}",
        metadata={name: value for name, value in known.items() if value is not None},
        runs=tuple(_answered(side, answer, began) for answer in side.answers if answer.item_id in examples),
    )


def _answered(side: Side, answer: Answer, began: datetime) -> ExampleRun:
    """Answers come in batches, so that none has a time of its own: each begins with the evaluation, and
    takes what the same work was measured to take this side.
    """
    return ExampleRun(
        example_id=answer.item_id,
        output=answer_words(answer),
        started_at=began,
        ended_at=began + timedelta(milliseconds=side.latency_ms),
        correct=answer.correct,
        valid=answer.valid,
        measures=answer.scores,
    )
