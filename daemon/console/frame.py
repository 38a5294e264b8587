"""The frame of every page, with the ways to the others, who is signed in, and light or dark."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nicegui import ui

from daemon.console.base.page_session import MOUNTED, Visit, tell_problem
from daemon.console.base.widgets import Tagged, heading, labelled
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
COUNT_SECONDS = 5.0


@contextmanager
def frame(visit: Visit, title: str, *, inside: str | None = None, wide: bool = False) -> Iterator[None]:
    """The page `title`; `inside` names the page of PAGES that it is part of, if it is none of them.

    Nothing may be awaited within: a page with a timer is sent as it is when its builder first waits.
    """
    ui.colors(**COLORS)
    ui.add_css(STYLE)
    theme = chosen_theme(visit)
    ui.dark_mode(None if theme is None else theme == "dark")
    ui.on_exception(tell_problem)
    ui.page_title(f"{title} · learnd")
    with ui.left_drawer(bordered=True).classes("drawer").props("width=210 breakpoint=900") as drawer:
        _ways(visit, inside or title)
    with ui.header(elevated=False).classes("bar"):
        menu = ui.button(icon="menu", on_click=drawer.toggle).props("flat round dense")
        labelled(menu, "Menu").classes("bar-button menu")
        ui.link("learnd", "/").classes("brand")
        ui.space()
        _theme()
        _who(visit)
    with ui.element("div").classes("page wide" if wide else "page") as page:
        heading(title, 1)
        yield
    ui.skip_link(target=page)


def _ways(visit: Visit, here: str) -> None:
    with labelled(ui.element("nav"), "Pages").classes("ways"):
        for name, path, icon in PAGES:
            with ui.link(target=path).classes("way here" if name == here else "way") as way:
                if name == here:
                    way.props("aria-current=page")
                ui.icon(icon).props("aria-hidden=true")
                Tagged("span", name)
                if path == "/approvals":
                    waiting = Tagged("span").classes("count")
    waiting.set_visibility(False)

    async def count() -> None:
        store = visit.console.store
        batches = await visit.read(lambda: store.batches(None, BatchState.WAITING))
        pending = sum(batch.pending for batch in batches)
        waiting.set_text(str(pending))
        labelled(waiting, f"{pending} waiting").set_visibility(bool(pending))

    visit.every(COUNT_SECONDS, count)


def _theme() -> None:
    button = ui.button(icon="contrast").props("flat round dense").classes("bar-button")
    # In the browser alone: the server need not know what a browser set to "auto" shows.
    button.on(
        "click",
        js_handler="() => { const dark = !document.body.classList.contains('body--dark');"
        "Quasar.Dark.set(dark);"
        f"document.cookie = `{THEME}=${{dark ? 'dark' : 'light'}};path=/;max-age=31536000;samesite=lax`; }}",
    )
    labelled(button, "Light or dark").tooltip("Light or dark")


def chosen_theme(visit: Visit) -> str | None:
    """`light` or `dark`, where the reader chose; None: what their browser wants."""
    cookies = visit.headers.get("cookie", "")
    chosen = dict(part.strip().partition("=")[::2] for part in cookies.split(";")).get(THEME)
    return chosen if chosen in {"light", "dark"} else None


def _who(visit: Visit) -> None:
    person = visit.person
    if person is None:
        return
    with ui.button(icon="account_circle").props("flat dense no-caps").classes("bar-button") as button:
        Tagged("span", person.name).classes("who")
        labelled(button, f"Signed in as {person.name}, {person.role}")
        with ui.menu():
            ui.item(f"{person.name}, {person.role}").props("disable")
            if person.by == "session":
                with ui.element("form").props("method=post") as form:
                    form.props["action"] = f"{MOUNTED}/sign-out"
                    token = ui.element("input").props("type=hidden name=csrf_token")
                    token.props["value"] = person.csrf_token
                    ui.button("Sign out").props("flat no-caps type=submit color=primary")
