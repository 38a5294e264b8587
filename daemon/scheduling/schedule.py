"""Decides when a target's next cycle is due: pure functions from what is known to the trigger."""

from datetime import datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

from apscheduler.triggers.cron import CronTrigger

from daemon.runtime.clock import is_within
from daemon.settings.target import TargetSettings
from registry.targets import TargetDemand

Trigger = Literal["new examples", "schedule", "operator", "batch decided"]
"""Why a cycle trains; a second look has a trigger of its own."""


MISSED = timedelta(days=1)
"""How far back a cron time is made up for where nobody knows when the last cycle began."""


def find_trigger(
    target: TargetSettings, demand: TargetDemand, *, since: datetime, now: datetime
) -> Trigger | None:
    """Return why a cycle should start now, or None. All times are aware UTC.

    An operator's request and a decided batch do not wait for the cool-down after the last cycle.
    `since` is when the daemon started, for a target without any cycle yet. A cron time that passed while
    the daemon was down is made up for once.
    """
    if demand.unfinished:
        return None
    if demand.asked:
        return "operator"
    if demand.batch_decided:
        return "batch decided"
    ended = demand.last_cycle_ended_at
    if ended is not None and is_within(target.schedule.cooldown, ended, now):
        return None
    if demand.feedback_changes >= target.thresholds.min_new_examples:
        return "new examples"
    began = demand.last_cycle_at or since
    # A last cycle in the future began before somebody set the clock back.
    fires = find_next_run(target, after=began if began <= now else now - MISSED)
    return "schedule" if fires is not None and fires <= now else None


def find_next_run(target: TargetSettings, after: datetime) -> datetime | None:
    """Return the first time after `after` at which the target's cron fires; None without cron."""
    if target.schedule.cron is None:
        return None
    zone = ZoneInfo(target.schedule.timezone)
    trigger = CronTrigger.from_crontab(target.schedule.cron, timezone=zone)
    fires: datetime | None = trigger.get_next_fire_time(after, after.astimezone(zone))
    return fires
