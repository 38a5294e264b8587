"""Settings of one target."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from apscheduler.triggers.cron import CronTrigger
from pydantic import AfterValidator, Field, ValidationError, model_validator

from daemon.settings.errors import explain
from daemon.settings.types import Slug, Url, WithApiKey
from evaluation.rules import JUDGE, METRICS, Gate
from extractors.cleaning.quality import QualityRules
from extractors.cleaning.redaction import RedactionRules
from extractors.dataset.holdout_split import HoldoutRules
from extractors.feedback.rules import FeedbackRules
from extractors.feedback.searches import RELEVANCE
from extractors.llm.endpoint import Endpoint
from extractors.phoenix.spans import SpanFilter
from extractors.span_parsing.retriever_spans import RetrievalRules
from extractors.synthesis.filters import ScreeningRules
from extractors.synthesis.generate import SynthesisRules
from extractors.values import Value
from registry.targets import slug
from trainers.planning.hyperparameters import Hyperparameters, Method, Preset, select_overrides
from trainers.planning.method_rules import Task, Thresholds


class SynthesisSettings(WithApiKey):
    """Synthetic examples for a target that has too few. A person approves each one, whatever stands here."""

    enabled: bool = False
    """Propose synthetic examples where there are too few."""
    url: Url | None = None
    """An OpenAI-compatible API, with its `/v1`; None: the target's first replica."""
    model: str | None = None
    """As that API names it; None: the base model of the replica."""
    encoder: str = "sentence-transformers/all-MiniLM-L6-v2"
    """Hub id or folder of the sentence-transformer that tells what means the same."""
    margin: float = Field(1.5, ge=1)
    """Proposals for each example that is lacking: an operator will reject some."""
    share: float = Field(0.5, gt=0, lt=1)
    """Greatest share of the training examples that is synthetic."""
    expires_days: float = Field(14, gt=0)
    """How long a batch waits for an operator."""
    timeout_seconds: float = Field(60, gt=0)
    """How long one call may take."""
    concurrency: int = Field(8, ge=1, le=256)
    """Calls at once."""
    asking: SynthesisRules = SynthesisRules()
    screening: ScreeningRules = ScreeningRules()

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.url is None) != (self.model is None):
            raise ValueError("url and model of a language model go together")
        return self


class TargetThresholds(Thresholds):
    """How much data a cycle needs."""

    min_new_examples: int = Field(50, ge=1)
    """New or changed pieces of feedback since the last cycle that start the next."""


class JudgeSettings(WithApiKey):
    """A language model that compares two answers, for texts that no gold answer equals."""

    url: Url
    """An OpenAI-compatible API, with its `/v1`."""
    model: str = Field(min_length=1)
    """As that API names it."""
    timeout_seconds: float = Field(60, gt=0)
    """How long one call may take."""
    concurrency: int = Field(8, ge=1, le=256)
    """Calls at once."""

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint.model_validate(self.model_dump(include=set(Endpoint.model_fields)))


class ScheduleSettings(Value):
    """When cycles may start, besides when enough feedback has come in."""

    cron: str | None = None
    """Five fields, in `timezone`: a cycle starts then, whatever has come in."""
    timezone: str = "UTC"
    """An IANA name such as `Europe/Berlin`, for `cron`."""
    cooldown_minutes: float = Field(60, ge=0)
    """Least time from the end of one cycle to the start of the next."""

    @model_validator(mode="after")
    def _valid(self) -> Self:
        try:
            zone = ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError) as unknown:
            raise ValueError(
                f"timezone {self.timezone!r} is not an IANA name such as Europe/Berlin"
            ) from unknown
        if self.cron is not None:
            CronTrigger.from_crontab(self.cron, timezone=zone)
        return self

    @property
    def cooldown(self) -> timedelta:
        return timedelta(minutes=self.cooldown_minutes)


class RetentionRules(Value):
    """How many old versions keep their files."""

    keep: int = Field(5, ge=1)
    """Retired and rejected versions of a target; active, ready, held and last good ones always stay."""


def _check_hyperparameters(overrides: dict[str, Any]) -> dict[str, Any]:
    known = ", ".join(Hyperparameters.model_fields)
    for method in get_args(Method):
        try:
            Hyperparameters.model_validate(select_overrides(method, overrides))
        except (ValidationError, ValueError, TypeError) as wrong:
            said = (
                explain(wrong, Hyperparameters.model_fields).strip()
                if isinstance(wrong, ValidationError)
                else str(wrong)
            )
            raise ValueError(f"{said} (there are: {known}; or a table for one method)") from None
    return overrides


USUAL: Mapping[str | None, Mapping[str, Mapping[str, Any]]] = {
    # What people say of a conversation is about each of its turns.
    "chat": {"feedback": {"inherit": "all"}},
    "embedding": {"spans": {"kind": "RETRIEVER"}, "feedback": {"annotations": (RELEVANCE,)}},
}
"""Defaults of a target's sections that differ by task."""


class TargetSettings(Value):
    """What is being improved: a tenant's agent, its traffic, and the model it runs on."""

    tenant: Slug
    """Who owns the agent; the first half of the model name that agents ask for."""
    agent: Slug
    """The agent; the second half of that name."""
    project: str = Field(min_length=1)
    """Phoenix project."""
    task: Task
    """What the agent does. An `extraction` answers in JSON; a `chat` learns whole conversations."""
    output_space: tuple[str, ...] = ()
    """All valid answers of a classification; empty: those seen in training."""
    base_model: str = Field(min_length=1)
    """Hub id or folder; the same model that the replicas serve."""
    spans: SpanFilter = SpanFilter()
    feedback: FeedbackRules = FeedbackRules()
    retrieval: RetrievalRules = RetrievalRules()
    """For the task `embedding`: where a search says which documents were used."""
    quality: QualityRules = QualityRules()
    redaction: RedactionRules = RedactionRules()
    golden: Path | None = None
    """JSONL of golden cases (`prompt`, `completion`); nothing like them is ever trained on."""
    synthesis: SynthesisSettings = SynthesisSettings()
    thresholds: TargetThresholds = TargetThresholds()
    holdout: HoldoutRules = HoldoutRules()
    gate: Gate = Gate()
    evaluate_with: Literal["transformers", "replica"] = "transformers"
    """`replica` has a replica answer the held-out prompts, too; a verdict stands where both lead to it. Where
    none can be asked for an hour it is INCONCLUSIVE."""
    judge: JudgeSettings | None = None
    """Compares the candidate's answers with those of what is live; decides where `gate.metrics` names it."""
    schedule: ScheduleSettings = ScheduleSettings()
    retention: RetentionRules = RetentionRules()
    promotion: Literal["automatic", "manual"] = "automatic"
    """`manual`: a version that passed everything waits for an operator."""
    replicas: tuple[str, ...] = ()
    """Names of the replicas that serve it; empty: all."""
    max_new_tokens: int = Field(64, ge=1)
    """Longest answer in the evaluation, in tokens."""
    hyperparameters: Annotated[dict[str, Any], AfterValidator(_check_hyperparameters)] = {}
    """Overrides of the chosen hyperparameters, by name; a table under a method's name
    (`[targets.hyperparameters.dpo]`) holds for that method alone."""
    seeds: int = Field(1, ge=1, le=9)
    """Trainings of each plan, with as many seeds; the candidate is the median one on the holdout."""
    preset: Preset = "efficient"
    """`efficient` learns soon and with little memory; `quality` takes about twice as long."""

    @model_validator(mode="before")
    @classmethod
    def _as_the_task_wants(cls, given: Any) -> Any:
        """Defaults that depend on the task; what the settings say themselves stands."""
        usual = USUAL.get(given.get("task"), {}) if isinstance(given, dict) else {}
        for section, defaults in usual.items():
            said = given.get(section, {})
            if isinstance(said, dict):
                given = {**given, section: {**defaults, **said}}
        return given

    @model_validator(mode="after")
    def _metrics_known(self) -> Self:
        unknown = sorted(set(self.gate.metrics) - set(METRICS[self.task]))
        if unknown:
            raise ValueError(
                f"gate.metrics: the task {self.task} has no {', '.join(unknown)} "
                f"(there are: {', '.join(METRICS[self.task])})"
            )
        if JUDGE in self.gate.metrics and self.judge is None:
            raise ValueError(
                "gate.metrics names the judge, and there is no [targets.judge] with url and model"
            )
        return self

    @property
    def key(self) -> str:
        """`tenant/agent`: names the target, and is the alias that agents ask for."""
        return f"{self.tenant}/{self.agent}"

    @property
    def slug(self) -> str:
        """`tenant.agent`: the same in file and adapter names."""
        return slug(self.key)
