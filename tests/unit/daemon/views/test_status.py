"""What a target needs to be trained: each kind of examples once, however many ways learn from it."""

from pathlib import Path

import pytest

from daemon.views.status import Need, count_needs
from tests.support.runs import LABELS, NOWHERE, Runs, make_held_out


@pytest.mark.parametrize(
    ("task", "needs"),
    [
        ("classification", {"sft": 50, "pairs": 20, "votes": 100}),
        ("chat", {"trajectories": 20, "sft": 50, "pairs": 20, "votes": 100}),
        ("embedding", {"triplets": 100}),
    ],
)
def test_each_kind_is_needed_once_however_many_ways_to_train_learn_from_it(
    task: str, needs: dict[str, int], tmp_path: Path
) -> None:
    runs = Runs(tmp_path, NOWHERE, task=task, output_space=LABELS if task == "classification" else ())
    found = count_needs(runs.context.target, None)
    assert {kind: need.needs for kind, need in found.items()} == needs
    runs.store.close()


def test_what_there_is_was_counted_by_the_last_cycle_that_trained(runs: Runs) -> None:
    cycle = runs.train(runs.snapshot(make_held_out(12)))
    assert count_needs(runs.context.target, cycle)["sft"] == Need(has=30, needs=50)
