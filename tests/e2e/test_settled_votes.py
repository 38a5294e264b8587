"""A real training by votes that has nothing left to teach."""

from pathlib import Path

import pytest

from tests.e2e.test_training import make_case, make_examples, make_plan, train_here
from tests.support.snapshots import make_item, make_snapshot
from trainers.jobs.job import TrainingJob

pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated:FutureWarning")


def test_a_training_by_votes_ends_when_every_answer_is_far_on_the_side_of_its_vote(
    tiny_model: Path, tmp_path: Path
) -> None:
    snapshot = make_snapshot(
        tmp_path / "snapshots",
        make_examples(range(16)),
        make_examples(range(16, 24)),
        [make_item(24, make_case(24))],
    )
    plan = make_plan(tiny_model, snapshot, ("kto", "votes"), epochs=60, beta=1.0, patience=1000)
    metrics = train_here(TrainingJob(plan=plan, snapshot=str(snapshot)), tmp_path / "training").metrics
    assert (
        "nothing left to teach: in 10 steps every answer was on the side of its vote" in metrics.recoveries[0]
    )
    assert metrics.steps < 100
