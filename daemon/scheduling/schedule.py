"""When a target's next cycle is due. Pure: what is known goes in, the trigger comes out."""

from datetime import datetime
from typing import Literal
from zoneinfo import ZoneInfo

from apscheduler.triggers.cron import CronTrigger

from daemon.settings.target import TargetSettings
from registry.cycles import Cycle

Trigger = Literal["new examples", "schedule", "operator", "batch decided"]
"""What has a cycle train; a second look has a trigger of its own."""


def find_trigger(
    target: TargetSettings,
    *,
    feedback_changes: int,
    batch_decided: bool,
    asked: bool = False,
    last: Cycle | None,
    since: datetime,
    now: datetime,
) -> Trigger | None:
    """Why a cycle should start now, or None.

    `feedback_changes` counts pieces of feedback since the last cycle began, `batch_decided` is whether
    an operator ended a batch since then, `asked` whether one asked for a cycle: those wait for no
    cool-down. `since` is when the daemon
    started, for a target without any cycle yet. All times aware UTC. A cron time that passed while
    the daemon was down is made up for once.
    """
    if last is not None and not last.ended:
        return None
    if asked:
        return "operator"
    if batch_decided:
        return "batch decided"
    if last is not None and now < last.updated_at + target.schedule.cooldown:
        return None
    if feedback_changes >= target.thresholds.min_new_examples:
        return "new examples"
    fires = next_run(target, after=last.started_at if last else since)
    return "schedule" if fires is not None and fires <= now else None


def next_run(target: TargetSettings, after: datetime) -> datetime | None:
    """The first time after `after` at which the target's cron fires, in its time zone; None without cron."""
    if target.schedule.cron is None:
        return None
    zone = ZoneInfo(target.schedule.timezone)
    trigger = CronTrigger.from_crontab(target.schedule.cron, timezone=zone)
    fires: datetime | None = trigger.get_next_fire_time(after, after.astimezone(zone))
    return fires
