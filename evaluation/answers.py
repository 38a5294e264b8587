"""Greedy answers of several adapters and their base, from one loaded base model, batched."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import GenerationConfig

from extractors.values import LearndError, Value
from trainers.base_model import Device, Dtype, load_model, load_tokenizer

BASE = "base"
"""The side without an adapter."""
Tokens = tuple[int, ...]


class AdapterUnusable(LearndError):
    """An adapter's files are missing or do not fit the base model."""


class Generated(Value):
    """One answer."""

    ids: Tokens
    """Tokens generated, the one that ended the turn included."""
    text: str
    ended: bool
    """By itself, not by the limit."""
    seconds: float
    """Wall time: its batch's, shared evenly."""


class AnswerEngine:
    """One base model in memory, with adapters that are switched on and off."""

    def __init__(self, tokenizer: Any, model: Any, slots: Mapping[str, str]) -> None:
        """`slots` maps a side to the name under which PEFT holds its adapter in `model`."""
        self.tokenizer = tokenizer
        self._model = model
        self._slots = slots
        self._stops = _stops(tokenizer, model)

    def answers(
        self,
        side: str,
        prompts: Sequence[Tokens],
        *,
        max_new_tokens: int,
        batch_size: int,
        on_progress: Callable[[int], None] = lambda _done: None,
    ) -> list[Generated]:
        """What `side` says to each prompt, in their order.

        Prompts of like length share a batch; `on_progress` hears how many are answered.
        """
        by_length = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        answered: dict[int, Generated] = {}
        with self._speaking(side):
            for start in range(0, len(by_length), batch_size):
                indices = by_length[start : start + batch_size]
                batch = self._batch([prompts[index] for index in indices], max_new_tokens)
                answered.update(zip(indices, batch, strict=True))
                on_progress(len(answered))
        return [answered[index] for index in range(len(prompts))]

    def logprobs(self, side: str, prompt: Tokens, answer: Tokens) -> tuple[float, ...]:
        """Log-probability (nats) of each token of `answer` after `prompt`, shape (len(answer),)."""
        ids = torch.tensor([[*prompt, *answer]], device=self._model.device)
        with self._speaking(side), torch.inference_mode():
            logits = self._model(input_ids=ids, logits_to_keep=len(answer) + 1).logits[0, :-1]
        scores = logits.float().log_softmax(-1)
        return tuple(scores[range(len(answer)), list(answer)].tolist())

    def _batch(self, prompts: Sequence[Tokens], max_new_tokens: int) -> Iterator[Generated]:
        longest = max(map(len, prompts))
        pad = self.tokenizer.pad_token_id
        device = self._model.device
        ids = torch.tensor([[pad] * (longest - len(p)) + list(p) for p in prompts], device=device)
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=device)
        config = GenerationConfig(
            do_sample=False, max_new_tokens=max_new_tokens, eos_token_id=sorted(self._stops), pad_token_id=pad
        )
        started = time.perf_counter()
        with torch.inference_mode():
            out = self._model.generate(input_ids=ids, attention_mask=mask, generation_config=config)
        seconds = (time.perf_counter() - started) / len(prompts)
        for row in out[:, longest:].tolist():
            end = next((position for position, token in enumerate(row) if token in self._stops), None)
            said = tuple(row if end is None else row[: end + 1])
            text = self.tokenizer.decode(said, skip_special_tokens=True)
            yield Generated(ids=said, text=text, ended=end is not None, seconds=seconds)

    @contextmanager
    def _speaking(self, side: str) -> Iterator[None]:
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
    model = load_model(base_model, device=device, dtype=dtype)
    # PEFT takes no dots in a name, and versions' names have them.
    slots = {side: f"side{number}" for number, side in enumerate(adapters)}
    for side, folder in adapters.items():
        model = _with_adapter(model, folder, slots[side])
    return AnswerEngine(tokenizer, model.eval(), slots)


def _with_adapter(model: Any, folder: Path, slot: str) -> Any:
    if not (folder / "adapter_config.json").is_file():
        raise AdapterUnusable(f"{folder} holds no adapter_config.json; restore the version from a back-up")
    try:
        # In the base's own precision, as a server holds it.
        if isinstance(model, PeftModel):
            model.load_adapter(folder, slot, autocast_adapter_dtype=False)
            return model
        return PeftModel.from_pretrained(model, folder, slot, autocast_adapter_dtype=False)
    except (OSError, ValueError, RuntimeError) as broken:
        raise AdapterUnusable(f"the adapter in {folder} does not fit its base model: {broken}") from broken


def _stops(tokenizer: Any, model: Any) -> frozenset[int]:
    """Tokens that end an answer, as vLLM collects them: the tokenizer's and the generation config's."""
    configured = model.generation_config.eos_token_id
    listed = configured if isinstance(configured, list) else [configured]
    return frozenset(stop for stop in [*listed, tokenizer.eos_token_id] if stop is not None)
