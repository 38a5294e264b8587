"""A version with files in a data directory, as a cycle leaves it, without a training."""

from datetime import UTC, datetime
from pathlib import Path

from extractors.values import file_digest
from registry.cycles import CycleState
from registry.store.store import Store
from registry.versions import Candidate, Version

TRAINED_AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def add_trained_version(store: Store, data_dir: Path) -> Version:
    """Add a version of the target `acme/routing` whose one file lies in the data directory."""
    cycle = store.start_cycle("acme/routing", "operator", TRAINED_AT)
    folder = data_dir / "adapters" / "acme.routing" / cycle.id
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    version = store.add_candidate(
        cycle.id,
        Candidate(
            path=str(folder.relative_to(data_dir)),
            files={"adapter_model.safetensors": file_digest(folder / "adapter_model.safetensors")},
            base_model="tiny",
            base_digest="base",
            rank=8,
            snapshot_id="snapshot",
            plan_id="plan",
            parent_id=None,
            code_version="1",
        ),
        TRAINED_AT,
    )
    store.advance_cycle(cycle.id, CycleState.EXTRACTING, CycleState.FAILED, TRAINED_AT)
    return version
