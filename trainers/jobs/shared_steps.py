"""The steps that all trainings share: callbacks, resuming from a checkpoint, saving, and the metrics."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from extractors.values import file_digest
from trainers.batching.workload import Workload
from trainers.estimate.estimates import TrainingEstimate
from trainers.job_folder import Progress, ProgressLine
from trainers.jobs.first_attempt import estimate_attempt
from trainers.jobs.job import ADAPTER, TrainingJob, TrainingMetrics, TrainingResult, Validation
from trainers.jobs.legs import Leg, LegResult, read_leg_clock
from trainers.memory import measure_peak_memory
from trainers.models.base_model import BaseModelUnusable
from trainers.planning.hyperparameters import Hyperparameters, Method
from trainers.recovery.checkpoints import CHECKPOINTS, find_last_checkpoint, read_step
from trainers.recovery.fallbacks import Attempt
from trainers.recovery.guards import RunGuard

TRAINER_STATE = "trainer_state.json"
"""transformers' file in a checkpoint."""
CURVES = "training.jsonl"
"""File in the adapter with the progress lines of its steps and validations."""


@dataclass(frozen=True)
class TrainingRun:
    """A job's training in its folder, with the attempt that is made now."""

    job: TrainingJob
    attempt: Attempt
    guard: RunGuard
    folder: Path
    progress: Progress
    leg: Leg | None = None
    """The part of the training that is made now; None makes all of it."""

    @property
    def hyperparameters(self) -> Hyperparameters:
        """The plan's hyperparameters with the attempt's batches and learning rate."""
        return self.attempt.apply_to(self.job.current_stage.hyperparameters)

    @property
    def method(self) -> Method:
        """The method of the job's stage."""
        return self.job.current_stage.method

    @property
    def checkpoints(self) -> Path:
        """Folder of the run's checkpoints."""
        return self.folder / CHECKPOINTS


@dataclass(frozen=True)
class PreparedTraining:
    """A trainer before its first step."""

    trainer: Any
    reporter: Any
    """A `trainers.jobs.reporting.ProgressReporter`."""
    attempt: Attempt
    workload: Workload
    replay: int
    """Examples among the workload's that the base wrote itself."""
    planned: int
    """Steps of the whole training, if nothing ends it early."""


def build_callbacks(run: TrainingRun, reporter: Any, *, validates: bool) -> list[Any]:
    """Build the trainer's callbacks; without validations nothing can stop a training early."""
    from transformers import EarlyStoppingCallback

    from trainers.jobs.reporting import MarkWhole
    from trainers.jobs.stop_leg import StopLeg, StopStaleLeg
    from trainers.recovery.callbacks import ApplyAttemptRate, StopInTime
    from trainers.recovery.divergence import StopDiverging

    callbacks: list[Any] = [reporter, StopDiverging(), StopInTime(run.guard)]
    if run.leg:
        callbacks.append(StopLeg(run.leg, run.checkpoints))
    callbacks.append(MarkWhole())
    if run.attempt.rate_scale != 1:
        callbacks.append(ApplyAttemptRate())
    patience = run.hyperparameters.patience
    if validates and run.leg is None:
        callbacks.append(EarlyStoppingCallback(patience))
    elif validates and run.leg and run.leg.is_last:
        callbacks.append(StopStaleLeg(run.leg, patience))
    return callbacks


def schedule_leg(run: TrainingRun, arguments: dict[str, Any], planned: int) -> dict[str, Any]:
    """Return the trainer's `arguments` for the run's leg, in a training of so many `planned` steps.

    They are unchanged where the run is the whole training.
    """
    if run.leg is None:
        return arguments
    keeps_best = {"load_best_model_at_end": arguments["load_best_model_at_end"] and run.leg.is_last}
    return arguments | run.leg.find_schedule(planned, run.hyperparameters) | keeps_best


def fit(trainer: Any, run: TrainingRun) -> float:
    """Train to the end, from the last whole checkpoint if there is one; return the mean loss."""
    resume_from = find_last_checkpoint(run.checkpoints)
    if resume_from is not None:
        run.progress.write("training", f"resuming from {resume_from.name}")
        if _has_ended(resume_from, run):
            return _restore(trainer, resume_from)
    output = trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    return float(output.training_loss)


def _has_ended(checkpoint: Path, run: TrainingRun) -> bool:
    """Return True if training was to stop there: after its last step, early, or for lack of time."""
    if run.leg is not None:
        clock = read_leg_clock(checkpoint)
        is_end = clock is not None and clock.number == run.leg.number and clock.ended
        return is_end or bool(run.guard.state.stopped)
    state = json.loads((checkpoint / TRAINER_STATE).read_text("utf-8"))
    return bool(state["stateful_callbacks"]["TrainerControl"]["args"]["should_training_stop"])


def _restore(trainer: Any, checkpoint: Path) -> float:
    """Restore the state and the best weights of an ended training; transformers would make another step."""
    from transformers import TrainerState

    trainer.state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE))
    trainer._load_from_checkpoint(trainer.state.best_model_checkpoint or str(checkpoint))
    return 0.0


def build_leg_result(run: TrainingRun, leg: Leg, planned: int, result: TrainingResult | None) -> LegResult:
    """Return the end of the run's leg, as its last checkpoint has it, in a training of `planned` steps."""
    last = find_last_checkpoint(run.checkpoints)
    clock = read_leg_clock(last)
    return LegResult(
        number=leg.number,
        step=read_step(last) if last else leg.begin,
        end=leg.find_end(planned),
        planned=planned,
        seconds=clock.seconds if clock else 0.0,
        spent=run.guard.measure_seconds(),
        stopped=run.guard.state.stopped,
        checkpoint=str(last.relative_to(run.folder)) if last else "",
        result=result,
    )


def save_with_curves(
    folder: Path, progress: Progress, last_step: int, save: Callable[[Path], dict[str, str]]
) -> dict[str, str]:
    """Write the adapter by `save` into the run's `folder`, and add its curves; return its files' digests.

    The checkpoints stay: until the result is written, a killed run resumes from the last one.
    """
    progress.write("saving")
    final, temporary = folder / ADAPTER, folder / f"{ADAPTER}.tmp"
    for leftover in (final, temporary):
        shutil.rmtree(leftover, ignore_errors=True)
    files = save(temporary)
    curves = "".join(f"{line}\n" for line in _read_curves(folder / "progress.jsonl", last_step))
    (temporary / CURVES).write_text(curves, "utf-8")
    temporary.rename(final)
    return {**files, CURVES: file_digest(final / CURVES)}


def collect_metrics(
    run: TrainingRun,
    prepared: PreparedTraining,
    loss: float,
    **more: Any,
) -> TrainingMetrics:
    """Collect the metrics of a finished training; `more` are fields that only its method has."""
    trainer, workload, reporter = prepared.trainer, prepared.workload, prepared.reporter
    state, model = trainer.state, trainer.model
    validations = {
        entry["step"]: Validation(
            step=entry["step"], loss=entry["eval_loss"], figures=reporter.read_figures(entry)
        )
        for entry in state.log_history
        if "eval_loss" in entry
    }
    return TrainingMetrics(
        method=run.method,
        examples=workload.examples - prepared.replay,
        replay=prepared.replay,
        tokens=workload.tokens,
        steps=state.global_step,
        epochs=state.epoch,
        train_loss=loss,
        validation=tuple(validations.values()),
        validated=len(trainer.eval_dataset or ()),
        best_step=state.best_global_step or state.global_step,
        quantization=run.attempt.quantization,
        recoveries=run.guard.state.recoveries,
        device=model.device.type,
        dtype=str(model.dtype).removeprefix("torch."),
        seconds=run.guard.measure_seconds(),
        tokens_per_second=reporter.tokens_per_second,
        peak_memory_bytes=measure_peak_memory(model.device.type),
        estimated=_estimate_from_speed(run, prepared),
        **more,
    )


def _estimate_from_speed(run: TrainingRun, prepared: PreparedTraining) -> TrainingEstimate | None:
    speed = prepared.reporter.early_tokens_per_second
    if not speed:
        # Resumed after its last step, or out of time: it made no step.
        return None
    try:
        return estimate_attempt(run.job, run.attempt, prepared.workload, speed)
    except BaseModelUnusable:
        return None


def _read_curves(progress: Path, last_step: int) -> list[str]:
    """Return the lines of steps and validations up to `last_step`; of repeated ones, the last."""
    lines: dict[tuple[int, bool], str] = {}
    for text in progress.read_text("utf-8").splitlines():
        try:
            line = ProgressLine.model_validate_json(text)
        except ValidationError:
            continue  # a kill in the middle of a line, with the next one appended to it
        if line.stage == "training" and line.step is not None and line.step <= last_step:
            lines[line.step, line.loss is None] = text
    return [lines[key] for key in sorted(lines)]
