"""Triggers of cycles."""

from datetime import UTC, datetime, timedelta

from daemon.scheduling.schedule import Demand, find_next_run, find_trigger
from daemon.settings.target import ScheduleSettings, TargetSettings, TargetThresholds
from registry.cycles import Cycle, CycleState

NOON = datetime(2026, 3, 28, 12, tzinfo=UTC)


def make_target(**schedule: object) -> TargetSettings:
    return TargetSettings(
        tenant="acme",
        agent="routing",
        project="p",
        task="generation",
        base_model="m",
        thresholds=TargetThresholds(min_new_examples=10),
        schedule=ScheduleSettings.model_validate(schedule),
    )


def make_cycle(state: CycleState, ended: datetime) -> Cycle:
    return Cycle(
        id="c", target="acme/routing", state=state, started_at=ended, updated_at=ended, trigger="operator"
    )


def test_enough_new_feedback_starts_a_cycle() -> None:
    assert (
        find_trigger(make_target(), Demand(feedback_changes=10), last=None, since=NOON, now=NOON)
        == "new examples"
    )
    assert find_trigger(make_target(), Demand(feedback_changes=9), last=None, since=NOON, now=NOON) is None


def test_no_cycle_starts_during_the_cool_down() -> None:
    last, calm = make_cycle(CycleState.DONE, NOON), make_target(cooldown_minutes=60)
    assert (
        find_trigger(
            calm,
            Demand(feedback_changes=99),
            last=last,
            since=NOON,
            now=NOON + timedelta(minutes=59),
        )
        is None
    )
    assert find_trigger(
        calm,
        Demand(feedback_changes=99),
        last=last,
        since=NOON,
        now=NOON + timedelta(minutes=60),
    )


def test_a_decided_batch_starts_the_next_cycle_at_once_but_not_beside_another() -> None:
    last, calm = make_cycle(CycleState.SKIPPED, NOON), make_target(cooldown_minutes=60)
    known = {"since": NOON, "now": NOON + timedelta(minutes=1)}
    assert find_trigger(calm, Demand(batch_decided=True), last=last, **known) == "batch decided"
    assert find_trigger(calm, Demand(), last=last, **known) is None
    assert find_trigger(calm, Demand(asked=True), last=last, **known) == "operator"
    assert (
        find_trigger(
            calm, Demand(batch_decided=True, asked=True), last=make_cycle(CycleState.TRAINING, NOON), **known
        )
        is None
    )


def test_an_unfinished_cycle_keeps_the_next_one_waiting() -> None:
    last = make_cycle(CycleState.TRAINING, NOON)
    assert (
        find_trigger(
            make_target(),
            Demand(feedback_changes=99),
            last=last,
            since=NOON,
            now=NOON + timedelta(days=9),
        )
        is None
    )


def test_a_cron_time_that_passed_while_the_daemon_was_down_is_made_up_for() -> None:
    nightly = make_target(cron="0 3 * * *", timezone="Europe/Berlin", cooldown_minutes=0)
    last = make_cycle(CycleState.DONE, NOON)
    # 3 o'clock in Berlin is 1 o'clock UTC here: on that night summer time begins.
    before, after = NOON + timedelta(hours=12, minutes=59), NOON + timedelta(hours=13, minutes=1)
    assert find_trigger(nightly, Demand(), last=last, since=NOON, now=before) is None
    assert find_trigger(nightly, Demand(), last=last, since=NOON, now=after) == "schedule"
    assert (
        find_trigger(
            nightly,
            Demand(),
            last=last,
            since=NOON,
            now=NOON + timedelta(days=3),
        )
        == "schedule"
    )


def test_without_cron_nothing_is_scheduled() -> None:
    assert find_next_run(make_target(), NOON) is None
