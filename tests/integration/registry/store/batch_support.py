"""Batches for tests, in the fewest words."""

from datetime import datetime, timedelta
from typing import Any

from extractors.examples.prompt_keys import compute_prompt_key, compute_query_key
from extractors.examples.types import Document, Message, PreferencePair, SFTExample, Triplet
from extractors.synthesis.recipes import SyntheticKind
from registry.batches import Batch, BatchProvenance, ItemDecision, ItemState, Proposal, SyntheticExample
from registry.cycles import CycleState
from registry.store.store import Store
from tests.integration.registry.store.store_support import NOW

TARGET = "acme/routing"
WEEK = timedelta(days=7)
PROVENANCE = BatchProvenance(model="tiny", program="propose-1", demonstrations=("d1",), seed=7)


def an_example(kind: SyntheticKind, question: str, answer: str = "billing") -> SyntheticExample:
    prompt = (Message(role="system", content="Route it."), Message(role="user", content=question))
    known: dict[str, Any] = {"origin": "synthetic", "started_at": NOW}
    if kind == "triplets":
        documents = {"positive": Document(text=answer), "negative": Document(text="something else")}
        return Triplet(query=question, prompt_key=compute_query_key(question), **documents, **known)
    said, key = Message(role="assistant", content=answer), compute_prompt_key(prompt)
    if kind == "sft":
        return SFTExample(prompt=prompt, completion=said, prompt_key=key, **known)
    worse = Message(role="assistant", content="shipping")
    return PreferencePair(
        prompt=prompt, chosen=said, rejected=worse, prompt_key=key, preferred_by="same prompt", **known
    )


def a_batch(
    store: Store,
    *questions: str,
    kind: SyntheticKind = "sft",
    target: str = TARGET,
    now: datetime = NOW,
    demonstrations: tuple[str, ...] = ("d1",),
) -> Batch:
    """A batch that waits, of a cycle that was skipped for want of data."""
    cycle = store.start_cycle(target, "operator", now)
    store.advance_cycle(cycle.id, CycleState.EXTRACTING, CycleState.SKIPPED, now, reason="30 of 50 examples")
    proposals = [
        Proposal(
            example=an_example(kind, question).model_dump(mode="json"),
            diversity=0.5,
            demonstrations=demonstrations,
        )
        for question in questions
    ]
    return store.add_batch(
        cycle.id, target, kind, "20 examples", PROVENANCE, proposals, now=now, expires_at=now + WEEK
    )


def approve(number: int, revision: int = 0, edited: dict[str, Any] | None = None) -> ItemDecision:
    return ItemDecision(number=number, revision=revision, state=ItemState.APPROVED, edited=edited)


def reject(number: int, revision: int = 0, reason: str = "off topic") -> ItemDecision:
    return ItemDecision(number=number, revision=revision, state=ItemState.REJECTED, reason=reason)
