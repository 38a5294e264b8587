"""Everything that a version was trained on, by itself or as those that it went on from."""

from daemon.runtime.context import TargetContext
from extractors.dataset.learned_traffic import LearnedTraffic
from extractors.dataset.snapshot import SnapshotDamaged
from extractors.examples.types import Examples
from registry.versions import Version


def collect_learned(context: TargetContext, version: Version) -> LearnedTraffic:
    """Collect what the version and those before it were trained on, back to the one that began from the base.

    It is not complete where a snapshot or a plan of theirs is not there any more.
    """
    sides, is_complete = list[Examples](), True
    before: Version | None = version
    while before is not None:
        try:
            sides.append(context.snapshot(before.snapshot_id).train)
        except SnapshotDamaged:
            is_complete = False
        plan = context.store.cycle(before.cycle_id).plan
        is_complete = is_complete and plan is not None
        before = context.store.version(plan.start_version) if plan and plan.start_version else None
    return LearnedTraffic.from_examples(sides, is_complete=is_complete)
