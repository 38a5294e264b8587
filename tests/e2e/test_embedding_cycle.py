"""The loop for a retriever on real parts: searches in a real Phoenix, clicks, training, verdict."""

import json
import random
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import tomli_w

from daemon.demo.phoenix import PhoenixServer
from daemon.settings.load import load_settings
from registry.store.store import Store
from registry.versions import VersionState
from tests.support.phoenix import SentSpan, new_project, send_spans, wait_for_spans
from tests.support.tiny_encoder import tiny_encoder

ROOT = Path(__file__).resolve().parents[2]
BEGAN = datetime(2026, 3, 1, tzinfo=UTC)
THINGS = 30
WAYS = 4
"""Searches for each thing."""
WORDS = (
    "where",
    "who",
    "the",
    "of",
    "by",
    "with",
    "from",
    "this",
    "that",
    "some",
    "any",
    "now",
    "then",
    "here",
    "red",
)


def make_filler(seed: int, count: int) -> str:
    """Return words without meaning for the search, which clicks teach."""
    return " ".join(random.Random(seed).sample(WORDS, count))


def make_search(number: int) -> SentSpan:
    """Make a search that found three answers, of which the third, about the thing, was clicked."""
    way, thing = divmod(number, THINGS)
    found = [(thing + 1 + way) % THINGS, (thing + 2 + way) % THINGS, thing]
    attributes: dict[str, Any] = {"input.value": f"{make_filler(1000 + number, 4)} thing{thing}"}
    for place, about in enumerate(found):
        prefix = f"retrieval.documents.{place}.document"
        attributes |= {
            f"{prefix}.id": f"d{about}",
            f"{prefix}.content": f"{make_filler(about, 8)} thing{about}",
        }
    attributes["metadata"] = json.dumps({"clicked_document_ids": [f"d{thing}"]})
    return SentSpan(
        kind="RETRIEVER", name="retrieve", attributes=attributes, started_at=BEGAN + timedelta(minutes=number)
    )


def test_clicks_teach_a_retriever_whose_version_agents_load_themselves(
    tmp_path: Path, phoenix: PhoenixServer
) -> None:
    project = new_project("searches")
    spans = [make_search(number) for number in range(THINGS * WAYS)]
    send_spans(phoenix.url, project, spans)
    wait_for_spans(phoenix.url, project, len(spans))
    texts = [str(value) for span in spans for value in span.attributes.values()]
    config = tmp_path / "learnd.toml"
    target = {
        "tenant": "acme",
        "agent": "find",
        "project": project,
        "task": "embedding",
        "base_model": str(tiny_encoder(tmp_path / "model", texts)),
        "holdout": {"least": THINGS, "greatest": THINGS},
        # A busy machine makes it vary how much longer an adapter takes.
        "gate": {"latency_margin": 20.0},
        "quality": {"near_held_out": 1.0, "near_duplicate": 1.0},
        "hyperparameters": {"epochs": 6, "learning_rate": 0.01, "batch_size": 16, "lora_rank": 8},
    }
    config.write_text(
        tomli_w.dumps({"data_dir": "data", "phoenix": {"url": phoenix.url}, "targets": [target]}), "utf-8"
    )

    command = [sys.executable, "-m", "learnd", "once", "--json", "--config", str(config)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    cycle = json.loads(done.stdout)

    assert (cycle["state"], cycle["verdict"]) == ("DONE", "PROMOTE"), cycle["reason"]
    assert cycle["plan"]["stages"][0]["method"] == "embedding"
    base, candidate = cycle["report"]["sides"]
    assert candidate["measures"]["recall@5"] > base["measures"]["recall@5"]
    with Store.open(load_settings(config).data_dir, datetime.now(UTC)) as store:
        [version] = store.versions("acme/find")
    assert version.state is VersionState.ACTIVE
