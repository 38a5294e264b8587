"""What a training would take, from its first few steps on the real base and data, which leave nothing."""

from pathlib import Path

from extractors.values import Value
from trainers.base_model import torch_device
from trainers.child import Progress, run_job
from trainers.estimate import Estimate, fits
from trainers.foresight import estimated
from trainers.job import TrainingJob
from trainers.memory import free_memory


class Foretold(Value):
    """What a training would take, and what there is."""

    estimate: Estimate
    free_bytes: int
    """On the device, before anything was loaded."""
    fits: bool
    """Whether the memory is likely to be enough, with a reserve."""


def run(folder: Path) -> None:
    """Do the TrainingJob in `folder` as far as its estimate: `learnd work estimate FOLDER`."""
    run_job(folder, TrainingJob, foretell)


def foretell(job: TrainingJob, folder: Path, progress: Progress) -> Foretold:
    """Counted memory, and time at the speed of the first steps. Raises as `train` does."""
    from trainers.reporting import EARLY
    from trainers.short_run import short_run
    from trainers.training import opened

    free = free_memory(torch_device(job.device))
    begun = opened(job, folder, progress)
    short_run(begun, steps=EARLY + 1)
    speed = begun.reporter.early_tokens_per_second
    made = estimated(job, begun.attempt, begun.workload, speed)
    return Foretold(estimate=made, free_bytes=free, fits=fits(made.memory, free))
