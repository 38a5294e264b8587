"""The cost of an evaluation, against answering its questions one by one with `model.generate`.

200 questions of the demo's corpus, answered by the 135M model and by an adapter that was shortly trained to
route them, as in a first cycle: with the same limit of tokens, in float32, in a process as the daemon
starts it. Ours also computes the likelihood of each of the ten destinations; the plain way does not. Both
take turns at quarters of the questions, so that a busy machine slows down both.

python -m tests.benchmarks.evaluation MODEL ADAPTER_FOLDER OUTPUT_FOLDER
"""

import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from daemon.demo.corpus import build_system_prompt, list_labels, load_corpus
from daemon.demo.model import prepare_smollm2
from daemon.demo.traffic import ANSWER_TOKENS
from evaluation.engine.generate import AnswerEngine, open_engine
from evaluation.engine.likelihood import tokenize_labels
from evaluation.jobs.job import BATCH_SIZE
from evaluation.report import BASE
from extractors.examples.types import Examples
from extractors.values import Value
from tests.benchmarks.runs import run_child
from tests.support.snapshots import RoutingCase, make_example, make_item, make_snapshot
from trainers.jobs.job import TrainingJob
from trainers.models.base_model import compute_base_digest
from trainers.models.chat_template import render
from trainers.planning.hyperparameters import Hyperparameters
from trainers.planning.plan import Plan, TrainingStage

MODEL = Path(".cache/smollm2")
QUESTIONS, QUARTER = 200, 50
CANDIDATE = "candidate"
Tokens = tuple[int, ...]


class Cost(Value):
    """The cost of one side's answers."""

    ours: float = 0.0
    """Seconds, how likely the destinations are included."""
    one_by_one: float = 0.0
    """Seconds."""
    same: int = 0
    """Answers that were the same both ways."""
    destinations: int = 0
    """Answers that are destinations."""

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(**{name: getattr(self, name) + getattr(other, name) for name in Cost.model_fields})


class Costs(Value):
    """The cost of an evaluation."""

    sides: dict[str, Cost]

    @property
    def ratio(self) -> float:
        """Seconds of ours over seconds one by one."""
        return sum(side.ours for side in self.sides.values()) / sum(
            side.one_by_one for side in self.sides.values()
        )


def measure() -> float:
    """Seconds of ours over seconds one by one."""
    model = prepare_smollm2(MODEL.resolve())
    questions, system = _make_questions()
    with tempfile.TemporaryDirectory() as folder:
        adapter = _train_adapter(model, Path(folder), questions[QUESTIONS:], system)
        run_child("tests.benchmarks.evaluation", str(model), str(adapter), folder)
        costs = Costs.model_validate_json(Path(folder, "costs.json").read_text("utf-8"))
    for side, cost in costs.sides.items():
        print(
            f"{side}: ours {cost.ours:.1f} s, one by one {cost.one_by_one:.1f} s; of {QUESTIONS} answers "
            f"{cost.same} are the same, {cost.destinations} are destinations"
        )
    return costs.ratio


def main(model: str, adapter: Path, folder: Path) -> None:
    questions, system = _make_questions()
    engine = open_engine(model, {CANDIDATE: adapter}, device="cpu", dtype="float32")
    plain = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    plain = PeftModel.from_pretrained(plain, adapter).eval()
    items = [make_item(number, each, system=system) for number, each in enumerate(questions[:QUESTIONS])]
    prompts = [render(engine.tokenizer, item.prompt).prompt_ids for item in items]
    labels = tokenize_labels(engine.tokenizer, items[0].prompt, (), list_labels(load_corpus()))
    sides = dict.fromkeys((BASE, CANDIDATE), Cost())
    for side in sides:
        _compare(engine, plain, side, prompts[:2], labels)  # warms up
        for start in range(0, QUESTIONS, QUARTER):
            sides[side] += _compare(engine, plain, side, prompts[start : start + QUARTER], labels)
    (folder / "costs.json").write_text(Costs(sides=sides).model_dump_json(), "utf-8")


def _compare(
    engine: AnswerEngine, plain: Any, side: str, prompts: Sequence[Tokens], labels: Sequence[Tokens]
) -> Cost:
    began = time.perf_counter()
    answers = engine.generate(
        side, prompts, max_new_tokens=ANSWER_TOKENS, batch_size=BATCH_SIZE, labels=labels
    )
    between = time.perf_counter()
    with plain.disable_adapter() if side == BASE else nullcontext():
        expected = [_alone(plain, prompt, engine.tokenizer.pad_token_id) for prompt in prompts]
    return Cost(
        ours=between - began,
        one_by_one=time.perf_counter() - between,
        same=sum(answer.ids == ids for answer, ids in zip(answers, expected, strict=True)),
        destinations=sum(answer.ids in labels for answer in answers),
    )


def _alone(model: Any, prompt: Tokens, pad: int) -> Tokens:
    ids = torch.tensor([prompt])
    out = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=ANSWER_TOKENS,
        pad_token_id=pad,
    )
    return tuple(out[0, len(prompt) :].tolist())


def _make_questions() -> tuple[list[RoutingCase], str]:
    """All questions with their destinations, and the system prompt."""
    corpus = load_corpus()
    return [(each.text, each.label) for each in corpus], build_system_prompt(list_labels(corpus))


def _train_adapter(model: Path, folder: Path, asked: Sequence[RoutingCase], system: str) -> Path:
    """The folder of an adapter that learned to answer with destinations, as the daemon trains it."""
    examples = Examples(
        sft=tuple(make_example(number, each, system=system) for number, each in enumerate(asked))
    )
    snapshot = make_snapshot(folder / "snapshots", examples)
    usual = Hyperparameters(epochs=1, batch_size=8, learning_rate=2e-3)
    plan = Plan(
        stages=(TrainingStage(method="sft", data="sft", hyperparameters=usual),),
        reason="benchmark",
        snapshot_id=snapshot.name,
        base_model=str(model),
        base_digest=compute_base_digest(str(model)),
    )
    run = folder / "run"
    run.mkdir()
    job = TrainingJob(plan=plan, snapshot=str(snapshot), dtype="float32", device="cpu")
    (run / "job.json").write_text(job.model_dump_json(), "utf-8")
    run_child("learnd", "work", "train", str(run))
    return run / "adapter"


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
