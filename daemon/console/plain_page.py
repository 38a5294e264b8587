"""Pages in the console's style that are plain HTML: they work without a session and without scripts."""

from collections.abc import Mapping
from string import Template

from fastapi.responses import HTMLResponse

from daemon.console.frame import STYLE, read_theme

PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title · learnd</title><link rel="icon" href="data:,"><style>$style</style>
</head>
<body class="$theme"><main class="plain-page"><h1>learnd</h1>$content</main></body>
</html>
""")


def build_plain_page(title: str, content: str, headers: Mapping[str, str], status: int = 200) -> HTMLResponse:
    """Return a page that no cache keeps.

    `title` and `content` are HTML, escaped where they hold anything from outside; the request's `headers` say
    which theme the reader has chosen.
    """
    theme = read_theme(headers)
    page = PAGE.substitute(
        title=title,
        style=STYLE.read_text("utf-8"),
        content=content,
        theme=f"body--{theme}" if theme else "",
    )
    return HTMLResponse(page, status, headers={"Cache-Control": "no-store"})
