"""Reconcile a replica with the versions that it should serve, so that a restarted replica heals."""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from extractors.values import Value
from registry.adapter_files import AdapterChanged, check_adapter_files
from registry.serving.replica import Replica, ReplicaRefused
from registry.serving.swap import take_down
from registry.targets import slug


class DesiredAdapter(Value):
    """A version that every replica of its target should serve."""

    name: str
    """`tenant.agent.v7`."""
    path: Path
    """Its adapter folder, as learnd sees it."""
    files: dict[str, str]
    """File name to SHA-256."""


class AdapterDifference(Value):
    """The adapters to load and to unload on one replica."""

    loads: tuple[str, ...]
    unloads: tuple[str, ...]


class ReconcileResult(Value):
    """The result of one pass on one replica."""

    loaded: tuple[str, ...] = ()
    unloaded: tuple[str, ...] = ()
    busy: tuple[str, ...] = ()
    """Versions that are not wanted any more, but have a request in flight; the next pass looks again."""
    refused: dict[str, str] = {}
    """Reason why a version was not loaded or unloaded, by version."""

    @property
    def changed(self) -> bool:
        return bool(self.loaded or self.unloaded)


def find_difference(
    wanted: Mapping[str, str], actual: Mapping[str, str], targets: Collection[str]
) -> AdapterDifference:
    """Return what to load and unload to get from `actual` to `wanted`, which map a name to the server's path.

    Only versions of `targets` (`tenant/agent`) are ever unloaded: other adapters are other people's.
    A version that is served from another path than wanted is unloaded and loaded.
    """
    ours = {name for name in actual if _is_version_of(name, targets)}
    return AdapterDifference(
        loads=tuple(sorted(name for name, path in wanted.items() if actual.get(name) != path)),
        unloads=tuple(sorted(name for name in ours if wanted.get(name) != actual[name])),
    )


def reconcile(
    replica: Replica, wanted: Sequence[DesiredAdapter], targets: Collection[str]
) -> ReconcileResult:
    """Unload what is idle and not wanted, and load what is missing. Raises ReplicaUnreachable.

    A version that the replica refuses, or whose files have changed, does not keep the others from being
    served.
    """
    paths = {each.name: each.path for each in wanted}
    files = {each.name: each.files for each in wanted}
    todo = find_difference(
        {name: replica.to_remote_path(path) for name, path in paths.items()}, replica.list_adapters(), targets
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
            check_adapter_files(paths[name], files[name])
            replica.load(name, paths[name])
            loaded.append(name)
        except (AdapterChanged, ReplicaRefused) as error:
            refused[name] = str(error)
    return ReconcileResult(loaded=tuple(loaded), unloaded=tuple(unloaded), busy=tuple(busy), refused=refused)


def _is_version_of(name: str, targets: Collection[str]) -> bool:
    """Return True if `name` is a version of one of `targets`, as `acme.routing.v7` is of `acme/routing`."""
    return any(re.fullmatch(re.escape(slug(target)) + r"\.v\d+", name) for target in targets)
