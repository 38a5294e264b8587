"""MkDocs' hook: adds the pages that are written from the code, and those that stand at the repository's root."""

import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

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

PAGES = {
    "reference/settings.md": settings_page,
    "reference/commands.md": commands_page,
    "reference/http.md": http_page,
    "reference/metrics.md": metrics_page,
    "reference/events.md": events_page,
    "reference/spans.md": spans_page,
    "reference/rules.md": rules_page,
    "reference/python.md": python_page,
    "contribute/packages.md": packages_page,
}
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
