"""What evaluating a side costs, against answering its questions one by one with `model.generate`.

200 questions of the demo's corpus, which the 135M model was shortly trained to route, with the same
limit of tokens, in float32. Ours includes how likely each of the ten destinations is, the plain way does
not. Both take turns at quarters of the questions, so that a busy machine slows down both.
"""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from daemon.demo.corpus import labels_of, load_corpus, system_prompt
from daemon.demo.model import prepare_smollm2
from daemon.demo.traffic import ANSWER_TOKENS
from evaluation.answers import AnswerEngine, Generated, open_engine
from evaluation.likelihood import label_tokens
from extractors.examples import Examples
from tests.benchmarks.runs import child
from tests.snapshots import reviewed, snapshot_in, taught
from trainers.base_model import base_digest
from trainers.hyperparameters import Hyperparameters
from trainers.job import TrainingJob
from trainers.plan import Plan, Stage
from trainers.rendering import render

MODEL = Path(".cache/smollm2")
QUESTIONS, QUARTER = 200, 50
BATCH = 32
SIDE = "candidate"
Tokens = tuple[int, ...]


def measure() -> float:
    """Seconds of ours over seconds one by one."""
    model = prepare_smollm2(MODEL.resolve())
    corpus = load_corpus()
    system = system_prompt(labels_of(corpus))
    with tempfile.TemporaryDirectory() as folder:
        asked = [(each.text, each.label) for each in corpus]
        adapter = _trained(model, Path(folder), asked[QUESTIONS:], system)
        engine = open_engine(str(model), {SIDE: adapter}, device="cpu", dtype="float32")
        plain = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        plain = PeftModel.from_pretrained(plain, adapter).eval()
    items = [reviewed(number, each, system=system) for number, each in enumerate(asked[:QUESTIONS])]
    prompts = [render(engine.tokenizer, item.prompt).prompt_ids for item in items]
    labels = label_tokens(engine.tokenizer, items[0].prompt, (), labels_of(corpus))
    return _ratio(engine, plain, prompts, labels)


def _ratio(engine: AnswerEngine, plain: Any, prompts: Sequence[Tokens], labels: Sequence[Tokens]) -> float:
    ours, one_by_one, same, labelled = 0.0, 0.0, 0, 0
    _plainly(plain, engine, prompts[:2])  # warm
    engine.answers(SIDE, prompts[:2], max_new_tokens=2, batch_size=2, labels=labels)
    for start in range(0, QUESTIONS, QUARTER):
        quarter = prompts[start : start + QUARTER]
        began = time.perf_counter()
        answers = engine.answers(SIDE, quarter, max_new_tokens=ANSWER_TOKENS, batch_size=BATCH, labels=labels)
        between = time.perf_counter()
        expected = _plainly(plain, engine, quarter)
        ours, one_by_one = ours + between - began, one_by_one + time.perf_counter() - between
        same += sum(answer.ids == ids for answer, ids in zip(answers, expected, strict=True))
        labelled += _labelled(answers, labels)
    print(
        f"ours {ours:.1f} s, one by one {one_by_one:.1f} s; {same} of {QUESTIONS} answers the same, "
        f"{labelled} of them destinations"
    )
    return ours / one_by_one


def _labelled(answers: Sequence[Generated], labels: Sequence[Tokens]) -> int:
    return sum(answer.ids in set(labels) for answer in answers)


def _plainly(model: Any, engine: AnswerEngine, prompts: Sequence[Tokens]) -> list[Tokens]:
    answers = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        out = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=ANSWER_TOKENS,
            pad_token_id=engine.tokenizer.pad_token_id,
        )
        answers.append(tuple(out[0, len(prompt) :].tolist()))
    return answers


def _trained(model: Path, folder: Path, asked: Sequence[tuple[str, str]], system: str) -> Path:
    """The folder of an adapter that learned to answer with destinations, as the daemon trains it."""
    examples = Examples(sft=tuple(taught(number, each, system=system) for number, each in enumerate(asked)))
    snapshot = snapshot_in(folder / "snapshots", examples)
    usual = Hyperparameters(epochs=1, batch_size=8, learning_rate=2e-3)
    plan = Plan(
        stages=(Stage(method="sft", data="sft", hyperparameters=usual),),
        reason="benchmark",
        snapshot_id=snapshot.name,
        base_model=str(model),
        base_digest=base_digest(str(model)),
    )
    run = folder / "run"
    run.mkdir()
    job = TrainingJob(plan=plan, snapshot=str(snapshot), dtype="float32", device="cpu")
    (run / "job.json").write_text(job.model_dump_json(), "utf-8")
    child("learnd", "work", "train", str(run))
    return run / "adapter"
