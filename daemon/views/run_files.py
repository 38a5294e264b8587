"""Files that the jobs of a cycle left in its run folder: progress, and answers to held-out items."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import ValidationError

from daemon.runtime.paths import run_folder, snapshot_folder
from daemon.settings.load import Settings
from evaluation.race.job import RaceResult
from evaluation.race_report import RaceReport
from evaluation.report import ScoredAnswer
from extractors.dataset.snapshot import SnapshotDamaged, read_snapshot
from extractors.examples.types import Message, ReviewedItem, ReviewedRetrieval
from extractors.values import Value
from registry.cycles import Cycle
from trainers.job_folder import RESULT, ProgressLine

RACE = "race"
"""Folder of the race in a cycle's run folder."""


class SideBySide(Value):
    """The answers of every side to one held-out item."""

    item_id: str
    prompt: tuple[Message, ...]
    """Empty where the snapshot is gone."""
    gold: str | None
    """The approved answer, or the relevant documents of a search; None where there is none, or the snapshot
    is gone."""
    answers: dict[str, ScoredAnswer]
    """By the side's name."""


def read_progress(settings: Settings, cycle: Cycle) -> dict[str, list[ProgressLine]]:
    """Return the progress lines of the cycle's jobs, by the job's name."""
    folder = run_folder(settings.data_dir, cycle)
    return {path.parent.name: list(_read_lines(path)) for path in sorted(folder.glob("*/progress.jsonl"))}


def read_race(settings: Settings, cycle: Cycle) -> RaceReport | None:
    """Return what came of the cycle's race; None where there was none, or it has not ended."""
    if cycle.report is not None:
        return cycle.report.race
    result = run_folder(settings.data_dir, cycle) / RACE / RESULT
    return RaceResult.model_validate_json(result.read_text("utf-8")).report if result.exists() else None


def read_answers(
    settings: Settings, cycle: Cycle, *, changed: bool = False, offset: int = 0, limit: int = 50
) -> tuple[SideBySide, ...]:
    """Return held-out items with the answers of all sides; empty before the evaluation.

    With `changed`, only the items on which exactly one of candidate and live version is right.
    """
    report = cycle.report
    if report is None:
        return ()
    candidate, live = report.sides[-1], report.find_side(report.live)
    was_right = {answer.item_id: answer.correct for answer in live.answers}
    chosen = [
        answer.item_id
        for answer in candidate.answers
        if not changed or answer.correct is not was_right.get(answer.item_id)
    ][offset : offset + limit]
    items = _read_held_out(settings, cycle, frozenset(chosen)) if chosen else {}
    by_side = {side.name: {answer.item_id: answer for answer in side.answers} for side in report.sides}
    return tuple(
        SideBySide(
            item_id=item_id,
            prompt=_find_prompt(items.get(item_id)),
            gold=_find_gold(items.get(item_id)),
            answers={name: answers[item_id] for name, answers in by_side.items() if item_id in answers},
        )
        for item_id in chosen
    )


def _find_prompt(item: ReviewedItem | ReviewedRetrieval | None) -> tuple[Message, ...]:
    if isinstance(item, ReviewedRetrieval):
        return (Message(role="user", content=item.query),)
    return item.prompt if item else ()


def _find_gold(item: ReviewedItem | ReviewedRetrieval | None) -> str | None:
    if isinstance(item, ReviewedRetrieval):
        return "\n\n".join(document.text for document in item.documents if document.relevant) or None
    return item.gold.content if item and item.gold else None


def _read_held_out(
    settings: Settings, cycle: Cycle, wanted: frozenset[str]
) -> dict[str, ReviewedItem | ReviewedRetrieval]:
    if cycle.snapshot_id is None:
        return {}
    folder = snapshot_folder(settings.data_dir, cycle.target, cycle.snapshot_id)
    try:
        found = read_snapshot(folder)
    except SnapshotDamaged:
        # The retention policy may have removed it; the answers can be read without it.
        return {}
    items: Sequence[ReviewedItem | ReviewedRetrieval] = (*found.holdout, *found.retrievals)
    return {item.id: item for item in items if item.id in wanted}


def _read_lines(path: Path) -> Iterator[ProgressLine]:
    """Yield the complete lines of a file that may be growing."""
    for line in path.read_text("utf-8", errors="replace").split("\n")[:-1]:
        try:
            yield ProgressLine.model_validate_json(line)
        except ValidationError:
            # A crash may have left a line half written.
            continue
