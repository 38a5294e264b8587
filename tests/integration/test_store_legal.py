"""Whatever is asked of the store, in whatever order, and wherever it is killed: its states stay legal."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from extractors.values import LearndError
from registry import cycles, versions
from registry.cycles import Cycle, CycleState
from registry.store.store import Store
from registry.versions import Version, VersionState
from tests.integration.store_support import NOW, a_candidate, add_candidate, promote

TARGETS = ("acme/routing", "globex/routing")
BASES = ("base1", "base2")

KILLED_MOVE = """
import os, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from sqlalchemy import Engine, event
from registry.store.store import Store

folder, move, last = sys.argv[1], sys.argv[2], int(sys.argv[3])
now = datetime(2026, 3, 2, tzinfo=UTC)
said = 0

@event.listens_for(Engine, "after_cursor_execute")
def count(*_):
    global said
    said += 1
    if said == last:
        os.kill(os.getpid(), signal.SIGKILL)

@event.listens_for(Engine, "commit")
def commit(_):
    count()

with Store.open(Path(folder), now) as store:
    said = 0
    how = dict(expected_active="acme.routing.v1", drain_until=now, now=now, actor="ann", reason="")
    if move == "activate":
        store.activate("acme.routing.v2", **how)
    else:
        store.rollback("acme/routing", to=None, **how)
"""


@pytest.mark.parametrize("move", ["activate", "rollback"])
def test_a_move_killed_at_any_statement_happened_wholly_or_not_at_all(
    tmp_path: Path, pytestconfig: pytest.Config, move: str
) -> None:
    with Store.open(tmp_path / "before", NOW) as store:
        first = promote(store, a_candidate(store, TARGETS[0]), None)
        a_candidate(store, TARGETS[0])
    kills = 0
    while True:
        data = tmp_path / f"run{kills}"
        shutil.copytree(tmp_path / "before", data)
        child = subprocess.run(
            [sys.executable, "-c", KILLED_MOVE, str(data), move, str(kills + 1)],
            env={"PYTHONPATH": str(pytestconfig.rootpath)},
            timeout=60,
            check=False,
        )
        with Store.open(data, NOW) as store:
            active, held, acts = store.active(TARGETS[0]), store.target_state(TARGETS[0]).held, store.audit()
        if child.returncode == 0:
            break
        assert child.returncode == -9
        assert (active, held, len(acts)) == (first, False, 1)
        kills += 1
    # Every statement and the commit itself was a place to die.
    assert kills > 5
    assert (active.id if active else None) == ("acme.routing.v2" if move == "activate" else None)
    assert (held, len(acts)) == (move == "rollback", 2)


class AnyOrder(RuleBasedStateMachine):
    """Calls in any order on two targets; a refused one must be one of our errors and change nothing."""

    store: Store

    @initialize()
    def open(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="learnd-store-"))
        self.store = Store.open(self.folder, NOW)
        self.now = NOW
        self.was_cycles: dict[str, Cycle] = {}
        self.was_versions: dict[str, Version] = {}

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.folder)

    def moment(self) -> dict[str, object]:
        self.now += timedelta(minutes=1)
        return {
            "drain_until": self.now + timedelta(minutes=3),
            "now": self.now,
            "actor": "ann",
            "reason": "why",
        }

    @rule(whose=st.sampled_from(TARGETS))
    def start(self, whose: str) -> None:
        self.moment()
        try:
            self.store.start_cycle(whose, "operator", self.now)
        except LearndError:
            assert any(cycle.target == whose for cycle in self.store.unfinished_cycles())

    @rule(data=st.data(), old=st.sampled_from(CycleState), new=st.sampled_from(CycleState))
    @precondition(lambda self: self.was_cycles)
    def advance_anyhow(self, data: st.DataObject, old: CycleState, new: CycleState) -> None:
        cycle = data.draw(st.sampled_from(sorted(self.was_cycles)))
        try:
            self.store.advance_cycle(cycle, old, new, self.now)
        except LearndError:
            assert self.store.cycle(cycle) == self.was_cycles[cycle]

    @rule(data=st.data(), base=st.sampled_from(BASES))
    @precondition(lambda self: self.store.unfinished_cycles())
    def train(self, data: st.DataObject, base: str) -> None:
        cycle = data.draw(st.sampled_from(self.store.unfinished_cycles()))
        add_candidate(self.store, cycle, base)
        self.store.advance_cycle(cycle.id, cycle.state, CycleState.FAILED, self.now)

    @rule(data=st.data(), new=st.sampled_from(VersionState), unless_held=st.booleans())
    @precondition(lambda self: self.was_versions)
    def change_a_version(self, data: st.DataObject, new: VersionState, unless_held: bool) -> None:
        version = data.draw(st.sampled_from(sorted(self.was_versions)))
        active = data.draw(st.sampled_from([None, *sorted(self.was_versions)]))
        moment = self.moment()
        judgement = {key: value for key, value in moment.items() if key != "drain_until"}
        calls = {
            "judge": lambda: self.store.judge(version, new, **judgement),
            "want": lambda: self.store.want(version),
            "unwant": lambda: self.store.unwant(version),
            "drained": lambda: self.store.drained(version, self.now),
            "files_removed": lambda: self.store.files_removed(version, self.now),
            "activate": lambda: self.store.activate(
                version, expected_active=active, unless_held=unless_held, **moment
            ),
        }
        self.attempt(calls[data.draw(st.sampled_from(sorted(calls)))])

    @rule(data=st.data(), whose=st.sampled_from(TARGETS), base=st.sampled_from(BASES))
    def change_a_target(self, data: st.DataObject, whose: str, base: str) -> None:
        active, to = self.store.active(whose), self.store.rollback_target(whose)
        moment = self.moment()
        expected = {"expected_active": active.id if active else "none"}
        calls = {
            "deactivate": lambda: self.store.deactivate(whose, **expected, **moment),
            "rollback": lambda: self.store.rollback(whose, to=to.id if to else None, **expected, **moment),
            "use_base": lambda: self.store.use_base(whose, base, self.now),
            "hold": lambda: self.store.hold(whose, "ann", "why", self.now),
            "release": lambda: self.store.release(whose, "ann", self.now),
        }
        chosen = data.draw(st.sampled_from(sorted(calls)))
        refused = self.attempt(calls[chosen])
        # What the store names as the way back can always be gone back to.
        assert not (chosen == "rollback" and active and refused)

    def attempt(self, call: Callable[[], object]) -> bool:
        """Make the call; says whether it was refused, which must leave everything as it was."""
        before = (self.store.versions(), [self.store.target_state(t) for t in TARGETS], self.store.audit())
        try:
            call()
        except LearndError:
            assert before == (
                self.store.versions(),
                [self.store.target_state(t) for t in TARGETS],
                self.store.audit(),
            )
            return True
        return False

    @invariant()
    def cycles_took_legal_steps(self) -> None:
        now = {cycle.id: cycle for cycle in self.store.cycles()}
        assert self.was_cycles.keys() <= now.keys()
        for cycle_id, was in self.was_cycles.items():
            new = now[cycle_id].state
            assert new == was.state or new in cycles.TRANSITIONS[was.state]
        for target in TARGETS:
            assert sum(not c.ended for c in now.values() if c.target == target) <= 1
        self.was_cycles = now

    @invariant()
    def versions_took_legal_steps(self) -> None:
        now = {version.id: version for version in self.store.versions()}
        for version_id, was in self.was_versions.items():
            new = now[version_id].state
            assert new == was.state or new in versions.TRANSITIONS[was.state]
        self.was_versions = now

    @invariant()
    def at_most_one_version_is_active_and_it_can_be_served(self) -> None:
        for target in TARGETS:
            mine = self.store.versions(target)
            active = [version for version in mine if version.state == VersionState.ACTIVE]
            assert len(active) <= 1
            assert self.store.active(target) == (active[0] if active else None)
            base = self.store.target_state(target).base_digest
            for version in mine:
                servable = version.files_removed_at is None and base in {None, version.base_digest}
                assert servable or not version.wanted
                assert version.wanted or version.state != VersionState.ACTIVE

    @invariant()
    def what_is_needed_is_never_prunable(self) -> None:
        for target in TARGETS:
            prunable = self.store.prunable(target, keep=0)
            assert self.store.rollback_target(target) not in prunable
            for version in prunable:
                assert version.target == target
                assert not version.wanted
                assert version.state not in {VersionState.ACTIVE, VersionState.READY, VersionState.PROBATION}

    @invariant()
    def every_version_has_a_number_of_its_own(self) -> None:
        for target in TARGETS:
            numbers = [version.number for version in self.store.versions(target)]
            assert numbers == list(range(1, len(numbers) + 1))


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(
    max_examples=40,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
