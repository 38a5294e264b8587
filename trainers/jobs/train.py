"""A stage of a plan becomes a LoRA adapter, in a child process, by the method that the plan chose.

The run's folder holds the job's files (`trainers/job_folder.py`), the checkpoints while it runs, and in
the end the adapter. A run that was killed resumes from its last checkpoint.
"""

from pathlib import Path

from extractors.errors import LearndError
from trainers.job_folder import Progress, run_job
from trainers.jobs.job import TrainingJob, TrainingResult
from trainers.jobs.shared_steps import PreparedTraining
from trainers.models.base_model import compute_base_digest, use_threads
from trainers.quick_imports import quick_imports


class BaseChanged(LearndError):
    """The base model is not the one that the plan was made for."""


def run(folder: Path) -> None:
    """Do the TrainingJob in `folder`: `learnd work train FOLDER`."""
    run_job(folder, TrainingJob, train)


def train(job: TrainingJob, folder: Path, progress: Progress) -> TrainingResult:
    """Train the job's stage on its snapshot, into `folder`.

    Raises LearndError: BaseChanged, NothingToLearn, LoraMatchesNothing, AdapterUnusable,
    TrainingDiverged, OutOfMemory, BaseModelUnusable, QuantizationUnavailable, SnapshotDamaged.
    """
    if compute_base_digest(job.plan.base_model) != job.plan.base_digest:
        raise BaseChanged(f"{job.plan.base_model} has changed since the plan was made; start the cycle again")
    use_threads(job.threads)
    if job.current_stage.method == "embedding":
        with quick_imports():
            from trainers.jobs.embedding import train_embedding

        return train_embedding(job, folder, progress)
    with quick_imports():
        from trainers.jobs.language_model import train_language_model

    return train_language_model(job, folder, progress)


def prepare_training(job: TrainingJob, folder: Path, progress: Progress) -> PreparedTraining:
    """Prepare the job's training for a short run of it. Raises as `train` does."""
    use_threads(job.threads)
    if job.current_stage.method == "embedding":
        with quick_imports():
            from trainers.jobs.embedding import prepare_embedding

        return prepare_embedding(job, folder, progress)
    with quick_imports():
        from trainers.jobs.language_model import prepare_language_model

    return prepare_language_model(job, folder, progress)
