"""What SFT on one agent's texts costs a model of what it could do before, with and without replay.

    python -m tests.benchmarks forgetting

The 135M model learns to answer customers by a fixed form of words, once alone and once with the default share
of examples that it wrote itself mixed in. Both adapters then answer 64 everyday questions that the base wrote
and that neither learned. Everything is kept in `.bench/forgetting`, so that a run which was stopped goes on.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean

from daemon.demo.corpus import load_corpus
from daemon.demo.model import prepare_smollm2
from evaluation.engine.generate import AnswerEngine, open_engine
from evaluation.jobs.general_ability import measure_general_ability
from evaluation.jobs.job import AdapterSide, EvaluationJob
from evaluation.metrics.text import compute_token_f1
from evaluation.report import BASE
from extractors.examples.types import Examples, SFTExample
from extractors.values import Value
from tests.benchmarks.runs import run_child
from tests.support.snapshots import RoutingCase, make_example, make_snapshot
from trainers.job_folder import RESULT, Progress
from trainers.jobs.job import TrainingJob
from trainers.models.base_model import compute_base_digest, measure_weight_bytes
from trainers.models.chat_template import render
from trainers.planning.hyperparameters import choose_hyperparameters
from trainers.planning.plan import Plan, ReplayMix, TrainingStage
from trainers.replay.examples import HELD_OUT, compute_digest, find_part, read_part
from trainers.replay.job import ReplayJob

MODEL = Path(".cache/smollm2")
FOLDER = Path(".bench/forgetting")
SYSTEM = "You answer the customers of a bank. Tell each of them kindly who takes care of the request."
TRAINED, VALIDATED, TESTED = 240, 24, 48
SHARE = 0.1
"""Of the settings' `replay_share`."""
ANSWER_TOKENS = 64


def measure() -> dict[str, dict[str, float]]:
    """Measure divergence, agreement and the target's own score of both adapters."""
    model, folder = prepare_smollm2(MODEL.resolve()), FOLDER.resolve()
    cases = [_phrase(request.text, request.label) for request in load_corpus()]
    examples = [make_example(number, each, system=SYSTEM) for number, each in enumerate(cases)]
    train, rest = tuple(examples[:TRAINED]), examples[TRAINED:]
    snapshot = make_snapshot(folder / "snapshots", Examples(sft=train), Examples(sft=tuple(rest[:VALIDATED])))
    replay = _write_replay(model, folder / "replay")
    adapters = {
        "without replay": _train(model, snapshot, folder / "without", None, replay),
        "with replay": _train(model, snapshot, folder / "with", _choose_mix(replay), replay),
    }
    engine = open_engine(str(model), adapters)
    asked = rest[VALIDATED : VALIDATED + TESTED]
    figures = {BASE: {"target_token_f1": _score(engine, BASE, asked)}}
    for name, adapter in adapters.items():
        figures[name] = {
            **_measure_ability(model, snapshot, engine, name, adapter, replay),
            "target_token_f1": _score(engine, name, asked),
            "seconds": json.loads((adapter.parent / RESULT).read_text())["metrics"]["seconds"],
        }
    return figures


def _phrase(question: str, label: str) -> RoutingCase:
    """Return a question with the form of words that answers it."""
    subject = " ".join(question.split()[:5])
    return question, (
        f"Thank you for asking. Our {label.replace('_', ' ')} team takes care of this today and writes to "
        f'you under the subject "{subject}".'
    )


def _write_replay(model: Path, folder: Path) -> Path:
    """Have the base write the held-out part and one that is learned."""
    for number in (HELD_OUT, 1):
        _run(
            "replay",
            find_part(folder, number),
            ReplayJob(base_model=str(model), folder=str(folder), part=number),
        )
    return folder


def _choose_mix(replay: Path) -> ReplayMix:
    chosen = read_part(replay, 1).examples[: round(SHARE * TRAINED)]
    return ReplayMix(examples=len(chosen), digest=compute_digest(chosen))


def _train(model: Path, snapshot: Path, folder: Path, mix: ReplayMix | None, replay: Path) -> Path:
    """Train by SFT as a cycle would by default; return the folder of the adapter."""
    usual = choose_hyperparameters(
        "sft", TRAINED, measure_weight_bytes(str(model)), preset="efficient", overrides={}
    )
    plan = Plan(
        stages=(TrainingStage(method="sft", data="sft", hyperparameters=usual, replay=mix),),
        reason="benchmark",
        snapshot_id=snapshot.name,
        base_model=str(model),
        base_digest=compute_base_digest(str(model)),
    )
    _run("train", folder, TrainingJob(plan=plan, snapshot=str(snapshot), replay=str(replay)))
    return folder / "adapter"


def _run(work: str, folder: Path, job: Value) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / RESULT).exists():
        (folder / "job.json").write_text(job.model_dump_json(), "utf-8")
        run_child("learnd", "work", work, str(folder))


def _measure_ability(
    model: Path, snapshot: Path, engine: AnswerEngine, name: str, adapter: Path, replay: Path
) -> dict[str, float]:
    job = EvaluationJob(
        snapshot=str(snapshot),
        base_model=str(model),
        task="generation",
        active=None,
        candidate=AdapterSide(name=name, path=str(adapter)),
        replay=str(replay),
        max_new_tokens=ANSWER_TOKENS,
    )
    progress = Progress(adapter.parent / "progress.jsonl", lambda: datetime.now(UTC))
    found = measure_general_ability(job, engine, adapter.parent, progress)
    assert found is not None
    low, high = found.interval
    side = found.candidate
    return {
        "kl": side.divergence,
        "agreement": side.agreement,
        "agreement_low": 1 + low,
        "agreement_high": 1 + high,
        "same": side.same / found.items,
    }


def _score(engine: AnswerEngine, side: str, asked: list[SFTExample]) -> float:
    """Return the mean token F1 of the side's answers to the target's own questions."""
    prompts = [render(engine.tokenizer, each.prompt).prompt_ids for each in asked]
    answers = engine.generate(side, prompts, max_new_tokens=ANSWER_TOKENS, batch_size=32)
    return fmean(
        compute_token_f1(answer.text, each.completion.content)
        for answer, each in zip(answers, asked, strict=True)
    )
