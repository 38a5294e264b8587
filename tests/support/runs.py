"""Runs as ended cycles leave them: store, snapshot, progress, adapter, report; nothing is trained."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from daemon.runtime.context import TargetContext
from daemon.runtime.paths import adapter_path
from daemon.settings.load import Settings
from evaluation.metrics.latency import compute_overhead
from evaluation.metrics.llm_judge import Preferences
from evaluation.metrics.retrieval import QueryRanking, average_rankings
from evaluation.metrics.scoring import Scorer, build_scorer
from evaluation.race_report import RacedContender, RaceReport, RungScore
from evaluation.report import Report, SeedRuns
from evaluation.rules import Gate, Look
from evaluation.score_side import (
    RawAnswer,
    SideAnswers,
    score_answers,
    score_golden,
    score_searches,
    score_side,
)
from evaluation.verdict.findings import Findings
from evaluation.verdict.judge_findings import judge_findings
from evaluation.weighting.weights import weigh
from extractors.dataset.snapshot import OutcomeCounts, Snapshot, read_snapshot, write_snapshot
from extractors.examples.types import Examples, JudgedDocument, ReviewedItem, ReviewedRetrieval, SFTExample
from extractors.values import file_digest
from registry.cycles import Cycle, CycleCounts, CycleState, StageResult
from registry.store.store import Store
from registry.versions import Candidate, Version
from tests.support.snapshots import BEGAN, RoutingCase, make_example, make_item, make_pair, make_snapshot
from trainers.planning.hyperparameters import Hyperparameters, Method
from trainers.planning.plan import Plan, TrainingStage

NOWHERE = "http://127.0.0.1:9"
"""Where no Phoenix is."""
LABELS = ("billing", "shipping", "returns")
SFT = TrainingStage(method="sft", data="sft", hyperparameters=Hyperparameters(epochs=3, learning_rate=2e-3))
DPO = TrainingStage(
    method="dpo", data="pairs", hyperparameters=Hyperparameters(epochs=2, learning_rate=2e-4, batch_size=4)
)
MINUTE = timedelta(minutes=1)
FIGURES: dict[Method, dict[str, Any]] = {
    "sft": {
        "examples": 30,
        "steps": 12,
        "epochs": 3.0,
        "train_loss": 0.5,
        "validation": [
            {"step": 6, "loss": 0.8, "figures": {"token_accuracy": 0.7}},
            {"step": 12, "loss": 0.9, "figures": {"token_accuracy": 0.8}},
        ],
        "validated": 4,
        "best_step": 6,
        "seconds": 71.0,
        "tokens_per_second": 5200.0,
        "peak_memory_bytes": 2**31,
    },
    "dpo": {
        "examples": 10,
        "steps": 6,
        "epochs": 2.0,
        "train_loss": 0.4,
        "validation": [{"step": 6, "loss": 0.3, "figures": {"reward_accuracy": 0.75, "reward_margin": 1.5}}],
        "validated": 2,
        "best_step": 6,
        "seconds": 30.0,
        "tokens_per_second": 5200.0,
        "peak_memory_bytes": 2**31,
    },
}


ON_TOP, FROM_LIVE, FROM_PAIRS = "sft+dpo (sigmoid+sft)", "sft from live", "dpo (sigmoid+sft)"
"""Challengers of `sft` in a race: one that won, one that was behind, and one that did not enter."""


def make_race(metric: str = "accuracy") -> RaceReport:
    """Return a race that the stage on top of the default won."""
    return RaceReport(
        metric=metric,
        items=48,
        sessions=44,
        level=0.2 / 3,
        contenders=(
            RacedContender(
                name="sft",
                reason="sft: 90 approved or corrected answers (needs 50); they can be imitated",
                steps=30,
                seconds=80,
                scores=(RungScore(rung="last", step=30, mean=0.75),),
                left=f"beaten by {ON_TOP}",
            ),
            RacedContender(
                name=FROM_LIVE,
                reason=f"{FROM_LIVE}: 90 approved or corrected answers (needs 50); what it knows stays",
                steps=3,
                seconds=14,
                scores=(RungScore(rung="first", step=3, mean=0.4375),),
                left=f"behind {ON_TOP} at the first rung: {metric} 0.438 against 0.750",
            ),
            RacedContender(
                name=ON_TOP,
                reason=f"{ON_TOP}: 40 preference pairs (needs 20); preferences refine what was imitated",
                steps=12,
                seconds=46,
                scores=(
                    RungScore(rung="first", step=2, mean=0.75),
                    RungScore(rung="last", step=12, mean=0.875),
                ),
                effect=0.125,
                p_value=0.03125,
            ),
            RacedContender(
                name=FROM_PAIRS,
                reason=f"{FROM_PAIRS}: 40 preference pairs (needs 20); preferences teach most there",
                left="did not enter: there is no time left for it (race_cost = 1.85, no limit)",
            ),
        ),
        winner=ON_TOP,
        seconds=140,
        default_seconds=80,
        cost_bound=1.85,
        item_ids=tuple(f"item {number}" for number in range(48)),
    )


def write_race_progress(folder: Path, began: datetime) -> None:
    """Write the progress of such a race: the default is trained to its end, then the others, in turns."""
    legs = (("sft", 1, 30), (ON_TOP, 1, 2), (FROM_LIVE, 1, 3), (ON_TOP, 3, 12))
    lines: list[dict[str, Any]] = [{"stage": "loading", "message": "base model none"}]
    for contender, first, last in legs:
        for step in range(first, last + 1):
            about = {"contender": contender, "stage": "training", "step": step, "total": last}
            lines.append(about | {"loss": 3 * 0.9**step + 0.2})
        lines.append(about | {"validation_loss": 3 * 0.92**last})
        lines.append({"contender": contender, "stage": "answering", "message": "48 validation items"})
    folder.mkdir(parents=True)
    times = ({"at": (began + number * timedelta(seconds=2)).isoformat()} for number in range(len(lines)))
    text = "".join(f"{json.dumps(at | line)}\n" for at, line in zip(times, lines, strict=True))
    (folder / "progress.jsonl").write_text(text, "utf-8")


def make_case(number: int) -> RoutingCase:
    return f"where is parcel {number}?", LABELS[number % 3]


class Runs:
    """A target with its runs."""

    def __init__(
        self,
        folder: Path,
        phoenix_url: str,
        agent: str = "routing",
        replicas: Sequence[dict[str, str]] = (),
        **target: Any,
    ) -> None:
        known = {"tenant": "acme", "agent": agent, "project": "p", "base_model": "tiny"}
        usual = {"task": "classification", "output_space": LABELS}
        self.settings = Settings.model_validate(
            {
                "data_dir": folder,
                "phoenix": {"url": phoenix_url, "experiments_project": f"learnd-{agent}"},
                "replicas": replicas,
                "targets": [known | usual | target],
            }
        )
        self.now = BEGAN + timedelta(days=1)
        self.store = Store.open(folder, self.now)
        self.context = TargetContext(self.settings, self.settings.targets[0], self.store, lambda: self.now)

    def snapshot(self, held_out: Sequence[ReviewedItem], **changes: Any) -> Snapshot:
        """With 30 examples to imitate, of which 6 are synthetic, and 10 pairs."""
        sft = tuple(
            make_example(n, make_case(n)).model_copy(
                update={"origin": "synthetic" if n % 5 == 0 else "telemetry"}
            )
            for n in range(30)
        )
        pairs = tuple(make_pair(n, make_case(n), "dunno") for n in range(30, 40))
        validation = Examples(sft=tuple(make_example(n, make_case(n)) for n in range(40, 45)))
        made = read_snapshot(
            make_snapshot(self.context.snapshots, Examples(sft=sft, pairs=pairs), validation, held_out)
        )
        outcomes = OutcomeCounts(approved=60, corrected=30, rejected=10)
        manifest = made.manifest.model_copy(
            update={"reviewed": outcomes, "target": self.context.target.key, **changes}
        )
        snapshot = made.model_copy(update={"manifest": manifest})
        (self.context.snapshots / snapshot.id / "manifest.json").write_text(
            manifest.model_dump_json(), "utf-8"
        )
        return snapshot

    def searches(self, retrievals: Sequence[ReviewedRetrieval]) -> Snapshot:
        """A snapshot of an embedding target."""
        made = read_snapshot(make_snapshot(self.context.snapshots, Examples()))
        manifest = made.manifest.model_copy(update={"holdout": len(retrievals)})
        snapshot = made.model_copy(update={"manifest": manifest, "retrievals": tuple(retrievals)})
        path = self.context.snapshots / snapshot.id
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
        write_snapshot(snapshot, self.context.snapshots)
        return snapshot

    def train(
        self,
        snapshot: Snapshot,
        stages: Sequence[TrainingStage] = (SFT,),
        training: Sequence[StageResult] | None = None,
        base: str = "base1",
        raced: bool = False,
        start_version: str | None = None,
    ) -> Cycle:
        """A cycle up to its evaluation; `base` is the digest of its base model.

        Where it is `raced`, the stages are those of the winner.
        """
        began = self.now
        cycle = self.store.start_cycle(self.context.target.key, "new examples", began)
        manifest = snapshot.manifest
        counted = manifest.model_dump(include={"train", "validation", "holdout", "retention", "reviewed"})
        self._step(
            cycle,
            CycleState.EXTRACTING,
            CycleState.SELECTING,
            snapshot_id=snapshot.id,
            counts=CycleCounts.model_validate(
                counted | {"left_out": {}, "dropped": {"no feedback that counts reached this call": 12}}
            ),
        )
        plan = Plan(
            name=ON_TOP if raced else "sft",
            raced=raced,
            stages=tuple(stages),
            reason=f"{len(snapshot.train.sft)} answers to imitate",
            snapshot_id=snapshot.id,
            base_model="tiny",
            base_digest=base,
            start_version=start_version,
        )
        cycle = self._step(cycle, CycleState.SELECTING, CycleState.TRAINING, plan=plan)
        if raced:
            write_race_progress(self.context.run_folder(cycle) / "race", began + MINUTE)
        for number, _ in enumerate(() if raced else stages):
            self._progress(cycle, f"train-{number}", began + (1 + 2 * number) * MINUTE)
        default = tuple(StageResult(method=each.method, figures=FIGURES[each.method]) for each in stages)
        self.now += 10 * MINUTE
        return self._step(
            cycle,
            CycleState.TRAINING,
            CycleState.EVALUATING,
            version_id=self._candidate(cycle, plan).id,
            training=tuple(training) if training is not None else default,
        )

    def look_again(self, version: Version, snapshot: Snapshot) -> Cycle:
        """A cycle that looks at a version on probation, up to its evaluation."""
        cycle = self.store.start_cycle(
            self.context.target.key, "second look", self.now, version_id=version.id
        )
        return self._step(cycle, CycleState.EXTRACTING, CycleState.EVALUATING, snapshot_id=snapshot.id)

    def end(self, cycle: Cycle, report: Report) -> Cycle:
        """With the report; a promotion is left out."""
        self._progress(cycle, "evaluate", self.now)
        self.now += 5 * MINUTE
        judged = {"report": report, "verdict": report.verdict, "reason": report.reason}
        return self._step(cycle, CycleState.EVALUATING, CycleState.DONE, **judged)

    def fail(self, cycle: Cycle, reason: str) -> Cycle:
        return self._step(cycle, cycle.state, CycleState.FAILED, reason=reason)

    def run(self, snapshot: Snapshot, *, right: int, base_right: int = 5, **report: Any) -> Cycle:
        """A whole run, whose candidate answers so many items right."""
        cycle = self.train(snapshot)
        made = make_report(snapshot, str(cycle.version_id), right=right, base_right=base_right, **report)
        return self.end(cycle, made)

    def _step(self, cycle: Cycle, old: CycleState, new: CycleState, **changes: Any) -> Cycle:
        return self.store.advance_cycle(cycle.id, old, new, self.now, **changes)

    def _progress(self, cycle: Cycle, job: str, began: datetime) -> None:
        folder = self.context.run_folder(cycle) / job
        folder.mkdir(parents=True)
        lines = [{"at": (began + n * MINUTE).isoformat(), "stage": "training", "step": n} for n in range(2)]
        (folder / "progress.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines), "utf-8")

    def write_adapter(self, folder: Path) -> None:
        """Write the files of an adapter into its cycle's folder: weights of its own that nobody can load."""
        (folder / "adapter_model.safetensors").write_bytes(folder.name.encode())

    def _candidate(self, cycle: Cycle, plan: Plan) -> Version:
        path = adapter_path(cycle)
        folder = self.context.data_dir / path
        folder.mkdir(parents=True)
        self.write_adapter(folder)
        return self.store.add_candidate(
            cycle.id,
            Candidate(
                path=path,
                files={file.name: file_digest(file) for file in folder.iterdir()},
                base_model=plan.base_model,
                base_digest=plan.base_digest,
                rank=plan.lora_rank,
                snapshot_id=plan.snapshot_id,
                plan_id=plan.id,
                parent_id=None,
                code_version="0.1.0",
            ),
            self.now,
        )


def make_held_out(count: int, first: int = 100) -> list[ReviewedItem]:
    """Return corrected items, of which every tenth was rejected without a correction instead."""
    return [
        make_item(number, make_case(number), outcome="rejected" if number % 10 == 9 else "corrected")
        for number in range(first, first + count)
    ]


def make_report(
    snapshot: Snapshot,
    candidate: str,
    *,
    right: int,
    base_right: int = 5,
    live: str = "base",
    live_right: int = 5,
    look: Look = "first",
    gate: Gate | None = None,
    golden: Sequence[SFTExample] = (),
    seeds: SeedRuns | None = None,
    race: RaceReport | None = None,
    everything: bool = False,
) -> Report:
    """Make the report on answers of which the first are right, as many as are given, and the rest invalid.

    With `everything` there are a retention set, weights and a judge, too.
    """
    scoring = build_scorer("classification", LABELS, ())
    rights = {"base": base_right} | ({live: live_right} if live != "base" else {}) | {candidate: right}
    answers = {name: _make_answers(snapshot.holdout, count) for name, count in rights.items()}
    sides = tuple(
        score_side(name, snapshot.holdout, each, scoring, LABELS, latency_ms=20.0 + n)
        for n, (name, each) in enumerate(answers.items())
    )
    older = make_held_out(12, first=500)
    found = Findings(
        sides=sides,
        live=live,
        sessions={item.id: item.id for item in (*snapshot.holdout, *older)},
        weighting=weigh(snapshot.holdout, live=live) if everything else None,
        rejected_without_correction=sum(item.gold is None for item in snapshot.holdout),
        retention=_make_retention(older, scoring) if everything else None,
        golden=_make_golden(golden, scoring) if golden else None,
        overheads=tuple(
            compute_overhead([0.024 + n / 1e4 for n in range(16)], [0.02] * 16, against=name, alpha=0.05)
            for name in rights
            if name != candidate
        ),
        preferences=_make_preferences(len(snapshot.holdout)) if everything else None,
        seeds=seeds,
        race=race,
    )
    return judge_findings(
        found,
        gate or Gate(),
        "classification",
        snapshot_id=snapshot.id,
        held_out=len(snapshot.holdout),
        look=look,
    )


def _make_answers(items: Sequence[ReviewedItem], right: int) -> SideAnswers:
    said = [
        RawAnswer(text=item.gold.content if item.gold and n < right else "no idea", ended=True)
        for n, item in enumerate(items)
    ]
    sure = [
        [0.0 if item.gold and label == item.gold.content and n < right else -2.0 for label in LABELS]
        for n, item in enumerate(items)
    ]
    return SideAnswers(held_out=tuple(said), labels=tuple(map(tuple, sure)))


def _make_retention(items: Sequence[ReviewedItem], scoring: Scorer) -> Any:
    return tuple(score_answers(items, _make_answers(items, right).held_out, scoring) for right in (6, 7))


def _make_golden(cases: Sequence[SFTExample], scoring: Scorer) -> Any:
    """Score golden cases: the live side passes all, the candidate answers the first with HTML."""
    live = [RawAnswer(text=case.completion.content, ended=True) for case in cases]
    return score_golden(cases, live, [RawAnswer(text="<b>a|b</b>\n[c](d)", ended=True), *live[1:]], scoring)


def _make_preferences(pairs: int) -> Preferences:
    preferred = [1, 0, -1] * pairs
    return Preferences(
        model="judge-1", of_pairs=tuple(preferred[:pairs]), asked=pairs, contradicted=0.25, unread=1, calls=9
    )


def make_search(number: int, relevant: int = 1) -> ReviewedRetrieval:
    documents = tuple(
        JudgedDocument(id=f"d{number}-{n}", text=f"document {number}-{n}", relevant=n == relevant)
        for n in range(3)
    )
    return ReviewedRetrieval(
        query=f"query {number}",
        documents=documents,
        source_span_ids=(f"{number:016x}",),
        trace_id=f"{number:032x}",
        prompt_key=f"key {number}",
        started_at=BEGAN + number * MINUTE,
    )


def make_search_report(snapshot: Snapshot, candidate: str, ranks: dict[str, Sequence[int]]) -> Report:
    """Make the report on the sides' ranks of the first relevant document; 0 is none."""
    sides = []
    for name, reached in ranks.items():
        each = [
            QueryRanking(
                item_id=item.id,
                hit=rank == 1,
                recall={1: float(rank == 1), 5: float(0 < rank <= 5), 10: float(0 < rank <= 10)},
                mrr=1 / rank if rank else 0.0,
                ndcg=1 / rank if rank else 0.0,
            )
            for item, rank in zip(snapshot.retrievals, reached, strict=True)
        ]
        sides.append(score_searches(average_rankings(name, each)))
    assert sides[-1].name == candidate
    found = Findings(
        sides=tuple(sides), live="base", sessions={item.id: item.id for item in snapshot.retrievals}
    )
    return judge_findings(
        found, Gate(), "embedding", snapshot_id=snapshot.id, held_out=len(snapshot.retrievals)
    )


def utc(*moment: int) -> datetime:
    return datetime(*moment, tzinfo=UTC)  # type: ignore[misc,arg-type]
