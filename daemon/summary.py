"""A target's data: examples by kind and origin, against the thresholds, and why spans were dropped."""

from collections import Counter
from typing import Any

from daemon.cycle import extract_target, snapshot_of
from daemon.loop import Loop
from extractors.quality import by_kind


def data_summary(loop: Loop) -> dict[str, Any]:
    """JSON-ready, of what a cycle that began now would train on. Reads the whole mirror: seconds, not less.

    Raises RedactorUnusable, RedactionFailed, ImportInvalid.
    """
    extraction = extract_target(loop)
    snapshot = snapshot_of(loop, extraction)
    data, state = snapshot.manifest, loop.store.target_state(loop.target.key)
    return {
        "target": loop.target.key,
        "reviewed": data.reviewed.model_dump(),
        "train": data.train,
        "validation": data.validation,
        "holdout": data.holdout,
        "origins": {
            kind: dict(Counter(example.origin for example in examples))
            for kind, examples in by_kind(snapshot.train)
        },
        "thresholds": loop.target.thresholds.model_dump(),
        "dropped": dict(extraction.dropped),
        "left_out": data.left_out,
        "replaced": data.replaced,
        "warnings": list(data.statistics.warnings) if data.statistics else [],
        "languages": data.statistics.languages if data.statistics else {},
        "last_poll": state.last_poll_at,
        "last_poll_error": state.last_poll_error,
    }
