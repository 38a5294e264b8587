"""Decides when a target's next cycle is due: pure functions from what is known to the trigger."""

from datetime import datetime
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo

from apscheduler.triggers.cron import CronTrigger

from daemon.settings.target import TargetSettings
from registry.cycles import Cycle

Trigger = Literal["new examples", "schedule", "operator", "batch decided"]
"""Why a cycle trains; a second look has a trigger of its own."""


class Demand(NamedTuple):
    """Reasons for a cycle that have come up since the last one began."""

    feedback_changes: int = 0
    """Pieces of feedback, new or changed."""
    batch_decided: bool = False
    """Whether an operator ended a batch."""
    asked: bool = False
    """Whether an operator asked for a cycle."""


def find_trigger(
    target: TargetSettings, demand: Demand, *, last: Cycle | None, since: datetime, now: datetime
) -> Trigger | None:
    """Return why a cycle should start now, or None. All times are aware UTC.

    An operator's request and a decided batch do not wait for the cool-down after the `last` cycle.
    `since` is when the daemon started, for a target without any cycle yet. A cron time that passed while
    the daemon was down is made up for once.
    """
    if last is not None and not last.ended:
        return None
    if demand.asked:
        return "operator"
    if demand.batch_decided:
        return "batch decided"
    if last is not None and now < last.updated_at + target.schedule.cooldown:
        return None
    if demand.feedback_changes >= target.thresholds.min_new_examples:
        return "new examples"
    fires = find_next_run(target, after=last.started_at if last else since)
    return "schedule" if fires is not None and fires <= now else None


def find_next_run(target: TargetSettings, after: datetime) -> datetime | None:
    """Return the first time after `after` at which the target's cron fires; None without cron."""
    if target.schedule.cron is None:
        return None
    zone = ZoneInfo(target.schedule.timezone)
    trigger = CronTrigger.from_crontab(target.schedule.cron, timezone=zone)
    fires: datetime | None = trigger.get_next_fire_time(after, after.astimezone(zone))
    return fires
