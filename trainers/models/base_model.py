"""The base model: finding it, loading it, and identifying it by its content."""

import errno
import json
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from extractors.errors import LearndError
from extractors.values import content_id, file_digest
from trainers.memory import release_memory
from trainers.models.quantization import build_nf4_config, keep_trainable
from trainers.planning.plan import Quantization
from trainers.quick_imports import quick_imports

Device = Literal["auto", "cpu", "cuda"]
Dtype = Literal["auto", "bfloat16", "float32"]
WEIGHTS = "*.safetensors"
SINGLE_WEIGHTS, WEIGHTS_INDEX = "model.safetensors", "model.safetensors.index.json"
FILES = (WEIGHTS, "*.json", "*.jinja", "*.model", "merges.txt", "vocab.txt")
"""Files that make up a model: weights, configuration, tokenizer and chat template."""


class BaseModelUnusable(LearndError):
    """The base model does not exist, or cannot be loaded."""


def compute_base_digest(base: str) -> str:
    """Compute the content id of the model at `base` (folder or hub id), which changes with any of its files.

    It covers configuration, tokenizer, chat template and weights. Raises BaseModelUnusable.
    """
    files = _find_files(find_base_folder(base))
    digests = {}
    for path in files:
        stat = path.stat()
        digests[path.name] = _digest_file(path, stat.st_size, stat.st_mtime_ns)
    return content_id(digests)


def find_base_folder(base: str) -> Path:
    """Return the local folder of `base`: itself, or the hub's cached download. Raises BaseModelUnusable."""
    if Path(base).is_dir():
        return Path(base)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(base, allow_patterns=list(FILES)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as missing:
        # The hub's errors go on for lines.
        why = str(missing).splitlines()[0].strip()
        raise BaseModelUnusable(
            f"base model {base!r} is neither a folder here nor a model on the hub ({why}); "
            "correct the target's `base_model`"
        ) from missing


def measure_weight_bytes(base: str) -> int:
    """Return the size of the weights on disk in bytes. Raises BaseModelUnusable."""
    return sum(path.stat().st_size for path in find_weight_files(find_base_folder(base)))


def find_weight_files(folder: Path) -> list[Path]:
    """Return the files in `folder` from which transformers reads the weights. Raises BaseModelUnusable.

    Some models ship the weights a second time in another layout (`consolidated.safetensors`).
    """
    index, single = folder / WEIGHTS_INDEX, folder / SINGLE_WEIGHTS
    if single.exists():
        return [single]
    if not index.exists():
        return [path for path in _find_files(folder) if path.match(WEIGHTS)]
    try:
        shards = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError) as broken:
        raise BaseModelUnusable(f"{index} does not name the files of the weights ({broken!r})") from broken
    files = [folder / shard for shard in sorted(shards)]
    lacking = [path.name for path in files if not path.exists()]
    if lacking:
        raise BaseModelUnusable(f"{folder} lacks {', '.join(lacking)}, which {WEIGHTS_INDEX} names")
    return files


def load_tokenizer(base: str) -> Any:
    """Load the tokenizer of `base` with a padding token. Raises BaseModelUnusable without a chat template."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(find_base_folder(base))
    except (OSError, ValueError) as broken:
        raise BaseModelUnusable(f"the tokenizer of {base} cannot be loaded: {broken}") from broken
    if not tokenizer.chat_template:
        raise BaseModelUnusable(f"{base} has no chat template; take the model's instruct version")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(
    base: str,
    *,
    device: Device = "auto",
    dtype: Dtype = "auto",
    quantization: Quantization | None = None,
) -> Any:
    """Load the causal language model `base` on its device, in 4 bits if `quantization` is given.

    Raises BaseModelUnusable and QuantizationUnavailable; for lack of memory, the libraries' own errors.
    """
    from transformers import AutoModelForCausalLM

    where = resolve_device(device)
    computes = resolve_dtype(dtype, where)
    how = (
        {"quantization_config": build_nf4_config(where, computes), "device_map": {"": where}}
        if quantization
        else {}
    )
    try:
        model = AutoModelForCausalLM.from_pretrained(find_base_folder(base), dtype=computes, **how)
    except (OSError, ValueError) as broken:
        if isinstance(broken, OSError) and broken.errno == errno.ENOMEM:
            raise
        raise BaseModelUnusable(f"{base} cannot be loaded as a causal language model: {broken}") from broken
    if not quantization:
        return model.to(where)
    # The weights in full precision are freed, but the allocator still keeps their memory.
    release_memory()
    return keep_trainable(model)


def find_stop_tokens(tokenizer: Any, model: Any) -> frozenset[int]:
    """Return the tokens that end an answer, collected as vLLM does: the tokenizer's and the config's."""
    configured = model.generation_config.eos_token_id
    listed = configured if isinstance(configured, list) else [configured]
    return frozenset(stop for stop in [*listed, tokenizer.eos_token_id] if stop is not None)


def resolve_device(device: Device) -> str:
    """Return `cuda` or `cpu`. Raises BaseModelUnusable if `cuda` is set and torch sees no GPU."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise BaseModelUnusable('training.device is "cuda", but torch sees no GPU; set "auto" or "cpu"')
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


def resolve_dtype(dtype: Dtype, device: str) -> Any:
    """Return the torch dtype for `dtype`; `auto` is bfloat16 if the device computes in it, else float32."""
    import torch

    if dtype == "auto":
        fast = (
            torch.cuda.is_bf16_supported()
            if device == "cuda"
            else torch.ops.mkldnn._is_mkldnn_bf16_supported()
        )
        return torch.bfloat16 if fast else torch.float32
    return {"bfloat16": torch.bfloat16, "float32": torch.float32}[dtype]


def use_threads(threads: int | None) -> None:
    """Limit torch to `threads` CPU threads in this process; None leaves torch's own choice."""
    with quick_imports():
        import torch

    if threads is not None:
        torch.set_num_threads(threads)


def describe_device(device: Device) -> str:
    """Describe in words where models would run. Raises BaseModelUnusable."""
    import torch

    where = resolve_device(device)
    dtype = str(resolve_dtype("auto", where)).removeprefix("torch.")
    if where == "cuda":
        free, total = torch.cuda.mem_get_info()
        return f"{torch.cuda.get_device_name()}, {free / 2**30:.0f} of {total / 2**30:.0f} GiB free, {dtype}"
    return f"CPU, {torch.get_num_threads()} threads, {dtype}"


def _find_files(folder: Path) -> list[Path]:
    files = sorted({path for pattern in FILES for path in folder.glob(pattern)})
    names = {path.name for path in files}
    if "config.json" not in names or not any(path.match(WEIGHTS) for path in files):
        raise BaseModelUnusable(
            f"{folder} holds no config.json with *.safetensors weights; it is no model folder"
        )
    return files


@lru_cache(maxsize=256)
def _digest_file(path: Path, size: int, mtime_ns: int) -> str:  # noqa: ARG001 - they are the cache's key
    return file_digest(path)
