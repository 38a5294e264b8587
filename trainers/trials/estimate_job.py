"""The estimate of a training from its first few steps on the real base and data, which leave no adapter."""

from pathlib import Path

from extractors.values import Value
from trainers.estimate.estimates import TrainingEstimate
from trainers.estimate.memory_and_time import fits
from trainers.job_folder import Progress, run_job
from trainers.jobs.first_attempt import estimate_attempt, estimate_by_count
from trainers.jobs.job import TrainingJob
from trainers.memory import is_out_of_memory, measure_free_memory
from trainers.models.base_model import resolve_device
from trainers.recovery.fallbacks import OutOfMemory

TRIED_MARK = "tried"
"""File in a job's folder, written before its first steps; if a child finds it, the one before was killed."""


class JobEstimate(Value):
    """The memory and time that a training would need, and the free memory."""

    estimate: TrainingEstimate
    """Without time if the memory is too little for even a few steps."""
    free_bytes: int
    """Free memory of the device before anything was loaded."""
    fits: bool
    """True if the memory is likely to be enough, with a reserve."""


def run(folder: Path) -> None:
    """Do the TrainingJob in `folder` as far as its estimate: `learnd work estimate FOLDER`."""
    run_job(folder, TrainingJob, estimate_job)


def estimate_job(job: TrainingJob, folder: Path, progress: Progress) -> JobEstimate:
    """Estimate the memory by counting, and the time by the speed of the first steps if they fit.

    Raises as `train` does.
    """
    free = measure_free_memory(resolve_device(job.device))
    by_count = None if job.current_stage.method == "embedding" else estimate_by_count(job)
    if by_count and not fits(by_count.memory, free):
        return JobEstimate(estimate=by_count, free_bytes=free, fits=False)
    by_steps = _estimate_from_first_steps(job, folder, progress)
    if by_steps is not None:
        return JobEstimate(estimate=by_steps, free_bytes=free, fits=fits(by_steps.memory, free))
    if by_count is None:
        raise OutOfMemory(
            "the memory is too little for the first steps: lower `batch_size` in the target's "
            "hyperparameters, or train where there is more"
        )
    return JobEstimate(estimate=by_count, free_bytes=free, fits=False)


def _estimate_from_first_steps(job: TrainingJob, folder: Path, progress: Progress) -> TrainingEstimate | None:
    """Estimate from a few steps; return None if memory was too little for them."""
    from trainers.jobs.reporting import EARLY_STEPS
    from trainers.jobs.train import prepare_training
    from trainers.trials.short_run import run_short

    if (folder / TRIED_MARK).exists():
        return None
    (folder / TRIED_MARK).touch()
    try:
        prepared = prepare_training(job, folder, progress)
        run_short(prepared, steps=EARLY_STEPS + 1)
    except (RuntimeError, MemoryError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        return None
    speed = prepared.reporter.early_tokens_per_second
    return estimate_attempt(job, prepared.attempt, prepared.workload, speed)
