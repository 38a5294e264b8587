"""The store: everything learnd remembers, behind one object that any thread may use."""

from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from registry.store.activation import ActivationRecords
from registry.store.audit import AuditRecords
from registry.store.backup import back_up
from registry.store.batches import BatchRecords
from registry.store.cycles import CycleRecords
from registry.store.database import create_sqlite_engine
from registry.store.demand import DemandRecords
from registry.store.migrate import migrate
from registry.store.mirror import MirrorRecords
from registry.store.notices import NoticeRecords
from registry.store.targets import TargetRecords
from registry.store.versions import VersionRecords


class Store(
    MirrorRecords,
    TargetRecords,
    CycleRecords,
    DemandRecords,
    VersionRecords,
    ActivationRecords,
    BatchRecords,
    NoticeRecords,
    AuditRecords,
):
    """One database in a data directory; several processes may have it open at once."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__(create_sqlite_engine(data_dir / "learnd.db"))
        self._data_dir = data_dir

    @classmethod
    def open(cls, data_dir: Path, now: datetime) -> Self:
        """The store in `data_dir`, made or migrated where it must be; a back-up comes first.

        Raises DatabaseTooNew, DatabaseUnreadable and MigrationFailed.
        """
        data_dir.mkdir(parents=True, exist_ok=True)
        migrate(data_dir / "learnd.db", data_dir / "backups", now)
        return cls(data_dir)

    def back_up(self, now: datetime) -> Path:
        """Copy the database into `backups/`; returns the copy."""
        return back_up(self._data_dir / "learnd.db", self._data_dir / "backups", now)

    def close(self) -> None:
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
