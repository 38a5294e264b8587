"""A real Chromium: the system's, or Playwright's own where that is there."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Error, Page, sync_playwright

PICTURES = Path(__file__).resolve().parents[1] / ".artefacts" / "console"
"""Where pictures of the pages are kept."""
INSTALLED = ("chromium", "chromium-browser", "google-chrome")
UNSEEN_MS = 300
"""An item of the reading desk must have been on the screen for a little less before it can be decided."""
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
def page_of(browser: Browser, url: str, **options: Any) -> Iterator[Page]:
    """A page in a profile of its own; what goes wrong in it fails the test."""
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


def sign_in(page: Page, name: str, password: str, path: str = "/console/") -> None:
    """Ask for a page, be sent to the sign-in, and come back."""
    page.goto(path)
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"**{path}")


def picture(page: Page, name: str) -> None:
    """Keep what the page looks like."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / f"{name}.png", full_page=True)


def barriers(page: Page) -> list[str]:
    """What axe finds that keeps people from using the page (WCAG 2.1, levels A and AA)."""
    found = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]})
    return [
        f"{violation['id']}: {node['html'][:160]} {node['failureSummary']}"
        for violation in found.response["violations"]
        for node in violation["nodes"]
    ]
