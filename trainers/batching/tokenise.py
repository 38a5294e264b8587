"""A snapshot's examples as tokens, in the columns that TRL's trainers take, and counts of those left out."""

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from extractors.errors import LearndError
from extractors.examples.types import (
    Examples,
    Message,
    PreferencePair,
    SFTExample,
    Trajectory,
    UnpairedPreference,
)
from extractors.values import Value
from trainers.models.chat_template import TemplateUnusable, TurnsUnstable, render, render_conversation
from trainers.planning.hyperparameters import Hyperparameters
from trainers.planning.plan import ExampleKind

IGNORE_INDEX = -100
"""The label of a token that is not learned."""
MIN_VOTES = 2
"""Smallest batch of votes for KTO: a single one has no other answer to compare with."""
SYSTEM_ROLES = frozenset({"system", "developer"})
"""Roles whose leading messages are kept when a conversation is shortened."""
Feature = dict[str, Any]


class NothingToLearn(LearndError):
    """No example is left, or none has a token to learn."""


class TooLong(LearndError):
    """An example exceeds `max_length`, even with everything cut that may be cut."""


class TrainingSet(Value):
    """Tokenised examples."""

    features: tuple[Feature, ...]
    """Columns by kind: `input_ids` and `labels` of equal length, -100 where not learned (sft, trajectories);
    `prompt_ids`, `chosen_ids`, `rejected_ids` (pairs); `prompt_ids`, `completion_ids`, `label`,
    `KL_completion_ids` (votes)."""
    too_long: int
    """Examples left out because they exceed `max_length`."""
    refusals: tuple[str, ...]
    """The reason for each example that was left out because the chat template cannot express it."""

    @property
    def tokens(self) -> int:
        """Tokens of all rows: a pair has two, each with its prompt."""
        return sum(
            len(feature["input_ids"])
            if "input_ids" in feature
            else sum(len(feature["prompt_ids"]) + len(answer) for answer in _list_answers(feature))
            for feature in self.features
        )

    @property
    def label_tokens(self) -> int:
        """Tokens to learn."""
        return sum(
            sum(label != IGNORE_INDEX for label in feature["labels"])
            if "labels" in feature
            else sum(map(len, _list_answers(feature)))
            for feature in self.features
        )


def tokenise(
    tokenizer: Any, kind: ExampleKind, examples: Examples, hyperparameters: Hyperparameters
) -> TrainingSet:
    """Render the examples of `kind` through the chat template and tokenise them.

    Examples longer than `max_length` tokens, and those that the template refuses, are left out and
    counted. A conversation that is too long loses its oldest turns first.
    """
    features: list[Feature] = []
    too_long, refusals = 0, []
    for example in getattr(examples, kind):
        try:
            features += TOKENISERS[kind](tokenizer, example, hyperparameters.max_length)
        except TooLong:
            too_long += 1
        except TemplateUnusable as refusal:
            refusals.append(str(refusal))
    if kind == "votes":
        features = _add_kl_completions(features, hyperparameters)
    return TrainingSet(features=tuple(features), too_long=too_long, refusals=tuple(refusals))


def check_learnable(train: TrainingSet, max_length: int) -> None:
    """Check that a training on `train` has something to learn. Raises NothingToLearn with the reason."""
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


def _tokenise_sft(tokenizer: Any, example: SFTExample, max_length: int) -> list[Feature]:
    prompt, completion = _render_answer(tokenizer, example, example.completion, max_length)
    return [{"input_ids": prompt + completion, "labels": [IGNORE_INDEX] * len(prompt) + completion}]


def _tokenise_pair(tokenizer: Any, pair: PreferencePair, max_length: int) -> list[Feature]:
    prompt, chosen = _render_answer(tokenizer, pair, pair.chosen, max_length)
    _, rejected = _render_answer(tokenizer, pair, pair.rejected, max_length)
    return [{"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}]


def _tokenise_vote(tokenizer: Any, vote: UnpairedPreference, max_length: int) -> list[Feature]:
    prompt, completion = _render_answer(tokenizer, vote, vote.completion, max_length)
    return [{"prompt_ids": prompt, "completion_ids": completion, "label": vote.desirable}]


def _tokenise_trajectory(tokenizer: Any, trajectory: Trajectory, max_length: int) -> list[Feature]:
    """Make one example of the conversation, or one of each turn if the template changes earlier turns."""
    messages, tools = trajectory.messages, trajectory.tools
    try:
        return [_tokenise_conversation(tokenizer, messages, tools, trajectory.learned, max_length)]
    except TurnsUnstable:
        features = []
        for turn in trajectory.learned:
            with suppress(TooLong):
                features.append(
                    _tokenise_conversation(tokenizer, messages[: turn + 1], tools, (turn,), max_length)
                )
        if not features:
            raise TooLong from None
        return features


TOKENISERS: Mapping[ExampleKind, Callable[[Any, Any, int], list[Feature]]] = {
    "sft": _tokenise_sft,
    "pairs": _tokenise_pair,
    "votes": _tokenise_vote,
    "trajectories": _tokenise_trajectory,
}


def _render_answer(
    tokenizer: Any,
    example: SFTExample | PreferencePair | UnpairedPreference,
    answer: Message,
    max_length: int,
) -> tuple[list[int], list[int]]:
    """Return the tokens of the prompt and of `answer`. Raises TooLong, TemplateUnusable."""
    rendered = render(tokenizer, example.prompt, example.tools, answer)
    if len(rendered.prompt_ids) + len(rendered.completion_ids) > max_length:
        raise TooLong
    return list(rendered.prompt_ids), list(rendered.completion_ids)


def _tokenise_conversation(
    tokenizer: Any,
    messages: Sequence[Message],
    tools: Sequence[dict[str, Any]],
    learned: Sequence[int],
    max_length: int,
) -> Feature:
    """Tokenise the conversation, without its oldest turns if it is too long.

    Raises TooLong, TemplateUnusable.
    """
    first = next((n for n, each in enumerate(messages) if each.role not in SYSTEM_ROLES), len(messages))
    questions = [n for n, each in enumerate(messages) if n > first and each.role == "user"]
    for start in [first, *questions]:
        remaining = [turn - (start - first) for turn in learned if turn >= start]
        if not remaining:
            break
        shortened = [*messages[:first], *messages[start:]]
        ids, mask = render_conversation(tokenizer, shortened, tools, remaining)
        if len(ids) <= max_length:
            labels = [token if taught else IGNORE_INDEX for token, taught in zip(ids, mask, strict=True)]
            return {"input_ids": ids, "labels": labels}
    raise TooLong


def _add_kl_completions(votes: list[Feature], hyperparameters: Hyperparameters) -> list[Feature]:
    """Shuffle `votes`, and add to each the answer of the vote before it in its batch.

    From these answers to other prompts KTO estimates how far the policy has moved. TRL takes batches in
    order, and pairs answers in the same way when it tokenises.
    """
    shuffled = random.Random(hyperparameters.seed).sample(votes, len(votes))  # noqa: S311 - no secret
    size = max(MIN_VOTES, hyperparameters.batch_size)
    paired = []
    for begin in range(0, len(shuffled), size):
        batch = shuffled[begin : begin + size]
        for vote, other in zip(batch, [batch[-1], *batch[:-1]], strict=True):
            paired.append({**vote, "KL_completion_ids": other["completion_ids"]})
    return paired


def _list_answers(feature: Feature) -> list[list[int]]:
    """Return the answers of a pair or a vote."""
    return [feature[name] for name in ("chosen_ids", "rejected_ids", "completion_ids") if name in feature]
