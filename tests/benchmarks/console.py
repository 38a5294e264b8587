"""The review page over a batch of 10,000 items that wait: opening it, and deciding, in a real Chromium."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import httpx
from playwright.sync_api import Page, expect

from registry.batches import Batch
from tests.support.browser import chromium, open_page, read_item, sign_in
from tests.support.console import PASSWORD, SEARCH, RunningDaemon, add_waiting_batch, run_daemon_with_a_past

MANY, FEW = 10_000, 10
OPENED = 5
DECIDED = 40


def measure() -> dict[str, float]:
    """Seconds and milliseconds, medians; `open_over_few` is the ratio to a batch of ten items."""
    with tempfile.TemporaryDirectory() as folder, run_daemon_with_a_past(Path(folder)) as daemon:
        many = add_waiting_batch(daemon.store, *(f"where is parcel {n} with the lamp" for n in range(MANY)))
        few = add_waiting_batch(daemon.store, *(f"where is the lamp {n}" for n in range(FEW)), target=SEARCH)
        written = _written(daemon, many)
        with chromium() as browser, open_page(browser, daemon.url) as page:
            sign_in(page, "ann", PASSWORD)
            _open(page, few)  # The first page also fills the browser's cache.
            small, opened = _opened(page, few), _opened(page, many)
            onward = _decided_by_key(page)
        return {
            "items": MANY,
            "open_s": opened,
            "open_over_few": opened / small,
            "decide_ms": 1000 * written,
            "key_to_next_item_ms": 1000 * onward,
        }


def _written(daemon: RunningDaemon, batch: Batch) -> float:
    """Seconds from a decision's request to the answer that it is durable."""
    with httpx.Client(base_url=daemon.url, timeout=60) as client:
        session = client.post("/api/v1/session", json={"name": "ann", "password": PASSWORD}).json()
        client.headers["X-CSRF-Token"] = session["csrf_token"]

        def decide(number: int) -> Callable[[], object]:
            decision = [{"number": number, "revision": 0, "state": "APPROVED"}]
            path = f"/api/v1/batches/{batch.id}/decisions"
            return lambda: client.post(path, json=decision).raise_for_status()

        return median(_seconds(decide(MANY - number)) for number in range(DECIDED))


def _opened(page: Page, batch: Batch) -> float:
    return median(_seconds(lambda: _open(page, batch)) for _ in range(OPENED))


def _open(page: Page, batch: Batch) -> None:
    page.goto(f"/console/approvals/{batch.id}")
    expect(page.get_by_role("heading", name="Item 1", exact=True)).to_be_visible()


def _decided_by_key(page: Page) -> float:
    """Seconds from a key to the next item on the screen."""

    def approve(number: int) -> Callable[[], None]:
        def press() -> None:
            page.keyboard.press("a")
            page.wait_for_selector(f"h2:text-is('Item {number + 1}')")

        return press

    taken: list[float] = []
    for number in range(1, DECIDED + 1):
        read_item(page, number)
        taken.append(_seconds(approve(number)))
    return median(taken)


def _seconds(do: Callable[[], object]) -> float:
    began = time.perf_counter()
    do()
    return time.perf_counter() - began
