"""One evaluation, in a child process: base, active version and candidate answer the same held-out traffic.

The run's folder holds the job's files (`trainers/job_folder.py`) and each side's answers once they are
complete, so that a run that was killed goes on with the next side. In the end it holds report.json and
probes.json.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from evaluation.jobs.ask_sides import (
    ask_sides,
    build_prompts,
    compute_overheads,
    find_labels,
    time_answers,
)
from evaluation.jobs.general_ability import measure_general_ability
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
from evaluation.verdict.findings import Findings
from evaluation.verdict.judge_findings import judge_findings, map_sessions
from evaluation.weighting.strata import Embed
from evaluation.weighting.weighting import Weighting
from evaluation.weighting.weights import weigh
from extractors.dataset.snapshot import Snapshot, read_snapshot
from extractors.examples.thoughts import get_answer
from extractors.examples.types import ReviewedItem, ReviewedRetrieval, SFTExample
from extractors.llm.endpoint import EndpointRefused, EndpointUnreachable
from trainers.job_folder import Progress, run_job, write_atomically
from trainers.models.base_model import use_threads
from trainers.quick_imports import quick_imports


def run(folder: Path) -> None:
    """Do the EvaluationJob in `folder`: `learnd work evaluate FOLDER`."""
    run_job(folder, EvaluationJob, evaluate)


def evaluate(job: EvaluationJob, folder: Path, progress: Progress) -> EvaluationResult:
    """Compare the sides, judge the candidate and, for language models, record probes; write all to `folder`.

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
    """Have base, active version and candidate answer the held-out prompts, and judge the answers."""
    with quick_imports():
        from evaluation.engine.generate import open_engine

    engine = open_engine(job.base_model, job.adapters, device=job.device, dtype=job.dtype)
    trained_on = read_snapshot(Path(job.trained_on)) if job.trained_on else snapshot
    prompts = build_prompts(engine.tokenizer, snapshot, job.golden)
    labels = find_labels(job.task, job.output_space, trained_on, prompts)
    scorer = build_scorer(job.task, job.output_space, labels)
    answers = ask_sides(job, engine, prompts, labels, folder, progress)
    timings = time_answers(engine, list(answers), prompts, progress)
    sides = _score_sides(prompts.held_out, answers, scorer, labels, timings)
    record = record_probes(engine, job.candidate.name, trained_on, prompts, sides)
    write_atomically(folder / PROBES, record.model_dump_json())
    progress.write("judging")
    live, candidate = answers[job.live], answers[job.candidate.name]
    preferences, no_judge = _ask_judge(job, prompts.held_out, live, candidate, folder, progress)
    found = Findings(
        sides=sides,
        live=job.live,
        waiting=job.waiting.name if job.waiting else None,
        sessions=map_sessions((*prompts.held_out, *prompts.retention)),
        weighting=_weigh(job, snapshot, prompts.held_out, folder),
        rejected_without_correction=sum(item.gold is None for item in prompts.held_out),
        retention=_score_retention(prompts.retention, live, candidate, scorer),
        golden=_score_golden(job.golden, prompts.golden, live, candidate, scorer),
        general=measure_general_ability(job, engine, folder, progress),
        no_general=job.no_replay,
        overheads=compute_overheads(timings, job),
        preferences=preferences,
        no_judge=no_judge,
        seeds=job.seeds,
        race=job.race,
    )
    return _judge(job, snapshot, found)


def _score_sides(
    held_out: Sequence[ReviewedItem],
    answers: Mapping[str, SideAnswers],
    scorer: Scorer,
    labels: Sequence[str],
    timings: Timings | None,
) -> tuple[Side, ...]:
    latency = timings.latency_ms if timings else lambda _: 0.0
    return tuple(
        score_side(name, held_out, each, scorer, labels, latency_ms=latency(name))
        for name, each in answers.items()
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
    """Weigh the held-out items against the sample of the traffic that lies in `folder`."""
    sample = folder / TRAFFIC
    calls = TrafficSample.model_validate_json(sample.read_text("utf-8")).calls if sample.exists() else ()
    excluded = snapshot.manifest.excluded_prompts
    return weigh(items, calls, live=job.live, excluded_prompts=excluded, embed=embed)


def _score_retention(
    retention: Sequence[ReviewedItem], live: SideAnswers, candidate: SideAnswers, scorer: Scorer
) -> tuple[tuple[ScoredAnswer, ...], tuple[ScoredAnswer, ...]] | None:
    """Score what is live and the candidate on the retention set; None without one."""
    if not retention:
        return None
    return (
        score_answers(retention, live.retention, scorer),
        score_answers(retention, candidate.retention, scorer),
    )


def _ask_judge(
    job: EvaluationJob,
    held_out: Sequence[ReviewedItem],
    live: SideAnswers,
    candidate: SideAnswers,
    folder: Path,
    progress: Progress,
) -> tuple[Preferences | None, str]:
    """Return the judge's preferences, one a held-out item, and why there are none, in words.

    Both are empty where the job names no judge. An earlier run's preferences are read from `folder`.
    """
    if job.judge is None:
        return None, ""
    kept = folder / PREFERENCES
    if kept.exists():
        return Preferences.model_validate_json(kept.read_text("utf-8")), ""
    pairs = [
        AnswerPair(
            prompt=item.prompt,
            gold=item.gold and item.gold.model_copy(update={"content": get_answer(item.gold)}),
            candidate=new.text,
            other=old.text,
        )
        for item, new, old in zip(held_out, candidate.held_out, live.held_out, strict=True)
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
        # Everything else was measured, after a whole training.
        return None, str(problem)
    write_atomically(kept, found.model_dump_json())
    return found, ""


def _score_golden(
    cases: Sequence[SFTExample],
    asked: Sequence[SFTExample],
    live: SideAnswers,
    candidate: SideAnswers,
    scorer: Scorer,
) -> GoldenResults | None:
    """Score what is live and the candidate on the golden `cases`, of which only `asked` could be rendered.

    Returns None without golden cases.
    """
    if not cases:
        return None
    numbers = {case.id: number for number, case in enumerate(asked)}
    before, after = (
        [side.golden[numbers[case.id]] if case.id in numbers else None for case in cases]
        for side in (live, candidate)
    )
    return score_golden(cases, before, after, scorer)


def _compare_encoders(job: EvaluationJob, snapshot: Snapshot, folder: Path, progress: Progress) -> Report:
    """Have base, active version and candidate make the held-out searches again, and judge what they find."""
    with quick_imports():
        from evaluation.engine.encode import open_encoder

    encoder = open_encoder(job.base_model, job.adapters, device=job.device, dtype=job.dtype)
    library = build_library(snapshot.retrievals)
    older = build_library(snapshot.retained_retrievals) if snapshot.retained_retrievals else None
    names = [BASE, *job.adapters]
    progress.write("timing", f"{len(names)} sides in turn")
    timings = time_sides(encoder.time_query, names, [query.text for query in library.queries])
    sides = []
    for number, name in enumerate(names):
        sides.append(score_searches(search_side(encoder, name, library), timings.latency_ms(name)))
        progress.write("searching", name, step=number + 1, total=len(names))
    queries = (*library.queries, *(older.queries if older else ()))
    found = Findings(
        sides=tuple(sides),
        live=job.live,
        waiting=job.waiting.name if job.waiting else None,
        sessions={each.item_id: each.session for each in queries},
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
        race=job.race,
    )
    return _judge(job, snapshot, found)


def _search_retention(
    job: EvaluationJob, encoder: SearchEncoder, older: Library
) -> tuple[tuple[ScoredAnswer, ...], tuple[ScoredAnswer, ...]]:
    """Have what is live and the candidate search the retention set."""
    live, candidate = (
        score_searches(search_side(encoder, name, older)).answers for name in (job.live, job.candidate.name)
    )
    return live, candidate
