"""A random sentence-transformer (BERT, 2 layers, mean pooling) that trains in seconds."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def tiny_encoder(
    folder: Path, texts: Iterable[str], prompts: Mapping[str, str] | None = None, *, hidden: int = 32
) -> Path:
    """Write the model into `folder`; its vocabulary is the words of `texts` (and of the `prompts`)."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    plain = folder / "bert"
    plain.mkdir(parents=True)
    words = {
        word
        for text in (*texts, *(prompts or {}).values())
        for word in re.findall(r"\w+|[^\w\s]", text.lower())
    }
    (plain / "vocab.txt").write_text("\n".join([*PIECES, *sorted(words)]))
    tokenizer = BertTokenizerFast(str(plain / "vocab.txt"), model_max_length=64)
    tokenizer.save_pretrained(plain)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    BertModel(config).save_pretrained(plain)
    transformer = Transformer(str(plain), max_seq_length=64)
    encoder = SentenceTransformer(
        modules=[transformer, Pooling(hidden, pooling_mode="mean"), Normalize()],
        prompts=dict(prompts or {}),
        device="cpu",
    )
    encoder.save_pretrained(str(folder / "encoder"), create_model_card=False)
    return folder / "encoder"
