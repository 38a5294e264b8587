"""The job of a race's child process, and its result."""

from evaluation.race_report import RaceReport
from extractors.values import Value
from trainers.jobs.job import TrainingJob, TrainingResult
from trainers.models.base_model import Device, Dtype
from trainers.planning.limits import Limits
from trainers.planning.method_rules import Task, Thresholds
from trainers.planning.plan import Plan


class RaceJob(Value):
    """The job of a race: a plan with challengers, on a snapshot."""

    plan: Plan
    snapshot: str
    """Folder of the snapshot."""
    replay: str | None = None
    """Folder of what the base wrote itself, for stages that mix some of it in."""
    start_adapters: dict[str, str] = {}
    """Folder of the adapter of each version that contenders go on from, by the version's id."""
    task: Task
    output_space: tuple[str, ...] = ()
    metric: str
    """The target's primary metric."""
    seen_items: tuple[str, ...] = ()
    """Ids of validation items that earlier races of the target scored."""
    left_out: tuple[str, ...] = ()
    """Normalised prompts of the validation side that no contender answers: versions that some go on from were
    trained on them."""
    thresholds: Thresholds
    max_new_tokens: int
    limits: Limits = Limits()
    spent: float = 0.0
    """Seconds that other runs took of the limits."""
    may_quantize: bool = True
    """Allow the base to be held in 4 bits, for all contenders, if memory is short."""
    device: Device = "auto"
    dtype: Dtype = "auto"
    threads: int | None = None
    """CPU threads; None leaves torch's own choice."""

    def build_training_job(self, plan: Plan, stage: int, start: str | None) -> TrainingJob:
        """Return the job that trains `stage` of a contender's plan, which begins with the adapter `start`."""
        return TrainingJob(
            plan=plan,
            stage=stage,
            snapshot=self.snapshot,
            replay=self.replay,
            start_adapter=start,
            limits=self.limits,
            may_quantize=self.may_quantize,
            device=self.device,
            dtype=self.dtype,
            threads=self.threads,
        )


class RaceResult(Value):
    """The result of a race's child process."""

    report: RaceReport
    plan: Plan
    """The winner's plan, without challengers."""
    adapter: str
    """Folder of the winner's adapter, relative to the race's folder."""
    stages: tuple[TrainingResult, ...]
    """The results of the winner's stages, in order."""
