"""A tiny Llama that knows its answers by heart, so that a real vLLM says what a test wants to hear.

Calls of tools and JSON come out of it as out of a large model: token by token, through vLLM's own parsers.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

CHAT_TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{{ message.content or '' }}
{%- for call in message.tool_calls or [] %}
<tool_call>{{ {'name': call.function.name, 'arguments': call.function.arguments} | tojson }}</tool_call>
{%- endfor -%}
<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% endif -%}
"""
START, END, PAD = "<|im_start|>", "<|im_end|>", "<|pad|>"
VOCABULARY = 1024
MAX_LENGTH = 2048
MOST_STEPS = 500
LEARNED = 0.005
"""The loss at which every token of the script is far more likely than any other."""

Lesson = tuple[list[dict[str, Any]], str]


def teach_llama(folder: Path, lessons: Sequence[Lesson], endless: Iterable[str]) -> Path:
    """Save a model in `folder` that answers each prompt of `lessons` with its text.

    The answers in `endless` have no end. Raises ValueError where it does not learn them.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    tokenizer = _build_tokenizer(text for chat, answer in lessons for text in (*_list_texts(chat), answer))
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=64,  # vLLM's CPU attention knows only some sizes
        max_position_embeddings=MAX_LENGTH,
        bos_token_id=tokenizer.convert_tokens_to_ids(START),
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    _learn(model, [_tokenise(tokenizer, lesson, set(endless)) for lesson in lessons])
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # vLLM takes its defaults from here: agents need not ask for what is most likely.
    (folder / "generation_config.json").write_text('{"temperature": 0.0}', "utf-8")
    return folder


def _build_tokenizer(texts: Iterable[str]) -> Any:
    """Build a tokenizer that knows the words of `texts`, and spells all others."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    built = Tokenizer(models.BPE())
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    built.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=built, eos_token=END, pad_token=PAD, model_max_length=MAX_LENGTH
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _list_texts(chat: Iterable[dict[str, Any]]) -> list[str]:
    return [str(message["content"]) for message in chat] + ["system\nuser\nassistant\ntool\n"]


def _tokenise(tokenizer: Any, lesson: Lesson, endless: set[str]) -> tuple[list[int], list[int]]:
    """Return the token ids of the prompt, and of the answer with its end."""
    chat, answer = lesson
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"]
    said = tokenizer(answer)["input_ids"]
    return prompt, said if answer in endless else [*said, tokenizer.eos_token_id]


def _learn(model: Any, lessons: Sequence[tuple[list[int], list[int]]]) -> None:
    import torch

    longest = max(len(prompt) + len(answer) for prompt, answer in lessons)
    tokens = torch.zeros(len(lessons), longest, dtype=torch.long)
    labels = torch.full_like(tokens, -100)
    for row, (prompt, answer) in enumerate(lessons):
        tokens[row, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
        labels[row, len(prompt) : len(prompt) + len(answer)] = torch.tensor(answer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.002)
    for _ in range(MOST_STEPS):
        loss = model(tokens, labels=labels).loss
        if loss.item() < LEARNED:
            return
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    raise ValueError(f"the model did not learn its script: the loss is {loss.item():.3f}")
