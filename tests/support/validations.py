"""The validations of a training: the one before it began, and that of the weights that were kept."""

from trainers.jobs.job import TrainingMetrics, Validation


def find_first_validation(metrics: TrainingMetrics) -> Validation:
    """Return the validation before any training."""
    return next(each for each in metrics.validation if each.step == 0)


def find_best_validation(metrics: TrainingMetrics) -> Validation:
    """Return the validation of the weights that were kept."""
    return next(each for each in metrics.validation if each.step == metrics.best_step)
