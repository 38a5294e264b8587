"""A real Chromium: the system's, or Playwright's own where that is there."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Error, Page, expect, sync_playwright

PICTURES = Path(__file__).resolve().parents[2] / ".artefacts" / "console"
"""The folder of the pages' pictures."""
INSTALLED = ("chromium", "chromium-browser", "google-chrome")
SETTLED = """() => document.fonts.status === "loaded"
  && [...document.images].every((image) => image.complete)
  && document.getAnimations().every((each) => each.playState !== "running"
    || each.effect.getComputedTiming().iterations === Infinity)"""
"""True once nothing is loading any more, and nothing moves but what moves for ever."""
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser without a window. Skips the test where there is none; under CI that is a failure."""
    path = next((found for name in INSTALLED if (found := shutil.which(name))), None)
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        except Error as missing:
            reason = f"there is no Chromium (`apt-get install chromium`): {missing}"
            if os.environ.get("CI"):
                pytest.fail(reason)
            pytest.skip(reason)
        yield browser
        browser.close()


@contextmanager
def open_page(browser: Browser, url: str, **options: Any) -> Iterator[Page]:
    """A page in a profile of its own; an error in its scripts fails the test."""
    context = browser.new_context(base_url=url, **{"viewport": DESKTOP, **options})
    page = context.new_page()
    page.set_default_timeout(20_000)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    yield page
    context.close()
    assert not problems, problems


def visit(page: Page, path: str) -> None:
    """Open a page of the console, and wait until it is connected: before that it may load once more."""
    page.goto(path)
    page.wait_for_function("window.did_handshake")


def wait_until_settled(page: Page) -> None:
    """Wait until fonts and images are loaded and the animations of opening are over."""
    page.wait_for_function(SETTLED)


def read_item(page: Page, number: int) -> None:
    """Wait until an item of a batch is shown, without a dialog, for as long as a decision about it needs."""
    expect(page.get_by_role("heading", name=f"Item {number}", exact=True)).to_be_visible()
    # While a dialog is closing, keys are still its own.
    expect(page.locator(".q-dialog")).to_have_count(0)
    page.wait_for_function("(number) => learndReview.mayDecide(number)", arg=number)


def sign_in(page: Page, name: str, password: str, path: str = "/console/") -> None:
    """Ask for a page, sign in where that leads, and come back to it."""
    page.goto(path)
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"**{path}")


def take_picture(page: Page, name: str) -> None:
    """Keep a picture of the page."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / f"{name}.png", full_page=True)


def find_barriers(page: Page) -> list[str]:
    """List what axe finds that keeps people from using the page (WCAG 2.1, levels A and AA)."""
    found = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]})
    return [
        f"{violation['id']}: {node['html'][:160]} {node['failureSummary']}"
        for violation in found.response["violations"]
        for node in violation["nodes"]
    ]
