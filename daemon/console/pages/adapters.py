"""Adapter versions, where they come from and what is served where, and changing that."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from fastapi import Request
from nicegui import ui

from daemon.console.base.confirm import asked
from daemon.console.base.page_session import Console, Visit
from daemon.console.base.widgets import (
    Link,
    Tagged,
    chip,
    facts,
    heading,
    labelled,
    moment,
    nothing,
    section,
    text,
)
from daemon.console.frame import frame
from daemon.serving.promotion import MAY_BE_REJECTED, activate, drain_time, reject, rollback
from daemon.settings.target import TargetSettings
from daemon.views.status import waits_for
from registry.targets import TargetState
from registry.versions import Version, VersionState

REFRESH_SECONDS = 5.0


def adapters_page(console: Console) -> None:
    """At `/adapters`."""

    @ui.page("/adapters")
    def page(request: Request) -> None:
        visit = Visit.of(console, request)
        with frame(visit, "Adapters", wide=True):
            for target in console.settings.targets:
                visit.every(REFRESH_SECONDS, Versions(visit, target).read)


class Versions:
    """One target's versions."""

    def __init__(self, visit: Visit, target: TargetSettings) -> None:
        self._visit = visit
        self._target = target
        self._shown: object = None
        with section(target.key):
            self._body = ui.element("div").classes("stack")

    async def read(self) -> None:
        """Show how they are now; what is on the page stays as long as nothing has changed."""
        store, key = self._visit.console.store, self._target.key
        state, versions, active, previous = await self._visit.read(
            lambda: (
                store.target_state(key),
                store.versions(key)[::-1],
                store.active(key),
                store.rollback_target(key),
            )
        )
        entries = await self._visit.read(self._visit.console.entries.of)
        entry = next(each for each in entries if each["target"] == key)
        replicas, waits = entry["replicas"], waits_for(entry)
        found = (state.held, state.held_reason, versions, active, previous, replicas, waits)
        if found == self._shown:
            return
        self._shown = found
        self._body.clear()
        with self._body:
            self._served(state, active, previous, replicas)
            if not versions:
                nothing("There are no versions yet.", "The first cycle that trains makes one.")
            for version in versions:
                self._version(version, active, waits)

    def _served(
        self,
        state: TargetState,
        active: Version | None,
        previous: Version | None,
        replicas: Mapping[str, str],
    ) -> None:
        name = active.id if active else "the base model"
        with ui.element("div").classes("line"):
            Tagged("strong", f"Serves {name}")
            if state.held:
                chip("on hold", "warn")
        for replica, problem in replicas.items():
            said = f"serves {name}" if problem == "ok" else problem
            with ui.element("div").classes("line"):
                Tagged("span", f"Replica {replica}: {said}").classes("" if problem == "ok" else "bad")
        if state.held:
            text(f"{state.held_by} put it on hold {moment(state.held_at)}: {state.held_reason}", "muted")
        if not self._visit.may_decide:
            return
        with ui.element("div").classes("line"):
            if active is not None:
                self._button("Roll back", self._roll_back(active, previous), "negative")
            if state.held:
                self._button("Release the hold", self._release())
            else:
                self._button("Hold", self._hold())

    def _version(self, version: Version, active: Version | None, waits: str) -> None:
        with labelled(ui.element("article"), version.id).classes("version"):
            with ui.element("div").classes("line"):
                heading(version.id, 3)
                chip(version.state)
                if version.drain_until:
                    chip("draining", "busy")
            if version.state is VersionState.PROBATION:
                text(f"Promising, and not proven. It waits for {waits}.")
            elif version.state is VersionState.READY:
                text("It passed every gate, and waits for somebody to promote it.")
            facts(_lineage(version))
            if not self._visit.may_decide or version.files_removed_at:
                return
            with ui.element("div").classes("line"):
                if version.state is VersionState.READY:
                    self._button("Promote", self._activate(version, active, overrules=False), "positive")
                elif version.state not in {VersionState.ACTIVE, VersionState.CANDIDATE}:
                    self._button("Activate", self._activate(version, active, overrules=True))
                if version.state in MAY_BE_REJECTED:
                    self._button("Reject", self._reject(version), "negative")

    def _button(self, words: str, ask: Callable[[], Awaitable[None]], color: str = "primary") -> None:
        ui.button(words, on_click=ask).props(f"no-caps outline color={color}")

    # ---- acts: each asks first, and says what will happen

    def _activate(
        self, version: Version, active: Version | None, *, overrules: bool
    ) -> Callable[[], Awaitable[None]]:
        console, target = self._visit.console, self._target
        replicas = [replica.name for replica in console.settings.replicas_of(target)]
        seen = active.id if active else None
        before = seen or "the base model"
        if replicas:
            means = [
                f"{version.id} is loaded on {_listed(replicas)} and probed there. Once every one answers as "
                f"it was trained to, it serves all requests for {target.key}, instead of {before}.",
                f"{before} stays loaded for {drain_time(console.settings).seconds} s more, so that no "
                "request is lost. If anything goes wrong before, nothing changes.",
            ]
        else:
            means = [
                f"Agents that ask for {target.key} are told of {version.id}, instead of {before}.",
                "Vectors of two versions do not mix: each agent builds its index anew before it moves over.",
            ]
        if overrules:
            means.insert(0, f"{version.id} is {version.state}: this overrules the verdict, in your name.")

        def do(actor: str, reason: str) -> Version:
            return activate(
                console.settings,
                console.store,
                version.id,
                actor=actor,
                reason=reason,
                clock=console.clock,
                instead_of=seen,
                ready_only=not overrules,
            )

        act = "Activate" if overrules else "Promote"
        return lambda: self._ask(f"{act} {version.id}", means, do, f"{version.id} is served.")

    def _reject(self, version: Version) -> Callable[[], Awaitable[None]]:
        console = self._visit.console
        means = [
            f"{version.id} does not go live by itself any more, and is not judged again. What is live stays "
            "live. It can still be activated later, in somebody's name."
        ]

        def do(actor: str, reason: str) -> Version:
            return reject(console.store, version.id, actor=actor, reason=reason, now=console.clock())

        return lambda: self._ask(f"Reject {version.id}", means, do, f"{version.id} is rejected.")

    def _roll_back(self, active: Version, previous: Version | None) -> Callable[[], Awaitable[None]]:
        console, target = self._visit.console, self._target
        to = previous.id if previous else "the base model"
        means = [
            f"{target.key} goes back from {active.id} to {to}, on the replicas that answer at once and on "
            "the others as soon as they do.",
            "The target is then on hold: nothing is promoted by itself until somebody releases it.",
        ]

        def do(actor: str, reason: str) -> str:
            rollback(
                console.settings,
                console.store,
                target,
                actor=actor,
                reason=reason,
                clock=console.clock,
                instead_of=active.id,
            )
            return to

        return lambda: self._ask(f"Roll back {target.key}", means, do, f"{to} is served.")

    def _hold(self) -> Callable[[], Awaitable[None]]:
        console, key = self._visit.console, self._target.key
        means = ["What is live stays live. Nothing is promoted by itself until somebody releases the target."]

        def do(actor: str, reason: str) -> str:
            console.store.hold(key, actor, reason, console.clock())
            return key

        return lambda: self._ask(f"Hold {key}", means, do, f"{key} is on hold.")

    def _release(self) -> Callable[[], Awaitable[None]]:
        console, key = self._visit.console, self._target.key
        means = ["The next version that is proven better is promoted by itself again."]

        def do(actor: str, _reason: str) -> str:
            console.store.release(key, actor=actor, now=console.clock())
            return key

        return lambda: self._ask(f"Release {key}", means, do, f"{key} is released.", why=False)

    async def _ask(
        self,
        act: str,
        means: Sequence[str],
        do: Callable[[str, str], object],
        said: str,
        *,
        why: bool = True,
    ) -> None:
        async def done(reason: str) -> bool:
            return await self._visit.act(lambda actor: do(actor, reason), said=said) is not None

        await asked(f"{act}?", means, act, why=why, do=done)
        await self.read()


def _lineage(version: Version) -> Mapping[str, Any]:
    return {
        "Trained by": Link(f"cycle {version.cycle_id}", f"/experiments/{version.cycle_id}"),
        "Parent": version.parent_id or "none: what was live then was the base model",
        "Base model": version.base_model,
        "Rank": version.rank,
        "Made": moment(version.created_at),
        "Activated": moment(version.activated_at) if version.activated_at else "never",
        "Files": f"removed {moment(version.files_removed_at)}" if version.files_removed_at else version.path,
    }


def _listed(names: Sequence[str]) -> str:
    return f"replica {names[0]}" if len(names) == 1 else f"replicas {', '.join(names)}"
