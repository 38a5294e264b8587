"""MkDocs' hook: adds the pages that are written from the code, and those at the repository's root."""

import re
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path[:0] = [str(DOCS), str(ROOT)]

from reference_pages.commands_page import commands_page  # noqa: E402
from reference_pages.events_page import events_page  # noqa: E402
from reference_pages.http_page import http_page  # noqa: E402
from reference_pages.metrics_page import metrics_page  # noqa: E402
from reference_pages.packages_page import packages_page  # noqa: E402
from reference_pages.python_page import python_page  # noqa: E402
from reference_pages.rules_page import rules_page  # noqa: E402
from reference_pages.settings_page import settings_page  # noqa: E402
from reference_pages.spans_page import spans_page  # noqa: E402
from reference_pages.tracers_page import tracers_page  # noqa: E402

PAGES = {
    "reference/settings.md": settings_page,
    "reference/commands.md": commands_page,
    "reference/http.md": http_page,
    "reference/metrics.md": metrics_page,
    "reference/events.md": events_page,
    "reference/spans.md": spans_page,
    "reference/tracers.md": tracers_page,
    "reference/rules.md": rules_page,
    "reference/python.md": python_page,
    "contribute/packages.md": packages_page,
}
LOADED = re.compile(r"""<(?!a\b)[a-z]+\b[^>]*\b(?:src|href)=["']?(?:https?:)?//[^>]*>""")
"""A tag, other than a link to follow, that has a browser ask another site."""
AT_ROOT = {"contribute/index.md": "CONTRIBUTING.md", "contribute/changelog.md": "CHANGELOG.md"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of PAGES and AT_ROOT."""
    for path, write in PAGES.items():
        files.append(File.generated(config, path, content=write()))
    for path, name in AT_ROOT.items():
        # Links of a file at the root begin with docs/; those of a page with the folder that it is in.
        content = (ROOT / name).read_text("utf-8").replace("](docs/", "](../")
        files.append(File.generated(config, path, content=content))
    return files


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:  # noqa: ARG001
    """Return the page as it is. Raises PluginError where it loads something from another site."""
    if foreign := find_foreign_load(output):
        raise PluginError(f"{page.file.src_uri} needs the internet to be read: {foreign}")
    return output


def find_foreign_load(html: str) -> str | None:
    """Return the first tag that has a browser load something from another site; None where none does."""
    found = LOADED.search(html)
    return found.group() if found else None
