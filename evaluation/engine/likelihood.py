"""How likely are given answers? Those of each prompt, or the same labels after all prompts, in one pass.

Labels are packed into a tree (`trainers.batching.prefix_tree`) that continues the cache of the prompt; a mask
lets each token see the prompt and what stands before it in its own label:

    prompt ─┬─ bill ─┬─ ing · ─ ⟨end⟩
            │        └─ ⟨end⟩
            └─ ship ─── ping · ─ ⟨end⟩

After a label's last token (·) nothing has to be computed, unless another label goes on there. At every
place of the tree stands also what the model would say next: where it begins as a label does, that label's
last place is computed too, and a greedy answer that is a label is known without generating it (tree
verification: Miao et al. 2024, SpecInfer).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from evaluation.engine.shared_prompts import (
    MOST_PADDING,
    SharedPrompts,
    TokenBatch,
    Tokens,
    split_into_batches,
)
from extractors.examples.types import Message
from trainers.batching.prefix_tree import PackedBatch, pack
from trainers.models.chat_template import render

Ids = NDArray[np.int64]
MOST_LOGITS = 2**26
"""Logits held at once: 256 MiB in float32."""


@dataclass(frozen=True)
class LabelLikelihoods:
    """What one prompt's labels tell."""

    logprobs: tuple[float, ...]
    """Log-likelihood (nats) of each label, as `find_counted_tokens` says."""
    said: dict[Tokens, int]
    """What the model says after the prompt and these tokens, for what labels begin with."""


@dataclass(frozen=True)
class LikelihoodBatch:
    """What one pass over several prompts tells."""

    numbers: list[int]
    """Which prompts."""
    weighed: list[LabelLikelihoods]
    """One each."""
    batch: TokenBatch
    """Their rows, to go on from."""


@dataclass(frozen=True)
class LabelTree:
    """Some labels, packed."""

    numbers: tuple[int, ...]
    """Which labels."""
    labels: tuple[Tokens, ...]
    packed: PackedBatch
    """The labels without their ends, after which nothing comes."""
    counted: tuple[Tokens, ...]
    """What of each label makes its likelihood."""
    inner: Ids
    """(inner nodes,) those after which some label goes on."""
    leaves: Ids
    """(leaves,) the others."""

    @property
    def starts(self) -> Ids:
        """(nodes,) the first token on the way to each node."""
        return np.array([label[0] for label in self.labels])[self.packed.owner]

    def asked(self, words: Sequence[int]) -> Ids:
        """(rows, asked) the nodes that matter to rows that begin with these words, -1 where fewer do.

        All inner nodes come first, then the leaves of labels that begin so.
        """
        starts = self.starts[self.leaves]
        own = [self.leaves[starts == word] for word in words]
        asked = np.full((len(words), len(self.inner) + max(map(len, own))), -1)
        asked[:, : len(self.inner)] = self.inner
        for row, leaves in zip(asked, own, strict=True):
            row[len(self.inner) : len(self.inner) + len(leaves)] = leaves
        return asked


def tokenize_labels(
    tokenizer: Any, prompt: Sequence[Message], tools: Sequence[dict[str, Any]], labels: Sequence[str]
) -> tuple[Tokens, ...]:
    """The tokens of each label as an answer, the one that ends the turn included, as training renders them.

    They are the same after all prompts of an agent, so any of these will do. Raises TemplateUnusable.
    """
    answers = (Message(role="assistant", content=label) for label in labels)
    return tuple(render(tokenizer, prompt, tools, answer).completion_ids for answer in answers)


def compute_logprobs(
    model: Any,
    shared: SharedPrompts,
    prompts: Sequence[Tokens],
    answers: Sequence[Tokens],
    most_rows: int,
) -> list[tuple[float, ...]]:
    """Log-probability (nats) of each token of each answer after its prompt."""
    rows = [(*prompt, *answer) for prompt, answer in zip(prompts, answers, strict=True)]
    most = _limit_rows(most_rows, 1 + max(map(len, answers), default=0), model)
    found: dict[int, tuple[float, ...]] = {}
    for numbers in split_into_batches(list(map(len, rows)), most, MOST_PADDING):
        inputs = shared.batch([rows[number] for number in numbers]).inputs()
        longest = max(len(answers[number]) for number in numbers)
        logits = model(**inputs, logits_to_keep=longest + 1).logits[:, :-1].float()
        sums = logits.logsumexp(dim=-1)
        for row, number in enumerate(numbers):
            places, said = range(longest - len(answers[number]), longest), list(answers[number])
            found[number] = tuple((logits[row, places, said] - sums[row, places]).tolist())
    return [found[number] for number in range(len(rows))]


def compute_label_likelihoods(
    model: Any,
    shared: SharedPrompts,
    prompts: Sequence[Tokens],
    labels: Sequence[Tokens],
    most_rows: int,
) -> Iterator[LikelihoodBatch]:
    """How likely all `labels` are after each prompt, batch by batch; nothing without labels."""
    if not labels:
        return
    trees = build_label_trees(labels, model.config.vocab_size)
    nodes = max(len(tree.packed.tokens) for tree in trees)
    lengths = [len(prompt) + nodes for prompt in prompts]
    for numbers in split_into_batches(lengths, _limit_rows(most_rows, 1 + nodes, model), MOST_PADDING):
        asked = [prompts[number] for number in numbers]
        batch = shared.batch(asked)
        if shared.exact:
            yield LikelihoodBatch(numbers, _compute_batch(model, batch, trees), batch)
        else:
            yield LikelihoodBatch(
                numbers, _compute_one_by_one(model, shared, asked, labels, most_rows), batch
            )


def build_label_trees(labels: Sequence[Tokens], vocabulary: int) -> list[LabelTree]:
    """All `labels`, in trees whose logits, with so many words in the vocabulary, can be held for a prompt."""
    trees = []
    said, inner = find_counted_tokens(labels), _find_beginnings(labels)
    for numbers in _split_labels(labels, MOST_LOGITS // vocabulary - 1):
        chosen = tuple(labels[number] for number in numbers)
        texts = [np.array(label[:-1], dtype=np.int64) for label in chosen]
        packed = pack(texts, list(map(len, texts)))
        goes_on = np.array([begun in inner for begun in _list_paths(chosen, packed)], dtype=bool)
        trees.append(
            LabelTree(
                numbers=tuple(numbers),
                labels=chosen,
                packed=packed,
                counted=tuple(said[number] for number in numbers),
                inner=np.flatnonzero(goes_on),
                leaves=np.flatnonzero(~goes_on),
            )
        )
    return trees


def find_counted_tokens(labels: Sequence[Tokens]) -> list[Tokens]:
    """What of each label makes its likelihood: its tokens, and its end where another label goes on there.

    So no two labels say the same, and what a model adds to a label does not count against it (as in
    EleutherAI's lm-evaluation-harness).
    """
    inner = _find_beginnings(labels)
    return [label if label[:-1] in inner else label[:-1] or label for label in labels]


def _find_beginnings(labels: Sequence[Tokens]) -> set[Tokens]:
    """All that a label begins with, short of its last token."""
    return {label[:place] for label in labels for place in range(len(label) - 1)}


def _split_labels(labels: Sequence[Tokens], most_tokens: int) -> Iterator[list[int]]:
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


def _limit_rows(most: int, places: int, model: Any) -> int:
    """How many rows a batch may have, with logits at so many places of each."""
    return max(1, min(most, MOST_LOGITS // (places * model.config.vocab_size)))


def _compute_batch(model: Any, batch: TokenBatch, trees: Sequence[LabelTree]) -> list[LabelLikelihoods]:
    """For each row of `batch`, how likely the labels of all `trees` are after it."""
    first = model(**batch.inputs(), logits_to_keep=1).logits[:, 0].float()
    begun: list[int] = first.argmax(dim=-1).tolist()
    logprobs: list[dict[int, float]] = [{} for _ in batch.ids]
    said: list[dict[Tokens, int]] = [{(): word} for word in begun]
    for tree in trees:
        asked = tree.asked(begun)
        logits = _compute_logits(model, batch, tree, asked)
        for row, found in enumerate(_sum_logprobs(first, logits, tree).tolist()):
            logprobs[row].update(zip(tree.numbers, found, strict=True))
        beginnings = _list_paths(tree.labels, tree.packed)
        for row, words in enumerate(logits.argmax(dim=-1).tolist()):
            said[row].update(
                (beginnings[node], word)
                for node, word in zip(asked[row].tolist(), words, strict=True)
                if node >= 0
            )
    return [
        LabelLikelihoods(tuple(found[number] for number in range(len(found))), words)
        for found, words in zip(logprobs, said, strict=True)
    ]


def _compute_logits(model: Any, batch: TokenBatch, tree: LabelTree, asked: Ids) -> torch.Tensor:
    """(rows, asked, vocabulary): what comes after each asked node. Leaves the batch's cache as it was."""
    packed, device = tree.packed, batch.ids.device
    rows, nodes = asked.shape
    if not nodes:
        return torch.empty((rows, 0, model.config.vocab_size), device=device)
    own = packed.build_mask()[asked[:, :, None], asked[:, None, :]] & (asked >= 0)[:, None, :]
    tokens, depths, sees = (
        torch.from_numpy(array).to(device)
        for array in (packed.tokens[asked], packed.positions[asked], own | np.eye(nodes, dtype=bool))
    )
    prompt = batch.mask.bool()[:, None].expand(-1, nodes, -1)
    visible = torch.cat([prompt, sees], dim=-1)
    hidden = torch.zeros(visible.shape, dtype=model.dtype, device=device)
    cache: Any = batch.cache
    logits: torch.Tensor = model(
        input_ids=tokens,
        attention_mask=hidden.masked_fill_(~visible, torch.finfo(model.dtype).min)[:, None],
        position_ids=batch.mask.sum(dim=1, keepdim=True) + depths,
        past_key_values=cache,
    ).logits.float()
    cache.crop(-nodes)
    return logits


def _sum_logprobs(first: torch.Tensor, logits: torch.Tensor, tree: LabelTree) -> torch.Tensor:
    """(rows, labels): the first token after the prompt, then each after those before it."""
    begun = first[:, [said[0] for said in tree.counted]] - first.logsumexp(dim=-1, keepdim=True)
    later = [len(said) - 1 for said in tree.counted]
    before = [path[:tokens] for path, tokens in zip(tree.packed.paths, later, strict=True)]
    places = np.searchsorted(tree.inner, np.concatenate(before))
    following = [token for said in tree.counted for token in said[1:]]
    # Row by row: the sums' exponentials of all rows would take as much memory as the logits again.
    sums = torch.stack([row.logsumexp(dim=-1) for row in logits])
    scores = logits[:, places, following] - sums[:, places]
    parts = scores.split(later, dim=1)
    return begun + torch.stack([part.sum(dim=1) for part in parts], dim=1)


def _list_paths(labels: Sequence[Tokens], packed: PackedBatch) -> list[Tokens]:
    """The tokens from the root to each node, itself included."""
    nodes = zip(packed.owner.tolist(), packed.positions.tolist(), strict=True)
    return [labels[owner][: position + 1] for owner, position in nodes]


def _compute_one_by_one(
    model: Any,
    shared: SharedPrompts,
    prompts: Sequence[Tokens],
    labels: Sequence[Tokens],
    most_rows: int,
) -> list[LabelLikelihoods]:
    """For models that take no mask of ours: every label after every prompt, in a row of its own."""
    pairs = [(prompt, label) for prompt in prompts for label in find_counted_tokens(labels)]
    asked, said = [prompt for prompt, _ in pairs], [label for _, label in pairs]
    sums = list(map(sum, compute_logprobs(model, shared, asked, said, most_rows)))
    starts = range(0, len(sums), len(labels))
    return [LabelLikelihoods(tuple(sums[start : start + len(labels)]), {}) for start in starts]
