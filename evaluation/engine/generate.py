"""Greedy answers of several adapters and their base, in batches, from one loaded base model.

The prompts of one agent begin alike, and their common beginning is computed once (`shared_prompts.py`).
Where the answers are labels, one pass gives both the answer and the likelihood of every label
(`likelihood.py`).
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from peft import PeftModel
from transformers import GenerationConfig

from evaluation.engine.likelihood import (
    LabelLikelihoods,
    LikelihoodBatch,
    compute_answer_logits,
    compute_divergence,
    compute_label_likelihoods,
    compute_logprobs,
    split_answers,
)
from evaluation.engine.shared_prompts import (
    RowCollector,
    SharedPrompts,
    TokenBatch,
    Tokens,
    group_by_beginning,
    split_into_batches,
)
from evaluation.report import BASE
from extractors.values import Value
from trainers.models.adapter_files import ADAPTER_CONFIG, AdapterUnusable
from trainers.models.base_model import Device, Dtype, find_stop_tokens, load_model, load_tokenizer

T = TypeVar("T")
HARMLESS_SETTINGS = frozenset(
    {
        *("bos_token_id", "eos_token_id", "pad_token_id", "max_length", "max_new_tokens"),
        *("do_sample", "temperature", "top_k", "top_p", "min_p", "typical_p"),
        *("use_cache", "output_attentions", "output_hidden_states", "transformers_version"),
    }
)
"""Settings of a generation config that do not change which token greedy decoding takes."""


class GeneratedAnswer(Value):
    """One answer."""

    ids: Tokens
    """Generated tokens, the one that ended the turn included."""
    text: str
    ended: bool
    """True if the model ended the answer, not the limit."""
    seconds: float
    """Wall time: an even share of its batch's."""
    label_logprobs: tuple[float, ...] = ()
    """Log-likelihood (nats) of each label, with its end token only where another label goes on there; empty
    without labels."""


class AnswerEngine:
    """One base model in memory, with adapters that are switched on and off."""

    def __init__(self, tokenizer: Any, model: Any, slots: Mapping[str, str]) -> None:
        """`slots` maps a side to the name under which PEFT holds its adapter in `model`."""
        self.tokenizer = tokenizer
        self._model = model
        self._slots = slots
        self._stops = find_stop_tokens(tokenizer, model)
        self._can_predict = _is_plain_greedy(model.generation_config)

    def generate(
        self,
        side: str,
        prompts: Sequence[Tokens],
        *,
        max_new_tokens: int,
        batch_size: int,
        labels: Sequence[Tokens] = (),
        on_progress: Callable[[int], None] = lambda _done: None,
    ) -> list[GeneratedAnswer]:
        """Return the greedy answer of `side` to each prompt, in their order.

        With `labels`, made by `tokenize_labels`, each answer also has the likelihood of every label; an
        answer that is a label is then known and not generated. The common beginning of prompts is computed
        once, and prompts of similar length share a batch. `on_progress` is called with the number of
        prompts answered so far.
        """
        answered: dict[int, GeneratedAnswer] = {}
        with self.activate(side), torch.inference_mode():
            for numbers in group_by_beginning(prompts):
                group = [prompts[number] for number in numbers]
                for said in self._generate_group(group, labels, max_new_tokens, batch_size):
                    answered |= {numbers[place]: each for place, each in said.items()}
                    on_progress(len(answered))
        return [answered[number] for number in range(len(prompts))]

    def compute_logprobs(
        self, side: str, prompts: Sequence[Tokens], answers: Sequence[Tokens], *, batch_size: int
    ) -> list[tuple[float, ...]]:
        """Return the log-probability (nats) of each token of each answer after its prompt."""
        found: dict[int, tuple[float, ...]] = {}
        with self.activate(side), torch.inference_mode():
            for numbers in group_by_beginning(prompts):
                asked, said = [prompts[n] for n in numbers], [answers[n] for n in numbers]
                logprobs = compute_logprobs(self._model, self._share(asked), asked, said, batch_size)
                found |= dict(zip(numbers, logprobs, strict=True))
        return [found[number] for number in range(len(prompts))]

    def compute_divergences(
        self, side: str, prompts: Sequence[Tokens], answers: Sequence[Tokens], *, batch_size: int
    ) -> list[tuple[float, ...]]:
        """Return KL(base‖side) in nats at each token of each answer after its prompt.

        Both sides read the same prompt and the same beginning of the answer, and the divergence of their
        distributions of the next token is computed over the whole vocabulary.
        """
        found: dict[int, tuple[float, ...]] = {}
        with torch.inference_mode():
            for group in group_by_beginning(prompts):
                asked, said = [prompts[n] for n in group], [answers[n] for n in group]
                shared = [(name, self._share_as(name, asked)) for name in (BASE, side)]
                for places in split_answers(self._model, asked, said, batch_size):
                    rows = [asked[place] for place in places], [said[place] for place in places]
                    base, other = (self._compute_logits_as(name, begun, *rows) for name, begun in shared)
                    for row, place in zip(compute_divergence(base, other).tolist(), places, strict=True):
                        found[group[place]] = tuple(row[len(row) - len(said[place]) :])
        return [found[number] for number in range(len(prompts))]

    def _share_as(self, side: str, prompts: Sequence[Tokens]) -> SharedPrompts:
        with self.activate(side):
            return self._share(prompts)

    def _compute_logits_as(
        self, side: str, shared: SharedPrompts, prompts: Sequence[Tokens], answers: Sequence[Tokens]
    ) -> torch.Tensor:
        with self.activate(side):
            return compute_answer_logits(self._model, shared, prompts, answers)

    def compute_answer_logprobs(self, side: str, prompt: Tokens, answer: Tokens) -> tuple[float, ...]:
        """Return the log-probability (nats) of each token of one answer, shape (len(answer),)."""
        [found] = self.compute_logprobs(side, [prompt], [answer], batch_size=1)
        return found

    def time_answer(self, side: str, prompt: Tokens, *, tokens: int) -> float:
        """Return the seconds that it takes to answer `prompt`, alone, with exactly `tokens` tokens."""
        with self.activate(side), torch.inference_mode():
            batch = self._share([prompt]).build_batch([prompt])
            started = time.perf_counter()
            self._continue(batch, tokens, least=tokens)
            return time.perf_counter() - started

    def _share(self, prompts: Sequence[Tokens]) -> SharedPrompts:
        return SharedPrompts(self._model, prompts)

    def _generate_group(
        self, prompts: Sequence[Tokens], labels: Sequence[Tokens], most: int, batch_size: int
    ) -> Iterator[dict[int, GeneratedAnswer]]:
        """Yield the answers to prompts that begin alike, batch by batch, by the prompts' positions."""
        shared = self._share(prompts)
        if not labels:
            for numbers in split_into_batches([len(prompt) + most for prompt in prompts], batch_size):
                yield self._generate_batch(
                    numbers, shared.build_batch([prompts[number] for number in numbers]), {}, most
                )
            return
        likelihoods: dict[int, LabelLikelihoods] = {}
        unsaid = RowCollector(batch_size, most)
        for found, seconds in _time_batches(
            compute_label_likelihoods(self._model, shared, prompts, labels, batch_size)
        ):
            likelihoods |= dict(zip(found.numbers, found.likelihoods, strict=True))
            answered = self._find_label_answers(found, seconds, most)
            yield answered
            left = [place for place, number in enumerate(found.numbers) if number not in answered]
            if left:
                if not unsaid.has_room(len(left), found.batch.ids.shape[1]):
                    yield self._generate_batch(*unsaid.take(), likelihoods, most)
                unsaid.add([found.numbers[place] for place in left], found.batch.select_rows(left))
        if unsaid.numbers:
            yield self._generate_batch(*unsaid.take(), likelihoods, most)

    def _find_label_answers(
        self, found: LikelihoodBatch, seconds: float, most: int
    ) -> dict[int, GeneratedAnswer]:
        """Return the answers that are labels, by the prompts' numbers."""
        return {
            number: self._build_answer(ids, seconds / len(found.numbers), likelihoods)
            for number, likelihoods in zip(found.numbers, found.likelihoods, strict=True)
            if (ids := self._predict(likelihoods, most))
        }

    def _predict(self, likelihoods: LabelLikelihoods, most: int) -> Tokens:
        """Return the answer where the labels' tree holds it to its end; else no tokens."""
        ids: Tokens = ()
        while self._can_predict and len(ids) < most and ids in likelihoods.next_tokens:
            ids += (likelihoods.next_tokens[ids],)
        return ids if ids and ids[-1] in self._stops else ()

    def _generate_batch(
        self,
        numbers: Sequence[int],
        batch: TokenBatch,
        likelihoods: Mapping[int, LabelLikelihoods],
        most: int,
    ) -> dict[int, GeneratedAnswer]:
        """Return the answers to the rows of `batch`, by the `numbers` of their prompts."""
        started = time.perf_counter()
        said = self._continue(batch, most)
        seconds = (time.perf_counter() - started) / len(said)
        return {
            number: self._build_answer(self._cut_at_end(ids), seconds, likelihoods.get(number))
            for number, ids in zip(numbers, said, strict=True)
        }

    def _continue(self, batch: TokenBatch, most: int, least: int | None = None) -> list[list[int]]:
        """Return the tokens that follow each row: `most`, fewer only where all answers have ended."""
        config = GenerationConfig(
            do_sample=False,
            min_new_tokens=least,
            max_new_tokens=most,
            eos_token_id=sorted(self._stops),
            pad_token_id=self.tokenizer.pad_token_id,
        )
        out = self._model.generate(
            input_ids=batch.ids,
            attention_mask=batch.mask,
            past_key_values=batch.cache,
            generation_config=config,
        )
        said: list[list[int]] = out[:, batch.ids.shape[1] :].tolist()
        return said

    def _cut_at_end(self, ids: Sequence[int]) -> Tokens:
        end = next((place for place, token in enumerate(ids) if token in self._stops), len(ids))
        return tuple(ids[: end + 1])

    def _build_answer(
        self, ids: Tokens, seconds: float, likelihoods: LabelLikelihoods | None
    ) -> GeneratedAnswer:
        return GeneratedAnswer(
            ids=ids,
            text=self.tokenizer.decode(ids, skip_special_tokens=True),
            ended=ids[-1] in self._stops,
            seconds=seconds,
            label_logprobs=likelihoods.logprobs if likelihoods else (),
        )

    @contextmanager
    def activate(self, side: str) -> Iterator[None]:
        if not isinstance(self._model, PeftModel):
            yield
        elif side == BASE:
            with self._model.disable_adapter():
                yield
        else:
            self._model.set_adapter(self._slots[side])
            yield


def open_engine(
    base_model: str, adapters: Mapping[str, Path], *, device: Device = "auto", dtype: Dtype = "auto"
) -> AnswerEngine:
    """Load the base and `adapters` (side to folder).

    Raises BaseModelUnusable, AdapterUnusable.
    """
    tokenizer = load_tokenizer(base_model)
    return build_engine(tokenizer, load_model(base_model, device=device, dtype=dtype), adapters)


def build_engine(tokenizer: Any, model: Any, adapters: Mapping[str, Path]) -> AnswerEngine:
    """Return an engine on a loaded base, to which `adapters` (side to folder) are added.

    Raises AdapterUnusable.
    """
    # PEFT takes no dots in a name, and versions' names have them.
    slots = {side: f"side{number}" for number, side in enumerate(adapters)}
    for side, folder in adapters.items():
        model = _load_adapter(model, folder, slots[side])
    return AnswerEngine(tokenizer, model.eval(), slots)


def _load_adapter(model: Any, folder: Path, slot: str) -> Any:
    if not (folder / ADAPTER_CONFIG).is_file():
        raise AdapterUnusable(f"{folder} holds no {ADAPTER_CONFIG}; restore the version from a back-up")
    try:
        # In the base's own precision, as a server holds it.
        if isinstance(model, PeftModel):
            model.load_adapter(folder, slot, autocast_adapter_dtype=False)
            return model
        return PeftModel.from_pretrained(model, folder, slot, autocast_adapter_dtype=False)
    except (OSError, ValueError, RuntimeError) as broken:
        raise AdapterUnusable(f"the adapter in {folder} does not fit its base model: {broken}") from broken


def _is_plain_greedy(config: GenerationConfig) -> bool:
    """Return True if greedy decoding takes the likeliest token: no repetition penalty, for instance."""
    given = {name for name in config.to_diff_dict() if not name.startswith("_")}
    return given <= HARMLESS_SETTINGS


def _time_batches(batches: Iterable[T]) -> Iterator[tuple[T, float]]:
    """Yield each batch with the seconds that it took."""
    started = time.perf_counter()
    for batch in batches:
        yield batch, time.perf_counter() - started
        started = time.perf_counter()
