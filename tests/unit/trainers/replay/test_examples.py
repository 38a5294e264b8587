"""Trainings learn the same replay each time, and never what is held out."""

from pathlib import Path

import pytest

from tests.support.replay import write_parts
from trainers.replay.examples import (
    HELD_OUT,
    PART_SIZE,
    ReplayGone,
    compute_digest,
    read_part,
    read_replay,
)


def test_examples_are_taken_in_order_across_parts_and_none_is_held_out(tmp_path: Path) -> None:
    written = write_parts(tmp_path, parts=3)
    wanted = written[: PART_SIZE + 6]
    assert read_replay(tmp_path, len(wanted), compute_digest(wanted)) == wanted
    assert not set(read_part(tmp_path, HELD_OUT).examples) & set(written)


def test_other_examples_than_the_plans_are_refused(tmp_path: Path) -> None:
    written = write_parts(tmp_path)
    with pytest.raises(ReplayGone, match="not the one that the plan was made with"):
        read_replay(tmp_path, 5, compute_digest(written[1:6]))


def test_replay_that_was_removed_is_named(tmp_path: Path) -> None:
    written = write_parts(tmp_path, parts=1)
    assert not written
    with pytest.raises(ReplayGone, match="start the cycle again"):
        read_replay(tmp_path, 5, "a digest")
