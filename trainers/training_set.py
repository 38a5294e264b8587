"""A snapshot's examples as token sequences with labels: what fits, and what there is to learn."""

from collections.abc import Sequence
from typing import Any

from extractors.examples import SFTExample
from extractors.values import LearndError, Value
from trainers.rendering import TemplateUnusable, render

IGNORED = -100
"""The label of a token that teaches nothing."""


class NothingToLearn(LearndError):
    """No example is left, or none has a token to learn."""


class TrainingSet(Value):
    """Tokenised examples."""

    features: tuple[dict[str, list[int]], ...]
    """`input_ids` and `labels` of equal length; labels are -100 over the prompt."""
    too_long: int
    """Examples left out because they exceed the plan's `max_length`."""
    refusals: tuple[str, ...]
    """Why the chat template could not express an example, for each one left out for that."""

    @property
    def tokens(self) -> int:
        return sum(len(feature["input_ids"]) for feature in self.features)

    @property
    def label_tokens(self) -> int:
        return sum(label != IGNORED for feature in self.features for label in feature["labels"])


def tokenised(tokenizer: Any, examples: Sequence[SFTExample], max_length: int) -> TrainingSet:
    """`examples` through the chat template; left out are those longer than `max_length` tokens
    and those that the template refuses.
    """
    features, too_long, refusals = [], 0, []
    for example in examples:
        try:
            rendered = render(tokenizer, example.prompt, example.tools, example.completion)
        except TemplateUnusable as refusal:
            refusals.append(str(refusal))
            continue
        prompt, completion = list(rendered.prompt_ids), list(rendered.completion_ids)
        if len(prompt) + len(completion) > max_length:
            too_long += 1
            continue
        features.append({"input_ids": prompt + completion, "labels": [IGNORED] * len(prompt) + completion})
    return TrainingSet(features=tuple(features), too_long=too_long, refusals=tuple(refusals))


def check_learnable(train: TrainingSet, max_length: int) -> None:
    """Raises NothingToLearn when a training on `train` could change nothing."""
    if not train.features and train.refusals:
        raise NothingToLearn(
            f"the chat template can express none of the training examples: {train.refusals[0]}"
        )
    if not train.features:
        raise NothingToLearn(
            f"all {train.too_long} training examples are longer than max_length = {max_length} tokens; "
            "raise `max_length` in the target's hyperparameters, or shorten the prompts"
            if train.too_long
            else "the snapshot has no training examples; review more traffic"
        )
    if not train.label_tokens:
        raise NothingToLearn(
            f"none of the {len(train.features)} training examples has a token to learn: the chat template "
            "renders nothing for their answers"
        )
