"""The store keeps what it is told, per target, and refuses what its states do not allow."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import delete

from extractors.dataset.holdout_split import Window
from extractors.errors import LearndError
from extractors.phoenix.mirror import MirrorChange, MirrorState
from extractors.phoenix.spans import Annotation, Span
from registry.cycles import CycleCounts, CycleState, IllegalTransition, ReviewedCounts
from registry.store import tables
from registry.store.activation import ActiveChanged, VersionRejected
from registry.store.cycles import CycleRunning, UnknownCycle
from registry.store.database import (
    ConstraintViolated,
    StatementRefused,
    allow_writing,
    create_sqlite_engine,
)
from registry.store.store import Store
from registry.store.targets import TargetHeld
from registry.store.versions import FilesRemoved, UnknownVersion, VersionInUse, WrongBase
from registry.targets import TargetState
from registry.versions import VersionState
from tests.integration.registry.store.store_support import (
    NOW,
    SOON,
    a_candidate,
    a_span,
    add_candidate,
    an_annotation,
    promote,
    roll_back,
)
from trainers.planning.hyperparameters import Hyperparameters
from trainers.planning.plan import Plan, TrainingStage

T = "acme/routing"
OTHER = "globex/routing"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path, NOW) as opened:
        yield opened


# Times


def test_times_come_back_aware_and_in_utc_whatever_zone_they_came_in(store: Store) -> None:
    tokyo = timezone(timedelta(hours=9))
    store.record_poll(T, datetime(2026, 3, 1, 21, 0, tzinfo=tokyo), None)
    polled = store.target_state(T).last_poll_at
    assert polled == NOW
    assert polled.tzinfo is UTC


def test_a_time_without_a_zone_is_refused(store: Store) -> None:
    with pytest.raises(StatementRefused, match="no time zone"):
        store.record_poll(T, datetime(2026, 3, 1), None)  # noqa: DTZ001


# The mirror


def test_what_was_mirrored_comes_back_equal(store: Store) -> None:
    span = a_span(
        "a", started_at=NOW.replace(microsecond=123456), attributes={"input": {"value": "😀 cut \ud83d"}}
    )
    note = an_annotation("a", score=0.1, metadata={"response": ["x", 1, None]})
    state = MirrorState(cursor="c", swept_at=NOW, shards={NOW.date(): NOW})
    store.apply_mirror(T, MirrorChange(state=state, spans=(span,), annotations=(note,)), NOW)
    assert store.read_mirror(T) == ([span], [note])
    assert store.mirror(T).read_state() == state


def test_a_change_applied_again_counts_and_changes_nothing(store: Store) -> None:
    change = MirrorChange(
        state=MirrorState(cursor="c"),
        spans=(a_span("a"), a_span("root", selected=False)),
        annotations=(an_annotation("a"), an_annotation("a", identifier="bob")),
    )
    store.apply_mirror(T, change, NOW)
    before = store.read_mirror(T)
    store.apply_mirror(T, change, NOW)
    assert store.read_mirror(T) == before
    # Two reviewers of one new call: one call to look at.
    assert store.target_state(T).feedback_changes == 1


def test_feedback_on_a_trace_and_on_its_root_span_counts_once(store: Store) -> None:
    root, below = a_span("root", selected=False), a_span("a", parent_id="root", selected=False)
    notes = an_annotation("root"), an_annotation(root.trace_id, level="trace"), an_annotation("a")
    store.apply_mirror(T, MirrorChange(state=MirrorState(), spans=(root, below), annotations=notes), NOW)
    assert store.target_state(T).feedback_changes == 2


def test_an_edited_annotation_replaces_the_old_one_and_counts(store: Store) -> None:
    old, new = an_annotation("a"), an_annotation("a", label="rejected")
    store.apply_mirror(T, MirrorChange(state=MirrorState(), spans=(a_span("a"),), annotations=(old,)), NOW)
    store.apply_mirror(T, MirrorChange(state=MirrorState(), annotations=(new,)), NOW)
    assert store.read_mirror(T)[1] == [new]
    assert store.target_state(T).feedback_changes == 2


def test_what_phoenix_no_longer_has_is_removed_and_counts(store: Store) -> None:
    on_trace = an_annotation("t1", level="trace")
    filled = MirrorChange(
        state=MirrorState(), spans=(a_span("a"), a_span("b")), annotations=(an_annotation("a"), on_trace)
    )
    store.apply_mirror(T, filled, NOW)
    store.start_cycle(T, "operator", NOW)
    gone = MirrorChange(
        state=MirrorState(),
        removed_span_ids=("b",),
        removed_annotations=(on_trace.key, ("span", "x", "y", "z")),
    )
    store.apply_mirror(T, gone, NOW)
    assert store.read_mirror(T) == ([a_span("a")], [an_annotation("a")])
    assert store.target_state(T).feedback_changes == 2


def test_the_mirror_answers_what_a_poll_asks(store: Store) -> None:
    spans = tuple(a_span(f"s{i}", f"t{i // 2}", started_at=NOW + timedelta(hours=i)) for i in range(1500))
    notes = (an_annotation("s0"), an_annotation("s3"), an_annotation("t1", level="trace"))
    store.apply_mirror(T, MirrorChange(state=MirrorState(), spans=spans, annotations=notes), NOW)
    mirror = store.mirror(T)
    assert mirror.read_annotations("span", ["s3", "t1"]) == [notes[1]]
    assert mirror.find_annotated_ids("span", None, None) == {"s0", "s3"}
    assert mirror.find_annotated_ids("span", NOW, NOW + timedelta(hours=3)) == {"s0"}
    assert mirror.find_annotated_ids("span", NOW + timedelta(hours=3), None) == {"s3"}
    assert mirror.find_annotated_ids("trace", NOW, NOW) == {"t1"}
    assert mirror.find_trace_ids() == {f"t{i}" for i in range(750)}
    assert mirror.find_known_trace_ids([f"t{i}" for i in range(700, 2000)]) == {
        f"t{i}" for i in range(700, 750)
    }
    assert {s.span_id for s in mirror.read_traces(["t1", "nowhere"])} == {"s2", "s3"}
    assert len(mirror.read_traces([f"t{i}" for i in range(750)])) == 1500


def test_a_failed_poll_is_remembered_until_one_succeeds(store: Store) -> None:
    store.record_poll(T, NOW, "connection refused")
    assert store.target_state(T).last_poll_error == "connection refused"
    store.apply_mirror(T, MirrorChange(state=MirrorState()), SOON)
    assert store.target_state(T) == TargetState(target=T, last_poll_at=SOON)


# Cycles


def test_a_cycle_goes_its_way_and_keeps_what_it_found(store: Store) -> None:
    plan = Plan(
        stages=(TrainingStage(method="sft", data="sft", hyperparameters=Hyperparameters()),),
        reason="60 examples",
        snapshot_id="snap",
        base_model="tiny",
        base_digest="base1",
    )
    cycle = store.start_cycle(T, "new examples", NOW)
    window = Window(start=NOW - timedelta(days=7), end=NOW, first=NOW - timedelta(days=70), retained_to=0.1)
    store.advance_cycle(
        cycle.id,
        CycleState.EXTRACTING,
        CycleState.SELECTING,
        SOON,
        window=window,
        snapshot_id="snap",
        counts=CycleCounts(reviewed=ReviewedCounts(approved=60)),
    )
    store.advance_cycle(cycle.id, CycleState.SELECTING, CycleState.TRAINING, SOON, plan=plan)
    kept = store.cycle(cycle.id)
    assert (kept.plan, kept.snapshot_id, kept.counts) == (
        plan,
        "snap",
        CycleCounts(reviewed=ReviewedCounts(approved=60)),
    )
    assert (kept.started_at, kept.updated_at) == (NOW, SOON)
    assert store.target_state(T).window == window


def test_a_step_that_somebody_else_took_is_not_taken_again(store: Store) -> None:
    cycle = store.start_cycle(T, "operator", NOW)
    store.advance_cycle(cycle.id, CycleState.EXTRACTING, CycleState.SELECTING, NOW, snapshot_id="first")
    with pytest.raises(IllegalTransition, match="SELECTING"):
        store.advance_cycle(
            cycle.id,
            CycleState.EXTRACTING,
            CycleState.SELECTING,
            NOW,
            window=Window(start=NOW, end=SOON),
            snapshot_id="second",
        )
    assert store.cycle(cycle.id).snapshot_id == "first"
    assert store.target_state(T).window is None


def test_a_step_that_is_not_in_the_table_is_refused(store: Store) -> None:
    cycle = store.start_cycle(T, "operator", NOW)
    with pytest.raises(IllegalTransition):
        store.advance_cycle(cycle.id, CycleState.EXTRACTING, CycleState.PROMOTING, NOW)
    with pytest.raises(UnknownCycle):
        store.advance_cycle("nowhere", CycleState.EXTRACTING, CycleState.FAILED, NOW)


def test_a_note_goes_when_the_cycle_moves_on_and_never_covers_the_reason_of_an_ended_one(
    store: Store,
) -> None:
    cycle = store.start_cycle(T, "operator", NOW)
    store.note(cycle.id, "waits for replica gpu0")
    assert store.cycle(cycle.id).reason == "waits for replica gpu0"
    assert store.advance_cycle(cycle.id, CycleState.EXTRACTING, CycleState.SELECTING, NOW).reason == ""
    store.advance_cycle(cycle.id, CycleState.SELECTING, CycleState.SKIPPED, NOW, reason="12 of 50 examples")
    store.note(cycle.id, "waits for replica gpu0")
    assert store.cycle(cycle.id).reason == "12 of 50 examples"


def test_a_new_cycle_starts_only_when_the_last_one_has_ended_and_counts_changes_from_there(
    store: Store,
) -> None:
    store.apply_mirror(T, MirrorChange(state=MirrorState(), annotations=(an_annotation("a"),)), NOW)
    first = store.start_cycle(T, "operator", NOW)
    with pytest.raises(CycleRunning, match=T):
        store.start_cycle(T, "operator", NOW)
    assert store.find_unfinished_cycles() == [first]
    assert store.target_state(T).feedback_changes == 0
    store.advance_cycle(first.id, CycleState.EXTRACTING, CycleState.FAILED, NOW)
    second = store.start_cycle(T, "operator", SOON)
    assert [cycle.id for cycle in store.cycles(T)] == [second.id, first.id]
    assert [cycle.id for cycle in store.cycles(limit=1)] == [second.id]


def test_of_many_threads_one_starts_the_cycle(store: Store) -> None:
    def start(_: int) -> bool:
        try:
            store.start_cycle(T, "schedule", NOW)
        except CycleRunning:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(start, range(16))) == 1
    assert len(store.cycles(T)) == 1


START_CYCLE = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from registry.store.cycles import CycleRunning
from registry.store.store import Store

now = datetime(2026, 3, 1, tzinfo=UTC)
with Store.open(Path(sys.argv[1]), now) as store:
    sys.stdin.readline()
    try:
        store.start_cycle("acme/routing", "schedule", now)
        print("started")
    except CycleRunning:
        print("running")
"""


def test_processes_that_open_a_new_store_at_once_make_one_database_and_start_one_cycle(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    command = [sys.executable, "-c", START_CYCLE, str(tmp_path / "data")]
    children = [
        subprocess.Popen(
            command,
            cwd=tmp_path,
            env={"PYTHONPATH": str(pytestconfig.rootpath)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    said = [child.communicate(timeout=60)[0].strip() for child in children]
    assert sorted(said) == ["running", "running", "running", "started"]


# Versions


def test_a_cycle_has_one_candidate_however_often_it_is_added(store: Store) -> None:
    cycle = store.start_cycle(T, "operator", NOW)
    first = add_candidate(store, cycle)
    assert first.id == "acme.routing.v1"
    assert add_candidate(store, cycle) == first
    assert store.versions(T) == [first]


def test_a_version_number_is_never_given_twice(store: Store, tmp_path: Path) -> None:
    a_candidate(store, T)
    second = a_candidate(store, T)
    engine = create_sqlite_engine(tmp_path / "learnd.db")
    with allow_writing(engine).begin() as connection:
        connection.execute(delete(tables.versions).where(tables.versions.c.id == second.id))
    engine.dispose()
    assert a_candidate(store, T).number == 3


def test_the_database_itself_refuses_a_second_active_version(store: Store, tmp_path: Path) -> None:
    promote(store, a_candidate(store, T), None)
    twin = a_candidate(store, T)
    engine = create_sqlite_engine(tmp_path / "learnd.db")
    with pytest.raises(ConstraintViolated), allow_writing(engine).begin() as connection:
        connection.execute(
            tables.versions.update().where(tables.versions.c.id == twin.id).values(state=VersionState.ACTIVE)
        )
    engine.dispose()


def test_a_judgement_is_audited_once_and_a_rejected_version_is_unloaded(store: Store) -> None:
    version = a_candidate(store, T)
    store.want(version.id)
    for _ in range(2):
        store.judge(version.id, VersionState.READY, now=NOW, actor="learnd", reason="p = 0.01")
    assert store.version(version.id).wanted
    store.judge(version.id, VersionState.REJECTED, now=SOON, actor="ann", reason="too terse")
    assert not store.version(version.id).wanted
    said = [(entry.actor, entry.at, entry.subject, entry.detail) for entry in store.audit(T)]
    assert said == [
        ("ann", SOON, version.id, "READY -> REJECTED: too terse"),
        ("learnd", NOW, version.id, "CANDIDATE -> READY: p = 0.01"),
    ]


@pytest.mark.parametrize("state", [VersionState.ACTIVE, VersionState.RETIRED, VersionState.CANDIDATE])
def test_a_judgement_never_moves_an_alias(store: Store, state: VersionState) -> None:
    version = a_candidate(store, T)
    with pytest.raises(IllegalTransition):
        store.judge(version.id, state, now=NOW, actor="ann", reason="")


def test_activation_retires_the_old_version_and_lets_it_drain(store: Store) -> None:
    old = promote(store, a_candidate(store, T), None)
    new = promote(store, a_candidate(store, T), old)
    retired = store.version(old.id)
    assert (new.state, new.replaced_id, new.activated_at) == (VersionState.ACTIVE, old.id, NOW)
    assert (retired.state, retired.retired_at, retired.drain_until) == (VersionState.RETIRED, NOW, SOON)
    assert store.find_active_version(T) == new
    assert store.find_wanted_versions(T) == [retired, new]
    assert not store.unload_drained(old.id, SOON - timedelta(seconds=1))
    assert store.unload_drained(old.id, SOON)
    assert store.find_wanted_versions() == [new]


def test_activation_again_after_a_crash_changes_nothing(store: Store) -> None:
    version = a_candidate(store, T)
    promote(store, version, None)
    entries = store.audit()
    assert promote(store, version, None, SOON).activated_at == NOW
    assert store.audit() == entries


def test_an_activation_that_expects_another_active_version_changes_nothing(store: Store) -> None:
    first, second, third = (a_candidate(store, T) for _ in range(3))
    promote(store, first, None)
    promote(store, second, first)
    with pytest.raises(ActiveChanged, match=r"expected to serve acme.routing.v1 and serves acme.routing.v2"):
        promote(store, third, first)
    with pytest.raises(ActiveChanged, match="the base model"):
        promote(store, third, None)
    assert store.find_active_version(T) == store.version(second.id)
    assert store.version(third.id).state == VersionState.CANDIDATE


def test_a_draining_version_that_is_wanted_again_is_not_unloaded(store: Store) -> None:
    old = promote(store, a_candidate(store, T), None)
    promote(store, a_candidate(store, T), old)
    store.want(old.id)
    assert not store.unload_drained(old.id, SOON)
    store.unwant(old.id)
    assert not store.version(old.id).wanted


def test_the_active_version_cannot_be_unloaded_or_lose_its_files(store: Store) -> None:
    active = promote(store, a_candidate(store, T), None)
    with pytest.raises(VersionInUse):
        store.unwant(active.id)
    with pytest.raises(VersionInUse):
        store.mark_files_removed(active.id, NOW)
    assert not store.unload_drained(active.id, SOON)


def test_back_on_the_base_model_no_version_is_active(store: Store) -> None:
    active = promote(store, a_candidate(store, T), None)
    store.deactivate(T, expected_active=active.id, drain_until=SOON, now=NOW, actor="ann", reason="audit")
    assert store.find_active_versions() == {}
    assert store.audit(T)[0].detail == "acme.routing.v1 -> the base model: audit"


def test_an_operator_may_activate_what_was_rejected(store: Store) -> None:
    version = a_candidate(store, T)
    store.judge(version.id, VersionState.REJECTED, now=NOW, actor="learnd", reason="p = 0.3")
    assert promote(store, version, None).state == VersionState.ACTIVE


# Rollback and hold


def test_rollbacks_go_back_version_by_version_to_the_base(store: Store) -> None:
    first = promote(store, a_candidate(store, T), None)
    second = promote(store, a_candidate(store, T), first)
    roll_back(store, second)
    assert store.find_active_version(T) == store.version(first.id)
    roll_back(store, first)
    assert store.find_active_version(T) is None
    assert store.find_rollback_target(T) is None


def test_after_a_rollback_and_a_promotion_the_bad_version_is_not_gone_back_to(store: Store) -> None:
    good = promote(store, a_candidate(store, T), None)
    bad = promote(store, a_candidate(store, T), good)
    roll_back(store, bad)
    promote(store, a_candidate(store, T), good)
    assert store.find_rollback_target(T) == store.version(good.id)


def test_a_rollback_skips_a_version_whose_files_are_gone(store: Store) -> None:
    first = promote(store, a_candidate(store, T), None)
    second = promote(store, a_candidate(store, T), first)
    promote(store, a_candidate(store, T), second)
    store.unload_drained(second.id, SOON)
    store.mark_files_removed(second.id, SOON)
    assert store.find_rollback_target(T) == store.version(first.id)


def test_a_way_back_that_leads_in_a_circle_ends_at_the_base(store: Store) -> None:
    first = promote(store, a_candidate(store, T), None)
    second = promote(store, a_candidate(store, T), first)
    promote(store, first, second)
    assert store.find_rollback_target(T) == store.version(second.id)
    store.unload_drained(second.id, SOON)
    store.mark_files_removed(second.id, SOON)
    assert store.find_rollback_target(T) is None


def test_a_rollback_holds_automatic_promotion_until_release(store: Store) -> None:
    active = promote(store, a_candidate(store, T), None)
    candidate = a_candidate(store, T)

    def promote_by_itself() -> None:
        store.activate(
            candidate.id,
            expected_active=None,
            drain_until=SOON,
            now=NOW,
            actor="learnd",
            reason="better",
            unless_held=True,
        )

    roll_back(store, active)
    state = store.target_state(T)
    assert (state.held, state.held_by, state.held_reason, state.held_at) == (True, "ann", "wrong tone", NOW)
    with pytest.raises(TargetHeld, match="wrong tone"):
        promote_by_itself()
    store.release(T, "bob", SOON)
    store.release(T, "bob", SOON)
    assert store.target_state(T).held_by is None
    promote_by_itself()
    assert [entry.action for entry in store.audit(T)] == ["activate", "release", "rollback", "activate"]


def test_what_an_operator_rejected_does_not_go_live_by_itself(store: Store) -> None:
    version = a_candidate(store, T)
    store.judge(version.id, VersionState.REJECTED, now=NOW, actor="ann", reason="wrong tone")
    live = {"expected_active": None, "drain_until": SOON, "now": NOW}
    with pytest.raises(VersionRejected, match="learnd adapters activate"):
        store.activate(version.id, actor="learnd", reason="proven", unless_held=True, **live)
    assert store.find_active_version(T) is None
    store.activate(version.id, actor="ann", reason="after all", **live)
    assert store.find_active_version(T) is not None


def test_an_operator_may_activate_while_the_target_is_held(store: Store) -> None:
    store.hold(T, "ann", "launch week", NOW)
    assert promote(store, a_candidate(store, T), None).state == VersionState.ACTIVE
    assert store.target_state(T).held


def test_a_second_press_of_rollback_does_not_go_back_two_versions(store: Store) -> None:
    first = promote(store, a_candidate(store, T), None)
    second = promote(store, a_candidate(store, T), first)
    roll_back(store, second)
    with pytest.raises(ActiveChanged):
        roll_back(store, second)
    assert store.find_active_version(T) == store.version(first.id)


# The base model


def test_a_changed_base_takes_its_adapters_out_of_service_at_once(store: Store) -> None:
    store.use_base(T, "base1", NOW)
    old = promote(store, a_candidate(store, T), None)
    active = promote(store, a_candidate(store, T), old)
    assert store.use_base(T, "base1", NOW) is None
    retired = store.use_base(T, "base2", SOON)
    assert retired == store.version(active.id)
    assert (retired.state, retired.retired_at, retired.drain_until) == (VersionState.RETIRED, SOON, None)
    assert store.find_wanted_versions(T) == []
    with pytest.raises(WrongBase, match="base1"):
        promote(store, old, None)
    with pytest.raises(WrongBase):
        store.want(active.id)
    assert store.audit(T)[0].detail == "base1 -> base2; acme.routing.v2 -> the base model"


def test_versions_of_a_base_that_returns_can_be_served_again(store: Store) -> None:
    store.use_base(T, "base1", NOW)
    version = a_candidate(store, T)
    store.use_base(T, "base2", NOW)
    store.use_base(T, "base1", NOW)
    assert promote(store, version, None).state == VersionState.ACTIVE


# Retention


def test_only_settled_versions_beyond_the_newest_are_prunable(store: Store) -> None:
    rejected = [a_candidate(store, T) for _ in range(4)]
    for version in rejected:
        store.judge(version.id, VersionState.REJECTED, now=NOW, actor="learnd", reason="")
    ready, probation, wanted = (a_candidate(store, T) for _ in range(3))
    store.judge(ready.id, VersionState.READY, now=NOW, actor="learnd", reason="")
    store.judge(probation.id, VersionState.PROBATION, now=NOW, actor="learnd", reason="")
    store.want(wanted.id)
    add_candidate(store, store.start_cycle(T, "operator", NOW))
    assert [v.id for v in store.find_prunable(T, keep=1)] == [v.id for v in rejected[:3]]
    assert len(store.find_prunable(T, keep=0)) == 4
    assert store.find_prunable(T, keep=9) == []


def test_the_last_good_version_is_never_prunable_and_a_hold_keeps_all_that_were_live(store: Store) -> None:
    active = None
    for minute in range(4):
        now = NOW + timedelta(minutes=minute)
        active = promote(store, a_candidate(store, T, now=now), active, now)
    for version in store.versions(T):
        store.unload_drained(version.id, NOW + timedelta(hours=1))
    assert [v.number for v in store.find_prunable(T, keep=0)] == [1, 2]
    store.hold(T, "ann", "looking", NOW)
    assert store.find_prunable(T, keep=0) == []


def test_removed_files_rule_out_serving(store: Store) -> None:
    version = a_candidate(store, T)
    removed = store.mark_files_removed(version.id, NOW)
    assert store.mark_files_removed(version.id, SOON) == removed
    assert store.find_prunable(T, keep=0) == []
    with pytest.raises(FilesRemoved):
        store.want(version.id)
    with pytest.raises(FilesRemoved):
        promote(store, version, None)


# Tenants


def test_two_tenants_never_meet(store: Store) -> None:
    def fill(target: str, text: str) -> tuple[list[Span], list[Annotation]]:
        # The same ids on both sides, as two Phoenix projects may well have them.
        span, note = a_span("a", attributes={"input": text}), an_annotation("a", explanation=text)
        store.apply_mirror(
            target, MirrorChange(state=MirrorState(cursor=text), spans=(span,), annotations=(note,)), NOW
        )
        promote(store, a_candidate(store, target), None)
        store.hold(target, text, text, NOW)
        cycle = store.start_cycle(target, "operator", NOW)
        store.advance_cycle(cycle.id, CycleState.EXTRACTING, CycleState.SELECTING, NOW)
        store.advance_cycle(
            cycle.id, CycleState.SELECTING, CycleState.TRAINING, NOW, window=Window(start=NOW, end=SOON)
        )
        return [span], [note]

    def everything(target: str) -> object:
        mirror = store.mirror(target)
        return (
            store.read_mirror(target),
            mirror.read_state(),
            mirror.read_annotations("span", ["a"]),
            mirror.find_annotated_ids("span", None, SOON),
            mirror.read_traces(["t1"]),
            store.target_state(target),
            store.cycles(target),
            store.versions(target),
            store.find_active_version(target),
            store.find_wanted_versions(target),
            store.find_rollback_target(target),
            store.find_prunable(target, 0),
            store.audit(target),
        )

    nothing = everything(OTHER)
    mine = fill(T, "mine")
    assert everything(OTHER) == nothing
    before = everything(T)
    theirs = fill(OTHER, "theirs")
    roll_back(store, store.find_active_versions()[OTHER])
    store.use_base(OTHER, "base2", NOW)
    assert everything(T) == before
    assert (store.read_mirror(T), store.read_mirror(OTHER)) == (mine, theirs)
    store.release(OTHER, "ann", NOW)
    assert everything(T) == before


def test_a_rollback_never_serves_another_tenants_version(store: Store) -> None:
    mine = promote(store, a_candidate(store, T), None)
    theirs = a_candidate(store, OTHER)
    with pytest.raises(UnknownVersion):
        store.rollback(
            T, to=theirs.id, expected_active=mine.id, drain_until=SOON, now=NOW, actor="ann", reason=""
        )
    assert store.find_active_version(T) == mine


def test_every_error_of_the_store_is_one_of_ours_and_names_the_subject(store: Store) -> None:
    with pytest.raises(LearndError, match=r"acme\.routing\.v9"):
        store.version("acme.routing.v9")
    with pytest.raises(LearndError, match="nowhere"):
        store.cycle("nowhere")
