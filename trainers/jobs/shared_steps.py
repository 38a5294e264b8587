"""What every training does, whatever it trains: goes on from a checkpoint, watches itself, keeps its best."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from extractors.values import file_digest
from trainers.batching.workload import Workload
from trainers.estimate.memory_and_time import TrainingEstimate
from trainers.job_folder import Progress, ProgressLine
from trainers.jobs.first_attempt import estimate_attempt
from trainers.jobs.job import ADAPTER, TrainingJob, TrainingMetrics, Validation
from trainers.memory import measure_peak_memory
from trainers.models.base_model import BaseModelUnusable
from trainers.planning.hyperparameters import Hyperparameters, Method
from trainers.recovery.checkpoints import CHECKPOINTS, find_last_checkpoint
from trainers.recovery.fallbacks import Attempt
from trainers.recovery.guards import RunGuard

TRAINER_STATE = "trainer_state.json"
"""transformers' file in a checkpoint."""
CURVES = "training.jsonl"
"""File in the adapter with the progress lines of its steps and validations."""


@dataclass(frozen=True)
class TrainingRun:
    """A training as it is tried this time."""

    job: TrainingJob
    attempt: Attempt
    guard: RunGuard
    folder: Path
    progress: Progress

    @property
    def hyperparameters(self) -> Hyperparameters:
        """The plan's, as the attempt has them."""
        return self.attempt.applied_to(self.job.chosen.hyperparameters)

    @property
    def method(self) -> Method:
        return self.job.chosen.method

    @property
    def checkpoints(self) -> Path:
        return self.folder / CHECKPOINTS


@dataclass(frozen=True)
class PreparedTraining:
    """A trainer before its first step."""

    trainer: Any
    reporter: Any
    attempt: Attempt
    workload: Workload


def build_callbacks(this: TrainingRun, reporter: Any, *, validates: bool) -> list[Any]:
    """What watches the steps; without validations nothing can stop a training early."""
    from transformers import EarlyStoppingCallback

    from trainers.jobs.reporting import MarkWhole
    from trainers.recovery.callbacks import ApplyAttemptRate, StopDiverging, StopInTime

    watching = [reporter, StopDiverging(), StopInTime(this.guard), MarkWhole()]
    if this.attempt.rate_scale != 1:
        watching.append(ApplyAttemptRate())
    if validates:
        watching.append(EarlyStoppingCallback(this.hyperparameters.patience))
    return watching


def fit(this: TrainingRun, trainer: Any) -> float:
    """Train to the end, from the last whole checkpoint if there is one; returns the mean loss."""
    resume_from = find_last_checkpoint(this.checkpoints)
    if resume_from is not None:
        this.progress.write("training", f"resuming from {resume_from.name}")
        if _has_ended(resume_from):
            return _restore(trainer, resume_from)
    output = trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    return float(output.training_loss)


def _has_ended(checkpoint: Path) -> bool:
    """Whether training was to stop there: after its last step, for want of patience or of time."""
    state = json.loads((checkpoint / TRAINER_STATE).read_text("utf-8"))
    return bool(state["stateful_callbacks"]["TrainerControl"]["args"]["should_training_stop"])


def _restore(trainer: Any, checkpoint: Path) -> float:
    """Give `trainer` what it would have kept. transformers would make another step, and validate it."""
    from transformers import TrainerState

    trainer.state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE))
    trainer._load_from_checkpoint(trainer.state.best_model_checkpoint or str(checkpoint))
    return 0.0


def save_with_curves(this: TrainingRun, last: int, save: Callable[[Path], dict[str, str]]) -> dict[str, str]:
    """Have `save` write the adapter, and add its curves; returns its files' digests.

    The checkpoints stay: until the result is written, a kill means going on from the last one.
    """
    this.progress.write("saving")
    final, temporary = this.folder / ADAPTER, this.folder / f"{ADAPTER}.tmp"
    for leftover in (final, temporary):
        shutil.rmtree(leftover, ignore_errors=True)
    files = save(temporary)
    curves = temporary / CURVES
    curves.write_text(
        "".join(f"{line}\n" for line in _read_curves(this.folder / "progress.jsonl", last)), "utf-8"
    )
    temporary.rename(final)
    return {**files, CURVES: file_digest(final / CURVES)}


def collect_metrics(
    this: TrainingRun,
    begun: PreparedTraining,
    loss: float,
    **more: Any,
) -> TrainingMetrics:
    """How the training went; `more` is what its method alone says."""
    state, model, reporter = begun.trainer.state, begun.trainer.model, begun.reporter
    validations = {
        entry["step"]: Validation(
            step=entry["step"], loss=entry["eval_loss"], figures=reporter.figures(entry)
        )
        for entry in state.log_history
        if "eval_loss" in entry
    }
    return TrainingMetrics(
        method=this.method,
        examples=begun.workload.examples,
        tokens=begun.workload.tokens,
        steps=state.global_step,
        epochs=state.epoch,
        train_loss=loss,
        validation=tuple(validations.values()),
        validated=len(begun.trainer.eval_dataset or ()),
        best_step=state.best_global_step or state.global_step,
        quantization=this.attempt.quantization,
        recoveries=this.guard.state.recoveries,
        device=model.device.type,
        dtype=str(model.dtype).removeprefix("torch."),
        seconds=this.guard.seconds(),
        tokens_per_second=reporter.tokens_per_second,
        peak_memory_bytes=measure_peak_memory(model.device.type),
        estimated=_estimate_from_speed(this, begun),
        **more,
    )


def _estimate_from_speed(this: TrainingRun, begun: PreparedTraining) -> TrainingEstimate | None:
    speed = begun.reporter.early_tokens_per_second
    if not speed:
        # Resumed after its last step, or out of time: it made no step.
        return None
    try:
        return estimate_attempt(this.job, this.attempt, begun.workload, speed)
    except BaseModelUnusable:
        return None


def _read_curves(progress: Path, last: int) -> list[str]:
    """The lines of steps and validations up to `last`; of those that a killed run made again, the last."""
    kept: dict[tuple[int, bool], str] = {}
    for line in progress.read_text("utf-8").splitlines():
        try:
            said = ProgressLine.model_validate_json(line)
        except ValidationError:
            continue  # a kill in the middle of a line, and the next one behind it
        if said.stage == "training" and said.step is not None and said.step <= last:
            kept[said.step, said.loss is None] = line
    return [kept[key] for key in sorted(kept)]
