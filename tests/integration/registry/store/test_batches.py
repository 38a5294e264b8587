"""People's decisions on synthetic examples are durable at once, are never overwritten silently, and are the
only way for an example into training.
"""

import shutil
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from pydantic import ValidationError
from sqlalchemy.dialects import postgresql

from extractors.errors import LearndError
from registry.batches import (
    BatchEnded,
    BatchState,
    ExampleInvalid,
    ItemChanged,
    ItemDecision,
    ItemState,
    Proposal,
)
from registry.cycles import CycleState
from registry.store.batches import BatchWaiting, NobodyDecided, UnknownBatch, _select_batches
from registry.store.store import Store
from tests.integration.registry.store.batch_support import (
    PROVENANCE,
    TARGET,
    WEEK,
    a_batch,
    an_example,
    approve,
    reject,
)
from tests.integration.registry.store.kill_at_statements import approve_three, kill_at_each_statement
from tests.integration.registry.store.store_support import NOW, SOON

TARGETS = (TARGET, "globex/routing")
KINDS = ("sft", "pairs", "triplets")
a_batch_of_many = st.integers(0, 59)
a_choice = st.tuples(st.sampled_from([ItemState.APPROVED, *ItemState]), st.booleans())
"""What an item becomes, and whether it is edited, too."""


def list_training_ids(store: Store, target: str = TARGET) -> list[str]:
    """Ids of the synthetic examples that would train now."""
    found = store.find_approved_examples(target)
    return [example.id for kind in KINDS for example in getattr(found, kind)]


def test_nothing_trains_before_its_batch_has_ended(tmp_path: Path) -> None:
    with Store.open(tmp_path, NOW) as store:
        batch = a_batch(store, "one", "two")
        store.decide(batch.id, [approve(1)], actor="ann", now=SOON)
        assert list_training_ids(store) == []
        assert not store.find_demand(TARGET, SOON).batch_decided
        store.decide(batch.id, [reject(2)], actor="ann", now=SOON)
        assert list_training_ids(store) == [an_example("sft", "one").id]
        ended = store.batch(batch.id)
        assert (ended.state, ended.ended_by, ended.approved, ended.rejected) == ("DECIDED", "ann", 1, 1)
        assert store.find_demand(TARGET, SOON).batch_decided
        store.start_cycle(TARGET, "batch decided", SOON + timedelta(seconds=1))
        assert not store.find_demand(TARGET, SOON + timedelta(seconds=2)).batch_decided


def test_a_batch_decided_after_the_clock_was_set_back_makes_a_cycle_due(tmp_path: Path) -> None:
    with Store.open(tmp_path, NOW) as store:
        batch = a_batch(store, "one")
        ahead = store.start_cycle(TARGET, "operator", SOON + timedelta(days=2))
        store.advance_cycle(ahead.id, CycleState.EXTRACTING, CycleState.SKIPPED, SOON + timedelta(days=2))
        store.decide(batch.id, [approve(1)], actor="ann", now=SOON)
        assert store.find_demand(TARGET, SOON).batch_decided


def test_an_edited_item_trains_as_it_was_edited_and_keeps_what_was_proposed(tmp_path: Path) -> None:
    with Store.open(tmp_path, NOW) as store:
        batch = a_batch(store, "one")
        better = an_example("sft", "one", "shipping")
        store.decide(batch.id, [approve(1, edited=better.model_dump(mode="json"))], actor="ann", now=SOON)
        assert list_training_ids(store) == [better.id]
        (item,) = store.batch_items(batch.id)
        assert item.example == an_example("sft", "one").model_dump(mode="json")


def test_a_batch_closed_early_teaches_what_was_approved_and_one_withdrawn_teaches_nothing(
    tmp_path: Path,
) -> None:
    with Store.open(tmp_path, NOW) as store:
        closed, withdrawn = a_batch(store, "one", "two"), a_batch(store, "three", "four", kind="pairs")
        for batch in (closed, withdrawn):
            store.decide(batch.id, [approve(1)], actor="ann", now=SOON)
        store.close_batch(closed.id, actor="ann", now=SOON)
        store.withdraw_batch(withdrawn.id, actor="bob", now=SOON, reason="the model was the wrong one")
        assert list_training_ids(store) == [an_example("sft", "one").id]
        with pytest.raises(BatchEnded, match="DECIDED"):
            store.decide(closed.id, [approve(2)], actor="ann", now=SOON)
        with pytest.raises(BatchEnded, match="WITHDRAWN"):
            store.close_batch(withdrawn.id, actor="ann", now=SOON)
        assert [(act.actor, act.action, act.detail) for act in store.audit(TARGET)[:2]] == [
            ("bob", "withdraw", "1 approved, 0 rejected, 1 undecided: the model was the wrong one"),
            ("ann", "close", "1 approved, 0 rejected, 1 undecided"),
        ]


def test_an_approval_can_be_revoked_for_ever_and_nothing_be_approved_too_late(tmp_path: Path) -> None:
    with Store.open(tmp_path, NOW) as store:
        batch = a_batch(store, "one", "two")
        store.decide(batch.id, [approve(1), reject(2)], actor="ann", now=SOON)
        with pytest.raises(BatchEnded, match="except to reject"):
            store.decide(batch.id, [approve(2, 1)], actor="ann", now=SOON)
        taken_back = ItemDecision(number=1, revision=1, state=ItemState.PENDING)
        with pytest.raises(BatchEnded, match="except to reject"):
            store.decide(batch.id, [taken_back], actor="ann", now=SOON)
        store.decide(batch.id, [reject(1, 1)], actor="bob", now=SOON)
        assert list_training_ids(store) == []


def test_a_batch_expires_for_decisions_the_moment_its_time_is_over(tmp_path: Path) -> None:
    with Store.open(tmp_path, NOW) as store:
        batch, unread = a_batch(store, "one", "two"), a_batch(store, "one", kind="pairs")
        store.decide(batch.id, [approve(1)], actor="ann", now=SOON)
        late = NOW + WEEK
        with pytest.raises(BatchEnded, match="EXPIRED"):
            store.decide(batch.id, [approve(2)], actor="ann", now=late)
        assert store.expire_batches(late - timedelta(seconds=1)) == []
        assert {ended.id for ended in store.expire_batches(late)} == {batch.id, unread.id}
        assert store.expire_batches(late) == []
        assert list_training_ids(store) == [an_example("sft", "one").id]
        assert store.find_demand(TARGET, late).batch_decided
        assert store.audit(TARGET)[0].action == "expire"


def test_a_batch_that_nobody_read_makes_nothing_due_when_it_expires(tmp_path: Path) -> None:
    with Store.open(tmp_path, NOW) as store:
        a_batch(store, "one")
        store.expire_batches(NOW + WEEK)
        assert not store.find_demand(TARGET, NOW + WEEK).batch_decided


def test_one_batch_of_a_kind_waits_for_a_target(tmp_path: Path) -> None:
    with Store.open(tmp_path, NOW) as store:
        first = a_batch(store, "one")
        a_batch(store, "one", kind="pairs")
        a_batch(store, "one", target=TARGETS[1])
        with pytest.raises(BatchWaiting, match="sft waits for acme/routing already"):
            a_batch(store, "two")
        store.withdraw_batch(first.id, actor="ann", now=SOON, reason="stale")
        a_batch(store, "two")


@pytest.mark.parametrize("actor", ["", "  ", "learnd"])
def test_only_a_named_person_decides_closes_or_withdraws(tmp_path: Path, actor: str) -> None:
    with Store.open(tmp_path, NOW) as store:
        batch = a_batch(store, "one")
        with pytest.raises(NobodyDecided, match="named person"):
            store.decide(batch.id, [approve(1)], actor=actor, now=SOON)
        with pytest.raises(NobodyDecided):
            store.close_batch(batch.id, actor=actor, now=SOON)
        with pytest.raises(NobodyDecided):
            store.withdraw_batch(batch.id, actor=actor, now=SOON, reason="")
        assert store.batch(batch.id).state is BatchState.WAITING


def test_what_is_no_synthetic_example_of_the_kind_gets_into_no_batch(tmp_path: Path) -> None:
    with Store.open(tmp_path, NOW) as store:
        batch = a_batch(store, "one")
        pair = an_example("pairs", "one").model_dump(mode="json")
        with pytest.raises(ExampleInvalid, match=r"'sft'.*completion: Field required"):
            store.decide(batch.id, [approve(1, edited=pair)], actor="ann", now=SOON)
        real = an_example("sft", "one").model_copy(update={"origin": "telemetry"}).model_dump(mode="json")
        with pytest.raises(ExampleInvalid, match="origin is 'telemetry'"):
            store.decide(batch.id, [approve(1, edited=real)], actor="ann", now=SOON)
        times, wrong = {"now": NOW, "expires_at": SOON}, [Proposal(example=pair, diversity=1)]
        with pytest.raises(ExampleInvalid, match="completion"):
            store.add_batch(batch.cycle_id, TARGETS[1], "sft", "", PROVENANCE, wrong, **times)
        with pytest.raises(ValueError, match="nothing to decide"):
            store.add_batch(batch.cycle_id, TARGETS[1], "sft", "", PROVENANCE, [], **times)
        assert store.batch_items(batch.id)[0].revision == 0


def test_a_rejection_gives_its_reason_and_only_an_approval_edits() -> None:
    with pytest.raises(ValidationError, match="a rejection needs a reason"):
        reject(1, reason=" ")
    with pytest.raises(ValidationError, match="only an approved item is edited"):
        ItemDecision(number=1, revision=0, state=ItemState.PENDING, edited={})


def test_of_many_decisions_all_are_written_or_none(tmp_path: Path) -> None:
    with Store.open(tmp_path, NOW) as store:
        batch = a_batch(store, "one", "two", "three")
        with pytest.raises(UnknownBatch, match=f"item 4 in batch {batch.id}"):
            store.decide(batch.id, [approve(1), approve(4)], actor="ann", now=SOON)
        with pytest.raises(ItemChanged):
            store.decide(batch.id, [approve(1), reject(2, 1)], actor="ann", now=SOON)
        with pytest.raises(ItemChanged):
            store.decide(batch.id, [approve(1), reject(1)], actor="ann", now=SOON)
        assert {item.revision for item in store.batch_items(batch.id)} == {0}
        assert store.decide(batch.id, [], actor="ann", now=SOON) == []
        assert store.audit(TARGET) == []


def test_the_audit_log_says_which_items_were_decided_how(tmp_path: Path) -> None:
    with Store.open(tmp_path, NOW) as store:
        batch = a_batch(store, *(f"question {n}" for n in range(9)))
        edited = an_example("sft", "nine").model_dump(mode="json")
        decisions = [*map(approve, (1, 2, 3, 7)), reject(4), approve(9, edited=edited)]
        store.decide(batch.id, decisions, actor="ann", now=SOON)
        (act,) = store.audit(TARGET)
        assert (act.actor, act.action, act.subject, act.at) == ("ann", "decide", batch.id, SOON)
        assert act.detail == "approved 1-3 7; rejected 4; edited and approved 9"


def test_two_operators_who_decide_the_same_item_at_once_never_overwrite_each_other(tmp_path: Path) -> None:
    with Store.open(tmp_path, NOW) as store:
        batch = a_batch(store, *(f"question {n}" for n in range(20)))
        together = Barrier(2)

        def decide(actor: str, number: int) -> str | None:
            decision = approve(number) if actor == "ann" else reject(number)
            together.wait(30)
            try:
                store.decide(batch.id, [decision], actor=actor, now=SOON)
            except ItemChanged as quicker:
                return str(quicker)
            return None

        with ThreadPoolExecutor(2) as pool:
            for item in store.batch_items(batch.id, limit=19):  # the last one would end the batch
                said = list(pool.map(decide, ("ann", "bob"), (item.number, item.number)))
                now = store.batch_items(batch.id, after=item.number - 1, limit=1)[0]
                winner = "ann" if said[0] is None else "bob"
                (lost,) = (words for words in said if words is not None)
                state = ItemState.APPROVED if winner == "ann" else ItemState.REJECTED
                assert (now.decided_by, now.state, now.revision) == (winner, state, 1)
                assert f"is {state} by {winner} since you read it" in lost


DECIDE_ONE_BY_ONE = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from registry.batches import ItemDecision, ItemState
from registry.store.store import Store

now = datetime(2026, 3, 2, tzinfo=UTC)
with Store.open(Path(sys.argv[1]), now) as store:
    for item in store.batch_items(sys.argv[2]):
        decision = ItemDecision(number=item.number, revision=0, state=ItemState.APPROVED)
        store.decide(sys.argv[2], [decision], actor="ann", now=now)
        print(item.number, flush=True)
"""


def test_a_decision_that_was_answered_survives_kill_9(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    with Store.open(tmp_path, NOW) as store:
        batch = a_batch(store, *(f"question {n}" for n in range(200)))
    child = subprocess.Popen(
        [sys.executable, "-c", DECIDE_ONE_BY_ONE, str(tmp_path), batch.id],
        env={"PYTHONPATH": str(pytestconfig.rootpath)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    answered = [int(child.stdout.readline()) for _ in range(25)]
    child.send_signal(signal.SIGKILL)
    answered += [int(line) for line in child.stdout.read().split()]
    child.stdout.close()
    assert child.wait(60) == -9
    with Store.open(tmp_path, SOON) as store:
        approved = [item.number for item in store.batch_items(batch.id, ItemState.APPROVED)]
        # The one that was being written may have been committed without an answer.
        assert approved in (answered, [*answered, len(answered) + 1])
        assert len(approved) < 200
        assert list_training_ids(store) == []


def test_a_bulk_decision_killed_at_any_statement_happened_wholly_or_not_at_all(tmp_path: Path) -> None:
    with Store.open(tmp_path / "before", NOW) as store:
        batch = a_batch(store, "one", "two", "three")
    killed, completed = kill_at_each_statement(
        tmp_path / "before", tmp_path / "after", approve_three, batch.id
    )
    assert len(killed) > 5
    for data in killed:
        with Store.open(data, NOW) as store:
            found, acts, learned = store.batch(batch.id), store.audit(), list_training_ids(store)
        assert (found.state, found.approved, len(acts), learned) == (BatchState.WAITING, 0, 0, [])
    with Store.open(completed, NOW) as store:
        found, acts, learned = store.batch(batch.id), store.audit(), list_training_ids(store)
    assert (found.state, found.approved, len(acts), len(learned)) == (BatchState.DECIDED, 3, 1, 3)


def test_batches_are_listed_newest_first_and_items_page_by_page(tmp_path: Path) -> None:
    with Store.open(tmp_path, NOW) as store:
        first = a_batch(store, *(f"question {n}" for n in range(5)))
        second = a_batch(store, "one", target=TARGETS[1], now=SOON)
        assert [batch.id for batch in store.batches()] == [second.id, first.id]
        assert [batch.id for batch in store.batches(TARGET)] == [first.id]
        store.close_batch(second.id, actor="ann", now=SOON)
        assert [batch.id for batch in store.batches(state=BatchState.WAITING)] == [first.id]
        assert [item.number for item in store.batch_items(first.id, after=2, limit=2)] == [3, 4]
        store.decide(first.id, [approve(4)], actor="ann", now=SOON)
        assert [item.number for item in store.batch_items(first.id, ItemState.PENDING)] == [1, 2, 3, 5]
        with pytest.raises(UnknownBatch, match="nowhere"):
            store.batch_items("nowhere")


def test_items_are_found_by_what_they_say_in_whatever_case_and_walked_backwards(tmp_path: Path) -> None:
    with Store.open(tmp_path, NOW) as store:
        batch = a_batch(store, "Wo ist mein KÖNIGSKUCHEN", "where is my user manual", "100% wool_socks")

        def found(words: str, **more: Any) -> list[int]:
            return [item.number for item in store.batch_items(batch.id, containing=words, **more)]

        assert (found("königskuchen"), found("MY USER"), found("0% wool_"), found("x_socks")) == (
            [1],
            [2],
            [3],
            [],
        )
        # Not the names of fields, roles and origins.
        assert (found("assistant"), found("synthetic"), found("prompt")) == ([], [], [])
        decision = approve(1, edited=an_example("sft", "where is the Lebkuchen").model_dump(mode="json"))
        store.decide(batch.id, [decision], actor="ann", now=NOW)
        assert (found("lebkuchen"), found("königskuchen")) == ([1], [1])
        assert found("", before=3, limit=1) == [2]
        assert found("w", before=3) == [2, 1]
        assert found("route it", after=1, limit=1) == [2]


def test_postgresql_can_count_the_items_of_a_batch() -> None:
    # It compares no JSON, so that nothing may be grouped by a batch's provenance.
    assert "GROUP BY" not in str(_select_batches().compile(dialect=postgresql.dialect()))


def has_repeated_number(decisions: list[ItemDecision]) -> bool:
    return len({decision.number for decision in decisions}) < len(decisions)


class AnyOrder(RuleBasedStateMachine):
    """Decisions, ends, expiries and restarts in any order, by people and by what is none.

    The machine keeps its own account of what persons approved, from the calls that were accepted.
    """

    store: Store

    @initialize()
    def open(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="learnd-batches-"))
        self.store = Store.open(self.folder, NOW)
        self.now = NOW
        self.states: dict[str, BatchState] = {}
        self.targets: dict[str, str] = {}
        self.kinds: dict[str, str] = {}
        self.ends: dict[str, datetime] = {}
        self.items: dict[str, dict[int, tuple[ItemState, str, int]]] = {}
        """Of each batch, by number: state, id of the example that it would teach, revision."""
        for target in TARGETS:
            for kind in KINDS:
                self.propose(target, kind, 4)

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.folder)

    @rule(whose=st.sampled_from(TARGETS), kind=st.sampled_from(KINDS), count=st.integers(1, 5))
    def propose(self, whose: str, kind: str, count: int) -> None:
        questions = [f"{kind} {len(self.states)} {n}" for n in range(count)]
        try:
            batch = a_batch(self.store, *questions, kind=kind, target=whose, now=self.now)  # type: ignore[arg-type]
        except BatchWaiting:
            waiting = BatchState.WAITING
            same = [b for b, t in self.targets.items() if (t, self.kinds[b]) == (whose, kind)]
            assert waiting in {self.states[batch_id] for batch_id in same}
            return
        self.states[batch.id], self.targets[batch.id], self.kinds[batch.id] = batch.state, whose, kind
        self.ends[batch.id] = batch.expires_at
        self.items[batch.id] = {
            n: (ItemState.PENDING, an_example(kind, question).id, 0)  # type: ignore[arg-type]
            for n, question in enumerate(questions, start=1)
        }

    @rule(
        which=a_batch_of_many,
        actor=st.sampled_from([*["ann", "bob"] * 4, "learnd"]),
        choices=st.dictionaries(st.integers(0, 4), a_choice, min_size=1, max_size=3),
        spoiled=st.sampled_from([*[None] * 10, "stale", "unknown"]),
    )
    def decide(
        self, which: int, actor: str, choices: dict[int, tuple[ItemState, bool]], spoiled: str | None
    ) -> None:
        batch = self.pick(which)
        mine, kind, decisions = dict(self.items[batch]), self.kinds[batch], []
        for n, (state, edits) in choices.items():
            number = 1 + n % len(self.items[batch])
            _, taught_id, revision = mine[number]
            edited = an_example(kind, f"{taught_id} edited")  # type: ignore[arg-type]
            edits = edits and state is ItemState.APPROVED
            decisions.append(
                ItemDecision(
                    number=number + 10 * (spoiled == "unknown"),
                    revision=revision - (spoiled == "stale"),
                    state=state,
                    reason="why",
                    edited=edited.model_dump(mode="json") if edits else None,
                )
            )
            original = an_example(kind, self.question(batch, number)).id  # type: ignore[arg-type]
            mine[number] = (state, edited.id if edits else original, revision + 1)
        late = self.states[batch] is not BatchState.WAITING
        try:
            self.store.decide(batch, decisions, actor=actor, now=self.now)
        except LearndError:
            # Refused are those that nobody may make, that come too late, or that are about something else.
            assert (
                spoiled
                or late
                or actor == "learnd"
                or self.now >= self.ends[batch]
                or has_repeated_number(decisions)
            )
            return
        assert actor != "learnd"
        assert not decisions or spoiled is None
        over = late or self.now >= self.ends[batch]
        assert not over or all(decision.state is ItemState.REJECTED for decision in decisions)
        self.items[batch] = mine
        if decisions and not late and not any(item[0] is ItemState.PENDING for item in mine.values()):
            self.states[batch] = BatchState.DECIDED

    @rule(
        which=a_batch_of_many,
        how=st.sampled_from([None, None, None, "close", "withdraw"]),  # or little would be left to decide
        actor=st.sampled_from(["ann", "ann", "ann", "learnd"]),
    )
    def end(self, which: int, how: str | None, actor: str) -> None:
        if how is None:
            return
        batch = self.pick(which)
        end = self.store.withdraw_batch if how == "withdraw" else self.store.close_batch
        try:
            ended = end(batch, actor=actor, now=self.now, reason="")
        except LearndError:
            return
        assert actor != "learnd"
        assert self.states[batch] is BatchState.WAITING
        self.states[batch] = ended.state

    @rule(days=st.sampled_from([0, 0, 0, 0, 3, 8]), expires=st.booleans(), restarts=st.booleans())
    def time_passes(self, days: int, expires: bool, restarts: bool) -> None:
        self.now += timedelta(days=days)
        if restarts:
            self.store.close()
            self.store = Store.open(self.folder, self.now)
        if expires:
            for batch in self.store.expire_batches(self.now):
                assert self.states[batch.id] is BatchState.WAITING
                assert batch.expires_at <= self.now
                self.states[batch.id] = BatchState.EXPIRED

    def pick(self, which: int) -> str:
        """The id of a batch, mostly of one that waits and of which something is approved.

        Chosen by place: ids themselves differ from run to run.
        """
        waiting = [batch for batch, state in self.states.items() if state is BatchState.WAITING]
        begun = [b for b in waiting if any(item[0] is ItemState.APPROVED for item in self.items[b].values())]
        among = [list(self.states), waiting, begun, begun][which % 4] or list(self.states)
        return among[which // 4 % len(among)]

    def question(self, batch: str, number: int) -> str:
        return f"{self.kinds[batch]} {list(self.states).index(batch)} {number - 1}"

    @invariant()
    def exactly_what_persons_approved_in_time_would_train(self) -> None:
        for target in TARGETS:
            approved = {
                taught_id
                for batch, items in self.items.items()
                if self.targets[batch] == target
                and self.states[batch] in {BatchState.DECIDED, BatchState.EXPIRED}
                for state, taught_id, _ in items.values()
                if state is ItemState.APPROVED
            }
            assert set(list_training_ids(self.store, target)) == approved
            found = self.store.find_approved_examples(target)
            assert {e.origin for kind in KINDS for e in getattr(found, kind)} <= {"synthetic"}

    @invariant()
    def the_store_agrees_about_states_and_counts(self) -> None:
        for batch, items in self.items.items():
            found = self.store.batch(batch)
            assert found.state is self.states[batch]
            states = [state for state, _, _ in items.values()]
            counts = tuple(states.count(state) for state in ItemState)
            assert (found.pending, found.approved, found.rejected) == counts


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(
    max_examples=40,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
