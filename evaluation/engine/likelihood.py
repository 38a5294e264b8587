"""The likelihood of given answers: one answer to each prompt, or all labels after every prompt in one pass.

Labels are packed into a tree (`trainers.batching.prefix_tree`) that continues the cache of the prompt; a mask
lets each token see the prompt and the tokens before it in its own label:

    prompt ─┬─ bill ─┬─ ing · ─ ⟨end⟩
            │        └─ ⟨end⟩
            └─ ship ─── ping · ─ ⟨end⟩

After a label's last token (·) nothing has to be computed, unless another label goes on there. Every node of
the tree also gives the model's next token. Where the model begins as a label does, that label's last node is
computed too, so a greedy answer that is a label is known without generating it (tree verification: Miao et
al. 2024, SpecInfer).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

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
    """The likelihood of all labels after one prompt."""

    logprobs: tuple[float, ...]
    """Log-likelihood (nats) of each label's tokens (see `find_counted_tokens`)."""
    next_tokens: dict[Tokens, int]
    """The model's next token after the prompt and a beginning of a label, by beginning."""


@dataclass(frozen=True)
class LikelihoodBatch:
    """The likelihoods of one pass over several prompts."""

    numbers: list[int]
    """The prompts' numbers."""
    likelihoods: list[LabelLikelihoods]
    """One a prompt."""
    batch: TokenBatch
    """The prompts' rows, from which generation can go on."""


@dataclass(frozen=True)
class LabelTree:
    """Some labels, packed into a tree."""

    numbers: tuple[int, ...]
    """The labels' numbers."""
    labels: tuple[Tokens, ...]
    packed: PackedBatch
    """The labels without their last tokens, after which nothing is computed."""
    counted: tuple[Tokens, ...]
    """Tokens of each label that make up its likelihood."""
    inner: Ids
    """Nodes after which some label goes on, shape (inner nodes,)."""
    leaves: Ids
    """The other nodes, shape (leaves,)."""

    @property
    def starts(self) -> Ids:
        """The first token on the path to each node, shape (nodes,)."""
        return np.array([label[0] for label in self.labels])[self.packed.owner]

    def select_nodes(self, words: Sequence[int]) -> Ids:
        """Return the nodes to compute for rows whose answers begin with `words`, shape (rows, nodes), padded
        with -1.

        All inner nodes come first, then the leaves of labels that begin with the row's word.
        """
        starts = self.starts[self.leaves]
        own = [self.leaves[starts == word] for word in words]
        nodes = np.full((len(words), len(self.inner) + max(map(len, own))), -1)
        nodes[:, : len(self.inner)] = self.inner
        for row, leaves in zip(nodes, own, strict=True):
            row[len(self.inner) : len(self.inner) + len(leaves)] = leaves
        return nodes


def tokenize_labels(
    tokenizer: Any, prompt: Sequence[Message], tools: Sequence[dict[str, Any]], labels: Sequence[str]
) -> tuple[Tokens, ...]:
    """Return the tokens of each label as an answer, rendered as in training, with the one that ends the turn.

    They are the same after all prompts of an agent, so `prompt` may be any of these. Raises
    TemplateUnusable.
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
    """Return the log-probability (nats) of each token of each answer after its prompt."""
    found: dict[int, tuple[float, ...]] = {}
    for numbers in split_answers(model, prompts, answers, most_rows):
        said = [answers[number] for number in numbers]
        logits = compute_answer_logits(model, shared, [prompts[number] for number in numbers], said)
        sums, longest = logits.logsumexp(dim=-1), logits.shape[1]
        for row, (number, answer) in enumerate(zip(numbers, said, strict=True)):
            places = range(longest - len(answer), longest)
            found[number] = tuple((logits[row, places, list(answer)] - sums[row, places]).tolist())
    return [found[number] for number in range(len(prompts))]


def split_answers(
    model: Any, prompts: Sequence[Tokens], answers: Sequence[Tokens], most_rows: int
) -> Iterator[list[int]]:
    """Yield the numbers of prompts whose answers' logits fit into memory together."""
    lengths = [len(prompt) + len(answer) for prompt, answer in zip(prompts, answers, strict=True)]
    most = _limit_rows(most_rows, 1 + max(map(len, answers), default=0), model)
    return split_into_batches(lengths, most, MOST_PADDING)


def compute_answer_logits(
    model: Any, shared: SharedPrompts, prompts: Sequence[Tokens], answers: Sequence[Tokens]
) -> torch.Tensor:
    """Return the logits from which each answer's tokens are drawn, shape (rows, tokens, vocabulary), float32.

    Shorter answers end where the longest does; what stands before them belongs to their prompts.
    """
    rows = [(*prompt, *answer) for prompt, answer in zip(prompts, answers, strict=True)]
    inputs = shared.build_batch(rows).build_inputs()
    logits: torch.Tensor = model(**inputs, logits_to_keep=max(map(len, answers)) + 1).logits
    return logits[:, :-1].float()


def compute_divergence(base: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return KL(base‖other) in nats at each place, shape (rows, tokens), of logits over the vocabulary.

    It is the whole sum over the vocabulary, sum p_base (log p_base - log p_other), and no estimate from the
    token that was drawn.
    """
    # Row by row: the log-probabilities of all rows would take as much memory as the logits again.
    return torch.stack(
        [
            functional.kl_div(
                theirs.log_softmax(dim=-1), ours.log_softmax(dim=-1), reduction="none", log_target=True
            ).sum(dim=-1)
            for ours, theirs in zip(base, other, strict=True)
        ]
    )


def compute_label_likelihoods(
    model: Any,
    shared: SharedPrompts,
    prompts: Sequence[Tokens],
    labels: Sequence[Tokens],
    most_rows: int,
) -> Iterator[LikelihoodBatch]:
    """Yield the likelihoods of all `labels` after each prompt, batch by batch; nothing without labels."""
    if not labels:
        return
    trees = build_label_trees(labels, model.config.vocab_size)
    nodes = max(len(tree.packed.tokens) for tree in trees)
    lengths = [len(prompt) + nodes for prompt in prompts]
    for numbers in split_into_batches(lengths, _limit_rows(most_rows, 1 + nodes, model), MOST_PADDING):
        asked = [prompts[number] for number in numbers]
        batch = shared.build_batch(asked)
        if shared.exact:
            yield LikelihoodBatch(numbers, _compute_batch(model, batch, trees), batch)
        else:
            yield LikelihoodBatch(
                numbers, _compute_one_by_one(model, shared, asked, labels, most_rows), batch
            )


def build_label_trees(labels: Sequence[Tokens], vocabulary: int) -> list[LabelTree]:
    """Pack all `labels` into trees, each small enough for its logits over the vocabulary to fit in memory."""
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
    """Return the tokens that make up each label's likelihood.

    A label's end counts only where another label goes on there. So no two labels have the same tokens, and
    what a model adds to a label does not count against it (as in EleutherAI's lm-evaluation-harness).
    """
    inner = _find_beginnings(labels)
    return [label if label[:-1] in inner else label[:-1] or label for label in labels]


def _find_beginnings(labels: Sequence[Tokens]) -> set[Tokens]:
    """Return every beginning of a label that leaves out its last token."""
    return {label[:place] for label in labels for place in range(len(label) - 1)}


def _split_labels(labels: Sequence[Tokens], most_tokens: int) -> Iterator[list[int]]:
    """Yield the labels' numbers in parts of at most `most_tokens`; labels that begin alike stay together."""
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
    """Return the number of rows that a batch may have, with logits at `places` places of each."""
    return max(1, min(most, MOST_LOGITS // (places * model.config.vocab_size)))


def _compute_batch(model: Any, batch: TokenBatch, trees: Sequence[LabelTree]) -> list[LabelLikelihoods]:
    """Return the likelihoods of the labels of all `trees` after each row of `batch`."""
    first = model(**batch.build_inputs(), logits_to_keep=1).logits[:, 0].float()
    begun: list[int] = first.argmax(dim=-1).tolist()
    logprobs: list[dict[int, float]] = [{} for _ in batch.ids]
    next_tokens: list[dict[Tokens, int]] = [{(): word} for word in begun]
    for tree in trees:
        nodes = tree.select_nodes(begun)
        logits = _compute_logits(model, batch, tree, nodes)
        for row, found in enumerate(_sum_logprobs(first, logits, tree).tolist()):
            logprobs[row].update(zip(tree.numbers, found, strict=True))
        beginnings = _list_paths(tree.labels, tree.packed)
        for row, words in enumerate(logits.argmax(dim=-1).tolist()):
            next_tokens[row].update(
                (beginnings[node], word)
                for node, word in zip(nodes[row].tolist(), words, strict=True)
                if node >= 0
            )
    return [
        LabelLikelihoods(tuple(found[number] for number in range(len(found))), words)
        for found, words in zip(logprobs, next_tokens, strict=True)
    ]


def _compute_logits(model: Any, batch: TokenBatch, tree: LabelTree, nodes: Ids) -> torch.Tensor:
    """Return the logits after `nodes`, shape (rows, nodes, vocabulary); the batch's cache stays as it was."""
    packed, device = tree.packed, batch.ids.device
    rows, width = nodes.shape
    if not width:
        return torch.empty((rows, 0, model.config.vocab_size), device=device)
    own = packed.build_mask()[nodes[:, :, None], nodes[:, None, :]] & (nodes >= 0)[:, None, :]
    tokens, depths, sees = (
        torch.from_numpy(array).to(device)
        for array in (packed.tokens[nodes], packed.positions[nodes], own | np.eye(width, dtype=bool))
    )
    prompt = batch.mask.bool()[:, None].expand(-1, width, -1)
    visible = torch.cat([prompt, sees], dim=-1)
    hidden = torch.zeros(visible.shape, dtype=model.dtype, device=device)
    cache: Any = batch.cache
    logits: torch.Tensor = model(
        input_ids=tokens,
        attention_mask=hidden.masked_fill_(~visible, torch.finfo(model.dtype).min)[:, None],
        position_ids=batch.mask.sum(dim=1, keepdim=True) + depths,
        past_key_values=cache,
    ).logits.float()
    cache.crop(-width)
    return logits


def _sum_logprobs(first: torch.Tensor, logits: torch.Tensor, tree: LabelTree) -> torch.Tensor:
    """Return the labels' log-likelihoods, shape (rows, labels).

    `first` has the logits after the prompt, `logits` those after the tree's nodes.
    """
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
    """Return the tokens from the root to each node, the node's own included."""
    nodes = zip(packed.owner.tolist(), packed.positions.tolist(), strict=True)
    return [labels[owner][: position + 1] for owner, position in nodes]


def _compute_one_by_one(
    model: Any,
    shared: SharedPrompts,
    prompts: Sequence[Tokens],
    labels: Sequence[Tokens],
    most_rows: int,
) -> list[LabelLikelihoods]:
    """Compute the likelihoods of a model that takes no mask of ours: a row for each label and prompt."""
    pairs = [(prompt, label) for prompt in prompts for label in find_counted_tokens(labels)]
    asked, said = [prompt for prompt, _ in pairs], [label for _, label in pairs]
    sums = list(map(sum, compute_logprobs(model, shared, asked, said, most_rows)))
    starts = range(0, len(sums), len(labels))
    return [LabelLikelihoods(tuple(sums[start : start + len(labels)]), {}) for start in starts]
