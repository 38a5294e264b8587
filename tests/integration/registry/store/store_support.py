"""Values for the tests of the store, in the fewest words."""

from datetime import UTC, datetime, timedelta
from typing import Any

from extractors.phoenix.spans import Annotation, Span
from registry.cycles import Cycle, CycleState
from registry.store.store import Store
from registry.versions import Candidate, Version

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SOON = NOW + timedelta(minutes=5)


def a_span(span_id: str, trace_id: str = "t1", **fields: Any) -> Span:
    return Span(
        **{
            "span_id": span_id,
            "trace_id": trace_id,
            "name": "route",
            "kind": "LLM",
            "started_at": NOW,
            "selected": True,
            **fields,
        }
    )


def an_annotation(subject_id: str, **fields: Any) -> Annotation:
    return Annotation(
        **{
            "level": "span",
            "subject_id": subject_id,
            "name": "approval",
            "identifier": "ann",
            "annotator_kind": "HUMAN",
            "label": "approved",
            "updated_at": NOW,
            **fields,
        }
    )


def a_candidate(store: Store, target: str, base_digest: str = "base1", now: datetime = NOW) -> Version:
    """A version whose cycle has ended."""
    cycle = store.start_cycle(target, "operator", now)
    version = add_candidate(store, cycle, base_digest)
    store.advance_cycle(cycle.id, CycleState.EXTRACTING, CycleState.FAILED, now)
    return version


def add_candidate(store: Store, cycle: Cycle, base_digest: str = "base1") -> Version:
    return store.add_candidate(
        cycle.id,
        Candidate(
            path=f"adapters/{cycle.id}",
            files={"adapter_model.safetensors": "00"},
            base_model="tiny",
            base_digest=base_digest,
            rank=8,
            snapshot_id="snap",
            plan_id="plan",
            parent_id=None,
            code_version="0.1.0",
        ),
        cycle.started_at,
    )


def promote(store: Store, version: Version, over: Version | None, now: datetime = NOW) -> Version:
    return store.activate(
        version.id,
        expected_active=over.id if over else None,
        drain_until=now + timedelta(minutes=5),
        now=now,
        actor="learnd",
        reason="better",
    )


def roll_back(store: Store, active: Version, now: datetime = NOW) -> None:
    """Back to what the store names, as an operator does it."""
    to = store.find_rollback_target(active.target)
    store.rollback(
        active.target,
        to=to.id if to else None,
        expected_active=active.id,
        drain_until=now + timedelta(minutes=5),
        now=now,
        actor="ann",
        reason="wrong tone",
    )
