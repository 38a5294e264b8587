"""Bring a version up on every replica before agents ask for it, and take one down when they no longer do.

In between the store moves the alias. In this order a swap loses no request: load, probe, (flip,) drain,
unload.

The files of a version must stay in place while any replica serves it: vLLM evicts idle adapters, reads the
folder again at the next request, and exits if it is gone.
"""

from collections.abc import Sequence
from pathlib import Path

from evaluation.engine.probe_record import ProbeRecord
from extractors.errors import LearndError
from registry.serving.probing import ProbeFailed, ProbeResult, probe
from registry.serving.replica import Replica, ReplicaRefused, ReplicaUnreachable


class NotServed(LearndError):
    """A version could not be brought up on every replica; now it is on none of them."""

    def __init__(self, version_id: str, failures: dict[str, LearndError]) -> None:
        self.failures = failures
        """The failure by replica name."""
        listed = "; ".join(f"{name}: {what}" for name, what in failures.items())
        super().__init__(f"{version_id} is not served: {listed}")

    @property
    def refuted(self) -> bool:
        """True if a replica serves something else under this name than the trained adapter."""
        return any(isinstance(failure, ProbeFailed) for failure in self.failures.values())


class NotServedYet(NotServed):
    """Every replica that failed does not answer, or has no room, at the moment; later it may."""


class NoRoom(ReplicaRefused):
    """A replica serves as many adapters as fit."""


def bring_up(
    replicas: Sequence[Replica], version_id: str, path: Path, record: ProbeRecord
) -> dict[str, ProbeResult]:
    """Load the adapter in `path` on every replica and probe it there; returns the results by replica name.

    If one replica fails, those that loaded it in this call unload it again, and NotServed lists the
    failures (NotServedYet where another try later may succeed). Called again for a version that is up, it
    only probes.
    """
    results: dict[str, ProbeResult] = {}
    failures: dict[str, LearndError] = {}
    loaded_here: list[Replica] = []
    for replica in replicas:
        try:
            if version_id not in replica.list_adapters():
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
    """Check that one more adapter fits into a batch with those that are loaded. Raises NoRoom.

    vLLM accepts a load beyond that and then makes requests for different adapters wait for each other.
    """
    most = replica.read_max_loras()
    loaded = sorted(replica.list_adapters())
    if most is not None and len(loaded) >= most:
        raise NoRoom(
            f"replica {replica.name} has --max-loras {most} and serves {', '.join(loaded)}; a swap "
            "needs one more: wait for an old version to drain, unload what is not needed, or restart vLLM "
            "with a larger --max-loras"
        )


def take_down(replica: Replica, name: str) -> bool:
    """Unload `name` unless a request for it is in flight; returns True if it is not served any more.

    Where the server keeps no statistics, the caller's drain time must suffice; vLLM answers requests that
    it has accepted in any case.
    """
    if name in (replica.list_busy_adapters() or ()):
        return False
    replica.unload(name)
    return True


def _withdraw(replicas: Sequence[Replica], version_id: str) -> None:
    for replica in replicas:
        try:
            replica.unload(version_id)
        except (ReplicaUnreachable, ReplicaRefused):
            # No agent asks for this version, and the reconciler unloads it once the replica answers.
            continue
