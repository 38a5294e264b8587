"""Having a candidate judged: the evaluation's job, what it needs to know of the traffic, and its report."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog

from daemon.cycle.training import SEEDS, build_side
from daemon.data.imports import read_golden_cases
from daemon.data.ingest import open_phoenix
from daemon.runtime.child_process import Work, run_job
from daemon.runtime.context import TargetContext
from daemon.runtime.optional_deps import require_extra
from daemon.runtime.paths import adapter_folder
from daemon.serving.promotion import PROBES, SERVING_PATIENCE
from daemon.serving.replica_answers import confirm
from daemon.views.model_card import write_card
from evaluation.jobs.job import JUDGE_KEY, REPORT, TRAFFIC, AdapterSide, EvaluationJob, TrafficSample
from evaluation.report import Report, SeedRuns
from evaluation.rules import Look
from extractors.cleaning.redaction import Redaction, load_redactor
from extractors.dataset.snapshot import read_snapshot
from extractors.examples.types import ReviewedItem, ReviewedRetrieval
from extractors.phoenix.http import PhoenixError
from extractors.traffic_sample import TrafficCall, sample_traffic
from registry.cycles import Cycle
from registry.serving.swap import NotServed, NotServedYet
from registry.versions import Version
from trainers.job_folder import RESULT, write_atomically

CONFIRMED = {"PROMOTE", "PROBATION"}
"""Verdicts that a replica's answers must lead to as well, where that is asked for."""
SAMPLE_PATIENCE = timedelta(hours=1)
"""How long a candidate waits for Phoenix to give a sample of the traffic, before it is judged without."""
log = structlog.get_logger()


def evaluate(
    context: TargetContext, cycle: Cycle, candidate: Version, active: Version | None, waiting: Version | None
) -> Report:
    """Compare `candidate` with `active`, or the base where that is None, and with `waiting`, which is on
    probation.

    Leaves report, model card and probes beside the adapter. Raises JobFailed, ImportInvalid,
    RedactorUnusable, RedactionFailed, and what may pass: PhoenixError, NotServedYet, Locked, Interrupted.
    """
    folder, snapshot = _folder(context, cycle), context.snapshots / str(cycle.snapshot_id)
    job = _job(context, cycle, candidate, active, waiting)
    key = None
    if context.target.judge:
        require_extra("synthetic", "dspy")
        key = context.target.judge.key()
    sample_once(context, snapshot, folder, patient_until=cycle.updated_at + SAMPLE_PATIENCE)
    run_job(
        Work.EVALUATE,
        folder,
        job,
        stop=context.stop,
        on_progress=context.on_progress,
        secrets={JUDGE_KEY: key} if key else {},
    )
    report = Report.model_validate_json((folder / REPORT).read_text("utf-8"))
    adapter = adapter_folder(context.data_dir, candidate)
    if (folder / PROBES).exists():
        (adapter / PROBES).write_bytes((folder / PROBES).read_bytes())
    if context.target.evaluate_with == "replica" and report.verdict in CONFIRMED:
        report = _confirm_by_replica(context, candidate, report, snapshot, folder)
    write_atomically(adapter / REPORT, report.model_dump_json(indent=2))
    write_card(context, candidate, report)
    return report


def read_report(context: TargetContext, cycle: Cycle) -> Report | None:
    """What the cycle's evaluation found, if it got that far."""
    kept = _folder(context, cycle) / REPORT
    return Report.model_validate_json(kept.read_text("utf-8")) if kept.exists() else None


def _folder(context: TargetContext, cycle: Cycle) -> Path:
    return context.run_folder(cycle) / "evaluate"


def _job(
    context: TargetContext, cycle: Cycle, candidate: Version, active: Version | None, waiting: Version | None
) -> EvaluationJob:
    look: Look = "first" if cycle.plan else "second"
    return EvaluationJob(
        snapshot=str(context.snapshots / str(cycle.snapshot_id)),
        base_model=candidate.base_model,
        task=context.target.task,
        output_space=context.target.output_space,
        active=build_side(context, active),
        waiting=build_side(context, waiting) if waiting and waiting.id != candidate.id else None,
        candidate=AdapterSide(name=candidate.id, path=str(adapter_folder(context.data_dir, candidate))),
        trained_on=str(context.snapshots / candidate.snapshot_id),
        gate=context.target.gate,
        look=look,
        judge=context.target.judge.endpoint if context.target.judge else None,
        seeds=_read_seed_runs(context.run_folder(cycle) / SEEDS),
        golden=read_golden_cases(context.target),
        max_new_tokens=context.target.max_new_tokens,
        device=context.settings.training.device,
        dtype=context.settings.training.dtype,
        threads=context.settings.training.threads,
    )


def _confirm_by_replica(
    context: TargetContext, candidate: Version, report: Report, snapshot: Path, folder: Path
) -> Report:
    """`report` with what a replica's answers make of it; INCONCLUSIVE where none can be asked. Raises
    NotServedYet while one may still come.
    """
    try:
        return confirm(context, candidate, report, snapshot, folder)
    except NotServed as failure:
        judged_at = datetime.fromtimestamp((folder / REPORT).stat().st_mtime, UTC)
        if isinstance(failure, NotServedYet) and context.clock() < judged_at + SERVING_PATIENCE:
            raise
        reason = f"no replica could be asked: {failure}; {report.verdict} by transformers ({report.reason})"
        unknown = {"verdict": "INCONCLUSIVE", "condition": "no replica", "reason": reason}
        return report.model_copy(update=unknown)


def sample_once(context: TargetContext, snapshot: Path, folder: Path, *, patient_until: datetime) -> None:
    """Leave a sample of the traffic that the held-out items come from in `folder`; from `patient_until` on
    an empty one, where Phoenix gives none. Raises PhoenixError.
    """
    if (folder / TRAFFIC).exists():
        return
    try:
        calls = _sample(context, snapshot)
    except PhoenixError as problem:
        if context.clock() < patient_until:
            raise
        log.warning("judged without a sample of the traffic", target=context.target.key, problem=str(problem))
        calls = ()
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / TRAFFIC, TrafficSample(calls=calls).model_dump_json())


def _sample(context: TargetContext, snapshot: Path) -> tuple[TrafficCall, ...]:
    held_out = read_snapshot(snapshot)
    items: tuple[ReviewedItem | ReviewedRetrieval, ...] = (*held_out.holdout, *held_out.retrievals)
    times = [item.started_at for item in items]
    if not times:
        return ()
    with open_phoenix(context.settings) as client:
        return sample_traffic(
            client,
            context.target.project,
            context.target.spans,
            start=min(times),
            end=max(times),
            target=context.target.key,
            redaction=Redaction(load_redactor(context.target.redaction), context.target.output_space),
        )


def _read_seed_runs(folder: Path) -> SeedRuns | None:
    """How the runs did of which the candidate is the median one; None where there was one run."""
    result = folder / RESULT
    return SeedRuns.model_validate_json(result.read_text("utf-8")) if result.exists() else None
