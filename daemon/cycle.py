"""One pass of the loop for a target: extract, select, train, evaluate, promote.

`advance` does one durable step and commits it. Every step can be run again, so a restart, also
after kill -9, is the normal path: load the cycle, call `advance`.

    EXTRACTING ─> SELECTING ─> TRAINING ─> EVALUATING ─> PROMOTING ─> DONE
        └─> SKIPPED ─┘                          └─> DONE (not promoted)
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from daemon.children import Interrupted, Work, run_job
from daemon.imports import golden_cases, imported_examples
from daemon.locks import Locked
from daemon.loop import Loop
from daemon.promotion import PROBES, adapter_folder, promote
from daemon.settings import Settings, TargetSettings
from daemon.synthesis import ask_for_examples
from daemon.version import VERSION
from evaluation.readiness import ReadinessJob
from evaluation.report import Report
from evaluation.run import AdapterSide, EvaluationJob
from extractors.extraction import Extraction, extract
from extractors.phoenix import PhoenixClient
from extractors.phoenix_http import PhoenixError
from extractors.poll import poll
from extractors.redaction import Redaction, load_redactor
from extractors.retrieval import reviewed_retrievals
from extractors.snapshot import Snapshot, SnapshotDamaged, build_snapshot, write_snapshot
from extractors.teaching import Beside
from extractors.values import LearndError
from registry.audit import DAEMON
from registry.cycles import Cycle, CycleState, Trained
from registry.serving.swap import NotServed, NotServedYet
from registry.store.activation import ActiveChanged
from registry.store.targets import TargetHeld
from registry.versions import Version, VersionState
from trainers.base_model import base_digest, model_bytes
from trainers.checkpoints import forget_checkpoints
from trainers.job import TrainingJob, TrainingResult
from trainers.plan import Plan, Skip, Stage
from trainers.selection import Answered, Base, Choice, Live, Wanted, choose, settings_id, worthwhile

PASSING = (PhoenixError, NotServedYet, Locked, Interrupted)
"""What stands in a cycle's way for a while only; the next try may succeed."""
SERVING_PATIENCE = timedelta(hours=1)
"""How long a cycle waits for replicas that do not answer, before its version becomes READY."""
T = TypeVar("T")


def advance(loop: Loop, cycle: Cycle) -> Cycle:
    """Do the cycle's next step and commit it. An ended cycle is returned as it is.

    Raises what may pass (`PASSING`): the cycle stays where it is, call again. Every other
    LearndError would come again, and ends the cycle as FAILED with its words as the reason.
    """
    if cycle.ended:
        return cycle
    try:
        return STEPS[cycle.state](loop, cycle)
    except PASSING:
        raise
    except LearndError as failure:
        return loop.move(cycle, CycleState.FAILED, reason=str(failure))


def run_cycle(loop: Loop, trigger: str) -> Cycle:
    """Finish the target's unfinished cycle, or poll and run a new one, to its end.

    Raises what may pass (`PASSING`): an unfinished cycle stays where it is.
    """
    cycle = unfinished_cycle(loop) or begin_cycle(loop, trigger)
    while not cycle.ended:
        loop.on_progress({"stage": str(cycle.state), "cycle": cycle.id})
        cycle = advance(loop, cycle)
    return cycle


def unfinished_cycle(loop: Loop) -> Cycle | None:
    """The target's cycle that has not ended; there is one at most."""
    return next((c for c in loop.store.unfinished_cycles() if c.target == loop.target.key), None)


def begin_cycle(loop: Loop, trigger: str) -> Cycle:
    """Poll, and start a cycle on what is known then. Raises PhoenixError, CycleRunning."""
    with open_phoenix(loop.settings) as client:
        poll_target(loop, client)
    return loop.store.start_cycle(loop.target.key, trigger, loop.clock())


def poll_target(loop: Loop, client: PhoenixClient) -> int:
    """Bring the target's mirror up to date; returns how many annotations changed.

    What went wrong is kept as the target's last poll error, and raised: PhoenixError.
    """
    changes, complete = 0, False
    while not complete and not loop.stop.is_set():
        changed, complete = _poll_once(loop, client)
        changes += changed
    return changes


def _poll_once(loop: Loop, client: PhoenixClient) -> tuple[int, bool]:
    """How many annotations changed, and whether that is all; the change itself is let go of."""
    store, target, now = loop.store, loop.target, loop.clock()
    used_keys = target.retrieval.used_metadata_keys if target.task == "embedding" else ()
    try:
        change = poll(
            client,
            store.mirror(target.key),
            project=target.project,
            spans=target.spans,
            annotation_names=feedback_names(target),
            used_keys=used_keys,
            now=now,
            full_sweep_after=timedelta(minutes=loop.settings.phoenix.full_sweep_minutes),
        )
    except PhoenixError as problem:
        store.record_poll(target.key, now, str(problem))
        raise
    store.apply_mirror(target.key, change, now)
    return len(change.annotations) + len(change.removed_annotations), change.complete


def extract_target(loop: Loop) -> Extraction:
    """What the mirror teaches by the target's feedback rules, without personal data where that is asked for.

    Raises RedactorUnusable, RedactionFailed.
    """
    target = loop.target
    spans, annotations = loop.store.mirrored(target.key)
    if target.task == "embedding":
        found = reviewed_retrievals(spans, annotations, target.feedback, target.retrieval, target=target.key)
        extraction = Extraction(
            retrievals=found.retrievals, dropped=found.dropped, dropped_spans=found.dropped_spans
        )
    else:
        extraction = extract(spans, annotations, target.feedback, target.output_space, target=target.key)
    redaction = Redaction(load_redactor(target.redaction), target.output_space)
    without = {
        "items": redaction.apply(extraction.items),
        "judged": redaction.apply(extraction.judged),
        "conversations": redaction.apply(extraction.conversations),
        "retrievals": redaction.apply(extraction.retrievals),
    }
    return extraction.model_copy(update={**without, "replaced": dict(redaction.counts)})


def feedback_names(target: TargetSettings) -> frozenset[str]:
    """Names of the annotations that the target's rules read."""
    rules = target.feedback
    return frozenset(rule.name for rule in rules.annotations) | frozenset(rules.correction_names)


def open_phoenix(settings: Settings) -> PhoenixClient:
    """A client for the settings' Phoenix; close it after use."""
    return PhoenixClient(settings.phoenix.url, api_key=settings.phoenix.key())


def snapshot_of(loop: Loop, extraction: Extraction) -> Snapshot:
    """The dataset that `extraction` makes with the target's holdout as it stands; nothing is written.

    Raises RedactorUnusable, RedactionFailed, ImportInvalid.
    """
    target = loop.target
    redaction = Redaction(load_redactor(target.redaction), target.output_space)
    imported = redaction.apply_to_all(imported_examples(loop.data_dir, target))
    synthetic = redaction.apply_to_all(loop.store.approved_examples(target.key))
    replaced = Counter(extraction.replaced) + redaction.counts
    return build_snapshot(
        extraction.model_copy(update={"replaced": dict(replaced)}),
        target.holdout,
        window=loop.store.target_state(target.key).window,
        now=loop.clock(),
        target=target.key,
        filters=target.model_dump(mode="json", include={"project", "spans", "feedback", "output_space"}),
        beside=Beside(
            imported=imported,
            synthetic=synthetic,
            synthetic_share=target.synthesis.share,
            golden=golden_cases(target),
            quality=target.quality,
            output_space=target.output_space,
        ),
    )


def _extract(loop: Loop, cycle: Cycle) -> Cycle:
    extraction = extract_target(loop)
    snapshot = snapshot_of(loop, extraction)
    write_snapshot(snapshot, loop.snapshots)
    counted = snapshot.manifest.model_dump(include={"train", "validation", "holdout", "reviewed", "left_out"})
    return loop.move(
        cycle,
        CycleState.SELECTING,
        snapshot_id=snapshot.id,
        counts=counted | {"dropped": extraction.dropped},
    )


def _select(loop: Loop, cycle: Cycle) -> Cycle:
    snapshot, base = loop.snapshot(_known(cycle.snapshot_id)), base_of(loop.target)
    if before := _taught_before(loop, base, snapshot):
        return loop.move(
            cycle,
            CycleState.SKIPPED,
            reason=f"cycle {before.id} trained on the same examples by the same settings already; new "
            "feedback trains once it is older than the holdout window",
        )
    chosen = choose_plan(
        loop, base, snapshot, loop.snapshots / snapshot.id, loop.run_folder(cycle) / "measure"
    ).plan
    if isinstance(chosen, Skip):
        asked = f"; {ask_for_examples(loop, cycle, snapshot)}" if loop.target.synthesis.enabled else ""
        return loop.move(cycle, CycleState.SKIPPED, reason=f"{chosen.reason}{asked}")
    # Versions of another base would answer wrongly on this one.
    loop.store.use_base(loop.target.key, chosen.base_digest, loop.clock())
    # Only a holdout that something is judged on binds the next cycles.
    return loop.move(cycle, CycleState.TRAINING, plan=chosen, window=snapshot.manifest.window)


def base_of(target: TargetSettings) -> Base:
    """The target's base model as it is now. Raises BaseModelUnusable."""
    return Base(
        name=target.base_model, digest=base_digest(target.base_model), bytes=model_bytes(target.base_model)
    )


def choose_plan(loop: Loop, base: Base, snapshot: Snapshot, written: Path, folder: Path) -> Choice:
    """What the rules say for `snapshot`, which is `written` in its folder; `folder` is for measuring the
    live model, where the rules ask for that.
    """
    target, active = loop.target, loop.store.active(loop.target.key)
    # A version of another base would be no judge of this one.
    live = active if active and active.base_digest == base.digest else None
    return choose(
        snapshot,
        target.task,
        target.thresholds,
        base,
        _wanted(loop),
        live=_live(loop, live) if live else None,
        live_answers=lambda: _answered(loop, base.name, written, folder, _side(loop, live)),
    )


def _wanted(loop: Loop) -> Wanted:
    target, training = loop.target, loop.settings.training
    return Wanted(
        preset=target.preset,
        overrides=target.hyperparameters,
        max_lora_rank=training.max_lora_rank,
        quantization="nf4" if training.quantization == "always" else None,
        prefix_shared=training.share_prefixes,
        limits=training.limits,
    )


def _live(loop: Loop, version: Version) -> Live:
    config = json.loads((adapter_folder(loop.data_dir, version) / "adapter_config.json").read_text("utf-8"))
    return Live(version=version.id, lora_rank=config["r"], lora_alpha=config["lora_alpha"])


def _answered(
    loop: Loop, base_model: str, snapshot: Path, folder: Path, adapter: AdapterSide | None
) -> Answered:
    """How the base, or an adapter on it, answers the prompts of the snapshot's pairs."""
    target, training = loop.target, loop.settings.training
    job = ReadinessJob(
        snapshot=str(snapshot),
        base_model=base_model,
        adapter=adapter,
        task=target.task,
        output_space=target.output_space,
        max_new_tokens=target.max_new_tokens,
        device=training.device,
        dtype=training.dtype,
        threads=training.threads,
    )
    return Answered.model_validate(
        run_job(Work.MEASURE, folder, job, stop=loop.stop, on_progress=loop.on_progress)
    )


def _side(loop: Loop, version: Version | None) -> AdapterSide | None:
    if version is None:
        return None
    return AdapterSide(name=version.id, path=str(adapter_folder(loop.data_dir, version)))


def _train(loop: Loop, cycle: Cycle) -> Cycle:
    """Train the plan's stages, each in a folder of its own; the last adapter becomes the candidate."""
    plan, run_folder = _known(cycle.plan), loop.run_folder(cycle)
    trained: list[Trained] = []
    adapter = start_adapter(loop, plan)
    result: TrainingResult | None = None
    for number, stage in enumerate(plan.stages):
        spent = sum(stage.figures.get("seconds", 0.0) for stage in trained)
        if (
            number
            and adapter
            and (why_not := _not_now(loop, plan, stage, adapter, run_folder / f"measure-{number}", spent))
        ):
            trained.append(Trained(method=stage.method, left_out=why_not))
            continue
        folder = run_folder / f"train-{number}"
        result = _train_stage(loop, plan, number, adapter, folder, spent)
        trained.append(Trained(method=stage.method, figures=result.metrics.model_dump(mode="json")))
        adapter = folder / result.adapter
    version = _register(loop, cycle, plan, _known(result))
    final = adapter_folder(loop.data_dir, version)
    if not final.exists():
        final.parent.mkdir(parents=True, exist_ok=True)
        _known(adapter).replace(final)
    return loop.move(cycle, CycleState.EVALUATING, version_id=version.id, training=tuple(trained))


def start_adapter(loop: Loop, plan: Plan) -> Path | None:
    """The folder of the adapter that the plan's first stage goes on from."""
    if plan.start_version is None:
        return None
    return adapter_folder(loop.data_dir, loop.store.version(plan.start_version))


def _not_now(loop: Loop, plan: Plan, stage: Stage, adapter: Path, folder: Path, spent: float) -> str | None:
    """Why `stage` is left out after the stage before it, which made `adapter`; None if it is not."""
    limits = loop.settings.training.limits
    if spent >= limits.seconds:
        return f"{stage.method} left out: the stage before it has used up the time ({limits})"
    side = AdapterSide(name="trained", path=str(adapter))
    answered = _answered(loop, plan.base_model, loop.snapshots / plan.snapshot_id, folder, side)
    return worthwhile(stage, plan, loop.target.thresholds, answered)


def _train_stage(
    loop: Loop, plan: Plan, number: int, start: Path | None, folder: Path, spent: float
) -> TrainingResult:
    """`spent` are the seconds that the stages before took of what the cycle may take."""
    job = training_job(loop, plan, number, loop.snapshots / plan.snapshot_id, start)
    job = job.model_copy(update={"spent": spent})
    result = TrainingResult.model_validate(
        run_job(Work.TRAIN, folder, job, stop=loop.stop, on_progress=loop.on_progress)
    )
    forget_checkpoints(folder)
    return result


def training_job(loop: Loop, plan: Plan, number: int, snapshot: Path, start: Path | None) -> TrainingJob:
    """Stage `number` of the plan, on the snapshot in its folder, as the settings want it trained."""
    training = loop.settings.training
    return TrainingJob(
        plan=plan,
        stage=number,
        snapshot=str(snapshot),
        start_adapter=str(start) if start else None,
        limits=training.limits,
        may_quantize=training.quantization != "never",
        device=training.device,
        dtype=training.dtype,
        threads=training.threads,
    )


def _register(loop: Loop, cycle: Cycle, plan: Plan, result: TrainingResult) -> Version:
    active = loop.store.active(loop.target.key)
    return loop.store.add_candidate(
        cycle.id,
        path=f"adapters/{loop.target.slug}/{cycle.id}",
        files=result.files,
        base_model=plan.base_model,
        base_digest=plan.base_digest,
        rank=plan.lora_rank,
        snapshot_id=plan.snapshot_id,
        plan_id=plan.id,
        parent_id=active.id if active else None,
        code_version=VERSION,
        now=loop.clock(),
    )


def _evaluate(loop: Loop, cycle: Cycle) -> Cycle:
    plan, candidate = _known(cycle.plan), loop.store.version(_known(cycle.version_id))
    active = loop.store.active(loop.target.key)
    folder = loop.run_folder(cycle) / "evaluate"
    adapter = adapter_folder(loop.data_dir, candidate)
    job = EvaluationJob(
        snapshot=str(loop.snapshots / plan.snapshot_id),
        base_model=plan.base_model,
        task=loop.target.task,
        output_space=loop.target.output_space,
        active=_side(loop, active),
        candidate=AdapterSide(name=candidate.id, path=str(adapter)),
        alpha=loop.target.gate.alpha,
        min_effect=loop.target.gate.min_effect,
        max_new_tokens=loop.target.max_new_tokens,
        device=loop.settings.training.device,
        dtype=loop.settings.training.dtype,
        threads=loop.settings.training.threads,
    )
    run_job(Work.EVALUATE, folder, job, stop=loop.stop, on_progress=loop.on_progress)
    report = Report.model_validate_json((folder / "report.json").read_text("utf-8"))
    for name in (PROBES, "report.json"):
        if (folder / name).exists():
            (adapter / name).write_bytes((folder / name).read_bytes())
    judged = {"report": report, "verdict": report.verdict, "reason": report.reason}
    if report.verdict == "PROMOTE":
        return loop.move(cycle, CycleState.PROMOTING, **judged)
    _judge(loop, candidate, VersionState.REJECTED, f"{report.verdict}: {report.reason}")
    return loop.move(cycle, CycleState.DONE, **judged)


def _promote(loop: Loop, cycle: Cycle) -> Cycle:
    store, target, report = loop.store, loop.target, _known(cycle.report)
    candidate = store.version(_known(cycle.version_id))
    if candidate.state is VersionState.ACTIVE:
        return loop.move(cycle, CycleState.DONE, reason=report.reason)
    if waits_for := _why_not_automatically(loop, report, candidate):
        _judge(loop, candidate, VersionState.READY, waits_for)
        return loop.move(cycle, CycleState.DONE, reason=f"{report.reason}; {waits_for}")
    try:
        promote(
            loop.settings,
            store,
            target,
            candidate,
            expected_active=_active_id(loop),
            actor=DAEMON,
            reason=report.reason,
            clock=loop.clock,
            unless_held=True,
        )
    except NotServed as failure:
        if failure.refuted:
            _judge(loop, candidate, VersionState.REJECTED, str(failure))
            raise
        if isinstance(failure, NotServedYet) and loop.clock() < cycle.updated_at + SERVING_PATIENCE:
            raise
        # It is proven: an operator sees to the replica, and the next cycle need not wait for that.
        waits_for = f"{failure}; then run `learnd adapters promote {candidate.id}`"
        _judge(loop, candidate, VersionState.READY, waits_for)
        return loop.move(cycle, CycleState.DONE, reason=f"{report.reason}; {waits_for}")
    except (ActiveChanged, TargetHeld):
        # An operator was quicker. Look again: what is live is not what the report compared with.
        return store.cycle(cycle.id)
    return loop.move(cycle, CycleState.DONE, reason=report.reason)


STEPS: Mapping[CycleState, Callable[[Loop, Cycle], Cycle]] = {
    CycleState.EXTRACTING: _extract,
    CycleState.SELECTING: _select,
    CycleState.TRAINING: _train,
    CycleState.EVALUATING: _evaluate,
    CycleState.PROMOTING: _promote,
}


def _why_not_automatically(loop: Loop, report: Report, candidate: Version) -> str | None:
    """What keeps a proven candidate from going live by itself, in words; None if nothing does."""
    state = loop.store.target_state(loop.target.key)
    promote_it = f"`learnd adapters promote {candidate.id}`"
    if state.held:
        return f"on hold since the rollback by {state.held_by}: {promote_it}"
    if loop.target.promotion == "manual":
        return f"promotion is manual: {promote_it}"
    if report.live != (_active_id(loop) or "base"):
        return f"{report.live}, the one it was compared with, is not live any more: {promote_it}"
    return None


def _judge(loop: Loop, version: Version, state: VersionState, reason: str) -> None:
    """Record the verdict on a candidate; once recorded, running the step again changes nothing."""
    if version.state is VersionState.CANDIDATE:
        loop.store.judge(version.id, state, now=loop.clock(), actor=DAEMON, reason=reason)


def _taught_before(loop: Loop, base: Base, snapshot: Snapshot) -> Cycle | None:
    """The last cycle that came to a verdict, if it trained on the same data by the same settings."""
    earlier = next(iter(loop.store.cycles(loop.target.key, limit=1, state=CycleState.DONE)), None)
    if earlier is None or earlier.plan is None:
        return None
    now = settings_id(loop.target.task, loop.target.thresholds, base, _wanted(loop))
    if now != earlier.plan.settings_id:
        return None
    try:
        then = loop.snapshot(earlier.plan.snapshot_id)
    except SnapshotDamaged:
        # Somebody removed it: then this data counts as new.
        return None
    return earlier if (then.train, then.validation) == (snapshot.train, snapshot.validation) else None


def _active_id(loop: Loop) -> str | None:
    active = loop.store.active(loop.target.key)
    return active.id if active else None


def _known(value: T | None) -> T:
    """A cycle's field that its state guarantees. Raises LookupError where the store lost it."""
    if value is None:
        raise LookupError("the cycle lacks what its state guarantees; the store was edited by hand")
    return value
