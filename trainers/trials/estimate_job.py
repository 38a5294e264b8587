"""What a training would take, from its first few steps on the real base and data, which leave nothing."""

from pathlib import Path

from extractors.values import Value
from trainers.estimate.memory_and_time import TrainingEstimate, fits
from trainers.job_folder import Progress, run_job
from trainers.jobs.first_attempt import estimate_attempt, estimate_by_count
from trainers.jobs.job import TrainingJob
from trainers.memory import is_out_of_memory, measure_free_memory
from trainers.models.base_model import resolve_device
from trainers.recovery.fallbacks import OutOfMemory

TRIED_MARK = "tried"
"""File in the folder of a job whose first steps began; found there by a child, the one before was killed."""


class JobEstimate(Value):
    """What a training would take, and what there is."""

    estimate: TrainingEstimate
    """Without time where the memory is too little for even a few steps."""
    free_bytes: int
    """On the device, before anything was loaded."""
    fits: bool
    """Whether the memory is likely to be enough, with a reserve."""


def run(folder: Path) -> None:
    """Do the TrainingJob in `folder` as far as its estimate: `learnd work estimate FOLDER`."""
    run_job(folder, TrainingJob, estimate_job)


def estimate_job(job: TrainingJob, folder: Path, progress: Progress) -> JobEstimate:
    """Counted memory, and time at the speed of the first steps, where there is memory for them.

    Raises as `train` does.
    """
    free = measure_free_memory(resolve_device(job.device))
    by_count = None if job.chosen.method == "embedding" else estimate_by_count(job)
    if by_count and not fits(by_count.memory, free):
        return JobEstimate(estimate=by_count, free_bytes=free, fits=False)
    made = _estimate_from_first_steps(job, folder, progress)
    if made is not None:
        return JobEstimate(estimate=made, free_bytes=free, fits=fits(made.memory, free))
    if by_count is None:
        raise OutOfMemory(
            "the memory is too little for the first steps: lower `batch_size` in the target's "
            "hyperparameters, or train where there is more"
        )
    return JobEstimate(estimate=by_count, free_bytes=free, fits=False)


def _estimate_from_first_steps(job: TrainingJob, folder: Path, progress: Progress) -> TrainingEstimate | None:
    """The estimate from a few steps; None where memory was too little for them."""
    from trainers.jobs.language_model import prepare_training
    from trainers.jobs.reporting import EARLY_STEPS
    from trainers.trials.short_run import run_short

    if (folder / TRIED_MARK).exists():
        return None
    (folder / TRIED_MARK).touch()
    try:
        begun = prepare_training(job, folder, progress)
        run_short(begun, steps=EARLY_STEPS + 1)
    except (RuntimeError, MemoryError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        return None
    return estimate_attempt(job, begun.attempt, begun.workload, begun.reporter.early_tokens_per_second)
