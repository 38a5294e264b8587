"""A team whose agent can learn something: traffic in a real Phoenix, reviewed, and settings for it."""

import json
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import tomli_w

from daemon.demo.servers import find_free_port
from daemon.settings.load import Settings, load_settings
from extractors.phoenix.client import PhoenixClient
from extractors.phoenix.spans import Annotation
from registry.store.store import Store
from tests.support.phoenix import chat_span, send_spans, wait_for_spans
from tests.support.snapshots import RoutingCase

ROOT = Path(__file__).resolve().parents[2]
LABELS = ("billing", "shipping")
ITEMS = 110
HELD_OUT = 40
BEGAN = datetime(2026, 3, 1, tzinfo=UTC)
QUESTIONS = (
    ("billing", "invoice {n} charges me twice, I want the refund"),
    ("shipping", "parcel {n} has not arrived, where is the courier"),
)


@dataclass(frozen=True)
class Team:
    """A target with its settings file; `key` is also the model that agents ask for."""

    config: Path
    settings: Settings

    @property
    def key(self) -> str:
        return self.settings.targets[0].key

    @property
    def project(self) -> str:
        return self.settings.targets[0].project

    def learnd(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command of the command line with this team's settings."""
        command = [sys.executable, "-m", "learnd", *arguments, "--config", str(self.config)]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
        assert not check or result.returncode == 0, result.stdout + result.stderr
        return result

    def ask(self, *arguments: str) -> Any:
        """Return what a command prints with `--json`."""
        return json.loads(self.learnd(*arguments, "--json").stdout)

    def change_thresholds(self, **changes: int) -> "Team":
        """Return the same team with other thresholds in its settings file."""
        return self.change_section("thresholds", **changes)

    def change_section(self, section: str, **changes: Any) -> "Team":
        """Return the same team with other values in a section of its target in the settings file."""
        document = tomllib.loads(self.config.read_text("utf-8"))
        document["targets"][0][section] |= changes
        self.config.write_text(tomli_w.dumps(document), "utf-8")
        return Team(self.config, load_settings(self.config))

    def store(self) -> Store:
        return Store.open(self.settings.data_dir, datetime.now(UTC))


def new_team(
    folder: Path,
    tenant: str,
    *,
    phoenix: str,
    vllm: str,
    model: Path,
    asked: Sequence[RoutingCase] | None = None,
    **target: Any,
) -> Team:
    """Make a team with reviewed traffic in a project of its own; `target` changes its settings."""
    project = f"{tenant}-routing"
    fill(phoenix, project, make_cases(range(ITEMS)) if asked is None else asked)
    document = _build_settings(tenant, project, phoenix, vllm, model)
    document["targets"][0] |= target
    config = folder / "learnd.toml"
    config.write_text(tomli_w.dumps(document), "utf-8")
    return Team(config, load_settings(config))


def make_cases(numbers: Iterable[int]) -> list[RoutingCase]:
    """Return questions with their destinations, which alternate."""
    return [(QUESTIONS[n % 2][1].format(n=n), QUESTIONS[n % 2][0]) for n in numbers]


def _build_settings(tenant: str, project: str, phoenix: str, vllm: str, model: Path) -> dict[str, Any]:
    return {
        "data_dir": "data",
        "phoenix": {"url": phoenix, "poll_seconds": 1},
        "daemon": {"reconcile_seconds": 1, "port": find_free_port()},
        "agents": {"cache_seconds": 0.5},
        "replicas": [{"name": "local", "url": vllm}],
        "training": {"threads": 2},
        "targets": [
            {
                "tenant": tenant,
                "agent": "routing",
                "project": project,
                "task": "classification",
                "output_space": list(LABELS),
                "base_model": str(model),
                "holdout": {"least": HELD_OUT, "greatest": HELD_OUT},
                # SFT alone, but where a test asks for more.
                "thresholds": {"sft_examples": 50, "pairs": 1000, "votes": 1000, "min_new_examples": 50},
                # An adapter on so small a base takes long, and a busy machine makes that vary.
                "gate": {"latency_margin": 20.0},
                "max_new_tokens": 8,
                "hyperparameters": {"sft": {"epochs": 6, "learning_rate": 0.005}},
            }
        ],
    }


def fill(phoenix: str, project: str, asked: Sequence[RoutingCase], *, first: int = 0) -> None:
    """Send calls to Phoenix that were all answered wrongly, each rejected and corrected by a reviewer.

    There is one call a minute, from minute `first` on.
    """
    spans, annotations = [], []
    for n, (question, label) in enumerate(asked, start=first):
        began = BEGAN + timedelta(minutes=n)
        span = chat_span(question, "I do not know", started_at=began)
        spans.append(span)
        for name, said in (("approval", {"label": "rejected"}), ("correction", {"explanation": label})):
            annotations.append(
                Annotation(
                    level="span",
                    subject_id=span.span_id,
                    name=name,
                    identifier="ann",
                    annotator_kind="HUMAN",
                    updated_at=began,
                    **said,
                )
            )
    send_spans(phoenix, project, spans)
    wait_for_spans(phoenix, project, first + len(spans))
    with PhoenixClient(phoenix) as client:
        client.annotations.write(annotations)
