"""An adapter version: its lineage, its state, and how far along it is served."""

from datetime import datetime
from enum import StrEnum

from extractors.values import Value


class VersionState(StrEnum):
    CANDIDATE = "CANDIDATE"
    PROBATION = "PROBATION"
    READY = "READY"
    """The version passed every gate and waits for an operator, where promotion is manual."""
    ACTIVE = "ACTIVE"
    RETIRED = "RETIRED"
    REJECTED = "REJECTED"


S = VersionState
TRANSITIONS: dict[VersionState, frozenset[VersionState]] = {
    S.CANDIDATE: frozenset({S.PROBATION, S.READY, S.ACTIVE, S.REJECTED}),
    S.PROBATION: frozenset({S.READY, S.ACTIVE, S.REJECTED}),
    S.READY: frozenset({S.ACTIVE, S.REJECTED}),
    S.ACTIVE: frozenset({S.RETIRED}),
    S.RETIRED: frozenset({S.ACTIVE}),
    # An operator may overrule the verdict with `activate`; the audit log says who did.
    S.REJECTED: frozenset({S.ACTIVE}),
}


class Candidate(Value):
    """An adapter that a cycle trained, before the store gives it a number."""

    path: str
    """Adapter folder, relative to the data directory."""
    files: dict[str, str]
    """File name to SHA-256."""
    base_model: str
    base_digest: str
    rank: int
    snapshot_id: str
    plan_id: str
    parent_id: str | None
    """The version that was active when this one was trained."""
    code_version: str


class Version(Value):
    """One adapter version. `id` is also the name under which vLLM serves it."""

    id: str
    """`tenant.agent.v7`: unique for ever, never reused."""
    target: str
    """`tenant/agent`."""
    number: int
    state: VersionState
    path: str
    """Adapter folder, relative to the data directory."""
    files: dict[str, str]
    """File name to SHA-256."""
    base_model: str
    base_digest: str
    rank: int
    cycle_id: str
    snapshot_id: str
    plan_id: str
    parent_id: str | None
    """The version that was active when this one was trained."""
    replaced_id: str | None = None
    """The version that was active before this one was last activated; a rollback goes back to it."""
    code_version: str
    created_at: datetime
    activated_at: datetime | None = None
    retired_at: datetime | None = None
    wanted: bool = False
    """True if every replica should have it loaded: it is coming up, active or draining."""
    drain_until: datetime | None = None
    """Until when a retired version stays loaded, for requests and clients that know its name."""
    files_removed_at: datetime | None = None
    """When the retention policy removed its files."""
