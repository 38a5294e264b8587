"""How likely are given answers? Those of each prompt, or the same labels after all prompts, in one pass.

Labels are packed into a tree (`trainers/prefix_shared.py`) that goes on from the prompt's cache; a mask
lets each token see the prompt and what stands before it in its own label:

    prompt ─┬─ bill ─┬─ ing ── ⟨end⟩
            │        └─ ⟨end⟩
            └─ ship ─── ping ─ ⟨end⟩

At every place of the tree stands then also what the model would say next: a greedy answer that is a
label is known without generating it (tree verification: Miao et al. 2024, SpecInfer).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from evaluation.shared_prompts import Batch, SharedPrompts, Tokens, in_batches
from extractors.examples import Message
from trainers.prefix_shared import Packed, pack
from trainers.rendering import render

MOST_LOGITS = 2**26
"""Logits held at once: 256 MiB in float32."""


@dataclass(frozen=True)
class Weighed:
    """What one prompt's labels tell."""

    logprobs: tuple[float, ...]
    """Log-likelihood (nats) of each label as the whole answer."""
    said: dict[Tokens, int]
    """What the model says after the prompt and these tokens, for all that a label begins with."""


@dataclass(frozen=True)
class Weighing:
    """What one pass over several prompts tells."""

    numbers: list[int]
    """Which prompts."""
    weighed: list[Weighed]
    """One each."""
    batch: Batch
    """Their rows, to go on from."""


@dataclass(frozen=True)
class LabelTree:
    """Some labels, packed."""

    numbers: tuple[int, ...]
    """Which labels."""
    labels: tuple[Tokens, ...]
    packed: Packed
    """The labels without their ends, after which nothing comes."""


def label_tokens(
    tokenizer: Any, prompt: Sequence[Message], tools: Sequence[dict[str, Any]], labels: Sequence[str]
) -> tuple[Tokens, ...]:
    """The tokens of each label as an answer, the one that ends the turn included, as training renders them.

    They are the same after all prompts of an agent, so any of these will do. Raises TemplateUnusable.
    """
    answers = (Message(role="assistant", content=label) for label in labels)
    return tuple(render(tokenizer, prompt, tools, answer).completion_ids for answer in answers)


def answer_logprobs(
    model: Any,
    shared: SharedPrompts,
    prompts: Sequence[Tokens],
    answers: Sequence[Tokens],
    most_rows: int,
) -> list[tuple[float, ...]]:
    """Log-probability (nats) of each token of each answer after its prompt."""
    rows = [(*prompt, *answer) for prompt, answer in zip(prompts, answers, strict=True)]
    most = _rows(most_rows, 1 + max(map(len, answers), default=0), model)
    found: dict[int, tuple[float, ...]] = {}
    for numbers in in_batches(list(map(len, rows)), most):
        inputs = shared.batch([rows[number] for number in numbers]).inputs()
        longest = max(len(answers[number]) for number in numbers)
        logits = model(**inputs, logits_to_keep=longest + 1).logits[:, :-1].float()
        sums = logits.logsumexp(dim=-1)
        for row, number in enumerate(numbers):
            places, said = range(longest - len(answers[number]), longest), list(answers[number])
            found[number] = tuple((logits[row, places, said] - sums[row, places]).tolist())
    return [found[number] for number in range(len(rows))]


def weigh_labels(
    model: Any,
    shared: SharedPrompts,
    prompts: Sequence[Tokens],
    labels: Sequence[Tokens],
    most_rows: int,
) -> Iterator[Weighing]:
    """How likely all `labels` are after each prompt, batch by batch; nothing without labels."""
    if not labels:
        return
    trees = label_trees(labels, model.config.vocab_size)
    nodes = max(len(tree.packed.tokens) for tree in trees)
    lengths = [len(prompt) + nodes for prompt in prompts]
    for numbers in in_batches(lengths, _rows(most_rows, 1 + nodes, model)):
        asked = [prompts[number] for number in numbers]
        batch = shared.batch(asked)
        if shared.exact:
            yield Weighing(numbers, _weigh(model, batch, trees), batch)
        else:
            yield Weighing(numbers, _one_by_one(model, shared, asked, labels, most_rows), batch)


def label_trees(labels: Sequence[Tokens], vocabulary: int) -> list[LabelTree]:
    """All `labels`, in trees whose logits, with so many words in the vocabulary, can be held for a prompt."""
    trees = []
    for numbers in _apportioned(labels, MOST_LOGITS // vocabulary - 1):
        chosen = tuple(labels[number] for number in numbers)
        inner = [np.array(label[:-1], dtype=np.int64) for label in chosen]
        trees.append(LabelTree(tuple(numbers), chosen, pack(inner, list(map(len, inner)))))
    return trees


def _apportioned(labels: Sequence[Tokens], most_tokens: int) -> Iterator[list[int]]:
    """The labels' numbers in parts of at most so many tokens, those together that begin alike."""
    part: list[int] = []
    tokens = 0
    for number in sorted(range(len(labels)), key=lambda number: labels[number]):
        if part and tokens + len(labels[number]) > most_tokens:
            yield part
            part, tokens = [], 0
        part.append(number)
        tokens += len(labels[number])
    if part:
        yield part


def _rows(most: int, places: int, model: Any) -> int:
    """How many rows a batch may have, with logits at so many places of each."""
    return max(1, min(most, MOST_LOGITS // (places * model.config.vocab_size)))


def _weigh(model: Any, batch: Batch, trees: Sequence[LabelTree]) -> list[Weighed]:
    """For each row of `batch`, how likely the labels of all `trees` are after it."""
    first = model(**batch.inputs(), logits_to_keep=1).logits[:, 0].float()
    logprobs: list[dict[int, float]] = [{} for _ in batch.ids]
    said: list[dict[Tokens, int]] = [{(): word} for word in first.argmax(dim=-1).tolist()]
    for tree in trees:
        logits = _logits_after(model, batch, tree)
        for row, found in enumerate(_likelihoods(first, logits, tree).tolist()):
            logprobs[row].update(zip(tree.numbers, found, strict=True))
        beginnings = _beginnings(tree)
        for row, words in enumerate(logits.argmax(dim=-1).tolist()):
            said[row].update(zip(beginnings, words, strict=True))
    return [
        Weighed(tuple(found[number] for number in range(len(found))), words)
        for found, words in zip(logprobs, said, strict=True)
    ]


def _logits_after(model: Any, batch: Batch, tree: LabelTree) -> torch.Tensor:
    """(rows, nodes, vocabulary): what comes after each node of `tree`. Leaves the batch's cache as it was."""
    packed, rows, device = tree.packed, len(batch.ids), batch.ids.device
    tokens, depths, sees = (
        torch.from_numpy(array).to(device) for array in (packed.tokens, packed.positions, packed.sees())
    )
    if not len(tokens):
        return torch.empty((rows, 0, model.config.vocab_size), device=device)
    prompt = batch.mask.bool()[:, None].expand(-1, len(tokens), -1)
    visible = torch.cat([prompt, sees.expand(rows, -1, -1)], dim=-1)
    hidden = torch.zeros(visible.shape, dtype=model.dtype, device=device)
    cache: Any = batch.cache
    logits: torch.Tensor = model(
        input_ids=tokens.expand(rows, -1),
        attention_mask=hidden.masked_fill_(~visible, torch.finfo(model.dtype).min)[:, None],
        position_ids=batch.mask.sum(dim=1, keepdim=True) + depths,
        past_key_values=cache,
    ).logits.float()
    cache.crop(-len(tokens))
    return logits


def _likelihoods(first: torch.Tensor, logits: torch.Tensor, tree: LabelTree) -> torch.Tensor:
    """(rows, labels): the first token after the prompt, then each after those before it."""
    starts = [label[0] for label in tree.labels]
    begun = first[:, starts] - first.logsumexp(dim=-1, keepdim=True)
    nodes = np.concatenate(tree.packed.paths)
    following = [token for label in tree.labels for token in label[1:]]
    scores = logits[:, nodes, following] - logits.logsumexp(dim=-1)[:, nodes]
    parts = scores.split([len(label) - 1 for label in tree.labels], dim=1)
    return begun + torch.stack([part.sum(dim=1) for part in parts], dim=1)


def _beginnings(tree: LabelTree) -> list[Tokens]:
    """The tokens from the root to each node, itself included."""
    nodes = zip(tree.packed.owner.tolist(), tree.packed.positions.tolist(), strict=True)
    return [tree.labels[owner][: position + 1] for owner, position in nodes]


def _one_by_one(
    model: Any,
    shared: SharedPrompts,
    prompts: Sequence[Tokens],
    labels: Sequence[Tokens],
    most_rows: int,
) -> list[Weighed]:
    """For models that take no mask of ours: every label after every prompt, in a row of its own."""
    pairs = [(prompt, label) for prompt in prompts for label in labels]
    asked, said = [prompt for prompt, _ in pairs], [label for _, label in pairs]
    sums = list(map(sum, answer_logprobs(model, shared, asked, said, most_rows)))
    starts = range(0, len(sums), len(labels))
    return [Weighed(tuple(sums[start : start + len(labels)]), {}) for start in starts]
