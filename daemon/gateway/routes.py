"""The routes from aliases to versions: what the daemon told last, for the targets of the settings."""

import logging
from collections.abc import Iterable, Mapping

from pydantic import SecretStr

from daemon.access.tokens import Caller
from daemon.runtime.gateway_routes import GatewayRoutes
from extractors.values import Value

log = logging.getLogger(__name__)


class ReplicaAddress(Value):
    """The address of one vLLM server."""

    name: str
    url: str
    """Base URL without `/v1` and without a slash at the end."""
    base_name: str
    """The name under which it serves the base model."""
    api_key: SecretStr | None = None


class ServedTarget(Value):
    """One alias as the settings have it."""

    target: str
    """`tenant/agent`: the alias that agents ask for."""
    tenant: str
    agent: str
    project: str
    """Phoenix project of the target's traces."""
    replicas: tuple[ReplicaAddress, ...]


class Route(ServedTarget):
    """The version and the replicas behind one alias now."""

    version: str | None
    """Active version, which is also its name on the replicas; None serves the base model."""

    def model_on(self, replica: ReplicaAddress) -> str:
        """Return the model's name on `replica`."""
        return self.version or replica.base_name


class RouteTable:
    """The routes of the targets that both the settings and the daemon know."""

    def __init__(self, targets: Iterable[ServedTarget]) -> None:
        self._targets = {target.target: target for target in targets}
        self._routes: Mapping[str, Route] | None = None
        self._mismatch: tuple[list[str], list[str]] = ([], [])

    @property
    def ready(self) -> bool:
        """True once it is known which versions are active."""
        return self._routes is not None

    def find(self, target: str, caller: Caller) -> Route | None:
        """Return the route of an alias; None where there is none, or the caller may not see it."""
        route = (self._routes or {}).get(target)
        return route if route and caller.may_see(route.tenant) else None

    def is_unknown_to_daemon(self, target: str, caller: Caller) -> bool:
        """Return True for a target of the settings, which the caller may see, of which nothing is known."""
        configured = self._targets.get(target)
        return (
            configured is not None
            and caller.may_see(configured.tenant)
            and target not in (self._routes or {})
        )

    def list_visible(self, caller: Caller) -> list[Route]:
        """Return the routes that the caller may see, sorted by alias."""
        routes = (self._routes or {}).values()
        return sorted((r for r in routes if caller.may_see(r.tenant)), key=lambda route: route.target)

    def update(self, told: GatewayRoutes) -> None:
        """Go by what the daemon tells from now on. Targets that only one of the two knows are logged."""
        self._routes = {
            key: Route(**{**dict(target), "version": told.routes[key].version})
            for key, target in self._targets.items()
            if key in told.routes
        }
        self._report_mismatch(told)

    def _report_mismatch(self, told: GatewayRoutes) -> None:
        """Log once which targets only one of the two knows."""
        ours, theirs = self._targets.keys(), told.routes.keys()
        mismatch = sorted(ours - theirs), sorted(theirs - ours)
        if mismatch == self._mismatch:
            return
        self._mismatch = mismatch
        for keys, what in (
            (mismatch[0], "the daemon does not know these targets of the gateway's settings"),
            (mismatch[1], "the gateway's settings do not name these targets of the daemon"),
        ):
            if keys:
                log.warning("%s, so they are not served: %s", what, ", ".join(keys))
