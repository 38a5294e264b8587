"""LoRA adapters of the tiny model that each learned one answer, and the record of what they say."""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from evaluation.engine.probe_record import Probe, ProbeRecord

QUESTIONS = (
    "where is my parcel",
    "I was charged twice",
    "the app crashes",
    "cancel my plan",
    "reset my password",
)
ANSWER_TOKENS = 6
STEPS = 20


def save_adapter(folder: Path, base: Path, *, says: str | None, rank: int = 8) -> Path:
    """Save an adapter that says one word again and again, or one that changes nothing (None)."""
    torch.manual_seed(0)
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), config)
    if says is not None:
        _learn(model, AutoTokenizer.from_pretrained(base), says)
    model.save_pretrained(folder)
    return folder


def _learn(model: Any, tokenizer: Any, word: str) -> None:
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=0.02)
    answer = torch.tensor([tokenizer(word)["input_ids"] * ANSWER_TOKENS])
    for step in range(STEPS):
        prompt = _prompt(tokenizer, _messages(QUESTIONS[step % len(QUESTIONS)]))
        tokens = torch.cat([prompt, answer], dim=1)
        labels = torch.cat([torch.full_like(prompt, -100), answer], dim=1)
        model(tokens, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def record(adapter: Path, base: Path) -> ProbeRecord:
    """Record the adapter's answers to a few questions, and their likelihoods by it and by the base."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = PeftModel.from_pretrained(plain, adapter).eval()
    return ProbeRecord(probes=tuple(_probe(model, tokenizer, question) for question in QUESTIONS))


def _probe(model: Any, tokenizer: Any, question: str) -> Probe:
    messages = _messages(question)
    prompt = _prompt(tokenizer, messages)
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


def _messages(question: str) -> tuple[dict[str, Any], ...]:
    return ({"role": "system", "content": "Route."}, {"role": "user", "content": question})


def _prompt(tokenizer: Any, messages: tuple[dict[str, Any], ...]) -> torch.Tensor:
    """Return the token ids of the chat with its generation prompt, shape (1, length)."""
    chat = tokenizer.apply_chat_template(
        list(messages), add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    return chat["input_ids"]


def _logprobs(model: Any, tokens: torch.Tensor, start: int) -> tuple[float, ...]:
    """Return the log-probability of each token from `start` on, given all before it."""
    scores = model(tokens).logits[0, start - 1 : -1].float().log_softmax(-1)
    return tuple(scores.gather(-1, tokens[0, start:, None])[:, 0].tolist())
