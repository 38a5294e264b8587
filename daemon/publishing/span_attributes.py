"""The attributes of a run's two spans in Phoenix: the fine-tuning, and below it the evaluation.

Each class is a group of attributes, by the names that Phoenix gets.
"""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from pydantic import AwareDatetime

from extractors.phoenix.http import to_storable
from extractors.values import Value

Scalar = str | int | float | bool


class ExperimentAttributes(Value):
    """`experiment.*`: which run this is."""

    run_id: str
    agent_type: str


class ParameterAttributes(Value):
    """`params.*`: how the adapter was trained."""

    base_model: str
    method: str
    backend: str | None = None
    backend_provider: str | None = None
    epochs: float | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    use_lora: bool | None = None
    lora_r: int | None = None
    lora_alpha: int | None = None


class DataAttributes(Value):
    """`data.*`: the data it was trained on, in numbers of spans, pairs and examples."""

    total_spans: int | None = None
    approved_count: int | None = None
    rejected_count: int | None = None
    preference_pairs: int | None = None
    dataset_size: int | None = None
    used_synthetic: bool | None = None
    synthetic_approved_count: int | None = None


class FineTuningMetrics(Value):
    """`metrics.*` of the fine-tuning."""

    train_loss: float | None = None
    train_samples: int | None = None
    train_examples: int | None = None
    epochs_completed: float | None = None
    used_validation_split: bool | None = None
    eval_loss: float | None = None
    eval_samples: int | None = None
    val_examples: int | None = None
    eval_reward_accuracy: float | None = None
    eval_reward_margin: float | None = None


class ContenderAttributes(Value):
    """`race.contenders.0.*`: one contender of the race, the default first."""

    name: str
    steps: int
    seconds: float
    score: float | None = None
    """At the last rung that it came to, 0 to 1."""
    effect: float | None = None
    p_value: float | None = None
    left: str | None = None
    """Why it left, in words; None for the winner."""


class RaceAttributes(Value):
    """`race.*`: the race that the way to train has won."""

    winner: str
    metric: str
    items: int
    sessions: int
    level: float
    seconds: float
    cost: float
    """`seconds` as a multiple of the default's."""
    cost_bound: float
    contenders: tuple[ContenderAttributes, ...]


class GeneralAbilityAttributes(Value):
    """`general_ability.*`: what the candidate can still do of what the base model could before, from its
    answers to questions that the base wrote itself."""

    items: int
    tokens: int
    divergence: float
    """Mean KL(base‖candidate) in nats a token."""
    agreement: float
    """Mean nearness of its answers to the base's, 0 to 1."""
    change: float
    """Its agreement minus that of what was live."""


class OutputAttributes(Value):
    """`output.*`: the result of the run."""

    adapter_path: str | None = None


class SideMetrics(Value):
    """`metrics.base.*` or `metrics.adapter.*` of the evaluation: shares from 0 to 1."""

    accuracy: float | None = None
    top_k_accuracy: float | None = None
    confidence: float | None = None
    confidence_calibration: float | None = None
    error_rate: float | None = None
    hallucination_rate: float | None = None
    latency_ms: float | None = None


class EvaluationMetrics(Value):
    """`metrics.*` of the evaluation."""

    base: SideMetrics = SideMetrics()
    adapter: SideMetrics = SideMetrics()


class EvaluationAttributes(Value):
    """`evaluation.*`: the adapter and the test set."""

    adapter_path: str | None = None
    agent_type: str
    test_size: int


class ImprovementAttributes(Value):
    """`improvement.*`: the adapter's measures against the base's."""

    accuracy: float | None = None
    confidence: float | None = None
    error_reduction: float | None = None
    latency_overhead: float | None = None
    significant: bool | None = None
    p_value: float | None = None


class RunSpan(Value):
    """One span of a run. Every field that a subclass adds is a group of attributes."""

    kind: ClassVar[str]
    operation: ClassVar[str]
    started_at: AwareDatetime
    ended_at: AwareDatetime
    error: str | None = None
    """Why it failed; None where it did not."""


class ExperimentSpan(RunSpan):
    """The fine-tuning of a run."""

    kind = "EXPERIMENT"
    operation = "fine_tuning"
    experiment: ExperimentAttributes
    params: ParameterAttributes
    data: DataAttributes = DataAttributes()
    metrics: FineTuningMetrics = FineTuningMetrics()
    race: RaceAttributes | None = None
    general_ability: GeneralAbilityAttributes | None = None
    output: OutputAttributes = OutputAttributes()


class EvaluationSpan(RunSpan):
    """The evaluation of the adapter that a run made."""

    kind = "EVALUATION"
    operation = "adapter_evaluation"
    evaluation: EvaluationAttributes
    metrics: EvaluationMetrics = EvaluationMetrics()
    improvement: ImprovementAttributes = ImprovementAttributes()


def flatten_attributes(span: RunSpan) -> dict[str, Scalar]:
    """Return the flat span attributes; values that are None or no finite number are left out."""
    groups = span.model_dump(exclude=set(RunSpan.model_fields))
    return {
        "openinference.span.kind": span.kind,
        "operation.name": span.operation,
        **dict(_flatten(groups)),
    }


def _flatten(groups: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Scalar]]:
    for name, value in groups.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            yield from _flatten({str(place): each for place, each in enumerate(value)}, f"{prefix}{name}.")
        elif (storable := to_storable(value)) is not None:
            yield f"{prefix}{name}", storable
