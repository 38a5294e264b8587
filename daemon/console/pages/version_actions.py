"""The actions on a target's versions. Each asks the operator first, and says what it means."""

from collections.abc import Awaitable, Callable, Sequence

from daemon.console.base.confirm import confirm
from daemon.console.base.context import ConsoleContext
from daemon.console.base.page_session import PageSession
from daemon.serving.promotion import Promoter, drain_time, reject
from daemon.settings.target import TargetSettings
from registry.versions import Version

Action = Callable[[], Awaitable[None]]
"""Called by a button."""
BASE_MODEL = "the base model"


class VersionActions:
    """Actions on one target's versions, in the name of the person on the page."""

    def __init__(
        self,
        session: PageSession,
        console: ConsoleContext,
        target: TargetSettings,
        refresh: Callable[[], Awaitable[None]],
    ) -> None:
        """`refresh` is called after each question, whether or not something was done."""
        self._session = session
        self._console = console
        self._target = target
        self._refresh = refresh

    def activate(self, version: Version, active: Version | None, *, overrules: bool) -> Action:
        """Return the action that serves `version` instead of `active`.

        `overrules` is for versions that did not pass every gate.
        """
        console = self._console
        seen = active.id if active else None

        def do(actor: str, reason: str) -> Version:
            promoter = Promoter(console.settings, console.store, console.clock)
            return promoter.activate(
                version.id, actor=actor, reason=reason, instead_of=seen, ready_only=not overrules
            )

        consequences = self._describe_activation(version, seen or BASE_MODEL)
        if overrules:
            consequences.insert(
                0, f"{version.id} is {version.state}: this overrules the verdict, in your name."
            )
        title = f"{'Activate' if overrules else 'Promote'} {version.id}"
        return lambda: self._ask(title, consequences, do, f"{version.id} is served.")

    def reject(self, version: Version) -> Action:
        """Return the action that rejects a version which waits."""
        console = self._console
        consequences = [
            f"{version.id} is not promoted automatically any more, and is not judged again. What is live "
            "stays live. It can still be activated later, in somebody's name."
        ]

        def do(actor: str, reason: str) -> Version:
            return reject(console.store, version.id, actor=actor, reason=reason, now=console.clock())

        return lambda: self._ask(f"Reject {version.id}", consequences, do, f"{version.id} is rejected.")

    def roll_back(self, active: Version, previous: Version | None) -> Action:
        """Return the action that serves `previous` (None: the base model) again instead of `active`."""
        console, target = self._console, self._target
        to = previous.id if previous else BASE_MODEL
        consequences = [
            f"{target.key} goes back from {active.id} to {to}, on the replicas that answer at once and on "
            "the others as soon as they do.",
            "The target is then on hold: nothing is promoted automatically until somebody releases it.",
        ]

        def do(actor: str, reason: str) -> str:
            promoter = Promoter(console.settings, console.store, console.clock)
            promoter.roll_back(target, actor=actor, reason=reason, instead_of=active.id)
            return to

        return lambda: self._ask(f"Roll back {target.key}", consequences, do, f"{to} is served.")

    def hold(self) -> Action:
        """Return the action that stops automatic promotion."""
        console, key = self._console, self._target.key
        consequences = [
            "What is live stays live. Nothing is promoted automatically until somebody releases the target."
        ]

        def do(actor: str, reason: str) -> str:
            console.store.hold(key, actor, reason, console.clock())
            return key

        return lambda: self._ask(f"Hold {key}", consequences, do, f"{key} is on hold.")

    def release(self) -> Action:
        """Return the action that allows automatic promotion again."""
        console, key = self._console, self._target.key
        consequences = ["The next version that is proven better is promoted automatically again."]

        def do(actor: str, _reason: str) -> str:
            console.store.release(key, actor=actor, now=console.clock())
            return key

        return lambda: self._ask(f"Release {key}", consequences, do, f"{key} is released.", reason=False)

    def _describe_activation(self, version: Version, before: str) -> list[str]:
        settings, key = self._console.settings, self._target.key
        replicas = [replica.name for replica in settings.find_replicas(self._target)]
        if not replicas:
            return [
                f"Agents that ask for {key} are told of {version.id}, instead of {before}.",
                "Vectors of two versions do not mix: each agent builds its index anew before it moves over.",
            ]
        named = f"replica {replicas[0]}" if len(replicas) == 1 else f"replicas {', '.join(replicas)}"
        return [
            f"{version.id} is loaded on {named} and probed there. Once every one answers as "
            f"it was trained to, it serves all requests for {key}, instead of {before}.",
            f"{before} stays loaded for {drain_time(settings).seconds} s more, so that no "
            "request is lost. If anything goes wrong before, nothing changes.",
        ]

    async def _ask(
        self,
        title: str,
        consequences: Sequence[str],
        do: Callable[[str, str], object],
        success: str,
        *,
        reason: bool = True,
    ) -> None:
        async def act(written: str) -> bool:
            return await self._session.act(lambda actor: do(actor, written), success=success) is not None

        await confirm(f"{title}?", consequences, title, reason=reason, do=act)
        await self._refresh()
