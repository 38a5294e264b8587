"""The routes from aliases to versions, as last read from the store."""

import asyncio
import logging
from collections.abc import Callable, Mapping

from pydantic import SecretStr

from daemon.access.tokens import Caller
from extractors.errors import LearndError
from extractors.values import Value
from registry.store.database import StatementRefused

log = logging.getLogger(__name__)


class ReplicaAddress(Value):
    """The address of one vLLM server."""

    name: str
    url: str
    """Base URL without `/v1` and without a slash at the end."""
    base_name: str
    """The name under which it serves the base model."""
    api_key: SecretStr | None = None


class Route(Value):
    """The version and the replicas behind one alias now."""

    target: str
    """`tenant/agent`: the alias that agents ask for."""
    tenant: str
    agent: str
    project: str
    """Phoenix project of the target's traces."""
    version: str | None
    """Active version, which is also its name on the replicas; None serves the base model."""
    replicas: tuple[ReplicaAddress, ...]

    def model_on(self, replica: ReplicaAddress) -> str:
        """Return the model's name on `replica`."""
        return self.version or replica.base_name


class RouteTable:
    """The routes last read. While the store cannot be read, the last known ones stay in force."""

    def __init__(self, read: Callable[[], Mapping[str, Route]]) -> None:
        self._read = read
        self._routes: Mapping[str, Route] | None = None

    @property
    def ready(self) -> bool:
        """True once the store has been read."""
        return self._routes is not None

    def find(self, target: str, caller: Caller) -> Route | None:
        """Return the route of an alias; None where there is none, or the caller may not see it."""
        route = (self._routes or {}).get(target)
        return route if route and caller.may_see(route.tenant) else None

    def list_visible(self, caller: Caller) -> list[Route]:
        """Return the routes that the caller may see, sorted by alias."""
        routes = (self._routes or {}).values()
        return sorted((r for r in routes if caller.may_see(r.tenant)), key=lambda route: route.target)

    async def refresh(self) -> None:
        """Read the store once, in a thread."""
        try:
            self._routes = await asyncio.to_thread(self._read)
        except (LearndError, StatementRefused, OSError, ValueError) as unreadable:
            log.warning(
                "cannot read which versions are active, the last known ones go on serving: %s", unreadable
            )

    async def keep_fresh(self, seconds: float) -> None:
        """Read the store every `seconds`, until cancelled."""
        while True:
            await asyncio.sleep(seconds)
            await self.refresh()
