"""A daemon with a past to look at: cycles with reports and curves, versions, traffic, batches."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import tomli_w
from argon2 import PasswordHasher

from daemon.demo.servers import free_port, server
from daemon.settings import Settings, load_settings
from evaluation.comparison import compare
from evaluation.report import Answer, Report, Side, Verdict
from extractors.examples import Examples, Message, SFTExample
from extractors.mirror import MirrorChange, MirrorState
from extractors.recipes import SyntheticKind
from extractors.snapshot import Snapshot, read_snapshot
from extractors.text import prompt_key
from extractors.values import file_digest
from registry.batches import Batch, Proposal, Provenance
from registry.cycles import Cycle, CycleState, Trained
from registry.store.store import Store
from registry.versions import Version, VersionState
from tests.phoenix_support import wait_until
from tests.snapshots import reviewed, snapshot_in, taught
from tests.unit.traffic import annotation, correction, openinference, span
from trainers.plan import Plan
from trainers.selection import Answered, Base, Thresholds, Wanted, choose

PASSWORD = "correct horse battery staple"
# A cheap one: what is looked at is not how long argon2 takes.
HASH = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash(PASSWORD)
ROUTING, SEARCH = "acme/routing", "acme/search"
LABELS = ("billing", "shipping")
EVIL = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'> ${alert(1)} `x`"
ASKED = [(f"where is parcel {n} with the kettle", "shipping") for n in range(80)]


@dataclass(frozen=True)
class Running:
    """A daemon that runs, and its store, which a test may write to beside it."""

    url: str
    store: Store
    settings: Settings


@contextmanager
def daemon_with_a_past(folder: Path) -> Iterator[Running]:
    """`learnd run` over what `fill` writes; Phoenix is not there."""
    port = free_port()
    config = folder / "learnd.toml"
    config.write_text(tomli_w.dumps(_document(port)), "utf-8")
    settings = load_settings(config)
    env = {f"LEARND_OPERATORS__USERS__{name}__PASSWORD_HASH": HASH for name in ("ANN", "BOB", "VIC")}
    with Store.open(settings.data_dir, datetime.now(UTC)) as store:
        fill(store, settings.data_dir)
        command = [sys.executable, "-m", "learnd", "run", "--config", str(config)]
        url, log = f"http://127.0.0.1:{port}", folder / "daemon.log"
        with server(
            command, health_url=f"{url}/healthz", log=log, env={**os.environ, **env}, start_seconds=60
        ):
            yield Running(url, store, settings)


def _document(port: int) -> dict[str, Any]:
    target = {"tenant": "acme", "project": "p", "base_model": "none"}
    return {
        "data_dir": "data",
        "daemon": {"port": port},
        "phoenix": {"url": "http://127.0.0.1:9", "browser_url": "https://phoenix.example.com"},
        "operators": {"users": {"ann": {}, "bob": {}, "vic": {"role": "viewer"}}},
        "targets": [
            {**target, "agent": "routing", "task": "classification", "output_space": list(LABELS)},
            {**target, "agent": "search", "task": "embedding"},
        ],
    }


def fill(store: Store, data: Path) -> None:
    """A promoted and a rejected cycle, one that failed, versions to choose from, traffic, and its review."""
    began = datetime.now(UTC) - timedelta(days=3)
    snapshot = _snapshot(data)
    first = _cycle(store, data, ROUTING, began, snapshot, right=60, verdict="PROMOTE")
    _promote(store, first, None, began + timedelta(hours=1))
    _cycle(store, data, ROUTING, began + timedelta(days=1), snapshot, right=55, verdict="REJECT")
    failed = store.start_cycle(ROUTING, "schedule", began + timedelta(days=2))
    store.advance_cycle(
        failed.id,
        CycleState.EXTRACTING,
        CycleState.FAILED,
        began + timedelta(days=2),
        reason=f"the redactor refused: {EVIL}",
    )
    old = _cycle(store, data, SEARCH, began, snapshot, right=50, verdict="PROMOTE")
    _promote(store, old, None, began + timedelta(hours=1))
    newer = _cycle(store, data, SEARCH, began + timedelta(days=1), snapshot, right=60, verdict="PROMOTE")
    store.judge(newer.id, VersionState.READY, now=began + timedelta(days=1), actor="learnd", reason="better")
    store.apply_mirror(ROUTING, _traffic(), began)


def waiting_batch(
    store: Store, *questions: str, kind: SyntheticKind = "sft", target: str = ROUTING, demonstrations: int = 2
) -> Batch:
    """A batch of routing questions that waits, made from examples of the snapshot."""
    # A batch that was decided before may have the daemon at work on the target right now.
    wait_until(lambda: not store.unfinished_cycles(), 30, "the cycle under way to end")
    now = datetime.now(UTC)
    cycle = store.start_cycle(target, "operator", now)
    snapshot_id = next(each.snapshot_id for each in store.cycles(target) if each.snapshot_id is not None)
    store.advance_cycle(cycle.id, CycleState.EXTRACTING, CycleState.SELECTING, now, snapshot_id=snapshot_id)
    store.advance_cycle(
        cycle.id,
        CycleState.SELECTING,
        CycleState.SKIPPED,
        now,
        reason="30 of 50 approved or corrected answers",
    )
    shown = tuple(taught(n, ASKED[n]).id for n in range(demonstrations))
    proposals = [
        Proposal(
            example=_synthetic(question, LABELS[n % 2], now).model_dump(mode="json"),
            diversity=0.5,
            demonstrations=shown,
        )
        for n, question in enumerate(questions)
    ]
    provenance = Provenance(model="smollm2", program="learnd.synthetic 1", demonstrations=shown, seed=7)
    need = "30 of 50 approved or corrected answers"
    return store.add_batch(
        cycle.id, target, kind, need, provenance, proposals, now=now, expires_at=now + timedelta(days=7)
    )


def _synthetic(question: str, label: str, now: datetime) -> SFTExample:
    prompt = (Message(role="system", content="Route."), Message(role="user", content=question))
    said = Message(role="assistant", content=label)
    return SFTExample(
        prompt=prompt, completion=said, prompt_key=prompt_key(prompt), origin="synthetic", started_at=now
    )


def _snapshot(data: Path) -> Snapshot:
    train = Examples(sft=tuple(taught(n, asked) for n, asked in enumerate(ASKED)))
    held_out = [reviewed(100 + n, (f"my parcel {n} never came", "shipping")) for n in range(70)]
    held_out.append(reviewed(300, (f"my parcel {EVIL}", "shipping")))
    made = snapshot_in(data / "snapshots" / "acme.routing", train, holdout=held_out)
    snapshot = read_snapshot(made)
    held = snapshot.manifest.held_out.model_copy(update={"corrected": len(held_out)})
    return snapshot.model_copy(update={"manifest": snapshot.manifest.model_copy(update={"held_out": held})})


def _cycle(
    store: Store, data: Path, target: str, at: datetime, snapshot: Snapshot, *, right: int, verdict: Verdict
) -> Version:
    cycle = store.start_cycle(target, "new examples", at)
    counts = {
        "train": snapshot.manifest.train,
        "validation": snapshot.manifest.validation,
        "holdout": snapshot.manifest.holdout,
        "reviewed": {"approved": 60, "corrected": 90, "rejected": 1},
        "dropped": {"no feedback that counts reached this call": 12},
        "left_out": {},
    }
    step = store.advance_cycle
    step(cycle.id, CycleState.EXTRACTING, CycleState.SELECTING, at, snapshot_id=snapshot.id, counts=counts)
    plan = _plan(snapshot)
    step(cycle.id, CycleState.SELECTING, CycleState.TRAINING, at, plan=plan)
    _curves(data, cycle)
    version = _candidate(store, data, cycle, plan)
    figures = {"examples": 80, "steps": 30, "best_step": 30, "seconds": 71.0, "tokens_per_second": 5200.0}
    step(
        cycle.id,
        CycleState.TRAINING,
        CycleState.EVALUATING,
        at,
        version_id=version.id,
        training=(Trained(method="sft", figures={**figures, "peak_memory_bytes": 2**31}),),
    )
    report = _report(snapshot, version, right, verdict)
    judged = {"report": report, "verdict": verdict, "reason": report.reason}
    if verdict == "PROMOTE":
        step(cycle.id, CycleState.EVALUATING, CycleState.PROMOTING, at, **judged)
        step(cycle.id, CycleState.PROMOTING, CycleState.DONE, at, reason=report.reason)
    else:
        store.judge(version.id, VersionState.REJECTED, now=at, actor="learnd", reason=report.reason)
        step(cycle.id, CycleState.EVALUATING, CycleState.DONE, at, **judged)
    return store.version(version.id)


def _plan(snapshot: Snapshot) -> Plan:
    plan = choose(
        snapshot,
        "classification",
        Thresholds(),
        Base(name="none", digest="base1", bytes=2**28),
        Wanted(max_lora_rank=16),
        live=None,
        live_answers=lambda: Answered(asked=0, valid=0, settled=0),
    ).plan
    assert isinstance(plan, Plan)
    return plan


def _candidate(store: Store, data: Path, cycle: Cycle, plan: Plan) -> Version:
    path = f"adapters/{cycle.target.replace('/', '.')}/{cycle.id}"
    folder = data / path
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(cycle.id.encode())
    return store.add_candidate(
        cycle.id,
        path=path,
        files={"adapter_model.safetensors": file_digest(folder / "adapter_model.safetensors")},
        base_model="none",
        base_digest="base1",
        rank=plan.lora_rank,
        snapshot_id=plan.snapshot_id,
        plan_id=plan.id,
        parent_id=None,
        code_version="0.1.0",
        now=cycle.started_at,
    )


def _curves(data: Path, cycle: Cycle) -> None:
    folder = data / "runs" / cycle.target.replace("/", ".") / cycle.id / "train-0"
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


def _report(snapshot: Snapshot, version: Version, right: int, verdict: Verdict) -> Report:
    items = snapshot.holdout
    base = _side("base", [(item.id, n < 5) for n, item in enumerate(items)])
    made = _side(version.id, [(item.id, n < right) for n, item in enumerate(items)])
    correct = [[bool(answer.correct) for answer in side.answers] for side in (made, base)]
    compared = compare(*correct, against="base", sessions=range(len(items)), alpha=0.05)
    return Report(
        snapshot_id=snapshot.id,
        holdout_size=len(items),
        gold_size=len(items),
        rejected_without_correction=0,
        sides=(base, made),
        comparisons=(compared,),
        live="base",
        verdict=verdict,
        reason=f"the candidate is right on {right} of {len(items)}, base on 5 (p = {compared.p_value:.2g})",
        regression=False,
    )


def _side(name: str, judged: list[tuple[str, bool]]) -> Side:
    answers = tuple(
        Answer(item_id=item_id, text="shipping" if right else EVIL, correct=right, valid=right)
        for item_id, right in judged
    )
    share = sum(right for _, right in judged) / len(judged)
    return Side(
        name=name, accuracy=share, valid_rate=share, latency_ms=21.0, repeated_rejected=0, answers=answers
    )


def _promote(store: Store, version: Version, over: str | None, at: datetime) -> None:
    store.activate(
        version.id, expected_active=over, drain_until=at, now=at, actor="learnd", reason="proven better"
    )


def _traffic() -> MirrorChange:
    """Calls that were corrected, and some that nobody looked at; one of them means harm."""
    spans = [
        span(
            f"{n:016x}", minute=n, attributes=openinference(("user", f"parcel {n} {EVIL if n == 0 else ''}"))
        )
        for n in range(20)
    ]
    said = [annotation(each.span_id, "rejected") for each in spans[:12]]
    said += [correction(each.span_id) for each in spans[:12]]
    return MirrorChange(state=MirrorState(), spans=tuple(spans), annotations=tuple(said))
