"""The client of one Phoenix: its projects here, its spans, annotations and datasets in parts of their own."""

import threading
from typing import Self
from urllib.parse import quote

from extractors.phoenix.annotation_client import AnnotationClient
from extractors.phoenix.dataset_client import DatasetClient
from extractors.phoenix.http import PhoenixHttp
from extractors.phoenix.project import Project, find_project
from extractors.phoenix.span_client import SpanClient


class PhoenixClient:
    """One Phoenix, seen through one API key.

    Every method, of the parts too, raises PhoenixUnreachable, PhoenixRefused or PhoenixAnswer; what else
    one raises is said there. Times are aware UTC.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        timeout: float = 60.0,
        patience: float = 20.0,
        longest_url: int = 8000,
        stop: threading.Event | None = None,
    ) -> None:
        """`timeout` (one request) and `patience` (all its attempts together) are in seconds;
        `longest_url`, in bytes, keeps below what proxies between here and Phoenix accept. Once `stop` is
        set, nothing is tried again."""
        self._http = PhoenixHttp(url, api_key, timeout, patience, stop)
        self.spans = SpanClient(self._http)
        self.annotations = AnnotationClient(self._http, self.spans, longest_url)
        self.datasets = DatasetClient(self._http)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def version(self) -> str:
        """Return Phoenix's version; needs no key, so it says only that Phoenix is up."""
        return self._http.send("GET", "/arize_phoenix_version").text.strip()

    def check_access(self) -> None:
        """Ask Phoenix for anything. Raises PhoenixError where it does not answer, or not to this key."""
        self._http.json("GET", "/v1/projects", params={"limit": "1"})

    def project(self, name: str) -> Project:
        """Return the project called `name`. Raises ProjectNotFound."""
        return find_project(self._http, name)

    def build_project_url(self, name: str) -> str:
        """Return the address of Phoenix's page of a project."""
        return f"{self._http.url}/redirects/projects/{quote(name, safe='')}"
