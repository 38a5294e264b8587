"""Take the picture of the console that README.md shows: `python docs/screenshot.py`.

It starts the daemon over the past that the console's tests use, signs in, and writes `docs/console.png`.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))

from PIL import Image  # noqa: E402

from tests.support.browser import chromium, open_page, sign_in, visit  # noqa: E402
from tests.support.console import PASSWORD, SUPPORT, run_daemon_with_a_past  # noqa: E402

PICTURE = DOCS / "console.png"
SIZE = {"width": 1180, "height": 700}
COLOURS = 64
"""Enough for a page of text and lines, and a fifth of the bytes."""
SETTLED_MS = 1500
"""Time for charts to be drawn."""


def main() -> None:
    with (
        TemporaryDirectory() as folder,
        run_daemon_with_a_past(Path(folder)) as daemon,
        chromium() as browser,
        open_page(browser, daemon.url, viewport=SIZE, color_scheme="light") as page,
    ):
        promoted = next(cycle for cycle in daemon.store.cycles(SUPPORT) if cycle.verdict == "PROMOTE")
        sign_in(page, "ann", PASSWORD)
        visit(page, f"/console/experiments/{promoted.id}")
        page.wait_for_timeout(SETTLED_MS)
        page.screenshot(path=PICTURE)
    Image.open(PICTURE).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(
        PICTURE, optimize=True
    )
    print(f"Wrote {PICTURE}: {PICTURE.stat().st_size // 1024} KB.")  # noqa: T201


if __name__ == "__main__":
    main()
