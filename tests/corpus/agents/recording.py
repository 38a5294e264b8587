"""Runs an agent under one tracer, and writes what was traced and what was said."""

import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.corpus.stand_in import StandIn, run_stand_in

TRACEBACK = re.compile(r"Traceback \(most recent call last\).*", re.DOTALL)
"""Python's traceback names the paths of the machine that recorded."""


@dataclass(frozen=True)
class Tracer:
    """A tracer, and the agent that is recorded with it."""

    instrument: Callable[[TracerProvider], None]
    """Switches it on."""
    packages: tuple[str, ...]
    """Packages whose versions matter."""
    converse: Callable[[StandIn], None]
    settings: Mapping[str, str] = field(default_factory=dict)
    """Environment variables that a team sets to have the messages traced, and that keep other tracers out."""


def record_agent(tracers: Mapping[str, Tracer]) -> None:
    """Record the tracer that the command line names, into the folder that it names."""
    name, folder = sys.argv[1], Path(sys.argv[2])
    tracer = tracers[name]
    os.environ.update(tracer.settings)
    exporter = InMemorySpanExporter()
    # Only this resource: OpenTelemetry's own detectors would add names of the machine and the process.
    provider = TracerProvider(resource=Resource({"service.name": "harbour-office"}))
    trace.set_tracer_provider(provider)
    with run_stand_in() as stand_in:
        tracer.instrument(provider)
        # After the processors of a tracer that changes spans when they end.
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        tracer.converse(stand_in)
    spans = exporter.get_finished_spans()
    _write_recording(folder / f"{name}.otlp.json", spans, tracer)
    lines = ",\n".join(_dump(each.to_json()) for each in stand_in.served)
    (folder / f"{name}.truth.json").write_text(f"[\n{lines}\n]\n", "utf-8")
    print(f"{name}: {len(spans)} spans, {len(stand_in.served)} calls")


def _write_recording(path: Path, spans: Any, tracer: Tracer) -> None:
    """Write an OTLP request as protobuf's JSON, a span a line; the resource tells versions and settings."""
    (traced,) = MessageToDict(encode_spans(spans))["resourceSpans"]
    versions = {f"version.{name}": version(name) for name in (*tracer.packages, "opentelemetry-sdk")}
    settings = {f"setting.{name}": value for name, value in tracer.settings.items()}
    traced["resource"]["attributes"] += [
        {"key": key, "value": {"stringValue": value}} for key, value in {**versions, **settings}.items()
    ]
    scopes = ",\n".join(_write_scope(scope) for scope in traced["scopeSpans"])
    resource = _dump(traced["resource"])
    path.write_text(f'{{"resourceSpans":[{{"resource":{resource},"scopeSpans":[\n{scopes}\n]}}]}}\n', "utf-8")


def _write_scope(scope: dict[str, Any]) -> str:
    spans = ",\n".join(_dump(_leave_out_tracebacks(span)) for span in scope["spans"])
    named = _dump(scope.get("scope", {}))
    return f'{{"scope":{named},"spans":[\n{spans}\n]}}'


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _leave_out_tracebacks(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _leave_out_tracebacks(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_leave_out_tracebacks(each) for each in value]
    return TRACEBACK.sub("Traceback left out", value) if isinstance(value, str) else value
