"""Whatever is asked of the store, in whatever order, and wherever it is killed: its states stay legal."""

import shutil
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from extractors.errors import LearndError
from registry import cycles, versions
from registry.cycles import Cycle, CycleState, IllegalTransition
from registry.store.cycles import CycleRunning
from registry.store.store import Store
from registry.versions import Version, VersionState
from tests.integration.registry.store.kill_at_statements import activate, kill_at_each_statement, roll_back
from tests.integration.registry.store.store_support import NOW, a_candidate, add_candidate, promote

TARGETS = ("acme/routing", "globex/routing")
BASES = ("base1", "base2")
a_version = st.integers(0, 9)


@pytest.mark.parametrize(("move", "argument"), [(activate, "acme.routing.v2"), (roll_back, TARGETS[0])])
def test_a_move_killed_at_any_statement_happened_wholly_or_not_at_all(
    tmp_path: Path, move: Callable[[Store, str], None], argument: str
) -> None:
    with Store.open(tmp_path / "before", NOW) as store:
        first = promote(store, a_candidate(store, TARGETS[0]), None)
        a_candidate(store, TARGETS[0])
    killed, completed = kill_at_each_statement(tmp_path / "before", tmp_path / "after", move, argument)
    # Every statement and the commit itself was a place to die.
    assert len(killed) > 5
    for data in killed:
        with Store.open(data, NOW) as store:
            active, held, acts = (
                store.find_active_version(TARGETS[0]),
                store.target_state(TARGETS[0]).held,
                store.audit(),
            )
        assert (active, held, len(acts)) == (first, False, 1)
    with Store.open(completed, NOW) as store:
        active, held, acts = (
            store.find_active_version(TARGETS[0]),
            store.target_state(TARGETS[0]).held,
            store.audit(),
        )
    assert (active.id if active else None) == ("acme.routing.v2" if move is activate else None)
    assert (held, len(acts)) == (move is roll_back, 2)


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
        for target in TARGETS * 2:
            a_candidate(self.store, target, BASES[0])

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.folder)

    def moment(self) -> dict[str, Any]:
        """Who, why and when, a minute later than the last."""
        self.now += timedelta(minutes=1)
        return {"now": self.now, "actor": "ann", "reason": "why"}

    def drain(self) -> dict[str, Any]:
        return {**self.moment(), "drain_until": self.now + timedelta(minutes=2)}

    @rule(whose=st.sampled_from(TARGETS))
    def start(self, whose: str) -> None:
        self.moment()
        try:
            self.store.start_cycle(whose, "operator", self.now)
        except CycleRunning:
            assert any(cycle.target == whose for cycle in self.store.find_unfinished_cycles())

    @rule(data=st.data(), old=st.sampled_from(CycleState), new=st.sampled_from(CycleState))
    @precondition(lambda self: self.was_cycles)
    def advance(self, data: st.DataObject, old: CycleState, new: CycleState) -> None:
        cycle = data.draw(st.sampled_from(sorted(self.was_cycles)))
        try:
            self.store.advance_cycle(cycle, old, new, self.now)
        except IllegalTransition:
            assert self.store.cycle(cycle) == self.was_cycles[cycle]

    @rule(whose=st.sampled_from(TARGETS), base=st.sampled_from(BASES))
    def train(self, whose: str, base: str) -> None:
        running = [cycle for cycle in self.store.find_unfinished_cycles() if cycle.target == whose]
        cycle = running[0] if running else self.store.start_cycle(whose, "operator", self.now)
        add_candidate(self.store, cycle, base)
        self.store.advance_cycle(cycle.id, cycle.state, CycleState.FAILED, self.now)

    @rule(version=a_version, new=st.sampled_from(VersionState))
    def judge(self, version: int, new: VersionState) -> None:
        self.attempt(lambda: self.store.judge(self.pick(version), new, **self.moment()))

    @rule(version=a_version, expected=st.none() | a_version, unless_held=st.booleans())
    def activate_anyhow(self, version: int, expected: int | None, unless_held: bool) -> None:
        active = None if expected is None else self.pick(expected)
        self.attempt(
            lambda: self.store.activate(
                self.pick(version), expected_active=active, unless_held=unless_held, **self.drain()
            )
        )

    @rule(version=a_version)
    def activate(self, version: int) -> None:
        if (chosen := self.was_versions.get(self.pick(version))) is not None:
            active = self.store.find_active_version(chosen.target)
            expected = active.id if active else None
            self.attempt(lambda: self.store.activate(chosen.id, expected_active=expected, **self.drain()))

    @rule(version=a_version, how=st.sampled_from(["want", "unwant", "unload_drained", "mark_files_removed"]))
    def load_or_unload(self, version: int, how: str) -> None:
        when = () if how in {"want", "unwant"} else (self.now,)
        self.attempt(lambda: getattr(self.store, how)(self.pick(version), *when))

    @rule(whose=st.sampled_from(TARGETS))
    def deactivate(self, whose: str) -> None:
        active = self.store.find_active_version(whose)
        expected = active.id if active else "nothing"
        self.attempt(lambda: self.store.deactivate(whose, expected_active=expected, **self.drain()))

    @rule(whose=st.sampled_from(TARGETS))
    def roll_back(self, whose: str) -> None:
        if (active := self.store.find_active_version(whose)) is not None:
            to = self.store.find_rollback_target(whose)
            # What the store names as the way back can always be gone back to.
            self.store.rollback(whose, to=to.id if to else None, expected_active=active.id, **self.drain())
            assert self.store.target_state(whose).held

    @rule(whose=st.sampled_from(TARGETS), base=st.sampled_from(BASES))
    def use_base(self, whose: str, base: str) -> None:
        self.store.use_base(whose, base, self.now)

    @rule(whose=st.sampled_from(TARGETS))
    def release(self, whose: str) -> None:
        self.store.release(whose, "ann", self.now)

    def pick(self, index: int) -> str:
        """The id of one of the versions there are, as hypothesis chose; or of none."""
        ids = sorted(self.was_versions)
        return ids[index % len(ids)] if ids else "nowhere"

    def attempt(self, call: Callable[[], object]) -> None:
        """Make the call; refused, it must leave everything as it was."""
        before = (self.store.versions(), [self.store.target_state(t) for t in TARGETS], self.store.audit())
        try:
            call()
        except LearndError:
            assert before == (
                self.store.versions(),
                [self.store.target_state(t) for t in TARGETS],
                self.store.audit(),
            )

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
            assert self.store.find_active_version(target) == (active[0] if active else None)
            base = self.store.target_state(target).base_digest
            for version in mine:
                servable = version.files_removed_at is None and base in {None, version.base_digest}
                assert servable or not version.wanted
                assert version.wanted or version.state != VersionState.ACTIVE

    @invariant()
    def what_is_needed_is_never_prunable(self) -> None:
        for target in TARGETS:
            prunable = self.store.find_prunable(target, keep=0)
            assert self.store.find_rollback_target(target) not in prunable
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
    max_examples=25,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
