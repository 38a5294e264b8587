"""What a training's validations say of where it began and of what was kept."""

from trainers.jobs.job import TrainingMetrics, Validation


def at_first(metrics: TrainingMetrics) -> Validation:
    """Before any training."""
    return next(each for each in metrics.validation if each.step == 0)


def at_best(metrics: TrainingMetrics) -> Validation:
    """Of the weights that were kept."""
    return next(each for each in metrics.validation if each.step == metrics.best_step)
