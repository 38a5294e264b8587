"""When the store calls a notice due."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from registry.notices import LONGEST_PAUSE
from registry.store.store import Store

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
TWO_DAYS = timedelta(days=2)


def is_due(store: Store, now: datetime) -> bool:
    return bool(store.find_due_notices("ops", ["jobs.late"], since=NOW - TWO_DAYS, now=now))


def test_a_notice_that_failed_while_the_clock_was_ahead_is_tried_again_now(tmp_path: Path) -> None:
    with Store.open(tmp_path, NOW) as store:
        store.add_receiver("ops")
        store.report_late_jobs("acme/routing", ["poll"], 90, NOW)
        (due,) = store.find_due_notices("ops", ["jobs.late"], since=NOW - TWO_DAYS, now=NOW)
        store.record_delivery(due.notice.id, "ops", next_try_at=NOW + LONGEST_PAUSE, problem="refused")
        assert not is_due(store, NOW)
        assert is_due(store, NOW + LONGEST_PAUSE)
        store.record_delivery(due.notice.id, "ops", next_try_at=NOW + TWO_DAYS, problem="refused")
        assert is_due(store, NOW)
