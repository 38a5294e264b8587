"""What should be served against what a replica serves, for ever: a restarted replica heals itself."""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from extractors.values import Value
from registry.serving.replica import Replica, ReplicaRefused
from registry.serving.swap import take_down
from registry.targets import slug


class DesiredAdapter(Value):
    """A version that every replica of its target should serve."""

    name: str
    """`tenant.agent.v7`."""
    path: Path
    """Its adapter folder, as we see it."""


class AdapterDifference(Value):
    """What to do on one replica."""

    loads: tuple[str, ...]
    unloads: tuple[str, ...]


class ReconcileResult(Value):
    """What one pass did on one replica."""

    loaded: tuple[str, ...] = ()
    unloaded: tuple[str, ...] = ()
    busy: tuple[str, ...] = ()
    """Not wanted any more, but a request is in flight; the next pass looks again."""
    refused: dict[str, str] = {}
    """Version to why the replica would not load or unload it."""

    @property
    def changed(self) -> bool:
        return bool(self.loaded or self.unloaded)


def find_difference(
    wanted: Mapping[str, str], actual: Mapping[str, str], targets: Collection[str]
) -> AdapterDifference:
    """Both map a name to the server's path; `targets` (`tenant/agent`) are those we answer for.

    Only versions of these targets are ever unloaded: other adapters are other people's.
    A version that is served from another path than wanted is unloaded and loaded.
    """
    ours = {name for name in actual if _belongs(name, targets)}
    return AdapterDifference(
        loads=tuple(sorted(name for name, path in wanted.items() if actual.get(name) != path)),
        unloads=tuple(sorted(name for name in ours if wanted.get(name) != actual[name])),
    )


def reconcile(
    replica: Replica, wanted: Sequence[DesiredAdapter], targets: Collection[str]
) -> ReconcileResult:
    """Unload what is not wanted and idle, load what is missing. Raises ReplicaUnreachable.

    One version that the replica refuses does not keep the others from being served.
    """
    paths = {each.name: each.path for each in wanted}
    todo = find_difference(
        {name: replica.remote_path(path) for name, path in paths.items()}, replica.adapters(), targets
    )
    refused: dict[str, str] = {}
    unloaded: list[str] = []
    busy: list[str] = []
    loaded: list[str] = []
    for name in todo.unloads:
        try:
            (unloaded if take_down(replica, name) else busy).append(name)
        except ReplicaRefused as error:
            refused[name] = str(error)
    for name in todo.loads:
        if name in busy:
            continue
        try:
            replica.load(name, paths[name])
            loaded.append(name)
        except ReplicaRefused as error:
            refused[name] = str(error)
    return ReconcileResult(loaded=tuple(loaded), unloaded=tuple(unloaded), busy=tuple(busy), refused=refused)


def _belongs(name: str, targets: Collection[str]) -> bool:
    """Whether `name` is a version of one of `targets`: `acme.routing.v7` of `acme/routing`."""
    return any(re.fullmatch(re.escape(slug(target)) + r"\.v\d+", name) for target in targets)
