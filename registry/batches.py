"""Synthetic examples that wait for an operator: batches, their items, and the decisions on them.

Only a named person's decision approves an item. Training uses `find_approved_examples` of the store: items
that are APPROVED, of batches that have ended (DECIDED or EXPIRED).
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
    """Every item is decided, or an operator closed the batch; items left undecided count as rejected."""
    EXPIRED = "EXPIRED"
    """The batch was open for too long; approved items stay approved."""
    WITHDRAWN = "WITHDRAWN"
    """No item trains, not even approved ones."""


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
    # Only an approval can be revoked: an item that nobody approved in time never trains.
    B.DECIDED: frozenset({ItemState.REJECTED}),
    B.EXPIRED: frozenset({ItemState.REJECTED}),
    B.WITHDRAWN: frozenset(),
}
"""States that a decision may give an item, by the state of its batch."""


class ExampleInvalid(LearndError):
    """A proposal, as written or as edited, is no synthetic example of its batch's kind."""


class ItemChanged(LearndError):
    """Another person decided the item after it was read."""


class BatchEnded(LearndError):
    """A decision came after the batch had ended."""


def parse_synthetic_example(kind: SyntheticKind, content: dict[str, Any]) -> SyntheticExample:
    """Validate `content` as a synthetic example of `kind`. Raises ExampleInvalid where it is none."""
    try:
        example = EXAMPLE_TYPES[kind].model_validate(content)
    except ValidationError as wrong:
        raise ExampleInvalid(f"this is no example of the kind {kind!r}: {describe_error(wrong)}") from None
    if example.origin != "synthetic":
        raise ExampleInvalid(f"its origin is {example.origin!r}; an example of a batch is 'synthetic'")
    return example


class BatchProvenance(Value):
    """The origin of a batch."""

    model: str
    """The language model that wrote the proposals, as its endpoint names it."""
    program: str
    """Name and version of the program that asked for them."""
    demonstrations: tuple[str, ...] = ()
    """Ids of the approved examples that were shown to the model."""
    seed: int


class Proposal(Value):
    """A synthetic example that a model proposes."""

    example: dict[str, Any]
    """The example of its batch's kind, as JSON; its origin is `synthetic`."""
    diversity: float = Field(ge=0, le=1)
    """1 minus the greatest similarity to the training examples and to earlier proposals."""
    demonstrations: tuple[str, ...] = ()
    """Ids of the approved examples that this one was made from."""


class BatchItem(Proposal):
    """A proposal in a batch, with the decision on it."""

    batch_id: str
    number: int
    """Number of the item in its batch, from 1."""
    state: ItemState = ItemState.PENDING
    edited: dict[str, Any] | None = None
    """The proposal as an operator edited it while approving: this version trains."""
    reason: str = ""
    decided_by: str | None = None
    decided_at: datetime | None = None
    revision: int = 0
    """Grows with each decision; a decision names the revision that it is based on."""

    @property
    def content(self) -> dict[str, Any]:
        """The example as it stands: the edited one, where there is one."""
        return self.example if self.edited is None else self.edited

    def to_approved_example(self, kind: SyntheticKind) -> SyntheticExample | None:
        """Return the example that may train; None where no person has approved it. Raises ExampleInvalid."""
        if self.state is not ItemState.APPROVED or not self.decided_by:
            return None
        return parse_synthetic_example(kind, self.content)


class ItemDecision(Value):
    """An operator's decision on one item."""

    number: int
    revision: int
    """Revision of the item as the operator read it."""
    state: ItemState
    """PENDING takes an earlier decision back."""
    reason: str = ""
    """Required for a rejection."""
    edited: dict[str, Any] | None = None
    """The example as it should be; only with APPROVED."""

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
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
    """The examples that were lacking, in words."""
    provenance: BatchProvenance
    created_at: datetime
    expires_at: datetime
    ended_at: datetime | None = None
    ended_by: str | None = None
    """An operator, or `learnd`."""
    reason: str = ""
    """Why the batch was withdrawn or closed."""
    pending: int
    approved: int
    rejected: int

    @property
    def size(self) -> int:
        return self.pending + self.approved + self.rejected
