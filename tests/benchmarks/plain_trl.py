"""Supervised fine-tuning with TRL as a user would write it by hand, for comparison with ours.

python -m tests.benchmarks.plain_trl KEEP MODEL SYSTEM_PROMPT_FILE OUTPUT_FOLDER

KEEP is `some` for TRL's default, activation checkpointing, or `all` to keep every activation.
"""

import sys
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback, set_seed
from trl import SFTConfig, SFTTrainer

from tests.benchmarks.runs import TimedRun, build_hyperparameters, list_questions
from trainers.memory import measure_peak_memory


class Clock(TrainerCallback):
    """Records the end of each step, and its loss."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.losses: list[float] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:  # noqa: ARG002
        if "loss" in logs:
            self.ends.append(time.monotonic())
            self.losses.append(logs["loss"])


def main(keep: str, model: str, system: str, folder: Path) -> None:
    usual = build_hyperparameters()
    set_seed(usual.seed)
    tokenizer = AutoTokenizer.from_pretrained(model)

    def prompt(text: str) -> str:
        messages = [{"role": "system", "content": system}, {"role": "user", "content": text}]
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    rows = [{"prompt": prompt(text), "completion": label} for text, label in list_questions()[0]]
    clock = Clock()
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
        args=SFTConfig(
            output_dir=str(folder),
            num_train_epochs=usual.epochs,
            per_device_train_batch_size=usual.batch_size,
            learning_rate=usual.learning_rate,
            lr_scheduler_type="cosine",
            completion_only_loss=True,
            max_length=usual.max_length,
            logging_steps=1,
            seed=usual.seed,
            bf16=False,
            use_cpu=True,
            activation_checkpointing=keep == "some",
            report_to="none",
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=LoraConfig(
            r=usual.lora_rank,
            lora_alpha=usual.lora_alpha,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        ),
        callbacks=[clock],
    )
    trainer.train()
    run = TimedRun(
        seconds=clock.ends[-1] - clock.ends[0],
        losses=tuple(clock.losses),
        peak_memory_bytes=measure_peak_memory("cpu"),
    )
    (folder / "run.json").write_text(run.model_dump_json(), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]).read_text("utf-8"), Path(sys.argv[4]))
