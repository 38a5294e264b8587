"""The parts of the daemon that the console's pages use: the same as the API and the command line."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from starlette.requests import HTTPConnection

from daemon.access.accounts import Operators
from daemon.console.base.cache import TtlCache
from daemon.console.base.page_session import PageSession
from daemon.data.review import BatchReview
from daemon.runtime.context import TargetContext
from daemon.settings.load import Settings
from daemon.views.data_summary import TargetData
from daemon.views.status import Health, RunningTargetStatus, read_running_status
from registry.store.store import Store

DATA_SECONDS = 60.0
"""How long pages share what was read of a target's data."""
STATUS_SECONDS = 0.9


@dataclass(frozen=True)
class ConsoleContext:
    """The daemon's parts. Each page hands its sections the ones that they use."""

    settings: Settings
    store: Store
    health: Health
    operators: Operators
    clock: Callable[[], datetime]
    """Aware UTC."""

    @property
    def review(self) -> BatchReview:
        """Reading and deciding batches of synthetic examples."""
        return BatchReview(self.settings, self.store, self.clock)

    @cached_property
    def data(self) -> TtlCache[TargetData]:
        """A target's data, by its key."""
        return TtlCache(self._read_data, DATA_SECONDS)

    @cached_property
    def statuses(self) -> TtlCache[list[RunningTargetStatus]]:
        """Every target's status, with what its jobs last found."""
        return TtlCache(self._read_statuses, STATUS_SECONDS)

    def open_session(self, request: HTTPConnection) -> PageSession:
        """Return the session of the page that `request` opens."""
        return PageSession.from_request(self.operators, self.clock, request)

    def _read_data(self, key: str) -> TargetData:
        return TargetData.read(
            TargetContext(self.settings, self.settings.find_target(key), self.store, self.clock)
        )

    def _read_statuses(self, _: str) -> list[RunningTargetStatus]:
        return read_running_status(self.settings, self.store, self.health)
