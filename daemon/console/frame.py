"""The frame of every page: navigation, who is signed in, and the switch between light and dark."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import structlog
from nicegui import ui

from daemon.console.base.page_session import CONSOLE_PATH, PageSession, notify_problem
from daemon.console.base.widgets import TextTag, set_aria_label, show_heading
from registry.batches import BatchState
from registry.store.store import Store

log = structlog.get_logger()
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
def show_frame(
    session: PageSession, store: Store, title: str, *, inside: str | None = None, wide: bool = False
) -> Iterator[None]:
    """Show the frame of the page `title`; what is shown inside the block is the page's content.

    `inside` names the page of PAGES that the page belongs to, where it is none of them itself. The `store`
    says how many synthetic examples wait. Nothing may be awaited inside the block: a page with a timer is
    sent to the browser, as far as it is built, when its builder first waits.
    """
    ui.colors(**COLORS)
    ui.add_css(STYLE)
    theme = read_theme(session.headers)
    dark_mode = ui.dark_mode(None if theme is None else theme == "dark")
    ui.on_exception(_handle_problem)
    ui.page_title(f"{title} · learnd")
    with ui.left_drawer(bordered=True).classes("drawer").props("width=210 breakpoint=900") as drawer:
        _show_navigation(session, store, inside or title)
    with ui.header(elevated=False).classes("bar"):
        menu = ui.button(icon="menu", on_click=drawer.toggle).props("flat round dense")
        set_aria_label(menu, "Menu").classes("bar-button menu")
        ui.link("learnd", "/").classes("brand")
        ui.space()
        _show_theme_button(dark_mode)
        _show_user_menu(session)
    with ui.element("div").classes("page wide" if wide else "page") as page:
        show_heading(title, 1)
        yield
    ui.skip_link(target=page)


def _handle_problem(problem: Exception) -> None:
    # NiceGUI asks the browser whether the navigation is open. A browser that is too busy to answer in time
    # loses nothing, and its reader has asked for nothing. Time-outs of the system have an `errno`.
    if isinstance(problem, TimeoutError) and problem.errno is None:
        log.info("a browser answered too late", problem=str(problem))
    else:
        notify_problem(problem)


def _show_navigation(session: PageSession, store: Store, current: str) -> None:
    with set_aria_label(ui.element("nav"), "Pages").classes("navigation"):
        for name, path, icon in PAGES:
            with ui.link(target=path).classes(
                "page-link current" if name == current else "page-link"
            ) as link:
                if name == current:
                    link.props("aria-current=page")
                ui.icon(icon).props("aria-hidden=true")
                TextTag("span", name)
                if path == "/approvals":
                    waiting = TextTag("span").classes("count")
    waiting.set_visibility(False)

    async def count_waiting() -> None:
        batches = await session.read(lambda: store.batches(None, BatchState.WAITING))
        pending = sum(batch.pending for batch in batches)
        waiting.set_text(str(pending))
        set_aria_label(waiting, f"{pending} waiting").set_visibility(bool(pending))

    session.refresh_every(COUNT_SECONDS, count_waiting)


def _show_theme_button(dark_mode: ui.dark_mode) -> None:
    button = ui.button(icon="contrast").props("flat round dense").classes("bar-button")
    # The browser decides, which alone knows what "auto" shows; the server must know the choice, or the next
    # update of the page would undo it.
    button.on(
        "click",
        lambda event: dark_mode.set_value(bool(event.args)),
        js_handler="() => { const dark = !document.body.classList.contains('body--dark');"
        "Quasar.Dark.set(dark);"
        f"document.cookie = `{THEME}=${{dark ? 'dark' : 'light'}};path=/;max-age=31536000;samesite=lax`;"
        "emit(dark); }",
    )
    set_aria_label(button, "Light or dark").tooltip("Light or dark")


def read_theme(headers: Mapping[str, str]) -> str | None:
    """Return `light` or `dark` where the reader has chosen; None leaves it to their browser."""
    cookies = headers.get("cookie", "")
    chosen = dict(part.strip().partition("=")[::2] for part in cookies.split(";")).get(THEME)
    return chosen if chosen in {"light", "dark"} else None


def _show_user_menu(session: PageSession) -> None:
    person = session.person
    if person is None:
        return
    with ui.button(icon="account_circle").props("flat dense no-caps").classes("bar-button") as button:
        TextTag("span", person.name).classes("who")
        set_aria_label(button, f"Signed in as {person.name}, {person.role}")
        with ui.menu():
            ui.item(f"{person.name}, {person.role}").props("disable")
            if person.by == "session":
                with ui.element("form").props("method=post") as form:
                    form.props["action"] = f"{CONSOLE_PATH}/sign-out"
                    token = ui.element("input").props("type=hidden name=csrf_token")
                    token.props["value"] = person.csrf_token
                    ui.button("Sign out").props("flat no-caps type=submit color=primary")
