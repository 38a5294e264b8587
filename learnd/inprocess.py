"""For agents that run the model in their own process: the active adapter, loaded with PEFT."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from learnd.active_version import ActiveVersion
from learnd.client import ActiveAdapter
from learnd.errors import BrokenAdapter, LearndClientError

log = logging.getLogger(__name__)

NEEDED_FILES = frozenset({"adapter_config.json", "adapter_model.safetensors"})


class AdapterMixin:
    """Keeps a transformers model on the active adapter.

        class Router(AdapterMixin):
            def __init__(self) -> None:
                base = AutoModelForCausalLM.from_pretrained("…")
                self.follow(ActiveAdapter("acme/routing"), base, Path("adapters"))

            def answer(self, text: str) -> str:
                with self.live_model() as model:
                    return decode(model.generate(**encode(text)))

    Use the model that the block yields. A new adapter is loaded under a name of its own beside the old one
    before they change places; without an adapter it is the base model itself.
    """

    def follow(self, active: ActiveAdapter, model: Any, folder: Path) -> None:
        """Begin to follow `active` with `model` (transformers); files are downloaded below `folder`."""
        self._active = active
        self._base = model
        self._tuned: Any = None
        self._folder = folder
        self._swap = threading.RLock()
        self._version: str | None = None
        self._unusable: str | None = None

    @property
    def adapter_version(self) -> str | None:
        """The version that is loaded; None for the base model."""
        return self._version

    @contextmanager
    def live_model(self) -> Iterator[Any]:
        """Yield the model with the active adapter, which does not change before the block ends.

        If the active adapter cannot be loaded, the one before goes on answering, or the base model where
        there was none; the log says why.
        """
        with self._swap:
            try:
                self.refresh()
            except LearndClientError as problem:
                log.warning(
                    "%s goes on with %s: %s", self._active.target, self._version or "the base model", problem
                )
            yield self._base if self._tuned is None else self._tuned

    def refresh(self) -> bool:
        """Load the version that is active now; returns True if it is another one than before.

        Raises LearndClientError, and then nothing has changed. A version that does not fit the model is not
        tried again.
        """
        with self._swap:
            wanted = self._active.resolve()
            if wanted.version == self._version:
                return False
            if wanted.version is not None:
                if wanted.version == self._unusable:
                    return False
                self._load(wanted, wanted.version)
            if self._version is not None:
                self._unload(self._version)
            self._version = wanted.version
            return True

    def _load(self, wanted: ActiveVersion, version: str) -> None:
        from safetensors import SafetensorError

        # PEFT would look for a missing file on the hub, and unpickle a `.bin`.
        if not wanted.files.keys() >= NEEDED_FILES:
            raise BrokenAdapter(f"{version} does not have the files {sorted(NEEDED_FILES)}")
        path = self._active.fetch_version(wanted, self._folder)
        loaded = False
        try:
            if self._tuned is None:
                self._tuned = _add_layers(self._base, path, _to_adapter_name(version))
            missing = self._tuned.load_adapter(str(path), adapter_name=_to_adapter_name(version)).missing_keys
            if missing:
                raise ValueError(f"it has no weights for {len(missing)} tensors, such as {missing[0]}")
            self._tuned.set_adapter(_to_adapter_name(version), inference_mode=True)
            loaded = True
        except (RuntimeError, ValueError, KeyError, OSError, SafetensorError) as unfit:
            self._unusable = version
            raise BrokenAdapter(f"{version} does not fit the model: {unfit}") from unfit
        finally:
            if not loaded:
                self._unload(version)

    def _unload(self, version: str) -> None:
        """Remove the version's layers from the model; without any the base model is as it was."""
        if self._tuned is None:
            return
        if set(self._tuned.peft_config) == {_to_adapter_name(version)}:
            self._tuned.unload()
            self._tuned = None
        elif _to_adapter_name(version) in self._tuned.peft_config:
            self._tuned.delete_adapter(_to_adapter_name(version))


def _add_layers(base: Any, path: Path, name: str) -> Any:
    """Return `base` with the adapter's layers, which have no weights yet."""
    from peft import PeftConfig, get_peft_model

    config = PeftConfig.from_pretrained(str(path))
    config.inference_mode = True
    # The trainer's name of the base model is not this agent's.
    config.base_model_name_or_path = None
    return get_peft_model(base, config, adapter_name=name)


def _to_adapter_name(version: str) -> str:
    """Return PEFT's name of a version: torch's module names have no dots."""
    return version.replace(".", "_")
