"""One evaluation, in a child process: base, active version and candidate answer the same held-out traffic.

The run's folder holds the job's files (`trainers/job_folder.py`), each side's answers once they are
complete (a run that was killed goes on with the next side), and in the end report.json and
probes.json.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from evaluation.jobs.ask_sides import Asked, asked_of, hear, labels_of, overheads_of, timings_of
from evaluation.jobs.job import (
    BASE,
    JUDGE_KEY,
    PREFERENCES,
    PROBES,
    REPORT,
    TRAFFIC,
    EvaluationJob,
    EvaluationResult,
    TrafficSample,
)
from evaluation.jobs.record_probes import record_probes
from evaluation.metrics.latency import Timings, time_sides
from evaluation.metrics.llm_judge import AnswerPair, Preferences, judge
from evaluation.metrics.retrieval import Encodes, Library, library, one_a_query, search_side
from evaluation.metrics.scoring import Scorer, scorer
from evaluation.report import Answer, Golden, Report, Side
from evaluation.score_side import Heard, score_answers, score_golden, score_side, side_of_searches
from evaluation.verdict.judge_findings import Findings, judge_findings, sessions_of
from evaluation.weighting.strata import Embed
from evaluation.weighting.weights import Weighting, weigh
from extractors.dataset.snapshot import Snapshot, read_snapshot
from extractors.examples.types import ReviewedItem, ReviewedRetrieval
from extractors.llm.endpoint import EndpointRefused, EndpointUnreachable
from trainers.job_folder import Progress, run_job, write_whole
from trainers.models.base_model import use_threads


def run(folder: Path) -> None:
    """Do the EvaluationJob in `folder`: `learnd work evaluate FOLDER`."""
    run_job(folder, EvaluationJob, evaluate)


def evaluate(job: EvaluationJob, folder: Path, progress: Progress) -> EvaluationResult:
    """Compare, judge, and record probes (of language models), into `folder`.

    Raises LearndError: SnapshotDamaged, BaseModelUnusable, AdapterUnusable, NothingToAsk, NothingToSearch.
    """
    use_threads(job.threads)
    snapshot = read_snapshot(Path(job.snapshot))
    progress.write("loading", f"base model {job.base_model}")
    compare = _compare_encoders if job.task == "embedding" else _compare_answers
    report = compare(job, snapshot, folder, progress)
    write_whole(folder / REPORT, report.model_dump_json(indent=2))
    return EvaluationResult(verdict=report.verdict, reason=report.reason)


def _compare_answers(job: EvaluationJob, snapshot: Snapshot, folder: Path, progress: Progress) -> Report:
    """Base, active version and candidate answer the held-out prompts."""
    from evaluation.engine.generate import open_engine

    engine = open_engine(job.base_model, job.adapters, device=job.device, dtype=job.dtype)
    trained_on = read_snapshot(Path(job.trained_on)) if job.trained_on else snapshot
    asked = asked_of(engine.tokenizer, snapshot, job.golden)
    labels = labels_of(job.task, job.output_space, trained_on, asked)
    scoring = scorer(job.task, job.output_space, labels)
    heard = hear(job, engine, asked, labels, folder, progress)
    timings = timings_of(engine, list(heard), asked, progress)
    sides = _scored(asked, heard, scoring, labels, timings)
    record = record_probes(engine, job.candidate.name, trained_on, asked, sides)
    write_whole(folder / PROBES, record.model_dump_json())
    progress.write("judging")
    preferences, no_judge = _preferences(job, asked, heard, folder, progress)
    found = Findings(
        sides=sides,
        live=job.live,
        waiting=job.waiting.name if job.waiting else None,
        sessions=sessions_of((*asked.held_out, *asked.retention)),
        weighting=_weighting(job, snapshot, asked.held_out, folder),
        rejected_without_correction=sum(item.gold is None for item in asked.held_out),
        retention=_retention(job, asked, heard, scoring),
        golden=_golden(job, asked, heard, scoring),
        overheads=overheads_of(timings, job),
        preferences=preferences,
        no_judge=no_judge,
        seeds=job.seeds,
    )
    return _judged(job, snapshot, found)


def _scored(
    asked: Asked,
    heard: Mapping[str, Heard],
    scoring: Scorer,
    labels: Sequence[str],
    timings: Timings | None,
) -> tuple[Side, ...]:
    latency = timings.latency_ms if timings else lambda _: 0.0
    return tuple(
        score_side(name, asked.held_out, each, scoring, labels, latency_ms=latency(name))
        for name, each in heard.items()
    )


def _judged(job: EvaluationJob, snapshot: Snapshot, found: Findings) -> Report:
    held_out = snapshot.manifest.holdout
    return judge_findings(
        found, job.gate, job.task, snapshot_id=snapshot.id, held_out=held_out, look=job.look
    )


def _weighting(
    job: EvaluationJob,
    snapshot: Snapshot,
    items: Sequence[ReviewedItem | ReviewedRetrieval],
    folder: Path,
    embed: Embed | None = None,
) -> Weighting:
    """What each held-out item counts for, beside the sample of the traffic that lies in `folder`."""
    sample = folder / TRAFFIC
    calls = TrafficSample.model_validate_json(sample.read_text("utf-8")).calls if sample.exists() else ()
    excluded = snapshot.manifest.excluded_prompts
    return weigh(items, calls, live=job.live, excluded_prompts=excluded, embed=embed)


def _retention(
    job: EvaluationJob, asked: Asked, heard: Mapping[str, Heard], scoring: Scorer
) -> tuple[tuple[Answer, ...], tuple[Answer, ...]] | None:
    """What is live and the candidate say to the retention set, scored; None without one."""
    if not asked.retention:
        return None
    live, candidate = (
        score_answers(asked.retention, heard[name].retention, scoring)
        for name in (job.live, job.candidate.name)
    )
    return live, candidate


def _preferences(
    job: EvaluationJob, asked: Asked, heard: Mapping[str, Heard], folder: Path, progress: Progress
) -> tuple[Preferences | None, str]:
    """What the judge prefers, one pair a held-out item, and why it could not be asked if it could not.

    From the file if an earlier run got that far.
    """
    if job.judge is None:
        return None, ""
    kept = folder / PREFERENCES
    if kept.exists():
        return Preferences.model_validate_json(kept.read_text("utf-8")), ""
    live, candidate = heard[job.live].held_out, heard[job.candidate.name].held_out
    pairs = [
        AnswerPair(prompt=item.prompt, gold=item.gold, candidate=new.text, other=old.text)
        for item, new, old in zip(asked.held_out, candidate, live, strict=True)
    ]
    model = job.judge.model
    try:
        found = judge(
            pairs,
            job.judge,
            api_key=os.environ.get(JUDGE_KEY),
            on_progress=lambda done, total: progress.write("comparing", model, step=done, total=total),
        )
    except (EndpointUnreachable, EndpointRefused) as problem:
        # All else was measured, and a training lies behind it.
        return None, str(problem)
    write_whole(kept, found.model_dump_json())
    return found, ""


def _golden(job: EvaluationJob, asked: Asked, heard: Mapping[str, Heard], scoring: Scorer) -> Golden | None:
    if not job.golden:
        return None
    numbers = {case.id: number for number, case in enumerate(asked.golden)}
    live, candidate = (
        [side.golden[numbers[case.id]] if case.id in numbers else None for case in job.golden]
        for side in (heard[job.live], heard[job.candidate.name])
    )
    return score_golden(job.golden, live, candidate, scoring)


def _compare_encoders(job: EvaluationJob, snapshot: Snapshot, folder: Path, progress: Progress) -> Report:
    """Base, active version and candidate make the held-out searches again."""
    from evaluation.engine.encode import open_encoder

    encoder = open_encoder(job.base_model, job.adapters, device=job.device, dtype=job.dtype)
    shelf = library(snapshot.retrievals)
    older = library(snapshot.retained_retrievals) if snapshot.retained_retrievals else None
    names = [BASE, *job.adapters]
    progress.write("timing", f"{len(names)} sides in turn")
    timings = time_sides(encoder.seconds, names, [query.text for query in shelf.queries])
    sides = []
    for number, name in enumerate(names):
        sides.append(side_of_searches(search_side(encoder, name, shelf), timings.latency_ms(name)))
        progress.write("searching", name, step=number + 1, total=len(names))
    found = Findings(
        sides=tuple(sides),
        live=job.live,
        waiting=job.waiting.name if job.waiting else None,
        sessions={each.item_id: each.session for each in (*shelf.queries, *(older.queries if older else ()))},
        weighting=_weighting(
            job,
            snapshot,
            one_a_query(snapshot.retrievals),
            folder,
            embed=lambda texts: encoder.queries(BASE, texts, job.batch_size),
        ),
        retention=_searched_again(job, encoder, older) if older else None,
        overheads=overheads_of(timings, job),
        seeds=job.seeds,
    )
    return _judged(job, snapshot, found)


def _searched_again(
    job: EvaluationJob, encoder: Encodes, older: Library
) -> tuple[tuple[Answer, ...], tuple[Answer, ...]]:
    """What is live and the candidate find for the retention set."""
    live, candidate = (
        side_of_searches(search_side(encoder, name, older)).answers for name in (job.live, job.candidate.name)
    )
    return live, candidate
