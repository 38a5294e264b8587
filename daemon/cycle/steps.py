"""The steps of a cycle: extract, select, train, evaluate, promote.

`advance` does one durable step and commits it. Every step can be run again, so a restart, also
after kill -9, is the normal path: load the cycle, call `advance`.

    EXTRACTING ─> SELECTING ─> TRAINING ─> EVALUATING ─> PROMOTING ─> DONE
        │  └─> SKIPPED ─┘                     ↑    └─> DONE (not promoted)
        └── a second look trains nothing ─────┘
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TypeVar

from daemon.cycle.evaluation import Contenders, evaluate, read_report
from daemon.cycle.replay import add_replay
from daemon.cycle.training import build_method_settings, choose_plan, describe_base, train_candidate
from daemon.data.ingest import assemble_snapshot, extract_target, open_phoenix, poll_target
from daemon.data.synthesis import ask_for_examples
from daemon.runtime.child_process import Interrupted
from daemon.runtime.clock import is_within
from daemon.runtime.context import TargetContext
from daemon.runtime.locks import Locked
from daemon.scheduling.probation import SECOND_LOOK, count_required_items, find_on_probation
from daemon.scheduling.second_looks import SecondLooks, end_probation, select_newer_items
from daemon.serving.promotion import SERVING_PATIENCE, Promoter
from evaluation.report import BASE, Report
from extractors.dataset.holdout_split import find_common_prompts
from extractors.dataset.second_look import build_fresh_snapshot, count_with_gold
from extractors.dataset.snapshot import Snapshot, SnapshotDamaged, read_manifest
from extractors.errors import LearndError
from extractors.phoenix.http import PhoenixError
from registry.audit import DAEMON
from registry.cycles import Cycle, CycleCounts, CycleState, IllegalTransition
from registry.serving.swap import NotServed, NotServedYet
from registry.store.activation import ActiveChanged, VersionRejected
from registry.store.targets import TargetHeld
from registry.versions import Version, VersionState
from trainers.planning.apply_rules import BaseModelInfo
from trainers.planning.plan import Skip

PASSING = (PhoenixError, NotServedYet, Locked, Interrupted)
"""Errors that delay a cycle but do not fail it: the next try may succeed."""
WENT_LIVE = frozenset({VersionState.ACTIVE, VersionState.RETIRED})
"""States of a version that an operator has activated before there was a verdict."""
FIRST_ANSWER_PATIENCE = 2.0
"""Seconds for all tries to reach Phoenix before a cycle begins in the foreground: a person is waiting."""
FIRST_ANSWER_TIMEOUT = 10.0
"""Seconds for the answer to one of these tries, from a Phoenix that accepts requests and does not answer."""
T = TypeVar("T")


def advance(context: TargetContext, cycle: Cycle) -> Cycle:
    """Do the cycle's next step and commit it. An ended cycle is returned unchanged.

    Raises the errors that may pass (`PASSING`): the cycle stays where it is, call again. Every other
    LearndError would occur again, so it ends the cycle as FAILED, with its words as the reason.
    """
    if cycle.ended:
        return cycle
    try:
        return STEPS[cycle.state](context, cycle)
    except PASSING:
        raise
    except LearndError as failure:
        return context.move(cycle, CycleState.FAILED, reason=str(failure))


def run_cycle(context: TargetContext, trigger: str) -> Cycle:
    """Finish the target's unfinished cycle, or poll and run a new one to its end.

    Raises the errors that may pass (`PASSING`): an unfinished cycle stays where it is.
    """
    cycle = find_unfinished_cycle(context) or begin_cycle(context, trigger)
    while not cycle.ended:
        context.report_stage(cycle.state)
        cycle = advance(context, cycle)
    return cycle


def find_unfinished_cycle(context: TargetContext) -> Cycle | None:
    """Return the target's cycle that has not ended; there is at most one."""
    listed = next(iter(context.store.find_unfinished_cycles(context.target.key)), None)
    return context.store.cycle(listed.id) if listed else None


def begin_cycle(
    context: TargetContext, trigger: str, *, answer_timeout: float = FIRST_ANSWER_TIMEOUT
) -> Cycle:
    """Poll Phoenix and start a cycle. Raises PhoenixError, CycleRunning.

    A Phoenix that has not answered at all after `answer_timeout` seconds is not waited for.
    """
    context.report_stage("polling")
    _check_phoenix(context, answer_timeout)
    with open_phoenix(context.settings, stop=context.stop) as client:
        poll_target(context, client)
    return start_cycle(context, trigger, SecondLooks().find_due(context))


def _check_phoenix(context: TargetContext, timeout: float) -> None:
    """Check that Phoenix answers. Raises PhoenixError, which the store keeps as the last poll error."""
    try:
        with open_phoenix(context.settings, timeout=timeout, patience=FIRST_ANSWER_PATIENCE) as client:
            client.version()
    except PhoenixError as problem:
        context.store.record_poll(context.target.key, context.clock(), str(problem))
        raise


def start_cycle(context: TargetContext, trigger: str, second_look: Version | None) -> Cycle:
    """Start a cycle that looks at the version `second_look` again, or one that trains if that is None.

    Raises CycleRunning.
    """
    if second_look:
        return context.store.start_cycle(
            context.target.key, SECOND_LOOK, context.clock(), version_id=second_look.id
        )
    return context.store.start_cycle(context.target.key, trigger, context.clock())


def _extract(context: TargetContext, cycle: Cycle) -> Cycle:
    if cycle.version_id is not None:
        return _look_again(context, cycle, context.store.version(cycle.version_id))
    extraction = extract_target(context.store, context.target)
    snapshot = assemble_snapshot(context, extraction)
    counted = snapshot.manifest.model_dump(
        include={"train", "validation", "holdout", "retention", "reviewed", "left_out"}
    )
    counts = CycleCounts.model_validate(counted | {"dropped": extraction.dropped})
    return context.move_with_snapshot(cycle, CycleState.SELECTING, snapshot, counts)


def _look_again(context: TargetContext, cycle: Cycle, version: Version) -> Cycle:
    """Prepare to judge the version on probation by the traffic that came after its training."""
    if version.state is not VersionState.PROBATION:
        return context.move(cycle, CycleState.SKIPPED, reason=f"{version.id} is {version.state} by now")
    base = describe_base(context.target)
    if version.base_digest != base.digest:
        end_probation(context, _other_base(base.name))
        return context.move(cycle, CycleState.SKIPPED, reason=f"{version.id} was {_other_base(base.name)}")
    extraction = extract_target(context.store, context.target)
    items = select_newer_items(context, version, extraction)
    reviewed, required = count_with_gold(items), count_required_items(context.target, context.store, version)
    if reviewed < required:
        reason = f"{reviewed} of {required} newer reviewed items for a second look at {version.id}"
        return context.move(cycle, CycleState.SKIPPED, reason=reason)
    sessions = context.target.holdout.common_prompt_sessions
    common = find_common_prompts(extraction.retrievals or extraction.items, sessions)
    snapshot = build_fresh_snapshot(
        items, context.snapshot(version.snapshot_id), context.clock(), common=common
    )
    counted = snapshot.manifest.model_dump(include={"holdout", "retention", "reviewed"})
    counts = CycleCounts.model_validate(counted)
    return context.move_with_snapshot(cycle, CycleState.EVALUATING, snapshot, counts)


def _select(context: TargetContext, cycle: Cycle) -> Cycle:
    snapshot, base = context.snapshot(_require(cycle.snapshot_id)), describe_base(context.target)
    if before := _find_same_training(context, base, snapshot):
        return context.move(
            cycle,
            CycleState.SKIPPED,
            reason=f"cycle {before.id} trained on the same examples by the same settings already; new "
            "feedback trains once it is older than the holdout window",
        )
    if used_up := _check_window(context, snapshot):
        return context.move(cycle, CycleState.SKIPPED, reason=used_up)
    chosen = choose_plan(
        context, base, snapshot, context.snapshots / snapshot.id, context.run_folder(cycle) / "measure"
    ).plan
    if isinstance(chosen, Skip):
        asked = f"; {ask_for_examples(context, cycle, snapshot)}" if context.target.synthesis.enabled else ""
        return context.move(cycle, CycleState.SKIPPED, reason=f"{chosen.reason}{asked}")
    chosen = add_replay(context, chosen)
    # Versions of another base would answer wrongly on this one.
    context.store.use_base(context.target.key, chosen.base_digest, context.clock())
    waiting = find_on_probation(context.store, context.target.key)
    if waiting and waiting.base_digest != chosen.base_digest:
        end_probation(context, _other_base(chosen.base_model))
    # Only a holdout that something is judged on binds the next cycles.
    return context.move(cycle, CycleState.TRAINING, plan=chosen, window=snapshot.manifest.window)


def _other_base(name: str) -> str:
    return f"trained on another base model than {name} as it is now"


def _train(context: TargetContext, cycle: Cycle) -> Cycle:
    trained = train_candidate(context, cycle, _require(cycle.plan))
    return context.move(
        cycle,
        CycleState.EVALUATING,
        version_id=trained.version.id,
        plan=trained.plan,
        training=trained.stages,
    )


def _evaluate(context: TargetContext, cycle: Cycle) -> Cycle:
    # Before the candidate, which an operator may activate in this moment: it is not compared with itself.
    active = context.store.find_active_version(context.target.key)
    waiting = find_on_probation(context.store, context.target.key)
    candidate = context.store.version(_require(cycle.version_id))
    if candidate.state in WENT_LIVE:
        return _end_overruled(context, cycle, read_report(context, cycle))
    report = evaluate(context, cycle, Contenders(candidate, active, waiting))
    judged = {"report": report, "verdict": report.verdict, "reason": report.reason}
    if report.verdict == "PROMOTE":
        return context.move(cycle, CycleState.PROMOTING, **judged)
    try:
        if report.verdict == "PROBATION":
            _judge(context, candidate, VersionState.PROBATION, report.reason)
            better = f"{candidate.id} is better and takes its place on probation"
            end_probation(context, better, except_for=candidate.id)
        else:
            _judge(context, candidate, VersionState.REJECTED, f"{report.verdict}: {report.reason}")
    except IllegalTransition:
        return _end_overruled(context, cycle, report)
    return context.move(cycle, CycleState.DONE, **judged)


def _end_overruled(context: TargetContext, cycle: Cycle, report: Report | None) -> Cycle:
    """End a cycle whose version an operator activated before there was a verdict on it."""
    reason = f"{cycle.version_id} was activated by an operator meanwhile"
    if report is None:
        return context.move(cycle, CycleState.DONE, reason=reason)
    reason = f"{reason}; {report.verdict}: {report.reason}"
    return context.move(cycle, CycleState.DONE, report=report, verdict=report.verdict, reason=reason)


def _promote(context: TargetContext, cycle: Cycle) -> Cycle:
    store, report = context.store, _require(cycle.report)
    candidate = store.version(_require(cycle.version_id))
    if candidate.state is VersionState.ACTIVE:
        return _end_promoted(context, cycle, candidate, report)
    if objection := _find_objection(context, report, candidate):
        return _end_ready(context, cycle, candidate, objection)
    try:
        Promoter(context.settings, store, context.clock).promote(
            candidate,
            expected_active=_active_id(context),
            actor=DAEMON,
            reason=report.reason,
            unless_held=True,
        )
    except NotServed as failure:
        if failure.refuted:
            _judge(context, candidate, VersionState.REJECTED, str(failure))
            raise
        if isinstance(failure, NotServedYet) and is_within(
            SERVING_PATIENCE, cycle.updated_at, context.clock()
        ):
            raise
        # It is proven: an operator sees to the replica, and the next cycle need not wait for that.
        remedy = f"{failure}; then run `learnd adapters promote {candidate.id}`"
        return _end_ready(context, cycle, candidate, remedy)
    except (ActiveChanged, TargetHeld, VersionRejected):
        # An operator was quicker. Look again: what is live is not what the report compared with.
        return store.cycle(cycle.id)
    return _end_promoted(context, cycle, candidate, report)


def _end_ready(context: TargetContext, cycle: Cycle, candidate: Version, waits_for: str) -> Cycle:
    """End the cycle with a proven candidate that an operator has to promote."""
    _judge(context, candidate, VersionState.READY, waits_for)
    reason = f"{_require(cycle.report).reason}; {waits_for}"
    return context.move(cycle, CycleState.DONE, reason=reason)


def _end_promoted(context: TargetContext, cycle: Cycle, candidate: Version, report: Report) -> Cycle:
    end_probation(context, f"compared with what was live before {candidate.id}", except_for=candidate.id)
    return context.move(cycle, CycleState.DONE, reason=report.reason)


STEPS: Mapping[CycleState, Callable[[TargetContext, Cycle], Cycle]] = {
    CycleState.EXTRACTING: _extract,
    CycleState.SELECTING: _select,
    CycleState.TRAINING: _train,
    CycleState.EVALUATING: _evaluate,
    CycleState.PROMOTING: _promote,
}


def _find_objection(context: TargetContext, report: Report, candidate: Version) -> str | None:
    """Return what keeps a proven candidate from going live automatically, in words; None if nothing does."""
    if candidate.state is VersionState.REJECTED:
        return f"rejected by an operator meanwhile: `learnd adapters activate {candidate.id}` overrules that"
    state = context.store.target_state(context.target.key)
    promote_it = f"`learnd adapters promote {candidate.id}`"
    if state.held:
        return f"on hold since the rollback by {state.held_by}: {promote_it}"
    if context.target.promotion == "manual":
        return f"promotion is manual: {promote_it}"
    if report.live != (_active_id(context) or BASE):
        return f"{report.live}, the one it was compared with, is not live any more: {promote_it}"
    return None


def _judge(context: TargetContext, version: Version, state: VersionState, reason: str) -> None:
    """Record the verdict on a candidate; once recorded, running the step again changes nothing."""
    if version.state in {VersionState.CANDIDATE, VersionState.PROBATION}:
        context.store.judge(version.id, state, now=context.clock(), actor=DAEMON, reason=reason)


def _find_same_training(context: TargetContext, base: BaseModelInfo, snapshot: Snapshot) -> Cycle | None:
    """Return the last cycle that reached a verdict, if it trained on the same data by the same settings."""
    earlier = next(iter(_list_judged(context, 1)), None)
    if earlier is None or earlier.plan is None:
        return None
    if build_method_settings(context, base).id != earlier.plan.settings_id:
        return None
    try:
        then = context.snapshot(earlier.plan.snapshot_id)
    except SnapshotDamaged:
        # Somebody removed the snapshot: the data counts as new.
        return None
    return earlier if (then.train, then.validation) == (snapshot.train, snapshot.validation) else None


def _list_judged(context: TargetContext, most: int) -> Sequence[Cycle]:
    """Return the target's last cycles that trained something and reached a verdict, newest first."""
    return context.store.cycles(context.target.key, limit=most, state=CycleState.DONE, trains=True)


def _check_window(context: TargetContext, snapshot: Snapshot) -> str | None:
    """Return why the snapshot's holdout should judge no further candidate, in words; None while it may."""
    window, most = snapshot.manifest.window, context.target.gate.candidates_per_window
    judged = [_find_window_start(context, cycle) for cycle in _list_judged(context, most)]
    if window is None or len(judged) < most or any(start != window.start for start in judged):
        return None
    return (
        f"the held-out traffic since {window.start:%Y-%m-%d %H:%M} has judged {most} candidates, and the "
        "more it judges the sooner one passes by chance; the next waits until newer reviewed traffic fills a "
        "holdout (gate.candidates_per_window)"
    )


def _find_window_start(context: TargetContext, cycle: Cycle) -> datetime | None:
    """Return the start of the window that judged the cycle's candidate; None where that is not known now."""
    try:
        window = read_manifest(context.snapshots / _require(cycle.snapshot_id)).window
    except SnapshotDamaged:
        return None
    return window.start if window else None


def _active_id(context: TargetContext) -> str | None:
    active = context.store.find_active_version(context.target.key)
    return active.id if active else None


def _require(value: T | None) -> T:
    """Return a cycle's field that its state guarantees. Raises LookupError where it is missing."""
    if value is None:
        raise LookupError("the cycle lacks what its state guarantees; the store was edited by hand")
    return value
