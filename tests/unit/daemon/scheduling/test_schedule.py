"""Triggers of cycles."""

from datetime import UTC, datetime, timedelta
from typing import Any

from daemon.scheduling.schedule import find_next_run, find_trigger
from daemon.settings.target import ScheduleSettings, TargetSettings, TargetThresholds
from registry.targets import TargetDemand

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


def trigger(target: TargetSettings, now: datetime, **demand: Any) -> str | None:
    return find_trigger(target, TargetDemand(target=target.key, **demand), since=NOON, now=now)


def test_enough_new_feedback_starts_a_cycle() -> None:
    assert trigger(make_target(), NOON, feedback_changes=10) == "new examples"
    assert trigger(make_target(), NOON, feedback_changes=9) is None


def test_no_cycle_starts_during_the_cool_down() -> None:
    calm = make_target(cooldown_minutes=60)
    ended: Any = {"feedback_changes": 99, "last_cycle_at": NOON, "last_cycle_ended_at": NOON}
    assert trigger(calm, NOON + timedelta(minutes=59), **ended) is None
    assert trigger(calm, NOON + timedelta(minutes=60), **ended)


def test_a_decided_batch_starts_the_next_cycle_at_once_but_not_beside_another() -> None:
    calm, now = make_target(cooldown_minutes=60), NOON + timedelta(minutes=1)
    ended: Any = {"last_cycle_at": NOON, "last_cycle_ended_at": NOON}
    assert trigger(calm, now, **ended, batch_decided=True) == "batch decided"
    assert trigger(calm, now, **ended) is None
    assert trigger(calm, now, **ended, asked=True) == "operator"
    assert trigger(calm, now, **ended, batch_decided=True, asked=True, unfinished=True) is None


def test_an_unfinished_cycle_keeps_the_next_one_waiting() -> None:
    assert trigger(make_target(), NOON + timedelta(days=9), feedback_changes=99, unfinished=True) is None


def test_a_cron_time_that_passed_while_the_daemon_was_down_is_made_up_for() -> None:
    nightly = make_target(cron="0 3 * * *", timezone="Europe/Berlin", cooldown_minutes=0)
    ended: Any = {"last_cycle_at": NOON, "last_cycle_ended_at": NOON}
    # 3 o'clock in Berlin is 1 o'clock UTC here: on that night summer time begins.
    before, after = NOON + timedelta(hours=12, minutes=59), NOON + timedelta(hours=13, minutes=1)
    assert trigger(nightly, before, **ended) is None
    assert trigger(nightly, after, **ended) == "schedule"
    assert trigger(nightly, NOON + timedelta(days=3), **ended) == "schedule"


def test_a_last_cycle_of_a_time_when_the_clock_was_ahead_keeps_nothing_waiting() -> None:
    ahead: Any = {"last_cycle_at": NOON + timedelta(days=2), "last_cycle_ended_at": NOON + timedelta(days=2)}
    calm = make_target(cooldown_minutes=60, cron="0 3 * * *")
    assert trigger(calm, NOON, **ahead, feedback_changes=10) == "new examples"
    assert trigger(calm, NOON, **ahead) == "schedule"
    # A clock that is corrected by seconds does not end the cool-down.
    a_bit: Any = {"last_cycle_at": NOON, "last_cycle_ended_at": NOON + timedelta(seconds=3)}
    assert trigger(make_target(cooldown_minutes=60), NOON, **a_bit, feedback_changes=10) is None


def test_without_cron_nothing_is_scheduled() -> None:
    assert find_next_run(make_target(), NOON) is None
