"""Vectors of several adapters and their base, from one loaded base model."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.report import BASE
from trainers.models.base_model import Device, Dtype
from trainers.models.encoder import load_encoder, load_encoder_adapter

Vectors = np.ndarray[Any, Any]


class Encoder:
    """One base model in memory, with adapters that are switched on and off."""

    def __init__(self, model: Any, slots: Mapping[str, str]) -> None:
        """`slots` maps a side to the name under which PEFT holds its adapter in `model`."""
        self._model = model
        self._slots = slots

    def encode_queries(self, side: str, texts: Sequence[str], batch_size: int) -> Vectors:
        """Return the vectors that `side` makes of queries, shape (texts, dimensions), float32."""
        return self._encode(self._model.encode_query, side, texts, batch_size)

    def encode_documents(self, side: str, texts: Sequence[str], batch_size: int) -> Vectors:
        """Return the vectors that `side` makes of documents, shape (texts, dimensions), float32."""
        return self._encode(self._model.encode_document, side, texts, batch_size)

    def time_query(self, side: str, text: str) -> float:
        """Return the seconds that it takes to encode one query alone, as a server does."""
        with self.activate(side):
            started = time.perf_counter()
            self._model.encode_query([text], batch_size=1, show_progress_bar=False)
            return time.perf_counter() - started

    def compute_similarities(self, queries: Vectors, documents: Vectors) -> Vectors:
        """Return similarities by the model's own measure, shape (queries, documents)."""
        return np.asarray(self._model.similarity(queries, documents))

    def _encode(
        self, encode: Callable[..., Any], side: str, texts: Sequence[str], batch_size: int
    ) -> Vectors:
        with self.activate(side):
            vectors = encode(list(texts), batch_size=batch_size, show_progress_bar=False)
        return np.asarray(vectors, dtype=np.float32)

    @contextmanager
    def activate(self, side: str) -> Iterator[None]:
        if side == BASE:
            if self._slots:
                self._model.disable_adapters()
            yield
        else:
            self._model.enable_adapters()
            self._model.set_adapter(self._slots[side])
            yield


def open_encoder(
    base_model: str, adapters: Mapping[str, Path], *, device: Device = "auto", dtype: Dtype = "auto"
) -> Encoder:
    """Load the base and `adapters` (side to folder). Raises BaseModelUnusable, AdapterUnusable."""
    model = load_encoder(base_model, device=device, dtype=dtype)
    # PEFT takes no dots in a name, and versions' names have them.
    slots = {side: f"side{number}" for number, side in enumerate(adapters)}
    for side, folder in adapters.items():
        load_encoder_adapter(model, folder, slots[side])
    return Encoder(model.eval(), slots)
