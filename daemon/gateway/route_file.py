"""The routes last known, in the gateway's own folder: it starts from them where the daemon is down."""

import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ValidationError

from daemon.runtime.gateway_routes import GatewayRoutes
from extractors.errors import LearndError

NAME = "routes.json"
TEMPORARY = f".{NAME}."
"""How the names of files begin that are being written."""
LEFT_SECONDS = 60.0
"""Age at which nobody is writing such a file any more."""


class StateDirUnusable(LearndError):
    """The gateway's own folder cannot be made or written."""


class RoutesDamaged(LearndError):
    """The file of the routes is not as the gateway wrote it."""


class _Content(BaseModel):
    tag: str
    """The tag of `routes`, by which damage is noticed."""
    known: GatewayRoutes


class RouteFile:
    """A file in `state_dir`, readable by the gateway's user alone."""

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / NAME

    def prepare(self) -> None:
        """Make the folder where it is new. Raises StateDirUnusable."""
        folder = self.path.parent
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as problem:
            raise StateDirUnusable(
                f"gateway.state_dir: {folder} cannot be made: {problem.strerror}"
            ) from problem
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            raise StateDirUnusable(
                f"gateway.state_dir: user {os.geteuid()} may not write to {folder}; "
                "change its owner, or the mount"
            )
        self._remove_leftovers()

    def read(self) -> GatewayRoutes | None:
        """Return the routes; None where none were written yet. Raises RoutesDamaged, OSError."""
        try:
            content = _Content.model_validate_json(self.path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as wrong:
            raise RoutesDamaged(f"{self.path} cannot be read as routes") from wrong
        if content.known.tag != content.tag:
            raise RoutesDamaged(f"{self.path} does not have the digest with which it was written")
        return content.known

    def write(self, routes: GatewayRoutes) -> None:
        """Replace the routes in one step, so that a crash leaves the ones before. Raises OSError."""
        content = _Content(tag=routes.tag, known=routes).model_dump_json().encode()
        # Gateways that share the folder may have one process id, each in a container of its own.
        descriptor, temporary = tempfile.mkstemp(prefix=TEMPORARY, dir=self.path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(self.path)
        finally:
            Path(temporary).unlink(missing_ok=True)

    def _remove_leftovers(self) -> None:
        """Remove what gateways that were killed have not finished, and not what another is writing."""
        for left in self.path.parent.glob(f"{TEMPORARY}*"):
            with suppress(OSError):
                if time.time() - left.stat().st_mtime > LEFT_SECONDS:
                    left.unlink()
