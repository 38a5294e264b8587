"""For agents that search by vectors: one index, one version, and a hand-over to the next version.

Vectors of two versions do not mix, so a newer version must not simply take over: queries would be
compared with documents that another version encoded. Queries stay with the version of the index until
the index has been rebuilt:

    embedder = Embedder(ActiveAdapter("acme/find"), "all-MiniLM-L6-v2", Path("adapters"),
                        index_version=stored_version)      # None where there is no index yet

    vectors = embedder.encode_queries(["where is my refund?"])
    hits = indexes[vectors.version].search(vectors.array)  # always the version of the index

    if (newer := embedder.pending()) is not None:            # now and then, or in a job of its own
        indexes[newer] = build_index(embedder.encode_documents(texts, version=newer))
        embedder.hand_over(newer)                          # from here on queries go to the new index

Store the version with the index. The model without an adapter is the version "base".
"""

import logging
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from learnd.active_version import ActiveVersion, keep_version, read_kept_version
from learnd.client import ActiveAdapter
from learnd.errors import BrokenAdapter, LearndClientError
from learnd.inprocess import NEEDED_FILES

if TYPE_CHECKING:
    import numpy as np

log = logging.getLogger(__name__)

BASE_VERSION = "base"
"""The version of vectors that the model makes without an adapter."""
PEFT_PREFIX = "base_model.model."
"""Precedes the names of weights in an adapter's file, where PEFT's own wrapper would be."""


class EmbeddingMissing(LearndClientError):
    """sentence-transformers or PEFT is not installed."""


class VersionNotHere(LearndClientError):
    """No vectors of this version can be made: it is not loaded, or its files are not available any more."""


@dataclass(frozen=True)
class Vectors:
    """Vectors, and the version that made them: compare them with vectors of the same version only."""

    version: str
    array: "np.ndarray[Any, Any]"
    """float32, shape (texts, dimensions), in the order of the texts."""


class Embedder:
    """Encodes queries and documents with the version of the index. Safe to share between threads.

    `model` is the target's base model: the name or path of a sentence-transformer, or a loaded one that
    nothing else uses from then on. Adapters are downloaded below `folder`, each into a folder of its own
    that never changes. `index_version` is the version that the stored index was made with; None, where
    there is no index yet, takes the version that is active now. Queries wait for no more than `batch_size`
    documents of a rebuild.

    Raises EmbeddingMissing, VersionNotHere where the index's version is not available (rebuild the index,
    with `index_version=None`), BrokenAdapter, DaemonUnreachable, RequestRefused.
    """

    def __init__(
        self,
        active: ActiveAdapter,
        model: Any,
        folder: Path,
        *,
        index_version: str | None = None,
        batch_size: int = 32,
    ) -> None:
        self._active = active
        self._folder = folder
        self._batch_size = batch_size
        self._model = _open_model(model)
        self._loading = threading.Lock()
        self._model_lock = threading.Lock()
        self._slots: dict[str, str] = {}
        """Loaded versions except the base, with PEFT's names of their adapters."""
        self._building: set[str] = set()
        """Versions with which an index is being built."""
        self._loaded = 0
        self._unusable: str | None = None
        self._version = index_version or active.resolve().version or BASE_VERSION
        with self._loading:
            self._load(self._version)

    @property
    def version(self) -> str:
        """The version of the index, which all queries are encoded with."""
        return self._version

    def pending(self) -> str | None:
        """Return the active version if it is not that of the index, and load it beside that; None if it is.

        Asks the daemon as often as `ActiveAdapter` does. A version that cannot be downloaded or loaded is
        logged and is not pending; one that does not fit the model is not tried again.
        """
        try:
            wanted = self._active.resolve().version or BASE_VERSION
            if wanted in (self._version, self._unusable):
                return None
            with self._loading:
                self._load(wanted)
        except LearndClientError as problem:
            log.warning("%s goes on with %s: %s", self._active.target, self._version, problem)
            return None
        return wanted

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors of queries, made with the version of the index."""
        while True:
            version = self._version
            try:
                return self._encode(self._model.encode_query, texts, version)
            except VersionNotHere:
                if version == self._version:
                    raise  # Otherwise a hand-over came between.

    def encode_documents(self, texts: Sequence[str], *, version: str | None = None) -> Vectors:
        """Return the vectors of documents, made with the version of the index or the pending `version`.

        Raises VersionNotHere for any other version. A version that has encoded documents stays loaded until
        the next hand-over, even if a newer one becomes pending.
        """
        version = version or self._version
        self._building.add(version)
        return self._encode(self._model.encode_document, texts, version)

    def hand_over(self, version: str) -> None:
        """Use `version` for queries from now on, because the index was rebuilt with it; unload all others.

        Raises VersionNotHere if it is not loaded, and then nothing has changed.
        """
        with self._loading, self._model_lock:
            if version != BASE_VERSION and version not in self._slots:
                raise VersionNotHere(f"{version} is not loaded; hand over to the version that was pending")
            self._version = version
            self._building.clear()
            self._unload_all_but({version})

    def _unload_all_but(self, versions: set[str]) -> None:
        """Unload all other versions. The caller holds the lock of the model."""
        for other in self._slots.keys() - versions:
            _delete_adapter(self._model, self._slots.pop(other))

    def _encode(self, encode: Callable[..., Any], texts: Sequence[str], version: str) -> Vectors:
        import numpy as np

        parts = []
        for start in range(0, max(1, len(texts)), self._batch_size):
            with self._model_lock:
                self._switch_to(version)
                parts.append(encode(list(texts[start : start + self._batch_size]), show_progress_bar=False))
        dimensions = self._model.get_embedding_dimension()
        array = np.concatenate([np.asarray(part, np.float32).reshape(-1, dimensions) for part in parts])
        return Vectors(version, array)

    def _switch_to(self, version: str) -> None:
        """Make the model encode as `version`. The caller holds the lock of the model."""
        if version in self._slots:
            self._model.enable_adapters()
            self._model.set_adapter(self._slots[version])
        elif version != BASE_VERSION:
            raise VersionNotHere(
                f"{version} is not loaded: there is {self._version}, and what `pending` names"
            )
        elif self._slots:
            self._model.disable_adapters()

    def _load(self, version: str) -> None:
        """Download and load `version` where it is not loaded yet."""
        if version == BASE_VERSION or version in self._slots:
            return
        resolved = self._find_manifest(version)
        # PEFT would look for a missing file on the hub, and unpickle a `.bin`.
        if not resolved.files.keys() >= NEEDED_FILES:
            raise BrokenAdapter(f"{version} does not have the files {sorted(NEEDED_FILES)}")
        path = self._active.fetch_version(resolved, self._folder)
        self._loaded += 1
        slot = f"version{self._loaded}"
        with self._model_lock:
            try:
                _add_adapter(self._model, path, slot)
            except BrokenAdapter:
                self._unusable = version
                raise
            self._slots[version] = slot
            self._unload_all_but({version, self._version, *self._building})

    def _find_manifest(self, version: str) -> ActiveVersion:
        """Return the version and its files: as kept when it was loaded here, or as active now."""
        versions = self._folder / "versions"
        known = read_kept_version(versions, version, self._active.target)
        if known is not None:
            return known
        active = self._active.resolve()
        if active.version != version:
            raise VersionNotHere(
                f"{version} is not active any more, and was never loaded into {self._folder}: "
                "build the index anew with what is active"
            )
        keep_version(versions, version, active)
        return active


def _open_model(model: Any) -> Any:
    try:
        import peft  # noqa: F401
        from sentence_transformers import SentenceTransformer
    except ImportError as missing:
        raise EmbeddingMissing(
            f"{missing}; install what embeddings need: pip install 'learnd[train]'"
        ) from None
    return SentenceTransformer(str(model)) if isinstance(model, str | Path) else model


def _add_adapter(model: Any, path: Path, slot: str) -> None:
    """Add the adapter in `path` to the model, whole or not at all. Raises BrokenAdapter."""
    from peft import PeftConfig
    from safetensors import SafetensorError

    loaded = False
    try:
        config = PeftConfig.from_pretrained(str(path))
        config.inference_mode = True
        with warnings.catch_warnings():
            # PEFT warns that a second adapter may be a mistake.
            warnings.filterwarnings("ignore", "Already found a `peft_config` attribute", UserWarning)
            model.add_adapter(config, slot)
        _fill_adapter(model.transformers_model, path / "adapter_model.safetensors", slot)
        loaded = True
    except (RuntimeError, ValueError, KeyError, OSError, SafetensorError) as unfit:
        raise BrokenAdapter(f"{path} does not fit the model: {unfit}") from unfit
    finally:
        if not loaded and slot in getattr(model.transformers_model, "peft_config", {}):
            _delete_adapter(model, slot)


def _delete_adapter(model: Any, slot: str) -> None:
    with warnings.catch_warnings():
        # The adapter is chosen anew before each encoding.
        warnings.filterwarnings("ignore", "Adapter .* was active which is now deleted", UserWarning)
        model.delete_adapter(slot)


def _fill_adapter(model: Any, file: Path, slot: str) -> None:
    """Copy the weights in `file` into an adapter of the model. Raises ValueError unless all fit."""
    from peft import get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file

    weights = {name.removeprefix(PEFT_PREFIX): each for name, each in load_file(file).items()}
    own = get_peft_model_state_dict(model, adapter_name=slot, save_embedding_layers=False)
    odd = weights.keys() ^ own.keys()
    if odd:
        raise ValueError(f"it is for other layers: {min(odd)} is only on one side")
    set_peft_model_state_dict(model, weights, slot)
