"""What a replica answers to held-out prompts, through the route that agents use, and whether that agrees.

The evaluation's own engine is faster and needs no server; a server is what the agents get.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

from daemon.locks import promotion_lock
from daemon.loop import Loop
from daemon.promotion import LOCK_PATIENCE, PROBES, adapter_folder, open_replicas
from evaluation.job import BASE
from evaluation.judging import Findings, confirmed, sessions_of
from evaluation.probes import ProbeRecord
from evaluation.report import Report
from evaluation.scoring import scorer
from evaluation.sides import Heard, Said, score_side
from extractors.examples import ReviewedItem
from extractors.snapshot import read_snapshot
from registry.serving.replica import Replica, ReplicaRefused, ReplicaUnreachable
from registry.serving.swap import NotServedYet, bring_up
from registry.versions import Version
from trainers.child import write_whole

AT_ONCE = 8
"""Prompts that the replica is asked at the same time."""
SERVED = "served"


def confirm(loop: Loop, candidate: Version, report: Report, snapshot: Path, folder: Path) -> Report:
    """`report`, as it stands where a replica's answers lead to the same verdict, INCONCLUSIVE where not.

    The candidate is loaded for that on one replica, and unloaded again. Raises NotServed, NotServedYet.
    """
    answered = {answer.item_id for answer in report.candidate.answers}
    items = [item for item in read_snapshot(snapshot).holdout if item.id in answered]
    heard = _heard(loop, candidate, items, (report.live, candidate.id), folder)
    labels = [cell.label for cell in report.candidate.labels.classes] if report.candidate.labels else []
    scoring = scorer(loop.target.task, loop.target.output_space, tuple(labels))
    sides = tuple(score_side(name, items, each, scoring) for name, each in heard.items())
    found = Findings(sides=sides, live=report.live, sessions=sessions_of(items), weighting=report.weighting)
    return confirmed(report, found, loop.target.task)


def _heard(
    loop: Loop, candidate: Version, items: Sequence[ReviewedItem], names: Sequence[str], folder: Path
) -> dict[str, Heard]:
    """The replica's answers by side, from files where an earlier run got that far."""
    kept = {name: folder / f"{SERVED}-{number}.json" for number, name in enumerate(names)}
    if not all(path.exists() for path in kept.values()):
        target = loop.target
        with promotion_lock(loop.data_dir, target.slug, LOCK_PATIENCE), ExitStack() as stack:
            replica = _first_healthy(candidate, open_replicas(loop.settings, target, stack))
            loop.store.want(candidate.id)
            try:
                adapter = adapter_folder(loop.data_dir, candidate)
                record = ProbeRecord.model_validate_json((adapter / PROBES).read_text("utf-8"))
                bring_up([replica], candidate.id, adapter, record)
                for name, path in kept.items():
                    said = _ask(replica, name, items, target.max_new_tokens)
                    write_whole(path, Heard(held_out=said).model_dump_json())
            finally:
                loop.store.unwant(candidate.id)
                # Where it cannot now, the reconciler unloads it later.
                with suppress(ReplicaUnreachable, ReplicaRefused):
                    replica.unload(candidate.id)
    return {name: Heard.model_validate_json(path.read_text("utf-8")) for name, path in kept.items()}


def _first_healthy(candidate: Version, replicas: Sequence[Replica]) -> Replica:
    healthy = next((replica for replica in replicas if replica.healthy()), None)
    if healthy is None:
        raise NotServedYet(
            candidate.id,
            {replica.name: ReplicaUnreachable("does not answer") for replica in replicas},
        )
    return healthy


def _ask(replica: Replica, side: str, items: Sequence[ReviewedItem], limit: int) -> tuple[Said, ...]:
    model = replica.base_name if side == BASE else side

    def answered(item: ReviewedItem) -> Said:
        messages = [message.to_chat() for message in item.prompt]
        reply = replica.answer(model, messages, tools=item.tools, max_tokens=limit)
        return Said(text=reply.text, ended=reply.ended)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return tuple(pool.map(answered, items))
