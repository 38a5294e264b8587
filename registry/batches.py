"""Synthetic examples that wait for an operator: batches, their items, and the decisions they may take.

Nothing but a named person's decision approves an item. What trains is `approved_examples` of the store:
items that are APPROVED, of a batch that has ended (DECIDED or EXPIRED).
"""

from datetime import datetime
from enum import StrEnum
from typing import Any, Self

from pydantic import Field, ValidationError, model_validator

from extractors.errors import LearndError
from extractors.examples.types import PreferencePair, SFTExample, Triplet
from extractors.file_formats.jsonl import describe_error
from extractors.synthesis.recipes import SyntheticKind
from extractors.values import Value

SyntheticExample = SFTExample | PreferencePair | Triplet
EXAMPLE_TYPES: dict[SyntheticKind, type[SyntheticExample]] = {
    "sft": SFTExample,
    "pairs": PreferencePair,
    "triplets": Triplet,
}


class BatchState(StrEnum):
    WAITING = "WAITING"
    DECIDED = "DECIDED"
    """Every item is decided, or an operator closed it; what was left undecided counts as rejected."""
    EXPIRED = "EXPIRED"
    """Its time is over; what was approved before stays approved."""
    WITHDRAWN = "WITHDRAWN"
    """Nothing of it trains, whatever was approved."""


B = BatchState
TRANSITIONS: dict[BatchState, frozenset[BatchState]] = {
    B.WAITING: frozenset({B.DECIDED, B.EXPIRED, B.WITHDRAWN}),
    B.DECIDED: frozenset(),
    B.EXPIRED: frozenset(),
    B.WITHDRAWN: frozenset(),
}


class ItemState(StrEnum):
    PENDING = "PENDING"
    APPROVED = "APPROVED"
    REJECTED = "REJECTED"


MAY_BECOME: dict[BatchState, frozenset[ItemState]] = {
    B.WAITING: frozenset(ItemState),
    # An approval can be revoked, and nothing else: what nobody approved in time never trains.
    B.DECIDED: frozenset({ItemState.REJECTED}),
    B.EXPIRED: frozenset({ItemState.REJECTED}),
    B.WITHDRAWN: frozenset(),
}
"""What an item may be decided to be, by the state of its batch."""


class ExampleInvalid(LearndError):
    """A proposal, or what an operator made of one, is no synthetic example of its batch's kind."""


class ItemChanged(LearndError):
    """Somebody else decided the item since it was read."""


class BatchEnded(LearndError):
    """A decision came after the batch had ended."""


def parse_synthetic_example(kind: SyntheticKind, content: dict[str, Any]) -> SyntheticExample:
    """The example that `content` is. Raises ExampleInvalid where it is none, or not synthetic."""
    try:
        example = EXAMPLE_TYPES[kind].model_validate(content)
    except ValidationError as wrong:
        raise ExampleInvalid(f"this is no example of the kind {kind!r}: {describe_error(wrong)}") from None
    if example.origin != "synthetic":
        raise ExampleInvalid(f"its origin is {example.origin!r}; an example of a batch is 'synthetic'")
    return example


class Provenance(Value):
    """Where a batch comes from."""

    model: str
    """The language model that wrote the proposals, as its endpoint names it."""
    program: str
    """Name and version of the program that asked for them."""
    demonstrations: tuple[str, ...] = ()
    """Ids of the approved examples that were shown to the model."""
    seed: int


class Proposal(Value):
    """A synthetic example, before anybody has read it."""

    example: dict[str, Any]
    """The example of its batch's kind, as JSON; its origin is `synthetic`."""
    diversity: float = Field(ge=0, le=1)
    """How unlike what is trained on, and the proposals before it: 1 less the greatest similarity."""
    demonstrations: tuple[str, ...] = ()
    """Ids of the approved examples that this one was made from."""


class BatchItem(Proposal):
    """A proposal in a batch, with what was decided about it."""

    batch_id: str
    number: int
    """From 1 on; names the item in its batch."""
    state: ItemState = ItemState.PENDING
    edited: dict[str, Any] | None = None
    """What an operator made of the proposal before approving it: this is what trains."""
    reason: str = ""
    decided_by: str | None = None
    decided_at: datetime | None = None
    revision: int = 0
    """Grows with each decision; a decision names the revision that it was made upon."""

    @property
    def content(self) -> dict[str, Any]:
        """The example as it stands: the edited one, where there is one."""
        return self.example if self.edited is None else self.edited

    def approved_example(self, kind: SyntheticKind) -> SyntheticExample | None:
        """What trains if the batch says so; None where no person has approved it. Raises ExampleInvalid."""
        if self.state is not ItemState.APPROVED or not self.decided_by:
            return None
        return parse_synthetic_example(kind, self.content)


class ItemDecision(Value):
    """What an operator decides about one item."""

    number: int
    revision: int
    """Of the item as the operator read it."""
    state: ItemState
    """PENDING takes an earlier decision back."""
    reason: str = ""
    """Why; a rejection needs one."""
    edited: dict[str, Any] | None = None
    """The example as it should be; only with APPROVED."""

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if self.edited is not None and self.state is not ItemState.APPROVED:
            raise ValueError("only an approved item is edited")
        if self.state is ItemState.REJECTED and not self.reason.strip():
            raise ValueError("a rejection needs a reason")
        return self


class Batch(Value):
    """Proposals that were made together, for one need of a target."""

    id: str
    target: str
    """`tenant/agent`."""
    kind: SyntheticKind
    state: BatchState
    cycle_id: str
    """The cycle that asked for it."""
    need: str
    """What was lacking, in words."""
    provenance: Provenance
    created_at: datetime
    expires_at: datetime
    ended_at: datetime | None = None
    ended_by: str | None = None
    """An operator, or `learnd`."""
    reason: str = ""
    """Why it was withdrawn, or closed."""
    pending: int
    approved: int
    rejected: int

    @property
    def size(self) -> int:
        return self.pending + self.approved + self.rejected
