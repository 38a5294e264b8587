"""One evaluation, in a child process: base, active version and candidate answer the same held-out traffic.

The run's folder holds the job's files (`trainers/job_folder.py`), each side's answers once they are
complete (a run that was killed goes on with the next side), and in the end report.json and
probes.json.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from evaluation.jobs.ask_sides import (
    EvaluationPrompts,
    ask_sides,
    build_prompts,
    compute_overheads,
    find_labels,
    time_answers,
)
from evaluation.jobs.job import (
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
from evaluation.metrics.llm_judge import AnswerPair, Preferences, compare_answers
from evaluation.metrics.retrieval import (
    Library,
    SearchEncoder,
    build_library,
    pick_one_per_query,
    search_side,
)
from evaluation.metrics.scoring import Scorer, build_scorer
from evaluation.report import BASE, GoldenResults, Report, ScoredAnswer, Side
from evaluation.score_side import SideAnswers, score_answers, score_golden, score_searches, score_side
from evaluation.verdict.judge_findings import Findings, judge_findings, map_sessions
from evaluation.weighting.strata import Embed
from evaluation.weighting.weights import Weighting, weigh
from extractors.dataset.snapshot import Snapshot, read_snapshot
from extractors.examples.types import ReviewedItem, ReviewedRetrieval
from extractors.llm.endpoint import EndpointRefused, EndpointUnreachable
from trainers.job_folder import Progress, run_job, write_atomically
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
    write_atomically(folder / REPORT, report.model_dump_json(indent=2))
    return EvaluationResult(verdict=report.verdict, reason=report.reason)


def _compare_answers(job: EvaluationJob, snapshot: Snapshot, folder: Path, progress: Progress) -> Report:
    """Base, active version and candidate answer the held-out prompts."""
    from evaluation.engine.generate import open_engine

    engine = open_engine(job.base_model, job.adapters, device=job.device, dtype=job.dtype)
    trained_on = read_snapshot(Path(job.trained_on)) if job.trained_on else snapshot
    asked = build_prompts(engine.tokenizer, snapshot, job.golden)
    labels = find_labels(job.task, job.output_space, trained_on, asked)
    scoring = build_scorer(job.task, job.output_space, labels)
    heard = ask_sides(job, engine, asked, labels, folder, progress)
    timings = time_answers(engine, list(heard), asked, progress)
    sides = _score_sides(asked, heard, scoring, labels, timings)
    record = record_probes(engine, job.candidate.name, trained_on, asked, sides)
    write_atomically(folder / PROBES, record.model_dump_json())
    progress.write("judging")
    preferences, no_judge = _ask_judge(job, asked, heard, folder, progress)
    found = Findings(
        sides=sides,
        live=job.live,
        waiting=job.waiting.name if job.waiting else None,
        sessions=map_sessions((*asked.held_out, *asked.retention)),
        weighting=_weigh(job, snapshot, asked.held_out, folder),
        rejected_without_correction=sum(item.gold is None for item in asked.held_out),
        retention=_score_retention(job, asked, heard, scoring),
        golden=_score_golden(job, asked, heard, scoring),
        overheads=compute_overheads(timings, job),
        preferences=preferences,
        no_judge=no_judge,
        seeds=job.seeds,
    )
    return _judge(job, snapshot, found)


def _score_sides(
    asked: EvaluationPrompts,
    heard: Mapping[str, SideAnswers],
    scoring: Scorer,
    labels: Sequence[str],
    timings: Timings | None,
) -> tuple[Side, ...]:
    latency = timings.latency_ms if timings else lambda _: 0.0
    return tuple(
        score_side(name, asked.held_out, each, scoring, labels, latency_ms=latency(name))
        for name, each in heard.items()
    )


def _judge(job: EvaluationJob, snapshot: Snapshot, found: Findings) -> Report:
    held_out = snapshot.manifest.holdout
    return judge_findings(
        found, job.gate, job.task, snapshot_id=snapshot.id, held_out=held_out, look=job.look
    )


def _weigh(
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


def _score_retention(
    job: EvaluationJob, asked: EvaluationPrompts, heard: Mapping[str, SideAnswers], scoring: Scorer
) -> tuple[tuple[ScoredAnswer, ...], tuple[ScoredAnswer, ...]] | None:
    """What is live and the candidate say to the retention set, scored; None without one."""
    if not asked.retention:
        return None
    live, candidate = (
        score_answers(asked.retention, heard[name].retention, scoring)
        for name in (job.live, job.candidate.name)
    )
    return live, candidate


def _ask_judge(
    job: EvaluationJob,
    asked: EvaluationPrompts,
    heard: Mapping[str, SideAnswers],
    folder: Path,
    progress: Progress,
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
        found = compare_answers(
            pairs,
            job.judge,
            api_key=os.environ.get(JUDGE_KEY),
            on_progress=lambda done, total: progress.write("comparing", model, step=done, total=total),
        )
    except (EndpointUnreachable, EndpointRefused) as problem:
        # All else was measured, and a training lies behind it.
        return None, str(problem)
    write_atomically(kept, found.model_dump_json())
    return found, ""


def _score_golden(
    job: EvaluationJob, asked: EvaluationPrompts, heard: Mapping[str, SideAnswers], scoring: Scorer
) -> GoldenResults | None:
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
    shelf = build_library(snapshot.retrievals)
    older = build_library(snapshot.retained_retrievals) if snapshot.retained_retrievals else None
    names = [BASE, *job.adapters]
    progress.write("timing", f"{len(names)} sides in turn")
    timings = time_sides(encoder.time_query, names, [query.text for query in shelf.queries])
    sides = []
    for number, name in enumerate(names):
        sides.append(score_searches(search_side(encoder, name, shelf), timings.latency_ms(name)))
        progress.write("searching", name, step=number + 1, total=len(names))
    found = Findings(
        sides=tuple(sides),
        live=job.live,
        waiting=job.waiting.name if job.waiting else None,
        sessions={each.item_id: each.session for each in (*shelf.queries, *(older.queries if older else ()))},
        weighting=_weigh(
            job,
            snapshot,
            pick_one_per_query(snapshot.retrievals),
            folder,
            embed=lambda texts: encoder.encode_queries(BASE, texts, job.batch_size),
        ),
        retention=_search_retention(job, encoder, older) if older else None,
        overheads=compute_overheads(timings, job),
        seeds=job.seeds,
    )
    return _judge(job, snapshot, found)


def _search_retention(
    job: EvaluationJob, encoder: SearchEncoder, older: Library
) -> tuple[tuple[ScoredAnswer, ...], tuple[ScoredAnswer, ...]]:
    """What is live and the candidate find for the retention set."""
    live, candidate = (
        score_searches(search_side(encoder, name, older)).answers for name in (job.live, job.candidate.name)
    )
    return live, candidate
