"""The pairs that readiness is asked on: never those whose prompts the model was trained on."""

from pathlib import Path

from evaluation.jobs.job import AdapterSide
from evaluation.jobs.readiness import ReadinessJob, list_untrained_pairs
from extractors.dataset.snapshot import read_snapshot
from extractors.examples.types import Examples
from tests.support.snapshots import make_pair, make_snapshot

LIVE = AdapterSide(name="acme.routing.v1", path="nowhere")


def test_an_adapter_is_asked_on_pairs_that_it_was_not_trained_on_and_the_base_on_all(tmp_path: Path) -> None:
    learned, trained, new = (make_pair(n, (f"question {n}", "billing"), "shipping") for n in range(3))
    folder = make_snapshot(tmp_path, Examples(pairs=(learned,)), Examples(pairs=(trained, new)))
    snapshot = read_snapshot(folder)
    job = ReadinessJob(
        snapshot=str(folder),
        base_model="tiny",
        adapter=LIVE,
        left_out=(trained.prompt_key,),
        task="classification",
        max_new_tokens=8,
    )
    assert list_untrained_pairs(snapshot, job) == (new,)
    base = job.model_copy(update={"adapter": None, "left_out": ()})
    assert list_untrained_pairs(snapshot, base) == (trained, new, learned)
