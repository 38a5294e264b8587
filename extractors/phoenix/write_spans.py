"""What a run did, as two spans in Phoenix: the fine-tuning, and below it the evaluation.

Phoenix takes spans into a queue in its memory and answers before it keeps them, so they are written
again until it shows them. Ids come from the run's id; Phoenix ignores a span that it has.
"""

import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, ClassVar

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, TraceFlags
from opentelemetry.trace.status import Status, StatusCode
from pydantic import AwareDatetime

from extractors.phoenix.client import PhoenixClient
from extractors.phoenix.http import storable
from extractors.values import Value, content_id

SHOWN_AFTER = 5.0
"""Seconds in which an idle Phoenix shows what it was sent; it needs about 0.2."""
LOOK_EVERY = 0.1


class Params(Value):
    """`params.*`: what the adapter was trained with."""

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


class Data(Value):
    """`data.*`: what it was trained on, in numbers of spans, pairs and examples."""

    total_spans: int | None = None
    approved_count: int | None = None
    rejected_count: int | None = None
    preference_pairs: int | None = None
    dataset_size: int | None = None
    used_synthetic: bool | None = None
    synthetic_approved_count: int | None = None


class TrainingMetrics(Value):
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


class SideMetrics(Value):
    """`metrics.base.*` or `metrics.adapter.*` of the evaluation: shares from 0 to 1."""

    accuracy: float | None = None
    top_k_accuracy: float | None = None
    confidence: float | None = None
    confidence_calibration: float | None = None
    error_rate: float | None = None
    hallucination_rate: float | None = None
    latency_ms: float | None = None


class Improvement(Value):
    """`improvement.*`: the adapter's measures against the base's."""

    accuracy: float | None = None
    confidence: float | None = None
    error_reduction: float | None = None
    latency_overhead: float | None = None
    significant: bool | None = None
    p_value: float | None = None


class Experiment(Value):
    """`experiment.*`: which run this is."""

    run_id: str
    agent_type: str


class Output(Value):
    """`output.*`: what the run made."""

    adapter_path: str | None = None


class Evaluated(Value):
    """`evaluation.*`: what was evaluated."""

    adapter_path: str | None = None
    agent_type: str
    test_size: int


class BothMetrics(Value):
    """`metrics.*` of the evaluation."""

    base: SideMetrics = SideMetrics()
    adapter: SideMetrics = SideMetrics()


class Stage(Value):
    """A part of a run. Every other field is a group of attributes, by the names that Phoenix gets."""

    kind: ClassVar[str]
    operation: ClassVar[str]
    started_at: AwareDatetime
    ended_at: AwareDatetime
    error: str | None = None
    """Why it failed; None where it did not."""


class ExperimentSpan(Stage):
    """The fine-tuning of a run."""

    kind = "EXPERIMENT"
    operation = "fine_tuning"
    experiment: Experiment
    params: Params
    data: Data = Data()
    metrics: TrainingMetrics = TrainingMetrics()
    output: Output = Output()


class EvaluationSpan(Stage):
    """The evaluation of the adapter that a run made."""

    kind = "EVALUATION"
    operation = "adapter_evaluation"
    evaluation: Evaluated
    metrics: BothMetrics = BothMetrics()
    improvement: Improvement = Improvement()


def attributes(stage: Stage) -> dict[str, str | int | float | bool]:
    """The stage's flat span attributes; what is None, or no finite number, is left out."""
    groups = stage.model_dump(exclude=set(Stage.model_fields))
    return {
        "openinference.span.kind": stage.kind,
        "operation.name": stage.operation,
        **dict(_flat(groups)),
    }


def publish_spans(
    client: PhoenixClient,
    project: str,
    experiment: ExperimentSpan,
    evaluation: EvaluationSpan | None = None,
    *,
    seconds: float = SHOWN_AFTER,
) -> bool:
    """Have Phoenix keep the spans in `project`, and say whether it does: while not, call again.

    Waits at most `seconds` for them to be shown. Raises PhoenixError.
    """
    run_id = experiment.experiment.run_id
    spans = [_readable(run_id, project, stage) for stage in (experiment, evaluation) if stage]
    ids = [f"{span.context.span_id:016x}" for span in spans]
    client.http.send(
        "POST",
        "/v1/traces",
        content=encode_spans(spans).SerializeToString(),
        headers={"content-type": "application/x-protobuf"},
    )
    deadline = time.monotonic() + seconds
    while not (kept := _kept(client, ids)) and time.monotonic() < deadline:
        time.sleep(LOOK_EVERY)
    return kept


def _kept(client: PhoenixClient, span_ids: list[str]) -> bool:
    # By their ids alone: Phoenix has one span of an id, whatever project it came to stand in.
    looks = (f'span{n}:getSpanByOtelId(spanId:"{span_id}"){{id}}' for n, span_id in enumerate(span_ids))
    return all(client.http.graphql(f"{{{' '.join(looks)}}}", {}).values())


def _readable(run_id: str, project: str, stage: Stage) -> ReadableSpan:
    root = isinstance(stage, ExperimentSpan)
    return ReadableSpan(
        name=stage.operation,
        context=_context(run_id, stage.operation),
        parent=None if root else _context(run_id, ExperimentSpan.operation),
        resource=Resource({"service.name": "learnd", "openinference.project.name": project}),
        attributes=attributes(stage),
        start_time=_nanoseconds(stage.started_at),
        end_time=_nanoseconds(stage.ended_at),
        status=Status(StatusCode.ERROR, storable(stage.error)) if stage.error else Status(StatusCode.OK),
    )


def _context(run_id: str, operation: str) -> SpanContext:
    return SpanContext(
        trace_id=int(content_id(["run", run_id]), 16),
        span_id=int(content_id(["run", run_id, operation])[:16], 16),
        is_remote=False,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
    )


def _nanoseconds(at: datetime) -> int:
    # As a float, nanoseconds since 1970 are 100 ns apart: whole microseconds first.
    return int(at.timestamp() * 1_000_000) * 1000


def _flat(groups: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str | int | float | bool]]:
    for name, value in groups.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif (kept := storable(value)) is not None:
            yield f"{prefix}{name}", kept
