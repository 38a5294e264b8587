"""Every target's adapter versions: what is served where, what each came from, and changing what is served."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fastapi import Request
from nicegui import ui

from daemon.console.base.context import ConsoleContext
from daemon.console.base.page_session import PageSession
from daemon.console.base.widgets import (
    Link,
    TextTag,
    format_time,
    set_aria_label,
    show_chip,
    show_empty_state,
    show_facts,
    show_heading,
    show_section,
    show_text,
)
from daemon.console.frame import show_frame
from daemon.console.pages.version_actions import BASE_MODEL, Action, VersionActions
from daemon.serving.promotion import MAY_BE_REJECTED
from daemon.settings.target import TargetSettings
from daemon.views.status import describe_wait
from registry.versions import Version, VersionState

REFRESH_SECONDS = 5.0


def add_adapters_page(console: ConsoleContext) -> None:
    """Add the page `/adapters`."""

    @ui.page("/adapters")
    def page(request: Request) -> None:
        session = console.open_session(request)
        with show_frame(session, console.store, "Adapters", wide=True):
            for target in console.settings.targets:
                session.refresh_every(REFRESH_SECONDS, TargetVersions(session, console, target).read)


@dataclass(frozen=True)
class ServingPicture:
    """A target's versions, and which of them is served."""

    held: bool
    held_by: str | None
    held_at: datetime | None
    held_reason: str | None
    versions: Sequence[Version]
    """Newest first."""
    active: Version | None
    """None: the base model."""
    previous: Version | None
    """The version that a rollback goes back to."""
    replicas: Mapping[str, str]
    """`ok` or a problem, by replica."""
    probation_wait: str
    """What the version on probation waits for."""


class TargetVersions:
    """Shows one target's versions, and buttons to change what is served."""

    def __init__(self, session: PageSession, console: ConsoleContext, target: TargetSettings) -> None:
        self._session = session
        self._console = console
        self._target = target
        self._shown: ServingPicture | None = None
        self._actions = VersionActions(session, console, target, self.read)
        with show_section(target.key):
            self._body = ui.element("div").classes("stack")

    async def read(self) -> None:
        """Show the current versions; the page stays as it is where nothing has changed."""
        found = await self._session.read(self._read_picture)
        if found == self._shown:
            return
        self._shown = found
        self._body.clear()
        with self._body:
            self._show_serving(found)
            if not found.versions:
                show_empty_state("There are no versions yet.", "The first cycle that trains makes one.")
            for version in found.versions:
                self._show_version(version, found)

    def _read_picture(self) -> ServingPicture:
        store, key = self._console.store, self._target.key
        state = store.target_state(key)
        status = next(each for each in self._console.statuses.get() if each.target == key)
        return ServingPicture(
            held=state.held,
            held_by=state.held_by,
            held_at=state.held_at,
            held_reason=state.held_reason,
            versions=store.versions(key)[::-1],
            active=store.find_active_version(key),
            previous=store.find_rollback_target(key),
            replicas=status.replicas,
            probation_wait=describe_wait(status.probation, status.probation_reviewed),
        )

    def _show_serving(self, found: ServingPicture) -> None:
        name = found.active.id if found.active else BASE_MODEL
        with ui.element("div").classes("line"):
            TextTag("strong", f"Serves {name}")
            if found.held:
                show_chip("on hold", "warn")
        for replica, state in found.replicas.items():
            words = f"serves {name}" if state == "ok" else state
            with ui.element("div").classes("line"):
                TextTag("span", f"Replica {replica}: {words}").classes("" if state == "ok" else "bad")
        if found.held:
            show_text(
                f"{found.held_by} put it on hold {format_time(found.held_at)}: {found.held_reason}", "muted"
            )
        if not self._session.may_decide:
            return
        with ui.element("div").classes("line"):
            if found.active is not None:
                _show_button("Roll back", self._actions.roll_back(found.active, found.previous), "negative")
            if found.held:
                _show_button("Release the hold", self._actions.release())
            else:
                _show_button("Hold", self._actions.hold())

    def _show_version(self, version: Version, found: ServingPicture) -> None:
        with set_aria_label(ui.element("article"), version.id).classes("version"):
            with ui.element("div").classes("line"):
                show_heading(version.id, 3)
                show_chip(version.state)
                if version.drain_until:
                    show_chip("draining", "busy")
            if version.state is VersionState.PROBATION:
                show_text(f"Promising, and not proven. It waits for {found.probation_wait}.")
            elif version.state is VersionState.READY:
                show_text("It passed every gate, and waits for somebody to promote it.")
            show_facts(_describe_lineage(version))
            if self._session.may_decide and not version.files_removed_at:
                with ui.element("div").classes("line"):
                    self._show_version_buttons(version, found.active)

    def _show_version_buttons(self, version: Version, active: Version | None) -> None:
        actions = self._actions
        if version.state is VersionState.READY:
            _show_button("Promote", actions.activate(version, active, overrules=False), "positive")
        elif version.state not in {VersionState.ACTIVE, VersionState.CANDIDATE}:
            _show_button("Activate", actions.activate(version, active, overrules=True))
        if version.state in MAY_BE_REJECTED:
            _show_button("Reject", actions.reject(version), "negative")


def _show_button(words: str, action: Action, color: str = "primary") -> None:
    ui.button(words, on_click=action).props(f"no-caps outline color={color}")


def _describe_lineage(version: Version) -> Mapping[str, Any]:
    return {
        "Trained by": Link(f"cycle {version.cycle_id}", f"/experiments/{version.cycle_id}"),
        "Parent": version.parent_id or "none: the base model was live then",
        "Base model": version.base_model,
        "Rank": version.rank,
        "Made": format_time(version.created_at),
        "Activated": format_time(version.activated_at) if version.activated_at else "never",
        "Files": f"removed {format_time(version.files_removed_at)}"
        if version.files_removed_at
        else version.path,
    }
