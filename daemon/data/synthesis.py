"""Synthetic examples for a target with too little data, written by a language model and read by a person.

The cycle that lacks examples starts a child that writes and screens proposals, puts them into a batch that
waits for an operator, and ends: a batch that nobody has read never delays real feedback.
"""

import math
import os
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daemon.data.imports import read_golden_cases
from daemon.runtime.child_process import Interrupted
from daemon.runtime.context import TargetContext
from daemon.runtime.optional_deps import require_extra
from daemon.runtime.work import Work
from daemon.settings.load import Settings
from daemon.settings.target import TargetSettings
from extractors.dataset.build import count_allowed_synthetic
from extractors.dataset.snapshot import Snapshot, read_snapshot
from extractors.errors import LearndError
from extractors.examples.types import Message, SFTExample
from extractors.llm.endpoint import Endpoint
from extractors.synthesis.generate import SynthesisRequest
from extractors.synthesis.rules import ScreeningRules
from extractors.values import Value
from registry.batches import Batch, BatchProvenance, BatchState, Proposal
from registry.cycles import Cycle
from trainers.job_folder import Progress
from trainers.job_folder import run_job as run_in_child
from trainers.models.base_model import Device
from trainers.planning.method_rules import count_for_rules
from trainers.planning.shortage import Shortage, find_shortage

if TYPE_CHECKING:
    from extractors.synthesis.filters import ScreeningResult
    from extractors.synthesis.generate import ProposedExample

API_KEY = "SYNTHESIS_API_KEY"
"""The child's environment variable with the endpoint's key."""


class SynthesisJob(Value):
    """The job of a child that writes proposals."""

    request: SynthesisRequest
    endpoint: Endpoint
    screening: ScreeningRules
    snapshot: str
    """Folder of the snapshot with the training examples and the held-out items."""
    golden: tuple[SFTExample, ...]
    encoder: str
    """Folder or hub id of the sentence-transformers model that recognises texts which mean the same."""
    device: Device = "auto"


class Proposals(Value):
    """The result of the child: examples for an operator to read."""

    proposals: tuple[Proposal, ...]
    provenance: BatchProvenance
    left_out: dict[str, int]
    """Texts of the model that were discarded, by reason."""
    calls: int
    incomplete: str
    """Why there are fewer proposals than were wanted, in words."""


def ask_for_examples(context: TargetContext, cycle: Cycle, snapshot: Snapshot) -> str:
    """Ask the language model for the examples that the target lacks, and return the outcome in words.

    A problem with the model or its answers is part of these words, since the cycle ends anyway. Raises
    Interrupted.
    """
    rules = context.target.synthesis
    shortage = find_shortage(count_for_rules(snapshot.train), context.target.task, context.target.thresholds)
    if shortage is None:
        return "synthetic examples would not help: there is nothing approved yet to make them from"
    waiting = context.store.batches(context.target.key, BatchState.WAITING)
    if waiting:
        return f"batch {waiting[0].id} waits for an operator ({waiting[0].pending} items to decide)"
    real = sum(each.origin == "telemetry" for each in getattr(snapshot.train, shortage.kind))
    if shortage.threshold - real > count_allowed_synthetic(real, rules.share):
        least = math.ceil(shortage.threshold * (1 - rules.share))
        return (
            f"synthetic examples may be {rules.share:.0%} of the training data at most, so it takes {least} "
            f"{shortage.words} from people before they can make up for the rest"
        )
    try:
        require_extra("synthetic", "dspy")
        batch = _propose(context, cycle, snapshot, shortage)
    except Interrupted:
        raise
    except LearndError as problem:
        return f"no synthetic examples were proposed: {problem}"
    return f"batch {batch.id} with {batch.size} synthetic examples waits for an operator"


def _propose(context: TargetContext, cycle: Cycle, snapshot: Snapshot, shortage: Shortage) -> Batch:
    endpoint = find_endpoint(context.settings, context.target)
    job = _build_job(context, cycle, snapshot, shortage, endpoint)
    key = read_key(context.settings, context.target)
    secrets = {API_KEY: key} if key else {}
    folder = context.run_folder(cycle) / "synthesise"
    found = context.run_job(Work.SYNTHESISE, folder, job, Proposals, secrets)
    if not found.proposals:
        reasons = ", ".join(f"{count} {reason}" for reason, count in found.left_out.items())
        raise LearndError(f"nothing of what {endpoint.model} wrote can be used ({reasons})")
    now = context.clock()
    return context.store.add_batch(
        cycle.id,
        context.target.key,
        shortage.kind,
        f"{shortage.have} of {shortage.threshold} {shortage.words}",
        found.provenance,
        found.proposals,
        now=now,
        expires_at=now + timedelta(days=context.target.synthesis.expires_days),
    )


def _build_job(
    context: TargetContext, cycle: Cycle, snapshot: Snapshot, shortage: Shortage, endpoint: Endpoint
) -> SynthesisJob:
    rules = context.target.synthesis
    return SynthesisJob(
        request=SynthesisRequest(
            kind=shortage.kind,
            wanted=math.ceil(shortage.missing * rules.margin),
            demonstrations=getattr(snapshot.train, shortage.kind),
            output_space=_find_labels(context, snapshot),
            seed=int(snapshot.id[:8], 16),
            now=cycle.started_at,
            rules=rules.asking,
        ),
        endpoint=endpoint,
        screening=rules.screening,
        snapshot=str(context.snapshots / snapshot.id),
        golden=read_golden_cases(context.target),
        encoder=rules.encoder,
        device=context.settings.training.device,
    )


def _find_labels(context: TargetContext, snapshot: Snapshot) -> tuple[str, ...]:
    """Return the valid answers of a classification; empty where answers are free."""
    if context.target.task != "classification":
        return ()
    seen = {example.completion.content for example in snapshot.train.sft}
    return context.target.output_space or tuple(sorted(seen))


def find_endpoint(settings: Settings, target: TargetSettings) -> Endpoint:
    """Return the endpoint in the settings, or the target's first replica with its base model.

    Raises LearndError where there is neither.
    """
    rules = target.synthesis
    limits = {"timeout_seconds": rules.timeout_seconds, "concurrency": rules.concurrency}
    if rules.url and rules.model:
        return Endpoint(url=rules.url, model=rules.model, **limits)
    replicas = settings.find_replicas(target)
    if not replicas:
        raise LearndError(
            f"no replica serves {target.key}; name a language model in its `synthesis.url` and `.model`"
        )
    return Endpoint(url=f"{replicas[0].url}/v1", model=replicas[0].base_name, **limits)


def read_key(settings: Settings, target: TargetSettings) -> str | None:
    """Read the key of the language model, or of the replica in its place. Raises SettingsError."""
    if target.synthesis.url:
        return target.synthesis.read_key()
    replicas = settings.find_replicas(target)
    return replicas[0].read_key() if replicas else None


def run(folder: Path) -> None:
    """Do the SynthesisJob in `folder`: `learnd work synthesise FOLDER`."""
    run_in_child(folder, SynthesisJob, synthesise)


def synthesise(job: SynthesisJob, _folder: Path, progress: Progress) -> Proposals:
    """Let the language model write proposals, and keep those that are worth reading. Raises LearndError."""
    from extractors.synthesis.generate import propose

    wanted = job.request.wanted
    made = propose(
        job.request,
        job.endpoint,
        api_key=os.environ.get(API_KEY),
        on_progress=lambda done, _: progress.write("asking", job.endpoint.model, step=done, total=wanted),
    )
    progress.write("screening", f"{len(made.proposed)} proposals")
    screened = _screen(job, made.proposed)
    return Proposals(
        proposals=tuple(
            Proposal(
                example=kept.example.model_dump(mode="json"),
                diversity=kept.diversity,
                demonstrations=kept.demonstrations,
            )
            for kept in screened.kept
        ),
        provenance=BatchProvenance(
            model=made.model,
            program=made.program,
            demonstrations=tuple(each.id for each in job.request.demonstrations),
            seed=made.seed,
        ),
        left_out={**made.unusable, **screened.left_out},
        calls=made.calls,
        incomplete=made.incomplete,
    )


def _screen(job: SynthesisJob, proposed: "Sequence[ProposedExample]") -> "ScreeningResult":
    """Sort out proposals that are flawed, or too near to held-out items or to known examples."""
    from extractors.synthesis.filters import KnownExamples, screen
    from trainers.models.encoder import load_encoder

    snapshot = read_snapshot(Path(job.snapshot))
    encoder = load_encoder(job.encoder, device=job.device)

    def encode(texts: Any) -> Any:
        return encoder.encode(list(texts), show_progress_bar=False)

    held_out: list[Sequence[Message] | str] = [
        *(item.prompt for item in (*snapshot.holdout, *snapshot.retention)),
        *(case.prompt for case in job.golden),
        *(search.query for search in (*snapshot.retrievals, *snapshot.retained_retrievals)),
    ]
    return screen(
        proposed,
        KnownExamples(
            demonstrations=job.request.demonstrations,
            trained=snapshot.train.join(snapshot.validation),
            held_out=held_out,
        ),
        output_space=job.request.output_space,
        encode=encode,
        rules=job.screening,
    )
