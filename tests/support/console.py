"""A daemon with a past to look at: cycles with reports and curves, versions, traffic, batches."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import tomli_w
from argon2 import PasswordHasher

from daemon.demo.servers import find_free_port, run_server
from daemon.scheduling.probation import SECOND_LOOK
from daemon.settings.load import Settings, load_settings
from evaluation.report import Report
from evaluation.validation_side import count_sessions
from extractors.dataset.second_look import build_fresh_snapshot
from extractors.dataset.snapshot import OutcomeCounts, Snapshot, read_snapshot, write_snapshot
from extractors.examples.prompt_keys import compute_prompt_key
from extractors.examples.types import Examples, Message, ReviewedItem, ReviewedRetrieval, SFTExample
from extractors.phoenix.mirror import MirrorChange, MirrorState
from extractors.synthesis.recipes import SyntheticKind
from extractors.values import file_digest
from registry.batches import Batch, BatchProvenance, Proposal
from registry.cycles import Cycle, CycleCounts, CycleState, IllegalTransition, ReviewedCounts, StageResult
from registry.store.store import Store
from registry.versions import Candidate, Version, VersionState
from tests.support.audited_traffic import build_reviewed_traffic
from tests.support.console_reports import (
    EVIL,
    LABELS,
    Model,
    build_extraction_report,
    build_old_report,
    build_routing_report,
    build_search_report,
    build_searches,
    build_traffic_like,
    build_writing_report,
)
from tests.support.phoenix import wait_until
from tests.support.runs import ON_TOP, write_race_progress
from tests.support.snapshots import make_example, make_item, make_snapshot
from tests.support.traffic import annotation, correction, openinference, span
from trainers.planning.apply_rules import BaseModelInfo, MethodSettings, TrainingPreferences, choose_method
from trainers.planning.method_rules import Readiness, Task, Thresholds
from trainers.planning.plan import Plan

PASSWORD = "correct horse battery staple"
TOKEN = "a-token-of-ann"
# A cheap one: the tests are not about how long argon2 takes.
HASH = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash(PASSWORD)
ROUTING, SEARCH, SUPPORT, INVOICES = "acme/routing", "acme/search", "acme/support", "acme/invoices"
QUESTIONS = {
    "shipping": "my parcel {} never came",
    "billing": "invoice {} was charged twice",
    "returns": "send kettle {} back",
    "account": "close account {}",
}
FIGURES = {
    "examples": 80,
    "steps": 30,
    "best_step": 30,
    "seconds": 71.0,
    "tokens_per_second": 5200.0,
    "peak_memory_bytes": 2**31,
}
S = CycleState
ASKED = [(f"where is parcel {n} with the kettle", "shipping") for n in range(80)]


@dataclass(frozen=True)
class RunningDaemon:
    """A daemon that runs, and its store, which a test may also write to."""

    url: str
    store: Store
    settings: Settings


@contextmanager
def run_daemon_with_a_past(folder: Path) -> Iterator[RunningDaemon]:
    """Run `learnd run` over what `fill` writes, without a Phoenix."""
    port = find_free_port()
    config = folder / "learnd.toml"
    config.write_text(tomli_w.dumps(_build_settings(port)), "utf-8")
    settings = load_settings(config)
    env = {f"LEARND_OPERATORS__USERS__{name}__PASSWORD_HASH": HASH for name in ("ANN", "BOB", "VIC")}
    env["LEARND_OPERATORS__TOKENS"] = json.dumps({TOKEN: "ann"})
    with Store.open(settings.data_dir, datetime.now(UTC)) as store:
        fill(store, settings.data_dir)
        command = [sys.executable, "-m", "learnd", "run", "--config", str(config)]
        url, log = f"http://127.0.0.1:{port}", folder / "daemon.log"
        with run_server(
            command, health_url=f"{url}/healthz", log=log, env={**os.environ, **env}, start_seconds=60
        ):
            yield RunningDaemon(url, store, settings)


def _build_settings(port: int) -> dict[str, Any]:
    target = {"tenant": "acme", "project": "p", "base_model": "none"}
    return {
        "data_dir": "data",
        "daemon": {"port": port},
        "phoenix": {"url": "http://127.0.0.1:9", "browser_url": "https://phoenix.example.com"},
        "operators": {"users": {"ann": {}, "bob": {}, "vic": {"role": "viewer"}}},
        "targets": [
            {**target, "agent": "routing", "task": "classification", "output_space": list(LABELS)},
            {**target, "agent": "search", "task": "embedding"},
            {
                **target,
                "agent": "support",
                "task": "generation",
                "holdout": {"share": 0.01, "least": 1, "validation_share": 0.0},
            },
            {**target, "agent": "invoices", "task": "extraction"},
        ],
    }


def fill(store: Store, data: Path) -> None:
    """Fill the store with targets that have a past: all verdicts, versions in every state, traffic."""
    began = datetime.now(UTC) - timedelta(days=9)
    _fill_routing(Past(store, data, ROUTING, "classification", _build_routing_snapshot(), began))
    _fill_search(Past(store, data, SEARCH, "embedding", _build_search_snapshot(), began))
    _fill_support(Past(store, data, SUPPORT, "generation", _build_support_snapshot(), began))
    _fill_invoices(Past(store, data, INVOICES, "extraction", _build_invoices_snapshot(), began))
    store.apply_mirror(ROUTING, _build_traffic(), began)
    store.apply_mirror(SUPPORT, build_reviewed_traffic(), began)


def _fill_routing(past: "Past") -> None:
    """Add a version that is live, one that breaks a golden case, and a cycle that failed during a race."""
    base, snapshot = Model("base", 5, ms=20, breaks=(1, 3)), past.snapshot
    past.add_cycle(lambda name: build_routing_report(snapshot, base, Model(name, 60, ms=24, breaks=(3,))))
    live = Model(past.versions[0], 60, ms=24, breaks=(3,))
    sample = build_traffic_like(snapshot.holdout, rarely=live.name, times=4)
    past.add_cycle(
        lambda name: build_routing_report(
            snapshot, live, Model(name, 68, ms=26, breaks=(2, 3), retains=0.8), base, traffic=sample
        )
    )
    store, at = past.store, past.go_to_next_day()
    failed = store.start_cycle(ROUTING, "schedule", at)
    why = f"the redactor refused: {EVIL}"
    store.advance_cycle(failed.id, CycleState.EXTRACTING, CycleState.FAILED, at, reason=why)
    write_race_progress(past.data / "runs" / ROUTING.replace("/", ".") / failed.id / "race", at)


def _fill_search(past: "Past") -> None:
    """Add a version with an old report, which says little, and one that waits for an operator."""
    base, snapshot = Model("base", 20), past.snapshot
    past.add_cycle(lambda name: build_old_report(build_search_report(snapshot, base, Model(name, 52))))
    live = Model(past.versions[0], 52)
    past.add_cycle(lambda name: build_search_report(snapshot, live, Model(name, 80)), manual=True)
    newest = past.store.cycles(SEARCH)[0]
    past.store.mark_published(newest.id, past.at, "/datasets/1/compare?experimentId=2")


def _fill_support(past: "Past") -> None:
    """Add a version that went live after probation, and one that won a race and is on probation."""
    base, snapshot = Model("base", 20), past.snapshot
    past.add_cycle(lambda name: build_writing_report(snapshot, base, Model(name, 27)))
    newer = build_fresh_snapshot(_build_support_items(160, first=1000), snapshot, past.at)
    past.add_second_look(
        newer, lambda name: build_writing_report(newer, base, Model(name, 64), look="second")
    )
    live = Model(past.versions[0], 27)
    past.add_cycle(
        lambda name: build_writing_report(snapshot, live, Model(name, 42), base, judged=True), raced=True
    )


def _fill_invoices(past: "Past") -> None:
    """Add a version that too few items were held out to judge."""
    base, snapshot = Model("base", 6), past.snapshot
    past.add_cycle(lambda name: build_extraction_report(snapshot, base, Model(name, 7)))


def add_waiting_batch(
    store: Store, *questions: str, kind: SyntheticKind = "sft", target: str = ROUTING, demonstrations: int = 2
) -> Batch:
    """Add a batch of routing questions that waits, made from examples of the snapshot."""
    cycle = _add_skipped_cycle(store, target)
    now = datetime.now(UTC)
    shown = tuple(make_example(n, ASKED[n]).id for n in range(demonstrations))
    proposals = [
        Proposal(
            example=_build_synthetic(question, LABELS[n % 2], now).model_dump(mode="json"),
            diversity=0.5,
            demonstrations=shown,
        )
        for n, question in enumerate(questions)
    ]
    provenance = BatchProvenance(model="smollm2", program="learnd.synthetic 1", demonstrations=shown, seed=7)
    need = "30 of 50 approved or corrected answers"
    return store.add_batch(
        cycle.id, target, kind, need, provenance, proposals, now=now, expires_at=now + timedelta(days=7)
    )


def _add_skipped_cycle(store: Store, target: str) -> Cycle:
    """Add a cycle that found too little data; another one, where the running daemon took the first."""
    # The first of the past: cycles of the daemon itself have snapshots without the past's examples.
    snapshot_id = next(each.snapshot_id for each in reversed(store.cycles(target)) if each.snapshot_id)
    reason = "30 of 50 approved or corrected answers"
    while True:
        # The daemon may be at work on the target, after a batch that was decided before.
        wait_until(lambda: not store.find_unfinished_cycles(), 30, "the cycle under way to end")
        now = datetime.now(UTC)
        cycle = store.start_cycle(target, "operator", now)
        try:
            store.advance_cycle(
                cycle.id, CycleState.EXTRACTING, CycleState.SELECTING, now, snapshot_id=snapshot_id
            )
            store.advance_cycle(cycle.id, CycleState.SELECTING, CycleState.SKIPPED, now, reason=reason)
        except IllegalTransition:
            continue
        return cycle


def _build_synthetic(question: str, label: str, now: datetime) -> SFTExample:
    prompt = (Message(role="system", content="Route."), Message(role="user", content=question))
    said = Message(role="assistant", content=label)
    return SFTExample(
        prompt=prompt,
        completion=said,
        prompt_key=compute_prompt_key(prompt),
        origin="synthetic",
        started_at=now,
    )


def _build_routing_snapshot() -> Snapshot:
    train = Examples(sft=tuple(make_example(n, asked) for n, asked in enumerate(ASKED)))
    questions = [(words.format(n), label) for n in range(18) for label, words in QUESTIONS.items()][:70]
    held_out = [
        make_item(100 + n, each) for n, each in enumerate([*questions, (f"parcel {EVIL}", "shipping")])
    ]
    return _build_snapshot(
        train,
        holdout=tuple(
            # Every tenth call goes on with the conversation before it.
            item.model_copy(
                update={
                    "session_id": f"s{n - (n % 10 == 9)}",
                    "answered_by": "acme.routing.v1" if n < 40 else None,
                }
            )
            for n, item in enumerate(held_out)
        ),
    )


def _build_search_snapshot() -> Snapshot:
    train = Examples(sft=tuple(make_example(2000 + n, asked) for n, asked in enumerate(ASKED)))
    return _build_snapshot(train, retrievals=build_searches(80))


def _build_support_snapshot() -> Snapshot:
    train = Examples(sft=tuple(make_example(3000 + n, asked) for n, asked in enumerate(ASKED)))
    return _build_snapshot(train, holdout=tuple(_build_support_items(80)))


def _build_support_items(n: int, *, first: int = 0) -> list[ReviewedItem]:
    return [
        make_item(
            first + number,
            (
                f"how do I clean kettle {number}?",
                f"Fill kettle {number} with water and vinegar, and boil it.",
            ),
        )
        for number in range(first, first + n)
    ]


def _build_invoices_snapshot() -> Snapshot:
    train = Examples(sft=tuple(make_example(4000 + n, asked) for n, asked in enumerate(ASKED)))
    return _build_snapshot(
        train,
        holdout=tuple(
            make_item(n, (f"Invoice {n} of Kettle & Sons: {n}0 euros", f'{{"number": {n}, "amount": {n}0}}'))
            for n in range(1, 13)
        ),
    )


def _build_snapshot(
    train: Examples,
    holdout: tuple[ReviewedItem, ...] = (),
    retrievals: tuple[ReviewedRetrieval, ...] = (),
) -> Snapshot:
    with TemporaryDirectory() as folder:
        made = read_snapshot(make_snapshot(Path(folder), train, holdout=holdout))
    outcomes = OutcomeCounts(approved=0, corrected=len(holdout) + len(retrievals), rejected=0)
    manifest = made.manifest.model_copy(
        update={"held_out": outcomes, "reviewed": outcomes, "holdout": len(holdout) + len(retrievals)}
    )
    return made.model_copy(update={"manifest": manifest, "retrievals": retrievals})


@dataclass
class Past:
    """The past of one target, which grows by a day with each cycle."""

    store: Store
    data: Path
    target: str
    task: Task
    snapshot: Snapshot
    at: datetime

    @property
    def versions(self) -> list[str]:
        return [version.id for version in self.store.versions(self.target)]

    def go_to_next_day(self) -> datetime:
        self.at += timedelta(days=1)
        return self.at

    def add_cycle(
        self, build_report: Callable[[str], Report], *, manual: bool = False, raced: bool = False
    ) -> None:
        """Add a cycle that trains a version, and ends as the report on it says, built from its name."""
        store, at, snapshot = self.store, self.go_to_next_day(), self.snapshot
        write_snapshot(snapshot, self._snapshots)
        cycle = store.start_cycle(self.target, "new examples", at)
        counted = {
            "train": snapshot.manifest.train,
            "validation": snapshot.manifest.validation,
            "holdout": snapshot.manifest.holdout,
            "reviewed": {"approved": 60, "corrected": 90, "rejected": 1},
            "dropped": {"no feedback that counts reached this call": 12},
            "left_out": {},
        }
        step = store.advance_cycle
        step(
            cycle.id,
            S.EXTRACTING,
            S.SELECTING,
            at,
            snapshot_id=snapshot.id,
            counts=CycleCounts.model_validate(counted),
        )
        plan = _build_plan(snapshot)
        if raced:
            # As the cycle has it afterwards: the winner's.
            plan = plan.model_copy(update={"name": ON_TOP, "raced": True, "no_race": ""})
        step(cycle.id, S.SELECTING, S.TRAINING, at, plan=plan)
        _write_curves(self.data, cycle, raced=raced)
        version = _add_candidate(store, self.data, cycle, plan)
        trained = (StageResult(method="sft", figures=FIGURES),)
        step(cycle.id, S.TRAINING, S.EVALUATING, at, version_id=version.id, training=trained)
        self._judge(cycle, version, build_report(version.id), manual=manual)

    def add_second_look(self, newer: Snapshot, build_report: Callable[[str], Report]) -> None:
        """Add a second look at the newest version."""
        store, at, version = self.store, self.go_to_next_day(), self.store.versions(self.target)[-1]
        write_snapshot(newer, self._snapshots)
        cycle = store.start_cycle(self.target, SECOND_LOOK, at, version_id=version.id)
        counts = CycleCounts(
            holdout=newer.manifest.holdout, reviewed=ReviewedCounts(corrected=newer.manifest.holdout)
        )
        store.advance_cycle(cycle.id, S.EXTRACTING, S.EVALUATING, at, snapshot_id=newer.id, counts=counts)
        self._judge(cycle, version, build_report(version.id))

    @property
    def _snapshots(self) -> Path:
        return self.data / "snapshots" / self.target.replace("/", ".")

    def _judge(self, cycle: Cycle, version: Version, report: Report, *, manual: bool = False) -> None:
        store, at, live = self.store, self.at, self.store.find_active_version(self.target)
        judged = {"report": report, "verdict": report.verdict, "reason": report.reason}
        if report.verdict == "PROMOTE":
            store.advance_cycle(cycle.id, S.EVALUATING, S.PROMOTING, at, **judged)
            if manual:
                store.judge(version.id, VersionState.READY, now=at, actor="learnd", reason=report.reason)
            else:
                store.activate(
                    version.id,
                    expected_active=live.id if live else None,
                    drain_until=at,
                    now=at,
                    actor="learnd",
                    reason=report.reason,
                )
            store.advance_cycle(cycle.id, S.PROMOTING, S.DONE, at, reason=report.reason)
            return
        became = VersionState.PROBATION if report.verdict == "PROBATION" else VersionState.REJECTED
        store.judge(version.id, became, now=at, actor="learnd", reason=report.reason)
        store.advance_cycle(cycle.id, S.EVALUATING, S.DONE, at, **judged)


def _build_plan(snapshot: Snapshot) -> Plan:
    settings = MethodSettings(
        task="classification",
        thresholds=Thresholds(),
        base=BaseModelInfo(name="none", digest="base1", bytes=2**28),
        preferences=TrainingPreferences(max_lora_rank=16),
    )
    unmeasured = Readiness(asked=0, valid=0, settled=0)
    plan = choose_method(
        snapshot, settings, live=None, measure_live=lambda: unmeasured, sessions=count_sessions(snapshot)
    ).plan
    assert isinstance(plan, Plan)
    return plan


def _add_candidate(store: Store, data: Path, cycle: Cycle, plan: Plan) -> Version:
    path = f"adapters/{cycle.target.replace('/', '.')}/{cycle.id}"
    folder = data / path
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(cycle.id.encode())
    return store.add_candidate(
        cycle.id,
        Candidate(
            path=path,
            files={"adapter_model.safetensors": file_digest(folder / "adapter_model.safetensors")},
            base_model="none",
            base_digest="base1",
            rank=plan.lora_rank,
            snapshot_id=plan.snapshot_id,
            plan_id=plan.id,
            parent_id=None,
            code_version="0.1.0",
        ),
        cycle.started_at,
    )


def _write_curves(data: Path, cycle: Cycle, *, raced: bool) -> None:
    run = data / "runs" / cycle.target.replace("/", ".") / cycle.id
    if raced:
        write_race_progress(run / "race", cycle.started_at)
        return
    folder = run / "train-0"
    folder.mkdir(parents=True)
    at = cycle.started_at.isoformat()
    lines: list[dict[str, Any]] = [{"at": at, "stage": "loading"}]
    for number in range(1, 31):
        lines.append(
            {"at": at, "stage": "training", "step": number, "total": 30, "loss": 3 * 0.9**number + 0.2}
        )
        if number % 10 == 0:
            lines.append(
                {"at": at, "stage": "validating", "step": number, "validation_loss": 3 * 0.92**number}
            )
    (folder / "progress.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")


def _build_traffic() -> MirrorChange:
    """Calls that were corrected, and some that nobody looked at; one of them means harm."""
    spans = [
        span(
            f"{n:016x}", minute=n, attributes=openinference(("user", f"parcel {n} {EVIL if n == 0 else ''}"))
        )
        for n in range(20)
    ]
    said = [annotation(each.span_id, "rejected") for each in spans[:12]]
    said += [correction(each.span_id) for each in spans[:12]]
    said.append(annotation(spans[-1].span_id, "thumbs_sideways"))
    return MirrorChange(state=MirrorState(), spans=tuple(spans), annotations=tuple(said))
