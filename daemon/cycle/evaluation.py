"""The evaluation of a candidate: its job, a sample of the traffic, and its report."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import structlog

from daemon.cycle.replay import measures_ability, prepare_held_out
from daemon.cycle.training import SEEDS, build_side
from daemon.data.imports import read_golden_cases
from daemon.data.ingest import open_phoenix
from daemon.runtime.context import TargetContext
from daemon.runtime.optional_deps import require_extra
from daemon.runtime.paths import adapter_folder, replay_folder
from daemon.runtime.work import Work
from daemon.serving.promotion import PROBES, SERVING_PATIENCE
from daemon.serving.replica_answers import confirm
from daemon.views.model_card import write_card
from daemon.views.run_files import read_race
from evaluation.jobs.job import (
    JUDGE_KEY,
    REPORT,
    TRAFFIC,
    AdapterSide,
    EvaluationJob,
    EvaluationResult,
    TrafficSample,
)
from evaluation.report import Report, SeedRuns
from evaluation.rules import Look
from extractors.cleaning.redaction import Redaction, load_redactor
from extractors.dataset.snapshot import read_snapshot
from extractors.examples.types import ReviewedItem, ReviewedRetrieval
from extractors.phoenix.http import PhoenixError
from extractors.traffic_sample import TrafficCall, TrafficQuery, sample_traffic
from registry.cycles import Cycle
from registry.serving.swap import NotServed, NotServedYet
from registry.versions import Version
from trainers.job_folder import RESULT, write_atomically

CONFIRMED = {"PROMOTE", "PROBATION"}
"""Verdicts that a replica's answers must lead to as well, where the settings ask for that."""
SAMPLE_PATIENCE = timedelta(hours=1)
"""How long a candidate waits for Phoenix to give a sample of the traffic, before it is judged without."""
log = structlog.get_logger()


class Contenders(NamedTuple):
    """The versions that an evaluation compares, beside the base model."""

    candidate: Version
    active: Version | None
    """None where the base model is live."""
    waiting: Version | None
    """The version on probation, which may be the candidate itself."""


def evaluate(context: TargetContext, cycle: Cycle, contenders: Contenders) -> Report:
    """Compare the candidate with what is live and with what is on probation, and return the report.

    Leaves report, model card and probes beside the adapter. Raises JobFailed, ImportInvalid,
    RedactorUnusable, RedactionFailed, and what may pass: PhoenixError, NotServedYet, Locked, Interrupted.
    """
    folder, snapshot = _evaluation_folder(context, cycle), context.snapshots / str(cycle.snapshot_id)
    job, secrets = _build_job(context, cycle, contenders), _read_secrets(context)
    sample_once(context, snapshot, folder, patient_until=cycle.updated_at + SAMPLE_PATIENCE)
    context.run_job(Work.EVALUATE, folder, job, EvaluationResult, secrets)
    report = Report.model_validate_json((folder / REPORT).read_text("utf-8"))
    candidate = contenders.candidate
    adapter = adapter_folder(context.data_dir, candidate)
    if (folder / PROBES).exists():
        (adapter / PROBES).write_bytes((folder / PROBES).read_bytes())
    if context.target.evaluate_with == "replica" and report.verdict in CONFIRMED:
        report = _confirm_by_replica(context, candidate, report, snapshot, folder)
    write_atomically(adapter / REPORT, report.model_dump_json(indent=2))
    write_card(context, candidate, report)
    return report


def _read_secrets(context: TargetContext) -> dict[str, str]:
    """Return the judge's key as an environment variable. Raises ExtraMissing, SettingsError."""
    if context.target.judge is None:
        return {}
    require_extra("synthetic", "dspy")
    key = context.target.judge.read_key()
    return {JUDGE_KEY: key} if key else {}


def read_report(context: TargetContext, cycle: Cycle) -> Report | None:
    """Return the report of the cycle's evaluation; None while there is none."""
    kept = _evaluation_folder(context, cycle) / REPORT
    return Report.model_validate_json(kept.read_text("utf-8")) if kept.exists() else None


def _evaluation_folder(context: TargetContext, cycle: Cycle) -> Path:
    return context.run_folder(cycle) / "evaluate"


def _build_job(context: TargetContext, cycle: Cycle, contenders: Contenders) -> EvaluationJob:
    target, training, data_dir = context.target, context.settings.training, context.data_dir
    candidate, active, waiting = contenders
    look: Look = "first" if cycle.plan else "second"
    return EvaluationJob(
        snapshot=str(context.snapshots / str(cycle.snapshot_id)),
        base_model=candidate.base_model,
        task=target.task,
        output_space=target.output_space,
        active=build_side(data_dir, active),
        waiting=build_side(data_dir, waiting) if waiting and waiting.id != candidate.id else None,
        candidate=AdapterSide(name=candidate.id, path=str(adapter_folder(data_dir, candidate))),
        trained_on=str(context.snapshots / candidate.snapshot_id),
        gate=target.gate,
        look=look,
        judge=target.judge.endpoint if target.judge else None,
        seeds=_read_seed_runs(context.run_folder(cycle) / SEEDS),
        race=read_race(context.settings, cycle),
        golden=read_golden_cases(target),
        **_prepare_replay(context, candidate),
        max_new_tokens=target.max_new_tokens,
        device=training.device,
        dtype=training.dtype,
        threads=training.threads,
    )


def _prepare_replay(context: TargetContext, candidate: Version) -> dict[str, str]:
    """Return the job's fields on what the base wrote itself, and have it write that where it is missing."""
    if not measures_ability(context.target):
        return {}
    if why_not := prepare_held_out(context, candidate.base_model, candidate.base_digest):
        return {"no_replay": why_not}
    return {"replay": str(replay_folder(context.data_dir, candidate.base_digest))}


def _confirm_by_replica(
    context: TargetContext, candidate: Version, report: Report, snapshot: Path, folder: Path
) -> Report:
    """Return `report` as a replica's answers confirm it; INCONCLUSIVE where no replica can be asked.

    Raises NotServedYet while a replica may still come.
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
    """Write a sample of the traffic that the held-out items come from into `folder`, unless it is there.

    Where Phoenix gives none, raises PhoenixError before `patient_until`, and writes an empty sample after.
    """
    if (folder / TRAFFIC).exists():
        return
    try:
        calls = _sample_traffic(context, snapshot)
    except PhoenixError as problem:
        if context.clock() < patient_until:
            raise
        log.warning("judged without a sample of the traffic", target=context.target.key, problem=str(problem))
        calls = ()
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / TRAFFIC, TrafficSample(calls=calls).model_dump_json())


def _sample_traffic(context: TargetContext, snapshot: Path) -> tuple[TrafficCall, ...]:
    held_out = read_snapshot(snapshot)
    items: tuple[ReviewedItem | ReviewedRetrieval, ...] = (*held_out.holdout, *held_out.retrievals)
    times = [item.started_at for item in items]
    if not times:
        return ()
    with open_phoenix(context.settings, stop=context.stop) as client:
        traffic = TrafficQuery(
            project=context.target.project,
            spans=context.target.spans,
            start=min(times),
            end=max(times),
            target=context.target.key,
        )
        return sample_traffic(
            client,
            traffic,
            redaction=Redaction(load_redactor(context.target.redaction), context.target.output_space),
        )


def _read_seed_runs(folder: Path) -> SeedRuns | None:
    """Return the scores of the runs of which the candidate is the median; None where there was one run."""
    result = folder / RESULT
    return SeedRuns.model_validate_json(result.read_text("utf-8")) if result.exists() else None
