"""The files of the corpus: what a tracer exported, what was said, and what is expected to be read of it."""

import json
import tomllib
from pathlib import Path
from typing import Any

from tests.corpus.said import ServedCall

FOLDER = Path(__file__).resolve().parent
RECORDINGS = FOLDER / "recordings"
EXPECTED = FOLDER / "expected.toml"
READ, NOT_TRACED = "read", "not traced"
"""Outcomes of a situation beside `read without tools` and its like, and the names of DropReasons."""
UNLEARNABLE = frozenset({"error", "image", "cut off", "several answers"})
"""Situations that must be refused, whatever the tracer."""
TRACERS = tuple(sorted(path.name.removesuffix(".otlp.json") for path in RECORDINGS.glob("*.otlp.json")))


def read_recording(tracer: str) -> dict[str, Any]:
    """Return an OTLP request as protobuf's JSON."""
    recorded: dict[str, Any] = json.loads((RECORDINGS / f"{tracer}.otlp.json").read_text("utf-8"))
    return recorded


def read_versions(tracer: str) -> dict[str, str]:
    """Return the versions of the packages that were recorded, by name."""
    return _read_resource(tracer, "version.")


def read_settings(tracer: str) -> dict[str, str]:
    """Return the environment variables that were set for the tracer, by name."""
    return _read_resource(tracer, "setting.")


def _read_resource(tracer: str, prefix: str) -> dict[str, str]:
    attributes = read_recording(tracer)["resourceSpans"][0]["resource"]["attributes"]
    return {
        each["key"].removeprefix(prefix): each["value"]["stringValue"]
        for each in attributes
        if each["key"].startswith(prefix)
    }


def read_truth(tracer: str) -> list[ServedCall]:
    """Return what the stand-in served while `tracer` was recorded."""
    written = json.loads((RECORDINGS / f"{tracer}.truth.json").read_text("utf-8"))
    return [ServedCall.from_json(each) for each in written]


def read_expected() -> dict[str, dict[str, str]]:
    """Return the expected outcome of each situation, by tracer and situation; see `outcomes.py`."""
    return tomllib.loads(EXPECTED.read_text("utf-8"))
