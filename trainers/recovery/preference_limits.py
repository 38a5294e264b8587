"""Ends a training on preferences that has nothing left to teach, or that costs the answers people chose.

A preference loss sees only the distance between two answers. Once every pair is told apart, more steps widen
the distance and teach nothing; and the distance also grows where both answers become less likely (likelihood
displacement, Razin et al. 2024, arXiv 2410.08847).
"""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from transformers import TrainerCallback

from trainers.planning.hyperparameters import Hyperparameters
from trainers.recovery.fallbacks import TrainingDiverged
from trainers.recovery.guards import RunGuard

IN_A_ROW = 10
"""Consecutive logged steps that are looked at together."""
SETTLED_MARGIN = 3.0
"""Mean margin of rewards from which a pair is settled: its gradient has 1 / (1 + e^3), 5%, of its weight."""
SETTLED_LOSS = 1 / (1 + math.exp(SETTLED_MARGIN))
"""Mean loss of KTO up to which votes are settled: as far from the reference point as that margin is wide."""
GREATEST_FALL = 0.5
"""Nats a token that the chosen answers may lose against the start: each token is then 40% less likely."""


class PreferenceWatch:
    """Judges the rewards of a training on preferences in the order in which they are logged.

    A reward is beta times the log-likelihood that an answer gained since the start, in nats.
    """

    def __init__(self, hyperparameters: Hyperparameters, chosen_tokens: float) -> None:
        """`chosen_tokens` is the mean length of the answers that people chose."""
        self._beta = hyperparameters.beta
        self._tokens = chosen_tokens
        self._margin_unit = chosen_tokens if hyperparameters.dpo_loss == "sigmoid_norm" else 1.0
        self._margins: deque[float] = deque(maxlen=IN_A_ROW)
        self._losses: deque[float] = deque(maxlen=IN_A_ROW)
        self._rewards: deque[float] = deque(maxlen=IN_A_ROW)

    def find_settled(self, accuracy: float, margin: float) -> str | None:
        """Return why a training of these steps has nothing left to teach, in words; None where it has."""
        if accuracy < 1:
            self._margins.clear()
            return None
        self._margins.append(margin / self._margin_unit)
        if len(self._margins) < IN_A_ROW or fmean(self._margins) < SETTLED_MARGIN:
            return None
        return (
            f"nothing left to teach: in {IN_A_ROW} steps every chosen answer gained more than the rejected "
            f"one, by {fmean(self._margins):.1f} on average"
        )

    def find_settled_votes(self, loss: float, votes: int) -> str | None:
        """As `find_settled`, for KTO, which logs no accuracy but the mean loss of a step's `votes`.

        On the wrong side of the reference point a vote has a loss of 1/2 or more, since the weights are 1 or
        more (Ethayarajh et al. 2024, arXiv 2402.01306): a lower mean shows that no vote is there.
        """
        self._losses.append(loss)
        bound = min(SETTLED_LOSS, 0.5 / votes)
        if len(self._losses) < IN_A_ROW or not all(each < bound for each in self._losses):
            return None
        return (
            f"nothing left to teach: in {IN_A_ROW} steps every answer was on the side of its vote, with a "
            f"loss of {fmean(self._losses):.3f} on average"
        )

    def find_fall(self, reward: float) -> str | None:
        """Return by how much the chosen answers have become less likely, in words; None within the bound."""
        fall = -reward / self._beta / self._tokens
        if fall <= GREATEST_FALL:
            return None
        return (
            f"the chosen answers lost {fall:.2f} nats a token of their likelihood (bound {GREATEST_FALL:g})"
        )

    def find_fall_in_steps(self, reward: float) -> str | None:
        """As `find_fall`, for the mean of the last steps, since a single batch says little."""
        self._rewards.append(reward)
        return self.find_fall(fmean(self._rewards)) if len(self._rewards) == IN_A_ROW else None


class LimitPreferences(TrainerCallback):
    """Ends the training as PreferenceWatch says, and keeps the last validated state that is within bounds.

    Raises TrainingDiverged where there is none: the training is tried again at a lower rate.
    """

    def __init__(self, guard: RunGuard, watch: PreferenceWatch) -> None:
        self._guard = guard
        self._watch = watch

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, float], **_: Any) -> Any:
        if "loss" not in logs:
            return control
        settled = self._find_settled(args, logs)
        if settled and state.global_step < state.max_steps:
            self._guard.stop(f"{settled}: stopping at step {state.global_step} of {state.max_steps}")
            control.should_evaluate = args.eval_strategy != "no"
            control.should_save = control.should_training_stop = True
        if args.eval_strategy == "no" and "rewards/chosen" in logs:
            fall = self._watch.find_fall_in_steps(logs["rewards/chosen"])
            if fall:
                raise TrainingDiverged(fall, max(0, state.global_step - IN_A_ROW))
        return control

    def _find_settled(self, args: Any, logs: Mapping[str, float]) -> str | None:
        if "rewards/accuracies" in logs:
            return self._watch.find_settled(logs["rewards/accuracies"], logs["rewards/margins"])
        votes = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.logging_steps
        return self._watch.find_settled_votes(logs["loss"], votes)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **_: Any) -> Any:  # noqa: ARG002
        fall = self._watch.find_fall(metrics.get("eval_rewards/chosen", 0.0))
        if fall is None:
            return control
        if state.best_global_step is None:
            raise TrainingDiverged(fall, 0)
        self._guard.stop(f"{fall} by step {state.global_step}: step {state.best_global_step} is kept")
        # The trainer compares validations by their loss, which this one may have lowered.
        metrics["eval_loss"] = math.inf
        control.should_save = False
        control.should_training_stop = True
        return control


def measure_chosen_tokens(features: Sequence[Mapping[str, Any]]) -> float:
    """Return the mean tokens of the answers that people chose or liked; at least 1."""
    answers = [
        feature["chosen_ids"] if "chosen_ids" in feature else feature["completion_ids"]
        for feature in features
        if "chosen_ids" in feature or feature["label"]
    ]
    return fmean(map(len, answers)) if answers else 1.0
