"""The split of reviewed items into training, holdout and retention set, and those on neither side.

    ── older ──┬── window.first ────────────┬── window.start ──────── newer ──▶
    training   │  training, and             │   holdout: all that was reviewed, rejected items too
               │  retention: a share of the │
               │  sessions once held out    │

No session and no normalised prompt stands in two of them. Nothing was trained on what is newer than the first
window's start until a later window left it behind, and what is reserved then never is: the retention set
tells what a candidate has forgotten.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from hashlib import sha256
from typing import Generic, NamedTuple, Protocol, Self, TypeVar

from pydantic import Field, model_validator

from extractors.examples.types import ReviewedItem, ReviewedRetrieval
from extractors.values import Value

AnyReviewed = TypeVar("AnyReviewed", ReviewedItem, ReviewedRetrieval)
"""Items to split: calls of a language model, or searches of a retriever."""


DIGITS = 13
"""Hexadecimal digits of a lot, as many as a float holds exactly."""


class Traced(Protocol):
    """Something that was seen in one session, or in one trace."""

    @property
    def session_id(self) -> str | None: ...
    @property
    def trace_id(self) -> str: ...


class Prompted(Traced, Protocol):
    """Something that was asked in a session or trace."""

    @property
    def prompt_key(self) -> str: ...


class LeftOutReason(StrEnum):
    """Reasons why something reviewed, imported or synthetic stands on neither side."""

    COMMON_PROMPT = "prompt that many sessions share, in the holdout's window"
    BEYOND_HOLDOUT = "newer than a holdout that is full: waits for the next window"
    RESERVED = "of a session that is kept for the retention set, though the set itself cannot use it"
    SESSION_HELD_OUT = "its session stands in the holdout"
    PROMPT_HELD_OUT = "its prompt stands in the holdout"
    BOTH_SIDES = "its session is validated on, its prompt trained on in others"
    REPEATED = "the same prompt and answer again"
    CONVERSATION_HELD_OUT = (
        "a conversation that goes on into the holdout or the retention set, or shares a prompt with them"
    )
    IMPORT_HELD_OUT = (
        "an imported or synthetic example whose prompt, session or span stands in the holdout or the "
        "retention set"
    )
    IMPORT_VALIDATED = "an imported or synthetic example whose prompt, session or span is validated on"
    TOO_MUCH_SYNTHETIC = "a synthetic example beyond the share of training that they may be"
    ANSWERED_ANEW = "a newer answer to the same prompt is taken instead"
    REJECTED_LATER = "its answer was rejected when the same prompt came again"
    NO_GOLD = "rejected without a correction: nothing to learn"


class HoldoutRules(Value):
    """The share of the reviewed traffic that is held out of training, and its bounds."""

    share: float = Field(0.2, gt=0, lt=1)
    """Share of all reviewed items."""
    least: int = Field(80, ge=1)
    """Items held out even where the share is less."""
    greatest: int = Field(500, ge=1)
    """Items held out at most."""
    common_prompt_sessions: int = Field(3, ge=2)
    """A prompt that this many sessions share (a greeting) is not held out."""
    validation_share: float = Field(0.1, ge=0, lt=1)
    """Share of the training examples on which training stops early."""
    race_validation_share: float = Field(0.2, ge=0, lt=1)
    """The same share where several ways to train are possible, and race each other there."""
    retention_share: float = Field(0.2, ge=0, lt=1)
    """Share of the sessions once held out that are never trained on. It cannot grow beyond what was reserved
    so far, except from 0, which makes a new beginning."""
    retention_greatest: int = Field(200, ge=1)
    """Reviewed items in the retention set at most; with more, a smaller share of the sessions is reserved."""

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        if self.least > self.greatest:
            raise ValueError(f"least ({self.least}) must not exceed greatest ({self.greatest})")
        return self

    def size(self, reviewed: int) -> int:
        """Return how many of the `reviewed` items to hold out."""
        return min(max(round(self.share * reviewed), self.least), self.greatest)


class Window(Value):
    """The time span of the holdout, and the share of earlier holdouts that stays reserved."""

    start: datetime
    """Everything trained on is older."""
    end: datetime
    """Start of the newest item when the window was opened; newer items count towards the next window."""
    first: datetime = Field(default_factory=lambda given: given["start"])
    """Start of the target's first window: newer items were trained on only where they were not reserved."""
    retained_to: float = 1.0
    """Greatest lot (`draw_lot`) of a session that is reserved. It never rises: else something trained on
    would be reserved once feedback on what is retained was taken back, or its spans were deleted."""

    def reserves(self, group: str, started_at: datetime) -> bool:
        """Return whether this session or trace, seen at that time, is never trained on."""
        return self.first <= started_at < self.start and draw_lot(group) <= self.retained_to


class Split(Value, Generic[AnyReviewed]):
    """Reviewed items by side; no two sides share a session or a normalised prompt."""

    train: tuple[AnyReviewed, ...]
    """Older than the window; oldest first, rejected items without gold included."""
    holdout: tuple[AnyReviewed, ...]
    """Oldest first."""
    retention: tuple[AnyReviewed, ...] = ()
    """Older than the window, with gold, and never trained on; oldest first."""
    window: Window | None
    """None where there is nothing to hold out."""
    excluded_prompts: tuple[str, ...] = ()
    """Normalised prompts that are not held out, whoever asks them."""
    left_out: dict[LeftOutReason, int]

    def may_train(self, groups: Collection[str], prompt_keys: Collection[str], started_at: datetime) -> bool:
        """Return whether something else from this traffic lies on the training side.

        `groups` are its sessions or traces (see `find_group`), `started_at` is when its newest span began.
        """
        if self.window is None:
            return True
        older, reserves = started_at < self.window.start, self.window.reserves
        reserved = any(reserves(group, started_at) for group in groups)
        return older and not reserved and not self.holds_out(groups, prompt_keys, ())

    def holds_out(
        self, groups: Collection[str], prompt_keys: Collection[str], span_ids: Collection[str]
    ) -> bool:
        """Return whether any of these stands in the holdout or in the retention set."""
        return not (
            self._groups.isdisjoint(groups)
            and self._prompt_keys.isdisjoint(prompt_keys)
            and self._span_ids.isdisjoint(span_ids)
        )

    @property
    def held_out(self) -> tuple[AnyReviewed, ...]:
        """Holdout and retention set: the items that are never trained on."""
        return self.holdout + self.retention

    @cached_property
    def _groups(self) -> frozenset[str]:
        return frozenset(find_group(item) for item in self.held_out)

    @cached_property
    def _prompt_keys(self) -> frozenset[str]:
        return frozenset(item.prompt_key for item in self.held_out)

    @cached_property
    def _span_ids(self) -> frozenset[str]:
        return frozenset(span_id for item in self.held_out for span_id in item.source_span_ids)


def split(items: Iterable[AnyReviewed], rules: HoldoutRules, previous: Window | None) -> Split[AnyReviewed]:
    """Hold out the newest window of `items`.

    The `previous` window stays, and takes in newer items, until they fill a new one. Then its items are
    trained on, but for the share that is retained.
    """
    ordered = sorted(items, key=lambda item: (_age(item), item.id))
    common = find_common_prompts(ordered, rules.common_prompt_sessions)
    eligible = [item for item in ordered if item.prompt_key not in common]
    opened = _open_window(eligible, rules, len(ordered), previous)
    if opened is None:
        return Split(train=tuple(ordered), holdout=(), window=None, left_out={})
    recent = [item for item in eligible if item.started_at >= opened.start]
    unique = sorted(_drop_repeated(recent), key=_age)
    holdout = unique[: rules.greatest]
    older = [item for item in ordered if item.started_at < opened.start]
    window, retained = _select_retention(older, common, opened, rules.retention_greatest)
    sessions, prompts = {find_group(item) for item in holdout}, {item.prompt_key for item in holdout}
    apart = [item for item in older if find_group(item) not in sessions]
    others = [item for item in apart if item.prompt_key not in prompts]
    train = [item for item in others if not window.reserves(find_group(item), item.started_at)]
    free = [item for item in retained if find_group(item) not in sessions and item.prompt_key not in prompts]
    retention = _drop_repeated(free)[: rules.retention_greatest]
    return Split(
        train=tuple(train),
        holdout=tuple(holdout),
        retention=tuple(sorted(retention, key=_age)),
        window=window,
        excluded_prompts=tuple(sorted(common)),
        left_out={
            LeftOutReason.COMMON_PROMPT: len(ordered) - len(older) - len(recent),
            LeftOutReason.REPEATED: len(recent) - len(unique),
            LeftOutReason.BEYOND_HOLDOUT: len(unique) - len(holdout),
            LeftOutReason.SESSION_HELD_OUT: len(older) - len(apart),
            LeftOutReason.PROMPT_HELD_OUT: len(apart) - len(others),
            LeftOutReason.RESERVED: len(others) - len(train) - len(retention),
        },
    )


def find_group(item: Traced) -> str:
    """Return the session, or the trace where the call has no session, as one key."""
    return f"session {item.session_id}" if item.session_id else f"trace {item.trace_id}"


def find_common_prompts(items: Iterable[Prompted], sessions: int) -> set[str]:
    """Return the normalised prompts that at least so many `sessions` share."""
    seen: defaultdict[str, set[str]] = defaultdict(set)
    for item in items:
        seen[item.prompt_key].add(find_group(item))
    return {prompt for prompt, groups in seen.items() if len(groups) >= sessions}


def _open_window(
    eligible: Sequence[AnyReviewed], rules: HoldoutRules, reviewed: int, previous: Window | None
) -> Window | None:
    newer = [item for item in eligible if previous is None or item.started_at > previous.end]
    size = rules.size(reviewed)
    if previous is not None and len(newer) < size:
        start, end = previous.start, previous.end
    elif newer:
        start, end = newer[-size:][0].started_at, newer[-1].started_at
    else:
        return None
    # Where nothing is reserved, everything older may have been trained on.
    reserving = previous if previous is not None and previous.retained_to > 0 else None
    return Window(
        first=reserving.first if reserving else start,
        start=start,
        end=end,
        retained_to=min(reserving.retained_to if reserving else 1.0, rules.retention_share),
    )


def draw_lot(group: str) -> float:
    """Return the lot of a session or trace, in (0, 1]; the lowest are reserved first."""
    lot = sha256(f"retention {group}".encode()).hexdigest()[:DIGITS]
    return (int(lot, 16) + 1) / float(16**DIGITS)


def _select_retention(
    older: Sequence[AnyReviewed], common: Collection[str], window: Window, most: int
) -> tuple[Window, list[AnyReviewed]]:
    """Return the window that reserves about `most` items, and those items, by lot."""
    retained = _find_retainable(older, common, window)
    if len(retained) <= most:
        return window, retained
    fewer = window.model_copy(update={"retained_to": draw_lot(find_group(retained[most - 1]))})
    return fewer, _find_retainable(older, common, fewer)


def _find_retainable(
    older: Sequence[AnyReviewed], common: Collection[str], window: Window
) -> list[AnyReviewed]:
    """Return reserved items with gold whose session and prompt were never on the training side, by lot."""

    def is_reserved(item: AnyReviewed) -> bool:
        return window.reserves(find_group(item), item.started_at)

    trained = [item for item in older if not is_reserved(item)]
    sessions = {find_group(item) for item in trained}
    prompts = {item.prompt_key for item in trained}.union(common)
    kept = (item for item in older if is_reserved(item) and item.outcome != "rejected")
    apart = [item for item in kept if find_group(item) not in sessions and item.prompt_key not in prompts]
    return sorted(apart, key=lambda item: draw_lot(find_group(item)))


def _drop_repeated(items: Iterable[AnyReviewed]) -> list[AnyReviewed]:
    """Keep the last of items that repeat each other."""
    return list({(item.id, item.outcome): item for item in items}.values())


def _age(item: AnyReviewed) -> tuple[datetime, tuple[str, ...]]:
    return item.started_at, item.source_span_ids


class ValidationChoice(NamedTuple):
    """The sessions that are set apart to validate on, and the prompts that they share with others."""

    groups: frozenset[str]
    """Sessions and traces."""
    shared: frozenset[str]
    """Normalised prompts that stand in other sessions, too."""


def choose_validation(seen: Iterable[tuple[str, Collection[str]]], share: float) -> ValidationChoice:
    """Choose sessions and traces to validate on by hash: at most `share` of the items `seen`.

    Each item is given as its group and its normalised prompts. Groups that share a prompt stay together,
    unless so many do (a greeting) that they would be more than the share. Groups with nothing but such
    prompts are not chosen.
    """
    seen = list(seen)
    wanted, chosen, taken = round(share * len(seen)), set[str](), 0
    families, common = _join_families(seen, wanted)
    telling = {member for member, prompt_keys in seen if not common.issuperset(prompt_keys)}
    for family in sorted(families, key=lambda members: sha256(min(members).encode()).hexdigest()):
        if taken + families[family] <= wanted and not telling.isdisjoint(family):
            chosen |= family
            taken += families[family]
    here = {key for member, prompt_keys in seen if member in chosen for key in prompt_keys}
    return ValidationChoice(frozenset(chosen), frozenset(common & here))


def _join_families(
    seen: Sequence[tuple[str, Collection[str]]], most: int
) -> tuple[dict[frozenset[str], int], set[str]]:
    """Join groups that share prompts, directly or through others, into families of at most `most` items.

    Returns the number of items of each family, and the prompts whose groups are not in one family because
    that would have been too large. The rarest prompts join first.
    """
    sizes = Counter(member for member, _ in seen)
    sharing: defaultdict[str, set[str]] = defaultdict(set)
    for member, prompt_keys in seen:
        for key in prompt_keys:
            sharing[key].add(member)
    root = {member: member for member in sizes}

    def find(name: str) -> str:
        while root[name] != name:
            root[name] = name = root[root[name]]
        return name

    for key in sorted(sharing, key=lambda key: (len(sharing[key]), key)):
        first, *others = sorted({find(member) for member in sharing[key]})
        if sizes[first] + sum(sizes[other] for other in others) <= most:
            for other in others:
                root[other] = first
                sizes[first] += sizes[other]
    members: defaultdict[str, set[str]] = defaultdict(set)
    for member in root:
        members[find(member)].add(member)
    common = {key for key, groups in sharing.items() if len({find(member) for member in groups}) > 1}
    return {frozenset(found): sizes[name] for name, found in members.items()}, common
