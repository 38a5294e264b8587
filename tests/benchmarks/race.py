"""What a race picks, against the default alone, every contender alone, and the rules of before; and its cost.

    python -m tests.benchmarks race

Three data sets over three seeds. Each training and each test is a cell of its own; a finished one is kept in
`tests/benchmarks/recorded/race.json` and not made again, so that the benchmark can be stopped at any time. It
takes hours. CLINC150 (Larson et al. 2019) is not part of the project: its cells are left out unless
`CLINC150_FOLDER` names the folder of its `data_small.json` and `domains.json`.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import TypeVar

from daemon.demo.model import prepare_smollm2
from evaluation.engine.generate import open_engine
from evaluation.jobs.ask_sides import to_raw_answers
from evaluation.jobs.readiness import ReadinessJob
from evaluation.metrics.scoring import build_scorer
from evaluation.race.job import RaceJob, RaceResult
from evaluation.rules import Gate
from evaluation.validation_side import count_sessions
from extractors.dataset.snapshot import read_snapshot
from extractors.examples.types import PreferencePair, SFTExample
from extractors.values import Value, content_id
from tests.benchmarks.race_data import DATA_SETS, Agent, draw_agent
from tests.benchmarks.runs import run_child
from tests.support.snapshots import make_snapshot
from trainers.job_folder import RESULT, write_atomically
from trainers.jobs.job import TrainingJob, TrainingResult
from trainers.models.base_model import compute_base_digest, measure_weight_bytes
from trainers.models.chat_template import render
from trainers.planning.apply_rules import BaseModelInfo, MethodSettings, TrainingPreferences, choose_method
from trainers.planning.method_rules import RaceMode, Readiness, Thresholds
from trainers.planning.plan import Contender, Plan

MODEL = Path(".cache/smollm2")
FOLDER = Path(".bench/race")
RECORDED = Path(__file__).with_name("recorded") / "race.json"
SEEDS = range(3)
VALIDATION, RACE_VALIDATION = 0.1, 0.2
ANSWER_TOKENS = 24
RULES_ASKED = 64
"""Training pairs that the rules of before sampled to decide on DPO."""
ResultT = TypeVar("ResultT", bound=Value)


class Cell(Value):
    """The outcome of one way to train on one draw of one data set."""

    right: tuple[bool, ...]
    """Whether each answer to the test set is right."""
    seconds: float
    """Time of the trainings; for a race with the answers of all contenders."""
    cost: float = 1.0
    """For a race, its time over the default's."""
    picked: str = ""

    @property
    def accuracy(self) -> float:
        return fmean(self.right)


def measure() -> dict[str, dict[str, float]]:
    """Return the figures of each data set; see the module's docstring."""
    base, draws = prepare_smollm2(MODEL.resolve()), []
    for name in DATA_SETS:
        for seed in SEEDS:
            agent = draw_agent(name, seed, base)
            if agent is None:
                print(f"{name}: left out, CLINC150_FOLDER names no folder", flush=True)
                continue
            draws.append(_Draw(f"{name}/{seed}", agent, base))
    for draw in draws:
        draw.make_cells(draw.list_compared())
    for draw in draws:
        draw.make_cells(draw.list_others())
    cells = _read_recorded()
    return {name: _summarise(cells, name) for name in DATA_SETS if f"{name}/{SEEDS[-1]}/race" in cells}


@dataclass(frozen=True)
class _Draw:
    """One draw of a data set, and all ways to train on it."""

    key: str
    agent: Agent
    base: Path

    def list_compared(self) -> dict[str, Callable[[], Cell]]:
        """Return what makes the cells that the benchmark is about: the default's and the race's."""
        return {
            "default": lambda: self._train_alone(self._plan(VALIDATION, "off").default),
            "race": self._race,
        }

    def list_others(self) -> dict[str, Callable[[], Cell]]:
        """Return what makes the cells of the rules of before, and of each challenger alone."""
        challengers = self._plan(RACE_VALIDATION, "thorough").challengers
        alone = {each.name: partial(self._train_alone, each) for each in challengers}
        return {"rules": self._train_by_rules, **alone}

    def make_cells(self, arms: Mapping[str, Callable[[], Cell]]) -> None:
        """Make the cells of these arms that are not recorded yet."""
        for arm, make in arms.items():
            if f"{self.key}/{arm}" in _read_recorded():
                continue
            print(f"{self.key}/{arm} …", flush=True)
            cell = make()
            _record(f"{self.key}/{arm}", cell)
            print(f"{self.key}/{arm}: {cell.accuracy:.3f} in {cell.seconds:.0f} s {cell.picked}", flush=True)

    @property
    def _folder(self) -> Path:
        return (FOLDER / self.key).resolve()

    def _write_snapshot(self, share: float) -> Path:
        return make_snapshot(self._folder / "snapshots" / f"{share:g}", *self.agent.build_examples(share))

    def _plan(self, share: float, race: RaceMode) -> Plan:
        """Return the plan that a cycle would make, with the live model's answers measured on the base."""
        snapshot = read_snapshot(self._write_snapshot(share))
        held_out = snapshot.manifest.held_out.model_copy(update={"approved": 1})
        snapshot = snapshot.model_copy(
            update={"manifest": snapshot.manifest.model_copy(update={"held_out": held_out})}
        )
        model = BaseModelInfo(
            name=str(self.base),
            digest=compute_base_digest(str(self.base)),
            bytes=measure_weight_bytes(str(self.base)),
        )
        preferences = TrainingPreferences(max_lora_rank=64, race=race)
        settings = MethodSettings(
            task=self.agent.task, thresholds=Thresholds(), base=model, preferences=preferences
        )
        plan = choose_method(
            snapshot,
            settings,
            live=None,
            measure_live=self._measure_base,
            sessions=count_sessions(snapshot),
        ).plan
        assert isinstance(plan, Plan), plan.reason
        return plan

    def _measure_base(self) -> Readiness:
        pairs = sum(case.rejected is not None for case in self.agent.learned)
        job = ReadinessJob(
            snapshot=str(self._write_snapshot(VALIDATION)),
            base_model=str(self.base),
            adapter=None,
            task=self.agent.task,
            output_space=self.agent.labels,
            max_new_tokens=ANSWER_TOKENS,
        )
        return self._run("measure", f"measure-base-{pairs}", job, Readiness)

    def _race(self) -> Cell:
        snapshot = self._write_snapshot(RACE_VALIDATION)
        job = RaceJob(
            plan=self._plan(RACE_VALIDATION, "cheap"),
            snapshot=str(snapshot),
            task=self.agent.task,
            output_space=self.agent.labels,
            metric=Gate().primary_metric(self.agent.task),
            thresholds=Thresholds(),
            max_new_tokens=ANSWER_TOKENS,
        )
        found = self._run("race", "race", job, RaceResult)
        return Cell(
            right=self._test(self._folder / "race" / found.adapter),
            seconds=found.report.seconds,
            cost=found.report.cost,
            picked=found.report.winner,
        )

    def _train_alone(self, contender: Contender) -> Cell:
        """Train the stages of a contender one after the other, all of them."""
        adapter, seconds = None, 0.0
        for number in range(len(contender.stages)):
            adapter, result = self._train_stage(contender, number, adapter)
            seconds += result.metrics.seconds
        assert adapter is not None
        return Cell(right=self._test(adapter), seconds=seconds)

    def _train_stage(
        self, contender: Contender, number: int, start: Path | None
    ) -> tuple[Path, TrainingResult]:
        job = TrainingJob(
            plan=self._plan(VALIDATION, "off").choose(contender),
            stage=number,
            snapshot=str(self._write_snapshot(VALIDATION)),
            start_adapter=str(start) if start else None,
        )
        # The first stage is the same for all that go on from it.
        stages = contender.stages[: number + 1]
        name = f"train-{content_id([each.model_dump(mode='json') for each in stages])[:12]}"
        result = self._run("train", name, job, TrainingResult)
        return self._folder / name / result.adapter, result

    def _train_by_rules(self) -> Cell:
        """Train as the rules of before chose: DPO on top of SFT where sampled training pairs ask for it."""
        sft = self._plan(VALIDATION, "off").default
        [dpo] = [
            each
            for each in self._plan(RACE_VALIDATION, "thorough").challengers
            if each.name == "sft+dpo (sigmoid)"
        ] or [sft]
        adapter, _ = self._train_stage(sft, 0, None)
        train, _ = self.agent.build_examples(VALIDATION)
        asked = train.pairs[:RULES_ASKED]
        right = self._answer(adapter, [pair_to_example(pair) for pair in asked])
        unsettled = round(len(train.pairs) * (1 - fmean(right)))
        return self._train_alone(dpo if unsettled >= Thresholds().pairs else sft)

    def _test(self, adapter: Path) -> tuple[bool, ...]:
        return self._answer(adapter, self.agent.build_test())

    def _answer(self, adapter: Path, asked: Sequence[SFTExample]) -> tuple[bool, ...]:
        """Return whether the adapter gives the right answer to each of these."""
        engine = open_engine(str(self.base), {"tested": adapter})
        prompts = [render(engine.tokenizer, each.prompt, each.tools).prompt_ids for each in asked]
        found = engine.generate("tested", prompts, max_new_tokens=ANSWER_TOKENS, batch_size=32)
        answers = to_raw_answers(engine.tokenizer, prompts, found)
        scorer = build_scorer(self.agent.task, self.agent.labels, ())
        return tuple(
            scorer.is_correct(answer.text, ended=answer.ended, gold=each.completion)
            for each, answer in zip(asked, answers, strict=True)
        )

    def _run(self, work: str, name: str, job: Value, kind: type[ResultT]) -> ResultT:
        """Run a job in a child process, unless it has run before; return its result."""
        folder = self._folder / name
        if not (folder / RESULT).exists():
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "job.json").write_text(job.model_dump_json(), "utf-8")
            run_child("learnd", "work", work, str(folder))
        return kind.model_validate_json((folder / RESULT).read_text("utf-8"))


def pair_to_example(pair: PreferencePair) -> SFTExample:
    """Return the pair's prompt with its chosen answer."""
    return SFTExample(
        prompt=pair.prompt, completion=pair.chosen, prompt_key=pair.prompt_key, started_at=pair.started_at
    )


def _read_recorded() -> dict[str, Cell]:
    recorded = json.loads(RECORDED.read_text("utf-8")) if RECORDED.exists() else {}
    return {
        key: Cell.model_validate({**cell, "right": [digit == "1" for digit in cell["right"]]})
        for key, cell in recorded.items()
    }


def _record(key: str, cell: Cell) -> None:
    cells = {**_read_recorded(), key: cell}
    written = {
        name: {**each.model_dump(), "right": "".join("01"[right] for right in each.right)}
        for name, each in sorted(cells.items())
    }
    RECORDED.parent.mkdir(exist_ok=True)
    write_atomically(RECORDED, json.dumps(written, indent=1) + "\n")


def _summarise(cells: Mapping[str, Cell], name: str) -> dict[str, float]:
    """Return the means over the seeds, and the standard error of the race's gain over the default."""

    def average(arm: str) -> float:
        return fmean(cells[f"{name}/{seed}/{arm}"].accuracy for seed in SEEDS)

    arms = {key.split("/", 2)[2] for key in cells if key.startswith(f"{name}/{SEEDS[0]}/")}
    singles = [arm for arm in arms - {"race", "rules"} if all(f"{name}/{s}/{arm}" in cells for s in SEEDS)]
    gains = [
        float(raced) - float(alone)
        for seed in SEEDS
        for raced, alone in zip(
            cells[f"{name}/{seed}/race"].right, cells[f"{name}/{seed}/default"].right, strict=True
        )
    ]
    return {
        "rules": average("rules"),
        "default": average("default"),
        "best_single": max(map(average, singles)),
        "race": average("race"),
        "standard_error": stdev(gains) / sqrt(len(gains)),
        "cost": fmean(cells[f"{name}/{seed}/race"].cost for seed in SEEDS),
    }
