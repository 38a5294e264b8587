"""The work of an evaluation child, and the files it works with."""

from pathlib import Path

from evaluation.race_report import RaceReport
from evaluation.report import BASE, SeedRuns, Verdict
from evaluation.rules import Gate, Look
from extractors.examples.types import SFTExample
from extractors.llm.endpoint import Endpoint
from extractors.traffic_sample import TrafficCall
from extractors.values import Value
from trainers.models.base_model import Device, Dtype
from trainers.planning.method_rules import Task

REPORT, PROBES, TRAFFIC = "report.json", "probes.json", "traffic.json"
PREFERENCES = "preferences.json"
JUDGE_KEY = "JUDGE_API_KEY"
"""Environment variable with the judge's API key."""
BATCH_SIZE = 64


class AdapterSide(Value):
    """An adapter to compare."""

    name: str
    """The version's served name."""
    path: str
    """Its folder."""


class EvaluationJob(Value):
    """The work of an evaluation child."""

    snapshot: str
    """Folder of the snapshot whose held-out items the sides answer."""
    trained_on: str | None = None
    """Folder of the snapshot that the candidate was trained on, where that is another one."""
    base_model: str
    task: Task
    output_space: tuple[str, ...] = ()
    active: AdapterSide | None
    """The version that is live; None while the base model is."""
    waiting: AdapterSide | None = None
    """The version on probation."""
    candidate: AdapterSide
    gate: Gate = Gate()
    judge: Endpoint | None = None
    """A language model that compares the candidate's answers with those of what is live."""
    seeds: SeedRuns | None = None
    """Scores of the plan's runs with several seeds, for the report."""
    race: RaceReport | None = None
    """The race that the candidate came from, for the report."""
    look: Look = "first"
    golden: tuple[SFTExample, ...] = ()
    replay: str | None = None
    """Folder of what the base wrote itself, to measure what the candidate can still do; None: not wanted."""
    no_replay: str = ""
    """Why there is none, in words; empty where there is, or it is not wanted."""
    max_new_tokens: int
    batch_size: int = BATCH_SIZE
    device: Device = "auto"
    dtype: Dtype = "auto"
    threads: int | None = None
    """CPU threads; None takes what torch would."""

    @property
    def adapters(self) -> dict[str, Path]:
        """Folders of all sides but the base, the candidate last."""
        sides = (self.active, self.waiting, self.candidate)
        return {side.name: Path(side.path) for side in sides if side}

    @property
    def live(self) -> str:
        return self.active.name if self.active else BASE


class EvaluationResult(Value):
    """The result of an evaluation child, besides report.json and probes.json."""

    verdict: Verdict
    reason: str


class TrafficSample(Value):
    """Calls of the traffic that the held-out items come from; `traffic.json` in the run's folder."""

    calls: tuple[TrafficCall, ...]
