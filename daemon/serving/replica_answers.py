"""Confirm a verdict by the answers of a replica to the held-out prompts, through the route that agents use.

The evaluation's own engine is faster and needs no server; a server is what the agents get.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

from daemon.runtime.child_process import Interrupted
from daemon.runtime.context import TargetContext
from daemon.runtime.locks import Locked, promotion_lock
from daemon.runtime.paths import adapter_folder
from daemon.serving.promotion import LOCK_PATIENCE, PROBES, open_replicas
from evaluation.engine.probe_record import ProbeRecord
from evaluation.metrics.scoring import build_scorer
from evaluation.report import BASE, Report
from evaluation.score_side import RawAnswer, SideAnswers, build_raw_answer, score_side
from evaluation.verdict.findings import Findings
from evaluation.verdict.judge_findings import confirm_by_replica, map_sessions
from extractors.dataset.snapshot import read_snapshot
from extractors.examples.types import ReviewedItem
from extractors.values import Value
from registry.adapter_files import check_adapter_files
from registry.serving.replica import RefusalReason, Replica, ReplicaRefused, ReplicaUnreachable
from registry.serving.swap import NotServed, NotServedYet, bring_up
from registry.store.versions import VersionInUse
from registry.versions import Version
from trainers.job_folder import write_atomically

AT_ONCE = 8
"""How many prompts the replica is asked at the same time."""
UNANSWERED = RawAnswer(text="", ended=False)


class Replies(Value):
    """A replica's answers to the held-out prompts."""

    said: tuple[RawAnswer | None, ...]
    """One answer a prompt; None for a prompt that the replica refuses, such as one that is too long."""
    refusal: str = ""
    """The replica's words for the first refusal."""


def confirm(
    context: TargetContext, candidate: Version, report: Report, snapshot: Path, folder: Path
) -> Report:
    """Return `report` unchanged if a replica's answers lead to the same verdict, else INCONCLUSIVE.

    The candidate is loaded on one replica for that, and unloaded again. A prompt that the replica refuses
    for either side counts as answered wrongly by both. Raises NotServed, NotServedYet, Interrupted, Locked.
    """
    answered = {answer.item_id for answer in report.candidate.answers}
    items = [item for item in read_snapshot(snapshot).holdout if item.id in answered]
    replies = _read_replies(context, candidate, items, (report.live, candidate.id), folder)
    refused = {n for each in replies.values() for n, said in enumerate(each.said) if said is None}
    judged = confirm_by_replica(
        report, _build_findings(context, report, items, replies, refused), context.target.task
    )
    if not refused or judged.served is None:
        return judged
    why = next(each.refusal for each in replies.values() if each.refusal)
    words = (
        f"; the replica refuses {len(refused)} of {len(items)} held-out prompts, which counts as wrong for "
        f"both sides ({why})"
    )
    served = judged.served.model_copy(update={"reason": f"{judged.served.reason}{words}"})
    return judged.model_copy(update={"served": served, "reason": f"{judged.reason}{words}"})


def _build_findings(
    context: TargetContext,
    report: Report,
    items: Sequence[ReviewedItem],
    replies: Mapping[str, Replies],
    refused: set[int],
) -> Findings:
    """Return the report's findings with the replica's answers to the held-out prompts.

    The replica is not asked about older traffic: the report has passed that already.
    """
    labels = [cell.label for cell in report.candidate.labels.classes] if report.candidate.labels else []
    scoring = build_scorer(context.target.task, context.target.output_space, tuple(labels))
    answers = {
        name: SideAnswers(held_out=[UNANSWERED if n in refused else said for n, said in enumerate(each.said)])
        for name, each in replies.items()
    }
    others = {report.sides[0].name, report.live, report.candidate.name}
    return Findings(
        sides=tuple(
            score_side(side.name, items, answers[side.name], scoring) if side.name in answers else side
            for side in report.sides
        ),
        live=report.live,
        waiting=next((side.name for side in report.sides if side.name not in others), None),
        sessions=map_sessions(items),
        weighting=report.weighting,
        rejected_without_correction=report.rejected_without_correction,
        golden=report.golden,
        overheads=report.overheads,
        preferences=report.preferences,
        no_judge=report.no_judge,
    )


def _read_replies(
    context: TargetContext,
    candidate: Version,
    items: Sequence[ReviewedItem],
    names: Sequence[str],
    folder: Path,
) -> dict[str, Replies]:
    """Return the replica's answers by side. Those that an earlier run has written to files are read again."""
    kept = {name: folder / f"replies-{number}.json" for number, name in enumerate(names)}
    missing = {name: path for name, path in kept.items() if not path.exists()}
    if missing:
        with ExitStack() as stack:
            replica = _load(context, candidate, stack)
            for name, path in missing.items():
                write_atomically(path, _ask(context, replica, candidate, name, items).model_dump_json())
    return {name: Replies.model_validate_json(path.read_text("utf-8")) for name, path in kept.items()}


def _load(context: TargetContext, candidate: Version, stack: ExitStack) -> Replica:
    """Load the candidate on a replica until `stack` ends.

    Raises NotServed, NotServedYet, Locked, AdapterChanged.
    """
    folder = adapter_folder(context.data_dir, candidate)
    check_adapter_files(folder, candidate.files)
    record = ProbeRecord.model_validate_json((folder / PROBES).read_text("utf-8"))
    # Only for this: to have all prompts answered takes long, and an operator may want to roll back.
    with promotion_lock(context.data_dir, context.target.key, LOCK_PATIENCE):
        replica = _first_healthy(candidate, open_replicas(context.settings, context.target, stack))
        stack.callback(_unload, context, replica, candidate.id)
        context.store.want(candidate.id)
        bring_up([replica], candidate.id, folder, record)
    return replica


def _unload(context: TargetContext, replica: Replica, version_id: str) -> None:
    """Take the candidate down, unless an operator has activated it or is about to."""
    # Where it cannot be unloaded now, the reconciler does it later.
    with (
        suppress(Locked, VersionInUse, ReplicaUnreachable, ReplicaRefused),
        promotion_lock(context.data_dir, context.target.key),
    ):
        context.store.unwant(version_id)
        replica.unload(version_id)


def _first_healthy(candidate: Version, replicas: Sequence[Replica]) -> Replica:
    healthy = next((replica for replica in replicas if replica.is_healthy()), None)
    if healthy is None:
        raise NotServedYet(
            candidate.id,
            {replica.name: ReplicaUnreachable("does not answer") for replica in replicas},
        )
    return healthy


def _ask(
    context: TargetContext, replica: Replica, candidate: Version, side: str, items: Sequence[ReviewedItem]
) -> Replies:
    """Ask the replica for a side's answers to the items. Raises NotServed, NotServedYet, Interrupted."""
    model, limit = replica.base_name if side == BASE else side, context.target.max_new_tokens

    def ask_one(item: ReviewedItem) -> RawAnswer | str:
        """Return the answer, or the words of a refusal."""
        if context.stop.is_set():
            raise Interrupted("stopped while a replica was asked; the next start asks it again")
        messages = [message.to_chat() for message in item.prompt]
        try:
            reply = replica.answer(model, messages, tools=item.tools, max_tokens=limit)
        except ReplicaRefused as refused:
            if refused.why is not RefusalReason.OTHER:
                raise
            return str(refused)
        return build_raw_answer(reply.text, ended=reply.ended)

    try:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            answers = tuple(pool.map(ask_one, items))
    except (ReplicaUnreachable, ReplicaRefused) as problem:
        # A replica that was restarted has lost the adapter.
        gone = isinstance(problem, ReplicaUnreachable) or problem.why is RefusalReason.UNKNOWN_MODEL
        raise (NotServedYet if gone else NotServed)(candidate.id, {replica.name: problem}) from problem
    return Replies(
        said=tuple(None if isinstance(answer, str) else answer for answer in answers),
        refusal=next((answer for answer in answers if isinstance(answer, str)), ""),
    )
