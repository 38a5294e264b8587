"""The frame of every page: where one is, where one can go, who one is, and light or dark."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nicegui import ui

from daemon.console.parts import Tagged, heading
from daemon.console.visit import MOUNTED, Visit
from registry.batches import BatchState

THEME = "learnd_theme"
PAGES = (
    ("Overview", "/", "dashboard"),
    ("Approvals", "/approvals", "fact_check"),
    ("Experiments", "/experiments", "science"),
    ("Adapters", "/adapters", "layers"),
    ("Data", "/data", "dataset"),
    ("Audit log", "/audit", "history"),
)
COLORS = {
    "primary": "#1d5fa8",
    "secondary": "#46566b",
    "positive": "#1b7046",
    "negative": "#b3261e",
    "warning": "#8a5a00",
    "info": "#1d5fa8",
}
STYLE = Path(__file__).with_name("console.css")


@contextmanager
def frame(visit: Visit, title: str, *, inside: str | None = None, wide: bool = False) -> Iterator[None]:
    """The page `title`; `inside` names the page of PAGES that it is part of, if it is none of them."""
    dress(visit)
    ui.page_title(f"{title} · learnd")
    with ui.left_drawer(bordered=True).classes("drawer").props("width=210 breakpoint=900") as drawer:
        _ways(visit, inside or title)
    with ui.header(elevated=False).classes("bar"):
        menu = ui.button(icon="menu", on_click=drawer.toggle).props("flat round dense aria-label=Menu")
        menu.classes("bar-button menu")
        ui.link("learnd", "/").classes("brand")
        ui.space()
        _theme()
        _who(visit)
    with ui.element("div").classes("page wide" if wide else "page").props("id=main"):
        heading(title, 1)
        yield


def dress(visit: Visit) -> None:
    """Colours and style, by what the reader chose before."""
    ui.colors(**COLORS)
    ui.add_css(STYLE)
    chosen = _chosen_theme(visit)
    ui.dark_mode(None if chosen is None else chosen == "dark")


def _ways(visit: Visit, here: str) -> None:
    with ui.element("nav").props('aria-label="Pages"').classes("ways"):
        for name, path, icon in PAGES:
            with ui.link(target=path).classes("way here" if name == here else "way") as way:
                if name == here:
                    way.props("aria-current=page")
                ui.icon(icon).props("aria-hidden=true")
                Tagged("span", name)
                if path == "/approvals" and (waiting := _waiting(visit)):
                    Tagged("span", str(waiting)).classes("count").props(f'aria-label="{waiting} waiting"')


def _waiting(visit: Visit) -> int:
    return sum(batch.pending for batch in visit.console.store.batches(None, BatchState.WAITING))


def _theme() -> None:
    async def switch() -> None:
        # The server need not know what a browser set to "auto" shows.
        await ui.run_javascript(
            "const dark = !document.body.classList.contains('body--dark');"
            "Quasar.Dark.set(dark);"
            f"document.cookie = `{THEME}=${{dark ? 'dark' : 'light'}};path=/;max-age=31536000;samesite=lax`;"
        )

    button = ui.button(icon="contrast", on_click=switch).props("flat round dense").classes("bar-button")
    button.props('aria-label="Light or dark"').tooltip("Light or dark")


def _chosen_theme(visit: Visit) -> str | None:
    cookies = visit.headers.get("cookie", "")
    chosen = dict(part.strip().partition("=")[::2] for part in cookies.split(";")).get(THEME)
    return chosen if chosen in {"light", "dark"} else None


def _who(visit: Visit) -> None:
    person = visit.person
    if person is None:
        return
    with ui.button(icon="account_circle").props("flat dense no-caps").classes("bar-button") as button:
        Tagged("span", person.name).classes("who")
        button.props(f'aria-label="Signed in as {person.name}, {person.role}"')
        with ui.menu():
            ui.item(f"{person.name}, {person.role}").props("disable")
            if person.by == "session":
                with ui.element("form").props(f'method=post action="{MOUNTED}/sign-out"'):
                    ui.element("input").props(f'type=hidden name=csrf_token value="{person.csrf_token}"')
                    ui.button("Sign out").props("flat no-caps type=submit color=primary")
