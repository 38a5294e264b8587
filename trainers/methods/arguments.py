"""The arguments that TRL's trainers and sentence-transformers' trainer have in common.

Warm-up, validations, checkpoints and progress lines are scaled to the number of steps.
"""

from pathlib import Path
from typing import Any

import torch

from trainers.planning.hyperparameters import Hyperparameters
from trainers.recovery.checkpoints import find_last_checkpoint

MAX_LOG_LINES = 500
"""Most progress lines of a training; a short one has a line for each step."""


def build_arguments(
    model: Any,
    hyperparameters: Hyperparameters,
    checkpoints: Path,
    *,
    examples: int,
    validates: bool,
    checkpointing: bool,
) -> dict[str, Any]:
    """Build the arguments for training `model` on a number of `examples`.

    `hyperparameters` are those of the attempt. `checkpoints` is the folder of the run's checkpoints;
    `checkpointing` recomputes activations in the backward pass.
    """
    epoch = -(-examples // (hyperparameters.batch_size * hyperparameters.gradient_accumulation))
    steps = hyperparameters.count_steps(examples)
    interval = max(1, epoch // hyperparameters.evaluations_per_epoch)
    return {
        "output_dir": str(checkpoints),
        "num_train_epochs": hyperparameters.epochs,
        "per_device_train_batch_size": hyperparameters.batch_size,
        "per_device_eval_batch_size": hyperparameters.batch_size,
        "gradient_accumulation_steps": hyperparameters.gradient_accumulation,
        "learning_rate": hyperparameters.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": round(steps * hyperparameters.warmup_share),
        "eval_strategy": "steps" if validates else "no",
        "eval_steps": interval,
        # Another validation of a state that was validated before a kill would count against the patience.
        "eval_on_start": validates and find_last_checkpoint(checkpoints) is None,
        "save_strategy": "steps",
        "save_steps": interval,
        # The best one, the last one, and the one before it: a kill while the last is written loses nothing.
        "save_total_limit": 3,
        "load_best_model_at_end": validates,
        "metric_for_best_model": "eval_loss" if validates else None,
        "restore_callback_states_from_checkpoint": True,
        "logging_steps": max(1, steps // MAX_LOG_LINES),
        # The filter would hide a loss that is no number.
        "logging_nan_inf_filter": False,
        "bf16": model.dtype == torch.bfloat16,
        "use_cpu": model.device.type == "cpu",
        "activation_checkpointing": checkpointing,
        "seed": hyperparameters.seed,
        "disable_tqdm": True,
        "report_to": "none",
    }
