"""One evaluation, in a child process: base, active version and candidate answer the same held-out traffic.

The run's folder holds the job's files (`trainers/child.py`), each side's answers once they are
complete (a run that was killed goes on with the next side), and in the end report.json and
probes.json.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.judge import AnswerPair, Preferences, judge
from evaluation.judging import Findings, judge_findings
from evaluation.latency import Overhead, Timings, time_sides, typical_length
from evaluation.probes import Probe, ProbeRecord
from evaluation.report import Answer, Golden, Report, SeedRuns, Side, Verdict
from evaluation.rules import Gate, Look
from evaluation.scoring import Scorer, scorer
from evaluation.sides import Heard, Logprobs, Said, score_answers, score_golden, score_side
from evaluation.weighting import Weighting, weigh
from extractors.endpoint import Endpoint, EndpointRefused, EndpointUnreachable
from extractors.examples import ReviewedItem, ReviewedRetrieval, SFTExample
from extractors.snapshot import Snapshot, read_snapshot
from extractors.splits import HoldoutRules, common_prompts
from extractors.traffic import TrafficCall
from extractors.values import LearndError, Value
from trainers.base_model import Device, Dtype, use_threads
from trainers.child import Progress, run_job, write_whole
from trainers.rendering import Rendered, TemplateUnusable, render
from trainers.selection import Task

if TYPE_CHECKING:
    from evaluation.answers import AnswerEngine
    from evaluation.retrieval import RankedSide

REPORT, PROBES, TRAFFIC = "report.json", "probes.json", "traffic.json"
PREFERENCES = "preferences.json"
JUDGE_KEY = "JUDGE_API_KEY"
"""Environment variable with the judge's API key."""
BASE = "base"
BATCH_SIZE = 16
MOST_PROBES = 8
PROBE_TOKENS = 32
LABEL_SLACK = 8
"""Tokens that a classification may run past the longest label before it is cut off."""
MOST_LABELS = 500
"""Labels of an output space that are weighed one by one for each item."""


class NothingToAsk(LearndError):
    """There is no prompt at all that the model could be asked."""


class AdapterSide(Value):
    """An adapter to compare."""

    name: str
    """The version's served name."""
    path: str
    """Its folder."""


class EvaluationJob(Value):
    """What an evaluation child is asked to do."""

    snapshot: str
    """Folder of the snapshot whose held-out items are asked."""
    trained_on: str | None = None
    """Folder of the snapshot that the candidate was trained on, where that is another one."""
    base_model: str
    task: Task
    output_space: tuple[str, ...] = ()
    active: AdapterSide | None
    """What is live; None while the base model is."""
    waiting: AdapterSide | None = None
    """What is on probation."""
    candidate: AdapterSide
    gate: Gate = Gate()
    judge: Endpoint | None = None
    """A language model that compares the candidate's answers with those of what is live."""
    seeds: SeedRuns | None = None
    """How the runs of the plan with several seeds did, for the report."""
    look: Look = "first"
    golden: tuple[SFTExample, ...] = ()
    max_new_tokens: int
    batch_size: int = BATCH_SIZE
    device: Device = "auto"
    dtype: Dtype = "auto"
    threads: int | None = None
    """CPU threads; None takes what torch would."""

    @property
    def adapters(self) -> dict[str, Path]:
        """Folders of all sides but the base, the candidate last."""
        sides = (self.active, self.waiting, self.candidate)
        return {side.name: Path(side.path) for side in sides if side}

    @property
    def live(self) -> str:
        return self.active.name if self.active else BASE


class EvaluationResult(Value):
    """What an evaluation child leaves, besides report.json and probes.json."""

    verdict: Verdict
    reason: str


class TrafficSample(Value):
    """Calls of the traffic that the held-out items come from; `traffic.json` in the run's folder."""

    calls: tuple[TrafficCall, ...]


class Asked(Value):
    """All that the sides are asked."""

    held_out: tuple[ReviewedItem, ...]
    retention: tuple[ReviewedItem, ...]
    golden: tuple[SFTExample, ...]
    prompts: dict[str, tuple[int, ...]]
    """Tokens of each prompt by the id of its item or case."""
    references: dict[str, tuple[int, ...]]
    """Tokens of the gold answers of held-out items, where the template can express them."""

    def of(self, items: Sequence[ReviewedItem | SFTExample]) -> list[tuple[int, ...]]:
        """The tokens of their prompts."""
        return [self.prompts[item.id] for item in items]

    def answer_limit(self, task: Task, most: int, tokenizer: Any, labels: Sequence[str]) -> int:
        """As `answer_limit`, with the labels that are gold."""
        golds = [item.gold.content for item in self.held_out if item.gold]
        return answer_limit(task, most, tokenizer, [*labels, *golds])


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
    from evaluation.answers import open_engine

    engine = open_engine(job.base_model, job.adapters, device=job.device, dtype=job.dtype)
    trained_on = read_snapshot(Path(job.trained_on)) if job.trained_on else snapshot
    asked = asked_of(engine.tokenizer, snapshot, job.golden)
    labels = labels_of(job.task, job.output_space, trained_on, asked)
    scoring = scorer(job.task, job.output_space, labels)
    heard = _heard(job, engine, asked, labels, folder, progress)
    timings = _timings(engine, list(heard), asked, progress)
    sides = tuple(
        score_side(
            name,
            asked.held_out,
            each,
            scoring,
            labels,
            latency_ms=timings.latency_ms(name) if timings else 0.0,
        )
        for name, each in heard.items()
    )
    write_whole(
        folder / PROBES, _probes(engine, job.candidate.name, trained_on, asked, sides).model_dump_json()
    )
    progress.write("judging")
    preferred = _preferences(job, asked, heard, folder, progress)
    found = Findings(
        sides=sides,
        live=job.live,
        waiting=job.waiting.name if job.waiting else None,
        sessions=sessions_of((*asked.held_out, *asked.retention)),
        weighting=_weighting(job, asked.held_out, snapshot.manifest.rules, folder),
        rejected_without_correction=sum(item.gold is None for item in asked.held_out),
        retention=_retention(job, asked, heard, scoring),
        golden=_golden(job, asked, heard, scoring),
        overheads=_overheads(timings, job),
        preferences=None if isinstance(preferred, str) else preferred,
        no_judge=preferred if isinstance(preferred, str) else "",
        seeds=job.seeds,
    )
    return judge_findings(
        found, job.gate, job.task, snapshot_id=snapshot.id, held_out=snapshot.manifest.holdout, look=job.look
    )


def asked_of(tokenizer: Any, snapshot: Snapshot, golden: Sequence[SFTExample] = ()) -> Asked:
    """The prompts that the chat template can express; the others could not be served either."""
    prompts: dict[str, tuple[int, ...]] = {}
    references: dict[str, tuple[int, ...]] = {}
    everything: tuple[ReviewedItem | SFTExample, ...] = (*snapshot.holdout, *snapshot.retention, *golden)
    for item in everything:
        if rendered := _rendered(tokenizer, item):
            prompts[item.id] = rendered.prompt_ids
    for item in snapshot.holdout:
        if item.gold and (rendered := _rendered(tokenizer, item.to_example(), with_completion=True)):
            references[item.id] = rendered.completion_ids
    return Asked(
        held_out=tuple(item for item in snapshot.holdout if item.id in prompts),
        retention=tuple(item for item in snapshot.retention if item.id in prompts),
        golden=tuple(case for case in golden if case.id in prompts),
        prompts=prompts,
        references=references,
    )


def _rendered(
    tokenizer: Any, item: ReviewedItem | SFTExample, *, with_completion: bool = False
) -> Rendered | None:
    completion = item.completion if with_completion and isinstance(item, SFTExample) else None
    try:
        return render(tokenizer, item.prompt, item.tools, completion)
    except TemplateUnusable:
        return None


def labels_of(
    task: Task, output_space: tuple[str, ...], trained_on: Snapshot, asked: Asked
) -> tuple[str, ...]:
    """The output space of a classification; without one, the labels that were trained or are gold."""
    if task != "classification":
        return ()
    trained = (example.completion for example in trained_on.train.sft)
    golds = (item.gold for item in asked.held_out if item.gold)
    return output_space or tuple(dict.fromkeys(said.content.strip() for said in (*trained, *golds)))


def _heard(
    job: EvaluationJob,
    engine: "AnswerEngine",
    asked: Asked,
    labels: Sequence[str],
    folder: Path,
    progress: Progress,
) -> dict[str, Heard]:
    """What each side answers, by its name; the base comes first, the candidate last."""
    limit = asked.answer_limit(job.task, job.max_new_tokens, engine.tokenizer, labels)
    return {
        name: _side(job, name, engine, asked, labels, limit, folder / f"side-{number}.json", progress)
        for number, name in enumerate([BASE, *job.adapters])
    }


def answer_limit(task: Task, most: int, tokenizer: Any, labels: Sequence[str]) -> int:
    """Most tokens of an answer: no classification is longer than the longest label, with some slack."""
    if task != "classification" or not labels:
        return most
    longest = max(len(tokenizer(label, add_special_tokens=False)["input_ids"]) for label in labels)
    return min(most, longest + LABEL_SLACK)


def _side(
    job: EvaluationJob,
    name: str,
    engine: "AnswerEngine",
    asked: Asked,
    labels: Sequence[str],
    limit: int,
    kept: Path,
    progress: Progress,
) -> Heard:
    """The side's answers to everything, from the file `kept` if an earlier run got that far."""
    from evaluation.likelihood import label_tokens

    if kept.exists():
        return Heard.model_validate_json(kept.read_text("utf-8"))
    # Older traffic and golden cases are for the candidate and what is live.
    compared = name in {job.live, job.candidate.name}
    parts: list[Sequence[ReviewedItem | SFTExample]] = [
        asked.held_out,
        asked.retention if compared else (),
        asked.golden if compared else (),
    ]
    prompts = [prompt for part in parts for prompt in asked.of(part)]
    first = next(iter(asked.held_out), None)
    weighed = labels if first and len(labels) <= MOST_LABELS else ()
    answers = engine.answers(
        name,
        prompts,
        max_new_tokens=limit,
        batch_size=job.batch_size,
        labels=label_tokens(engine.tokenizer, first.prompt, first.tools, weighed) if first else (),
        on_progress=lambda done: progress.write("answering", name, step=done, total=len(prompts)),
    )
    said = [Said(text=each.text, ended=each.ended) for each in answers]
    ends = [len(parts[0]), len(parts[0]) + len(parts[1])]
    heard = Heard(
        held_out=said[: ends[0]],
        retention=said[ends[0] : ends[1]],
        golden=said[ends[1] :],
        labels=[each.label_logprobs for each in answers[: ends[0]]] if weighed else (),
        gold=() if job.task == "classification" else _gold_logprobs(job, name, engine, asked),
    )
    write_whole(kept, heard.model_dump_json())
    return heard


def _gold_logprobs(
    job: EvaluationJob, name: str, engine: "AnswerEngine", asked: Asked
) -> tuple[Logprobs, ...]:
    """How likely the side calls the gold answers, token by token."""
    ids = list(asked.references)
    return tuple(
        engine.answer_logprobs(
            name,
            [asked.prompts[each] for each in ids if each in asked.prompts],
            [asked.references[each] for each in ids if each in asked.prompts],
            batch_size=job.batch_size,
        )
    )


def sessions_of(items: Sequence[ReviewedItem]) -> dict[str, str]:
    """What belongs together in a test, by item: its session, else the item alone."""
    return {item.id: item.session_id or item.id for item in items}


def _weighting(
    job: EvaluationJob,
    items: Sequence[ReviewedItem | ReviewedRetrieval],
    rules: HoldoutRules,
    folder: Path,
) -> Weighting:
    """What each held-out item counts for, beside the sample of the traffic that lies in `folder`."""
    sample = folder / TRAFFIC
    calls = TrafficSample.model_validate_json(sample.read_text("utf-8")).calls if sample.exists() else ()
    common = common_prompts(calls, rules.common_prompt_sessions)
    return weigh(items, calls, live=job.live, common_prompts=common)


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
) -> Preferences | str | None:
    """What the judge prefers, one pair a held-out item, or why it could not be asked.

    From the file if an earlier run got that far; None where there is no judge.
    """
    if job.judge is None:
        return None
    kept = folder / PREFERENCES
    if kept.exists():
        return Preferences.model_validate_json(kept.read_text("utf-8"))
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
        return str(problem)
    write_whole(kept, found.model_dump_json())
    return found


def _golden(job: EvaluationJob, asked: Asked, heard: Mapping[str, Heard], scoring: Scorer) -> Golden | None:
    if not job.golden:
        return None
    live, candidate = heard[job.live].golden, heard[job.candidate.name].golden
    return score_golden(asked.golden, live, candidate, scoring)


def _timings(
    engine: "AnswerEngine", names: Sequence[str], asked: Asked, progress: Progress
) -> Timings | None:
    """What the same work takes each side, all in turn; None without a held-out prompt."""
    if not asked.held_out:
        return None
    tokens = typical_length([len(each) for each in asked.references.values()])
    progress.write("timing", f"{len(names)} sides in turn")
    return time_sides(
        lambda side, prompt: engine.seconds(side, prompt, tokens=tokens), names, asked.of(asked.held_out)
    )


def _overheads(timings: Timings | None, job: EvaluationJob) -> tuple[Overhead, ...]:
    """The candidate's latency over that of every other side."""
    if timings is None:
        return ()
    candidate = job.candidate.name
    return tuple(
        timings.overhead(candidate, side, alpha=job.gate.alpha)
        for side in timings.seconds
        if side != candidate
    )


def _probes(
    engine: "AnswerEngine", candidate: str, trained_on: Snapshot, asked: Asked, sides: Sequence[Side]
) -> ProbeRecord:
    """What the candidate says to a few prompts, one at a time, as a server is asked."""
    base, trained = sides[0].answers, sides[-1].answers
    # Where training changed the answer, and to different answers, a probe tells most.
    order = sorted(range(len(asked.held_out)), key=lambda i: base[i].text == trained[i].text)
    first_of = {trained[i].text: i for i in reversed(order)}
    chosen = list(dict.fromkeys([*sorted(first_of.values(), key=order.index), *order]))[:MOST_PROBES]
    items: Sequence[ReviewedItem | SFTExample] = [asked.held_out[i] for i in chosen]
    probes = [_probe(engine, candidate, each) for each in items or trained_on.train.sft[:MOST_PROBES]]
    if not probes:
        raise NothingToAsk(f"snapshot {trained_on.id} has neither held-out nor training prompts")
    return ProbeRecord(probes=tuple(probes))


def _probe(engine: "AnswerEngine", candidate: str, asked: ReviewedItem | SFTExample) -> Probe:
    prompt = render(engine.tokenizer, asked.prompt, asked.tools).prompt_ids
    [said] = engine.answers(candidate, [prompt], max_new_tokens=PROBE_TOKENS, batch_size=1)
    return Probe(
        messages=tuple(message.to_chat() for message in asked.prompt),
        tools=asked.tools,
        prompt_ids=prompt,
        answer_ids=said.ids,
        answer=said.text,
        adapter_logprobs=engine.logprobs(candidate, prompt, said.ids),
        base_logprobs=engine.logprobs(BASE, prompt, said.ids),
    )


def _compare_encoders(job: EvaluationJob, snapshot: Snapshot, folder: Path, progress: Progress) -> Report:
    """Base, active version and candidate make the held-out searches again."""
    from evaluation.encoding import open_encoder
    from evaluation.retrieval import library, search_side

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
    retention = None
    if older:
        live, candidate = (
            side_of_searches(search_side(encoder, name, older)).answers
            for name in (job.live, job.candidate.name)
        )
        retention = live, candidate
    asked = (*shelf.queries, *(older.queries if older else ()))
    found = Findings(
        sides=tuple(sides),
        live=job.live,
        waiting=job.waiting.name if job.waiting else None,
        sessions={query.item_id: query.session for query in asked},
        weighting=_weighting(job, snapshot.retrievals, snapshot.manifest.rules, folder),
        retention=retention,
        overheads=_overheads(timings, job),
        seeds=job.seeds,
    )
    return judge_findings(
        found, job.gate, job.task, snapshot_id=snapshot.id, held_out=snapshot.manifest.holdout, look=job.look
    )


def side_of_searches(found: "RankedSide", latency_ms: float = 0.0) -> Side:
    """A side of the report: right is a search that finds a relevant document first."""
    recall = {f"recall@{k}": share for k, share in found.recall.items()}
    return Side(
        name=found.name,
        accuracy=found.hit_rate,
        valid_rate=1.0,
        latency_ms=latency_ms,
        repeated_rejected=0,
        answers=tuple(
            Answer(
                item_id=query.item_id,
                text="",
                correct=query.hit,
                valid=True,
                scores={f"recall@{k}": share for k, share in query.recall.items()}
                | {"mrr@10": query.mrr, "ndcg@10": query.ndcg},
            )
            for query in found.ranked
        ),
        measures=recall | {"mrr@10": found.mrr, "ndcg@10": found.ndcg},
    )
