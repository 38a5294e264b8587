"""Bring a version up on every replica before anybody asks for it; take one down when nobody does.

Between the two the store moves the alias. That order is what makes a swap lose no request:
load, probe, (flip,) drain, unload.

The files of a version must stay where they are while any replica serves it: vLLM evicts adapters
that rest, reads the folder again at the next request, and ends when it is gone.
"""

from collections.abc import Sequence
from pathlib import Path

from evaluation.engine.probe_record import ProbeRecord
from extractors.errors import LearndError
from registry.serving.probing import ProbeFailed, ProbeResult, probe
from registry.serving.replica import Replica, ReplicaRefused, ReplicaUnreachable


class NotServed(LearndError):
    """A version could not be brought up on every replica; it is on none of them now."""

    def __init__(self, version_id: str, failures: dict[str, LearndError]) -> None:
        self.failures = failures
        """Replica name to what went wrong there."""
        listed = "; ".join(f"{name}: {what}" for name, what in failures.items())
        super().__init__(f"{version_id} is not served: {listed}")

    @property
    def refuted(self) -> bool:
        """A replica serves something else under this name than what was trained."""
        return any(isinstance(failure, ProbeFailed) for failure in self.failures.values())


class NotServedYet(NotServed):
    """Every replica that failed does not answer, or has no room, right now; later it may."""


class NoRoom(ReplicaRefused):
    """A replica serves as many adapters as it can."""


def bring_up(
    replicas: Sequence[Replica], version_id: str, path: Path, record: ProbeRecord
) -> dict[str, ProbeResult]:
    """Load the adapter in `path` on every replica and probe it there; result by replica name.

    All or nothing: where one replica fails, those that this call loaded unload it again, and
    NotServed lists what failed (NotServedYet where trying again later may help). Running it again
    for a version that is up only probes again.
    """
    results: dict[str, ProbeResult] = {}
    failures: dict[str, LearndError] = {}
    loaded_here: list[Replica] = []
    for replica in replicas:
        try:
            if version_id not in replica.adapters():
                require_room(replica)
                loaded_here.append(replica)
            replica.load(version_id, path)
            results[replica.name] = probe(replica, version_id, record)
        except (ReplicaUnreachable, ReplicaRefused, ProbeFailed) as error:
            failures[replica.name] = error
    if failures:
        _withdraw(loaded_here, version_id)
        passing = all(isinstance(failure, ReplicaUnreachable | NoRoom) for failure in failures.values())
        raise (NotServedYet if passing else NotServed)(version_id, failures)
    return results


def require_room(replica: Replica) -> None:
    """Raises NoRoom when one adapter more than loaded now would not fit into one batch.

    vLLM accepts such a load and then lets requests for different adapters wait for each other.
    """
    most = replica.max_loras()
    loaded = sorted(replica.adapters())
    if most is not None and len(loaded) >= most:
        raise NoRoom(
            f"replica {replica.name} has --max-loras {most} and serves {', '.join(loaded)}; a swap "
            "needs one more: wait for an old version to drain, unload what is not needed, or restart vLLM "
            "with a larger --max-loras"
        )


def take_down(replica: Replica, name: str) -> bool:
    """Unload `name` unless a request for it is in flight; True when it is not served any more.

    Where the server keeps no statistics, the caller's drain time must be enough; vLLM answers
    requests that it has accepted in any case.
    """
    if name in (replica.busy_adapters() or ()):
        return False
    replica.unload(name)
    return True


def _withdraw(replicas: Sequence[Replica], version_id: str) -> None:
    for replica in replicas:
        try:
            replica.unload(version_id)
        except (ReplicaUnreachable, ReplicaRefused):
            # Nobody asks for this version, and the reconciler unloads it when the replica can.
            continue
