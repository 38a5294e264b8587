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
from extractors.cleaning.redaction import RedactionRules
from extractors.cleaning.rules import QualityRules
from extractors.dataset.holdout_split import HoldoutRules
from extractors.feedback.rules import FeedbackRules
from extractors.feedback.searches import RELEVANCE
from extractors.llm.endpoint import Endpoint
from extractors.phoenix.spans import SpanFilter
from extractors.span_parsing.retriever_spans import RetrievalRules
from extractors.synthesis.rules import ScreeningRules, SynthesisRules
from extractors.values import Value
from registry.targets import slug
from trainers.planning.hyperparameters import Hyperparameters, Method, Preset, select_overrides
from trainers.planning.method_rules import RaceMode, Task, Thresholds


class SynthesisSettings(WithApiKey):
    """Synthetic examples for a target with too few approved ones. A person always approves each example."""

    enabled: bool = False
    """Whether a language model proposes examples when there are too few."""
    url: Url | None = None
    """An OpenAI-compatible API, with its `/v1`. Without it, the target's first replica is asked."""
    model: str | None = None
    """The name of the language model at that API. It is set together with `url`; without both, the replica's
    base model is used."""
    encoder: str = "sentence-transformers/all-MiniLM-L6-v2"
    """The hub id or folder of the sentence-transformers model that recognises proposals which mean the same.
    """
    margin: float = Field(1.5, ge=1)
    """How many proposals are made for each missing example, since an operator will reject some."""
    share: float = Field(0.5, gt=0, lt=1)
    """The largest share of the training examples that may be synthetic."""
    expires_days: float = Field(14, gt=0)
    """Days after which a batch that nobody has decided expires."""
    timeout_seconds: float = Field(60, gt=0)
    """The longest time that one call of the language model may take, in seconds."""
    concurrency: int = Field(8, ge=1, le=256)
    """How many calls of the language model run at the same time."""
    asking: SynthesisRules = SynthesisRules()
    """How the language model is asked."""
    screening: ScreeningRules = ScreeningRules()
    """Which proposals are discarded before a person sees them."""

    @model_validator(mode="after")
    def _check_url_and_model(self) -> Self:
        if (self.url is None) != (self.model is None):
            raise ValueError("url and model of a language model go together")
        return self


class TargetThresholds(Thresholds):
    """How much data each method needs, and how much new feedback starts a cycle."""

    min_new_examples: int = Field(50, ge=1)
    """Pieces of feedback, new or changed since the last cycle, that start the next cycle."""


class JudgeSettings(WithApiKey):
    """A language model that compares answers, for texts that rarely equal the approved answer."""

    url: Url
    """An OpenAI-compatible API, with its `/v1`."""
    model: str = Field(min_length=1)
    """The name of the language model at that API."""
    timeout_seconds: float = Field(60, gt=0)
    """The longest time that one call may take, in seconds."""
    concurrency: int = Field(8, ge=1, le=256)
    """How many calls run at the same time."""

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint.model_validate(self.model_dump(include=set(Endpoint.model_fields)))


class ScheduleSettings(Value):
    """When cycles may start, apart from new feedback."""

    cron: str | None = None
    """A cron expression of five fields, in `timezone`. A cycle starts at these times even without new
    feedback. Without it, only feedback, decided batches and operators start cycles."""
    timezone: str = "UTC"
    """The time zone of `cron`: an IANA name such as `Europe/Berlin`."""
    cooldown_minutes: float = Field(60, ge=0)
    """The shortest time between the end of a cycle and the start of the next, in minutes. Cycles
    that an operator or a decided batch starts do not wait."""

    @model_validator(mode="after")
    def _check_schedule(self) -> Self:
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
    """How many retired or rejected versions of a target keep their files. Files of versions that are active,
    ready, on hold or the last good one are always kept."""


def _check_hyperparameters(overrides: dict[str, Any]) -> dict[str, Any]:
    known = ", ".join(Hyperparameters.model_fields)
    for method in get_args(Method):
        try:
            Hyperparameters.model_validate(select_overrides(method, overrides))
        except (ValidationError, ValueError, TypeError) as wrong:
            problem = (
                explain(wrong, lambda _: Hyperparameters.model_fields).strip()
                if isinstance(wrong, ValidationError)
                else str(wrong)
            )
            raise ValueError(f"{problem} (there are: {known}; or a table for one method)") from None
    return overrides


TASK_DEFAULTS: Mapping[str | None, Mapping[str, Mapping[str, Any]]] = {
    # Feedback on a conversation is about each of its turns.
    "chat": {"feedback": {"inherit": "all"}},
    "embedding": {"spans": {"kind": "RETRIEVER"}, "feedback": {"annotations": (RELEVANCE,)}},
}
"""Defaults of a target's sections that differ by task."""


class TargetSettings(Value):
    """An agent that learns: its tenant, its traffic, and the model that it runs on."""

    tenant: Slug
    """The owner of the agent. It is the first half of the model name that agents ask for."""
    agent: Slug
    """The name of the agent. It is the second half of the model name that agents ask for."""
    project: str = Field(min_length=1)
    """The Phoenix project of the agent's traces."""
    task: Task
    """What the agent does. `classification` answers with one of a set of labels, `extraction` with JSON,
    `generation` with a text; `chat` has conversations of several turns; `embedding` searches documents."""
    output_space: tuple[str, ...] = ()
    """All valid answers of a classification. By default these are the answers seen in training."""
    base_model: str = Field(min_length=1)
    """The hub id or folder of the base model. It must be the model that the replicas serve."""
    spans: SpanFilter = SpanFilter()
    """Which spans of the project are calls of this agent."""
    feedback: FeedbackRules = FeedbackRules()
    """How annotations become approvals, rejections and corrections."""
    retrieval: RetrievalRules = RetrievalRules()
    """For the task `embedding`: how a trace shows which documents were used."""
    quality: QualityRules = QualityRules()
    """Which examples are too poor to train on."""
    redaction: RedactionRules = RedactionRules()
    """Whether and how personal data is replaced before training."""
    golden: Path | None = None
    """A JSONL file of golden cases (`prompt`, `completion`), which no candidate may break. Examples that
    resemble one are never trained on."""
    synthesis: SynthesisSettings = SynthesisSettings()
    """Synthetic examples, where there are too few approved ones."""
    thresholds: TargetThresholds = TargetThresholds()
    """How much data each method needs, and how much new feedback starts a cycle."""
    holdout: HoldoutRules = HoldoutRules()
    """Which reviewed items are held out to judge candidates by."""
    gate: Gate = Gate()
    """What a candidate must show before it is promoted."""
    evaluate_with: Literal["transformers", "replica"] = "transformers"
    """`transformers` judges a candidate by answers that the evaluation generates itself. `replica` also asks
    a replica; the verdict stands only if both agree, and is INCONCLUSIVE if no replica answers for an
    hour."""
    judge: JudgeSettings | None = None
    """A language model that compares the candidate's answers with those of the live version. It decides only
    if `gate.metrics` contains `judge`."""
    schedule: ScheduleSettings = ScheduleSettings()
    """When cycles may start, apart from new feedback."""
    retention: RetentionRules = RetentionRules()
    """How many old versions keep their files."""
    promotion: Literal["automatic", "manual"] = "automatic"
    """`automatic` puts a version live once it has passed every gate; with `manual` an operator has to do so.
    """
    replicas: tuple[str, ...] = ()
    """The names of the replicas that serve the target. By default all of them do."""
    max_new_tokens: int = Field(64, ge=1)
    """The longest answer that the evaluation generates, in tokens."""
    hyperparameters: Annotated[dict[str, Any], AfterValidator(_check_hyperparameters)] = {}
    """Values that replace those of the plan, by name. A table with a method's name, such as
    `[targets.hyperparameters.dpo]`, applies to that method alone."""
    race: RaceMode = "cheap"
    """Whether other ways to train challenge the default. `cheap` tries one of each kind, `thorough` also the
    variants of the preference loss, and `off` trains the default alone."""
    race_cost: float = Field(1.85, gt=1)
    """The longest that a race may take, as a multiple of the time that the default alone takes. The limits
    of `[training]` hold as well."""
    replay_share: float = Field(0.1, ge=0, le=1)
    """How many examples that the base model writes itself are mixed into SFT, as a share of the target's own
    (512 at most), so that the model forgets less of what it could do before. It holds for the tasks
    `generation`, `chat` and `extraction`; 0 mixes in none."""
    seeds: int = Field(1, ge=1, le=9)
    """How many times the plan, or the winner of the race, is trained, each time with another seed. The
    candidate is the run with the median score on the validation side."""
    preset: Preset = "efficient"
    """`efficient` trains quickly and with little memory; `quality` takes about twice as long."""

    @model_validator(mode="before")
    @classmethod
    def _apply_task_defaults(cls, given: Any) -> Any:
        """Fill in the defaults that depend on the task, where the settings say nothing themselves."""
        sections = TASK_DEFAULTS.get(given.get("task"), {}) if isinstance(given, dict) else {}
        for section, defaults in sections.items():
            own = given.get(section, {})
            if isinstance(own, dict):
                given = {**given, section: {**defaults, **own}}
        return given

    @model_validator(mode="after")
    def _check_metrics(self) -> Self:
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
        """The target's name `tenant/agent`, which is also the alias that agents ask for."""
        return f"{self.tenant}/{self.agent}"

    @property
    def slug(self) -> str:
        """The target's name `tenant.agent`, as it stands in file and adapter names."""
        return slug(self.key)
