"""LoRA adapters of the tiny model, and what they say, without a training."""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from evaluation.probes import Probe, ProbeRecord

QUESTIONS = (
    "where is my parcel",
    "I was charged twice",
    "the app crashes",
    "cancel my plan",
    "reset my password",
)
ANSWER_TOKENS = 6


def save_adapter(folder: Path, base: Path, *, seed: int, rank: int = 8, scale: float = 0.1) -> Path:
    """An adapter with random weights of that scale; 0 makes one that changes nothing."""
    torch.manual_seed(seed)
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), config)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=scale)
    model.save_pretrained(folder)
    return folder


def record(adapter: Path, base: Path) -> ProbeRecord:
    """What the adapter answers to a few questions, and how likely it and the base find that."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = PeftModel.from_pretrained(plain, adapter).eval()
    return ProbeRecord(probes=tuple(_probe(model, tokenizer, question) for question in QUESTIONS))


def _probe(model: Any, tokenizer: Any, question: str) -> Probe:
    messages = ({"role": "system", "content": "Route."}, {"role": "user", "content": question})
    prompt = tokenizer.apply_chat_template(
        list(messages), add_generation_prompt=True, return_tensors="pt", return_dict=True
    )["input_ids"]
    with torch.inference_mode():
        whole = model.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=ANSWER_TOKENS, do_sample=False
        )
        adapted = _logprobs(model, whole, prompt.shape[1])
        with model.disable_adapter():
            plain = _logprobs(model, whole, prompt.shape[1])
    answer = whole[0, prompt.shape[1] :].tolist()
    return Probe(
        messages=messages,
        prompt_ids=tuple(prompt[0].tolist()),
        answer_ids=tuple(answer),
        answer=tokenizer.decode(answer, skip_special_tokens=True),
        adapter_logprobs=adapted,
        base_logprobs=plain,
    )


def _logprobs(model: Any, tokens: torch.Tensor, start: int) -> tuple[float, ...]:
    """Log-probability of each token from `start` on, given all before it."""
    scores = model(tokens).logits[0, start - 1 : -1].float().log_softmax(-1)
    return tuple(scores.gather(-1, tokens[0, start:, None])[:, 0].tolist())
