"""The review of batches of synthetic examples: operators read, decide, and may use another tool for it.

The command line, the JSON API and the console all use this module. Examples are shown and edited as
the lines of `extractors.file_formats.jsonl` (`prompt`, `completion`, …). An edit changes only the keys
that it names.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from daemon.runtime.paths import snapshot_folder
from daemon.settings.load import Settings
from daemon.settings.types import SettingsError
from extractors.cleaning.quality import find_flaw
from extractors.dataset.snapshot import SnapshotDamaged, read_snapshot
from extractors.errors import LearndError
from extractors.examples.output_space import OutputSpace
from extractors.examples.types import Message, PreferencePair, SFTExample
from extractors.file_formats.jsonl import FileForm, LineInvalid, describe_error, from_line, to_line
from extractors.synthesis.recipes import SyntheticKind
from extractors.values import Value
from registry.batches import (
    Batch,
    BatchItem,
    ItemDecision,
    ItemState,
    SyntheticExample,
    parse_synthetic_example,
)
from registry.store.batches import UnknownBatch
from registry.store.store import Store

CONTENT: dict[SyntheticKind, tuple[str, ...]] = {
    "sft": ("prompt", "completion"),
    "pairs": ("prompt", "chosen", "rejected"),
    "triplets": ("anchor", "positive", "negative"),
}
"""The fields of an example that an operator may edit, by kind; the others say where it comes from."""
MOST_PROBLEMS = 20
"""How many problems of a file its error lists."""
SHOWN_LABELS = 20


class EditInvalid(LearndError):
    """An edited example cannot be trained on."""


class ReviewInvalid(LearndError):
    """A reviewed file cannot be imported; nothing of it was."""

    def __init__(self, problems: Sequence[str]) -> None:
        more = len(problems) - MOST_PROBLEMS
        listed = [*problems[:MOST_PROBLEMS], *([f"and {more} more"] if more > 0 else [])]
        super().__init__(f"nothing was imported: {'; '.join(listed)}")
        self.problems = tuple(problems)


class AlreadyDecided(LearndError):
    """Some of the items have been decided before."""


class ItemView(Value):
    """An item of a batch as operators read it."""

    number: int
    state: ItemState
    revision: int
    """A decision names the revision, so that nobody overwrites what they have not read."""
    example: dict[str, Any]
    """The example with its edits."""
    proposed: dict[str, Any]
    """The example as the language model wrote it."""
    edited: bool
    reason: str
    decided_by: str | None
    decided_at: datetime | None
    diversity: float
    """How different it is from everything that is trained on: from 0 to 1."""
    demonstrations: tuple[str, ...]
    """Ids of the approved examples that were shown to the language model."""


class ItemPage(Value):
    """Items in the order of their numbers, with their demonstrations."""

    items: tuple[ItemView, ...]
    demonstrations: dict[str, dict[str, Any]]
    """Approved examples by id; those that the batch's snapshot no longer holds are missing."""


class Ruling(Value):
    """An operator's decision about one item."""

    number: int
    revision: int
    """The revision that the operator has read."""
    state: ItemState
    """PENDING takes an earlier decision back."""
    reason: str = ""
    """Why; a rejection needs one."""
    edited: dict[str, Any] | None = Field(
        None, description="Fields of the example that an approval changes, such as `completion`."
    )


@dataclass(frozen=True)
class BatchReview:
    """Reads the batches' items and records decisions."""

    settings: Settings
    store: Store
    clock: Callable[[], datetime]
    """Aware UTC."""

    def read_page(
        self,
        batch_id: str,
        state: ItemState | None = None,
        *,
        after: int = 0,
        before: int | None = None,
        containing: str = "",
        limit: int | None = None,
    ) -> ItemPage:
        """Return the items after the number `after`, or those before `before`, nearest first.

        Raises UnknownBatch.
        """
        batch = self.store.batch(batch_id)
        items = self.store.batch_items(
            batch_id, state, after=after, before=before, containing=containing, limit=limit
        )
        wanted = {shown for item in items for shown in item.demonstrations}
        known = self._read_demonstrations(batch) if wanted else {}
        return ItemPage(
            items=tuple(build_item_view(batch.kind, item) for item in items),
            demonstrations={shown: known[shown] for shown in sorted(wanted & known.keys())},
        )

    def find_item(self, batch_id: str, number: int) -> BatchItem:
        """Return one item of a batch. Raises UnknownBatch."""
        found = self.store.batch_items(batch_id, after=number - 1, limit=1)
        if not found or found[0].number != number:
            raise _build_unknown_item(batch_id, number)
        return found[0]

    def decide(self, batch_id: str, rulings: Sequence[Ruling], *, actor: str) -> tuple[ItemView, ...]:
        """Record decisions, all or none, and return the items as they are then.

        Raises UnknownBatch, BatchEnded, ItemChanged, NobodyDecided, and EditInvalid for an edit that
        cannot be trained on.
        """
        batch = self.store.batch(batch_id)
        if len(rulings) == 1:
            items = {rulings[0].number: self.find_item(batch_id, rulings[0].number)}
        else:
            items = self._read_items(batch_id)
        decisions = [self._build_decision(batch, items, ruling) for ruling in rulings]
        decided = self.store.decide(batch_id, decisions, actor=actor, now=self.clock())
        return tuple(build_item_view(batch.kind, item) for item in decided)

    def decide_numbers(
        self,
        batch_id: str,
        numbers: Iterable[int] | None,
        state: ItemState,
        *,
        actor: str,
        reason: str = "",
        again: bool = False,
    ) -> tuple[ItemView, ...]:
        """Decide items in the same way, by number.

        None current for all pending items, or with PENDING for all decided ones. With `again`, or to take a
        decision back, items may have been decided before. Raises AlreadyDecided, and what `decide` raises.
        """
        items = self._read_items(batch_id)
        if numbers is None:
            undecided = state is not ItemState.PENDING
            chosen = [n for n, item in items.items() if (item.state is ItemState.PENDING) is undecided]
        else:
            chosen = sorted(set(numbers))
        for number in chosen:
            if number not in items:
                raise _build_unknown_item(batch_id, number)
        decided = [items[number] for number in chosen if items[number].state is not ItemState.PENDING]
        if decided and not again and state is not ItemState.PENDING:
            words = ", ".join(f"{item.number} is {item.state} by {item.decided_by}" for item in decided)
            raise AlreadyDecided(f"batch {batch_id}: {words}; undo that first, or decide them --again")
        rulings = [
            Ruling(number=number, revision=items[number].revision, state=state, reason=reason)
            for number in chosen
        ]
        return self.decide(batch_id, rulings, actor=actor)

    def close(self, batch_id: str, *, actor: str, reason: str = "") -> Batch:
        """End a batch as it is. Raises UnknownBatch, BatchEnded, NobodyDecided."""
        return self.store.close_batch(batch_id, actor=actor, now=self.clock(), reason=reason)

    def withdraw(self, batch_id: str, *, actor: str, reason: str) -> Batch:
        """Withdraw a batch, so that it never trains. Raises UnknownBatch, BatchEnded, NobodyDecided."""
        return self.store.withdraw_batch(batch_id, actor=actor, now=self.clock(), reason=reason)

    def export_lines(self, batch_id: str) -> Iterator[str]:
        """Yield the items as JSONL, for review in another tool and `import_lines`. Raises UnknownBatch.

        A reviewer sets `state` to APPROVED or REJECTED, the latter with a `reason`, and may change the
        example of what is approved; the rest must stay.
        """
        kind = self.store.batch(batch_id).kind
        for item in self.store.batch_items(batch_id):
            review = {
                "batch": batch_id,
                "item": item.number,
                "revision": item.revision,
                "state": str(item.state),
                "reason": item.reason,
            }
            shown = to_line(parse_synthetic_example(kind, item.content), FileForm.JSONL)
            made_from = {"diversity": item.diversity, "demonstrations": list(item.demonstrations)}
            yield json.dumps({**review, **shown, **made_from}, ensure_ascii=False) + "\n"

    def import_lines(self, batch_id: str, lines: Iterable[str], *, actor: str) -> tuple[ItemView, ...]:
        """Record the decisions of a reviewed export, and return the items that they change.

        Raises ReviewInvalid, which names line and reason of everything that is malformed or stale, and
        what `decide` raises. Then nothing was decided.
        """
        batch, items = self.store.batch(batch_id), self._read_items(batch_id)
        rulings, problems = self._read_rulings(batch, items, lines)
        if not rulings and not problems:
            problems = ["there is no line in it"]
        if problems:
            raise ReviewInvalid(problems)
        return self.decide(batch_id, [ruling for ruling in rulings.values() if ruling], actor=actor)

    def _read_rulings(
        self, batch: Batch, items: Mapping[int, BatchItem], lines: Iterable[str]
    ) -> tuple[dict[int, Ruling | None], list[str]]:
        """Return the ruling of each line by the item's number, and a problem for each line without one.

        The ruling is None where the line changes nothing.
        """
        rulings: dict[int, Ruling | None] = {}
        problems: list[str] = []
        for number, text in enumerate(lines, start=1):
            if not text.strip():
                continue
            try:
                line = _parse_line(batch, items, text)
                if line["item"] in rulings:
                    raise LineInvalid(f"item {line['item']} is on an earlier line already")
                rulings[line["item"]] = self._read_ruling(batch, items[line["item"]], line)
            except (LineInvalid, EditInvalid) as wrong:
                problems.append(f"line {number}: {wrong}")
        return rulings, problems

    def _read_items(self, batch_id: str) -> dict[int, BatchItem]:
        return {item.number: item for item in self.store.batch_items(batch_id)}

    def _build_decision(self, batch: Batch, items: Mapping[int, BatchItem], ruling: Ruling) -> ItemDecision:
        """Return the decision, whose edit is a whole example. Raises UnknownBatch, EditInvalid."""
        item = items.get(ruling.number)
        if item is None:
            raise _build_unknown_item(batch.id, ruling.number)
        edited = item.edited if ruling.state is ItemState.APPROVED else None
        try:
            if ruling.edited is not None and ruling.state is ItemState.APPROVED:
                current = parse_synthetic_example(batch.kind, item.content)
                made = apply_edit(batch.kind, current, ruling.edited, self._find_labels(batch))
                as_proposed = made.id == parse_synthetic_example(batch.kind, item.example).id
                edited = None if as_proposed else made.model_dump(mode="json")
            return ItemDecision(**ruling.model_dump(exclude={"edited"}), edited=edited)
        except EditInvalid as wrong:
            raise EditInvalid(f"item {item.number} of batch {batch.id}: {wrong}") from None
        except ValidationError as wrong:
            raise EditInvalid(f"item {item.number} of batch {batch.id}: {_describe_error(wrong)}") from None

    def _read_ruling(self, batch: Batch, item: BatchItem, line: Mapping[str, Any]) -> Ruling | None:
        """Return the ruling of a line; None where it changes nothing. Raises LineInvalid, EditInvalid."""
        try:
            ruling = Ruling(
                number=item.number,
                revision=item.revision,
                state=str(line.get("state")).upper(),
                reason=line.get("reason") or "",
            )
            ItemDecision(**ruling.model_dump())
        except ValidationError as wrong:
            raise LineInvalid(_describe_error(wrong)) from None
        missing = [name for name in CONTENT[batch.kind] if name not in line]
        if missing:
            raise LineInvalid(f"it has no {' and no '.join(missing)}")
        content = {name: line[name] for name in CONTENT[batch.kind]}
        current = parse_synthetic_example(batch.kind, item.content)
        if ruling.state is not ItemState.REJECTED and content != _build_content(batch.kind, current):
            # Checked here, so that the error can name the line.
            changed = apply_edit(batch.kind, current, content, self._find_labels(batch)).id != current.id
            if changed and ruling.state is ItemState.PENDING:
                raise LineInvalid("its example was changed while its state is PENDING: set it to APPROVED")
            if changed:
                return ruling.model_copy(update={"edited": content})
        return None if (ruling.state, ruling.reason) == (item.state, item.reason) else ruling

    def _find_labels(self, batch: Batch) -> tuple[str, ...]:
        """Return the labels of the batch's target; empty if there are none, or no such target any more."""
        try:
            target = self.settings.find_target(batch.target)
        except SettingsError:
            return ()
        return target.output_space if target.task == "classification" else ()

    def _read_demonstrations(self, batch: Batch) -> Mapping[str, dict[str, Any]]:
        snapshot_id = self.store.cycle(batch.cycle_id).snapshot_id
        if snapshot_id is None:
            return {}
        folder = snapshot_folder(self.settings.data_dir, batch.target, snapshot_id)
        try:
            return _read_demonstrations(folder, batch.kind, frozenset(batch.provenance.demonstrations))
        except SnapshotDamaged:
            # Somebody removed the snapshot; the batch can be decided without it.
            return {}


def build_item_view(kind: SyntheticKind, item: BatchItem) -> ItemView:
    """Return the item with its example in the form in which people read and edit it."""
    kept = item.model_dump(
        include=ItemView.model_fields.keys() & BatchItem.model_fields.keys() - {"example", "edited"}
    )
    return ItemView(
        **kept,
        example=_build_content(kind, parse_synthetic_example(kind, item.content)),
        proposed=_build_content(kind, parse_synthetic_example(kind, item.example)),
        edited=item.edited is not None,
    )


def apply_edit(
    kind: SyntheticKind,
    example: SyntheticExample,
    changes: Mapping[str, Any],
    labels: Sequence[str] = (),
) -> SyntheticExample:
    """Return `example` with the `changes` to its content; its origin stays.

    `labels` are the valid answers of a classification. Raises EditInvalid where the result is no
    example of its kind, or cannot be trained on.
    """
    unknown = sorted(changes.keys() - set(CONTENT[kind]))
    if unknown:
        raise EditInvalid(f"{', '.join(unknown)} cannot be edited; {', '.join(CONTENT[kind])} can")
    before = to_line(example, FileForm.JSONL)
    line = {**before, **changes}
    for document in ("positive", "negative"):
        if line.get(document) != before.get(document):
            line[f"{document}_id"] = None  # The id names the text as it was.
    try:
        # Without these, they are derived from the edited content.
        fresh = {name: value for name, value in line.items() if name not in {"id", "prompt_key"}}
        made = from_line(type(example), fresh, FileForm.JSONL, now=example.started_at, system=None)
    except LineInvalid as wrong:
        raise EditInvalid(str(wrong)) from None
    made = _normalise_label(made, labels)
    if reason := find_flaw(made):
        raise EditInvalid(f"it could not be trained on: {reason.value}")
    return made


def _normalise_label(example: SyntheticExample, labels: Sequence[str]) -> SyntheticExample:
    """Return the example with its answer in the spelling of the output space. Raises EditInvalid."""
    space = OutputSpace(labels)
    match example:
        case SFTExample():
            return example.model_copy(
                update={"completion": _normalise_answer(space, example.completion, labels)}
            )
        case PreferencePair():
            return example.model_copy(update={"chosen": _normalise_answer(space, example.chosen, labels)})
    return example


def _normalise_answer(space: OutputSpace, answer: Message, labels: Sequence[str]) -> Message:
    spelled = space.to_label(answer)
    if spelled is None:
        more = ", …" if len(labels) > SHOWN_LABELS else ""
        raise EditInvalid(
            f"its answer is none of the target's output_space ({', '.join(labels[:SHOWN_LABELS])}{more})"
        )
    return spelled


def _build_content(kind: SyntheticKind, example: SyntheticExample) -> dict[str, Any]:
    line = to_line(example, FileForm.JSONL)
    return {name: line[name] for name in CONTENT[kind]}


def _parse_line(batch: Batch, items: Mapping[int, BatchItem], text: str) -> dict[str, Any]:
    """Return a line of a review that is about the current revision of an item. Raises LineInvalid."""
    try:
        line = json.loads(text)
    except (ValueError, RecursionError) as wrong:
        raise LineInvalid(f"it is not JSON ({wrong})") from None
    if not isinstance(line, dict):
        raise LineInvalid("it is no JSON object")
    if line.get("batch") != batch.id:
        raise LineInvalid(f"its batch is not {batch.id}")
    item = items.get(line["item"]) if isinstance(line.get("item"), int) else None
    if item is None:
        raise LineInvalid(f"its item is no number of an item of {batch.id}")
    if line.get("revision") != item.revision:
        raise LineInvalid(
            f"item {item.number} is {item.state} by {item.decided_by} since this was exported; "
            "export it again"
        )
    return line


@lru_cache(maxsize=16)
def _read_demonstrations(
    folder: Path, kind: SyntheticKind, wanted: frozenset[str]
) -> Mapping[str, dict[str, Any]]:
    """Return the training examples with these ids, as people read them. A snapshot never changes."""
    snapshot = read_snapshot(folder)
    found = (*getattr(snapshot.train, kind), *getattr(snapshot.validation, kind))
    return {example.id: _build_content(kind, example) for example in found if example.id in wanted}


def _build_unknown_item(batch_id: str, number: int) -> UnknownBatch:
    return UnknownBatch(f"item {number} in batch {batch_id}")


def _describe_error(wrong: ValidationError) -> str:
    return describe_error(wrong).removeprefix(": ").replace("Value error, ", "")
