"""What a cycle would do now, and why, without doing it."""

from pathlib import Path
from tempfile import TemporaryDirectory

from daemon.cycle import Loop, base_of, choose_plan, extract_target, snapshot_of
from extractors.snapshot import Manifest, write_snapshot
from extractors.values import Value
from trainers.selection import Choice


class Preview(Value):
    """What a cycle that began now would train on, and how."""

    data: Manifest
    choice: Choice


def preview(loop: Loop) -> Preview:
    """Extract from what was polled last, and choose. Measures the live model where the rules ask for it.

    Leaves nothing behind. Raises BaseModelUnusable, JobFailed, OverridesInvalid.
    """
    with TemporaryDirectory(prefix="learnd-plan-") as scratch:
        snapshot = snapshot_of(loop, extract_target(loop))
        written = write_snapshot(snapshot, Path(scratch))
        choice = choose_plan(loop, base_of(loop.target), snapshot, written, Path(scratch) / "measure")
    return Preview(data=snapshot.manifest, choice=choice)
