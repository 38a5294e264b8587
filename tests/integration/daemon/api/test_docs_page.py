"""The page at `/docs` that describes the API needs nothing from the internet."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from daemon.access.accounts import Operators
from daemon.access.sign_in import Authenticator
from daemon.api.app import build_api
from daemon.monitoring.metrics import Metrics
from daemon.settings.load import Settings
from daemon.views.status import Health
from registry.store.store import Store
from tests.support.browser import chromium, open_page
from tests.support.openai_stand_in import serving


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    settings = Settings(data_dir=tmp_path)
    with Store.open(tmp_path, now()) as store:
        authenticator = Authenticator(Operators(settings.operators, now), {})
        with serving(build_api(settings, store, authenticator, Health(), Metrics(), now)) as running:
            yield running


def test_the_page_names_no_other_site_and_its_own_files_are_there(url: str) -> None:
    with httpx.Client(base_url=url) as client:
        page = client.get("/docs").raise_for_status().text
        loaded = re.findall(r"""(?:src|href)=["']([^"']+)""", page)
        assert any(path.endswith(".js") for path in loaded)
        for path in loaded:
            assert path.startswith("/"), path
            assert client.get(path).status_code == 200, path
        assert "://" not in page
        assert client.get("/redoc").status_code == 404


def test_a_browser_shows_every_route_and_asks_nobody_else(url: str) -> None:
    with chromium() as browser, open_page(browser, url) as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto("/docs")
        page.wait_for_selector(".opblock-summary-path")
        described = httpx.get(f"{url}/openapi.json").json()["paths"].values()
        assert page.locator(".opblock").count() == sum(len(routes) for routes in described)
        assert [address for address in asked if not address.startswith((url, "data:"))] == []
