"""A version on probation: when it is looked at again, when it is not, and when it is given up."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from daemon.cycle.steps import advance, start_cycle
from daemon.scheduling.second_looks import MOST_FAILED, SecondLooks
from extractors.phoenix.mirror import MirrorChange, MirrorState
from registry.cycles import CycleState
from registry.versions import Version, VersionState
from tests.support.runs import MINUTE, NOWHERE, Runs, make_held_out, make_report
from tests.support.traffic import annotation, span
from trainers.models.base_model import compute_base_digest

NEEDED = 8
HELD_OUT = 10
DAY = timedelta(days=1)


class Waiting(Runs):
    """A target with a version on probation, whose second look takes `NEEDED` newer reviewed calls."""

    def __init__(self, folder: Path, model: Path, **target: Any) -> None:
        golden = folder / "golden.jsonl"
        golden.write_text("", "utf-8")
        gate = {"fresh_items": NEEDED / (HELD_OUT - 1), "probation_days": 20, **target.pop("gate", {})}
        super().__init__(folder, NOWHERE, base_model=str(model), golden=golden, gate=gate, **target)
        self.came = 0
        self.version = self.wait()

    def wait(self) -> Version:
        """A promising run, whose version waits from now on."""
        digest = compute_base_digest(self.context.target.base_model)
        cycle = self.train(self.snapshot(make_held_out(HELD_OUT), watermark=self.now), base=digest)
        snapshot = self.context.snapshot(str(cycle.snapshot_id))
        self.end(cycle, make_report(snapshot, str(cycle.version_id), right=7))
        return self.judge(str(cycle.version_id), VersionState.PROBATION)

    def judge(self, version_id: str, state: VersionState) -> Version:
        return self.store.judge(version_id, state, now=self.now, actor="ann", reason="as I say")

    def review(self, calls: int, *, approved: bool = True) -> None:
        """So many calls of today come in, and are reviewed or not."""
        numbers = range(self.came, self.came + calls)
        self.came += calls
        # 1 March at noon is where these begin.
        minutes = (self.now - make_held_out(1)[0].started_at).total_seconds() / 60
        spans = [span(f"new-{n}", minute=minutes + n / 1000) for n in numbers]
        said = [annotation(each.span_id, updated_at=self.now) for each in spans] if approved else []
        change = MirrorChange(state=MirrorState(), spans=tuple(spans), annotations=tuple(said))
        self.store.apply_mirror(self.context.target.key, change, self.now)

    def approve(self, *numbers: int) -> None:
        said = tuple(annotation(f"new-{n}", updated_at=self.now) for n in numbers)
        change = MirrorChange(state=MirrorState(), annotations=said)
        self.store.apply_mirror(self.context.target.key, change, self.now)

    @property
    def state(self) -> VersionState:
        return self.store.version(self.version.id).state

    @property
    def last_word(self) -> str:
        """The newest entry of the audit log."""
        return self.store.audit(self.context.target.key, limit=1)[0].detail


@pytest.fixture
def waiting(tmp_path: Path, tiny_model: Path) -> Iterator[Waiting]:
    made = Waiting(tmp_path, tiny_model)
    yield made
    made.store.close()


def test_a_second_look_that_fails_waits_for_the_cool_down_and_the_third_failure_is_the_last(
    waiting: Waiting,
) -> None:
    golden = waiting.context.target.golden
    assert golden is not None
    golden.write_text("{ this is no JSON\n", "utf-8")
    waiting.now += DAY
    waiting.review(NEEDED)
    looks, cooldown = SecondLooks(), waiting.context.target.schedule.cooldown
    for tried in range(1, MOST_FAILED + 1):
        version = looks.find_due(waiting.context)
        assert version is not None
        cycle = advance(waiting.context, start_cycle(waiting.context, "new examples", version))
        assert cycle.state is CycleState.EVALUATING
        cycle = advance(waiting.context, cycle)
        assert cycle.state is CycleState.FAILED
        assert "golden.jsonl" in cycle.reason
        waiting.now += cooldown - MINUTE
        if tried < MOST_FAILED:
            assert looks.find_due(waiting.context) is None, "it rests, so that a training may go first"
            assert waiting.state is VersionState.PROBATION
        waiting.now += MINUTE
    assert looks.find_due(waiting.context) is None
    assert waiting.state is VersionState.REJECTED
    assert "its second look failed 3 times, the last time with:" in waiting.last_word
    assert "golden.jsonl" in waiting.last_word


def test_second_looks_that_fail_one_after_the_other_do_not_hide_when_the_last_training_was(
    waiting: Waiting,
) -> None:
    key = waiting.context.target.key
    trained = waiting.store.cycles(key)[0]
    for _ in range(2):
        waiting.now += MINUTE
        cycle = waiting.store.start_cycle(key, "second look", waiting.now, version_id=waiting.version.id)
        waiting.fail(cycle, "no")
    [last] = waiting.store.cycles(key, limit=1, trains=True)
    assert last.id == trained.id
    failed = waiting.store.cycles(key, trains=False, version_id=waiting.version.id)
    assert [each.state for each in failed] == [CycleState.FAILED] * 2


def test_a_version_that_waits_for_too_long_is_rejected_in_words(waiting: Waiting) -> None:
    waiting.now += DAY
    waiting.review(NEEDED - 2)
    waiting.review(4, approved=False)
    looks = SecondLooks()
    waiting.now += 18 * DAY
    assert looks.find_due(waiting.context) is None
    assert (waiting.state, looks.last_count(waiting.context.target.key)) == (
        VersionState.PROBATION,
        NEEDED - 2,
    )
    waiting.now += DAY
    assert looks.find_due(waiting.context) is None
    assert waiting.state is VersionState.REJECTED
    assert "6 of 8 newer reviewed items" in waiting.last_word
    assert "in the 20 days after its training (gate.probation_days)" in waiting.last_word


def test_a_second_look_that_is_due_comes_before_the_end_of_the_waiting(waiting: Waiting) -> None:
    waiting.now += DAY
    waiting.review(NEEDED)
    waiting.now += 40 * DAY
    due = SecondLooks().find_due(waiting.context)
    assert due is not None
    assert due.id == waiting.version.id


def test_what_is_missing_is_not_counted_anew_before_it_can_have_come(waiting: Waiting) -> None:
    key, looks = waiting.context.target.key, SecondLooks()
    waiting.now += DAY
    waiting.review(3)
    waiting.review(20, approved=False)
    assert looks.find_due(waiting.context) is None
    assert looks.last_count(key) == 3
    waiting.approve(3, 4)
    assert looks.find_due(waiting.context) is None
    assert looks.last_count(key) == 3, "five are missing, and two came"
    waiting.now += 10 * MINUTE
    assert looks.find_due(waiting.context) is None
    assert looks.last_count(key) == 5, "now and then it is counted all the same"
    waiting.approve(5, 6, 7)
    due = looks.find_due(waiting.context)
    assert due is not None
    assert due.id == waiting.version.id


def test_the_count_of_one_version_is_not_that_of_the_next(waiting: Waiting) -> None:
    key, looks = waiting.context.target.key, SecondLooks()
    waiting.now += DAY
    waiting.review(3)
    waiting.review(5, approved=False)
    assert looks.find_due(waiting.context) is None
    assert looks.last_count(key) == 3
    waiting.judge(waiting.version.id, VersionState.REJECTED)
    waiting.now += DAY
    waiting.wait()
    assert looks.find_due(waiting.context) is None
    assert looks.last_count(key) is None, "not enough came since to count anything"


def test_a_version_of_another_base_is_not_looked_at_again(waiting: Waiting) -> None:
    waiting.review(NEEDED)
    cycle = start_cycle(waiting.context, "", SecondLooks().find_due(waiting.context))
    config = Path(waiting.context.target.base_model) / "config.json"
    before = config.read_text("utf-8")
    try:
        config.write_text(before.replace("{", '{"changed": true,', 1), "utf-8")
        cycle = advance(waiting.context, cycle)
    finally:
        config.write_text(before, "utf-8")
    assert cycle.state is CycleState.SKIPPED
    assert "trained on another base model than" in cycle.reason
    assert waiting.state is VersionState.REJECTED
    assert "trained on another base model than" in waiting.last_word


def test_a_version_that_was_rejected_meanwhile_is_skipped_whatever_became_of_its_data(
    waiting: Waiting,
) -> None:
    waiting.review(NEEDED)
    cycle = start_cycle(waiting.context, "", SecondLooks().find_due(waiting.context))
    waiting.judge(waiting.version.id, VersionState.REJECTED)
    (waiting.context.snapshots / waiting.version.snapshot_id / "manifest.json").unlink()
    cycle = advance(waiting.context, cycle)
    assert (cycle.state, cycle.reason) == (CycleState.SKIPPED, f"{waiting.version.id} is REJECTED by now")
