"""The daemon's answer about a target: as a value, and as a file for the next process."""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True)
class ActiveVersion:
    """The version, or the base model, that answers for a target now.

    The daemon's side of the same wire type is `ActiveVersionAnswer` of its agents' routes.
    """

    target: str
    model: str
    """The name to ask a replica for: the version, or the base model's name."""
    version: str | None
    """None while the base model serves."""
    replicas: tuple[str, ...]
    """Base URLs without `/v1`."""
    files: Mapping[str, str]
    """The adapter's files: name to SHA-256."""

    @property
    def base_url(self) -> str:
        """The first replica's URL for an OpenAI client; empty where there is none."""
        return f"{self.replicas[0]}/v1" if self.replicas else ""

    @property
    def fields(self) -> dict[str, Any]:
        """The value as JSON."""
        return {**asdict(self), "replicas": list(self.replicas), "files": dict(self.files)}

    @property
    def content_id(self) -> str:
        """Digest of the files' content: 32 hexadecimal digits."""
        manifest = json.dumps(dict(self.files), sort_keys=True)
        return hashlib.sha256(manifest.encode()).hexdigest()[:32]

    @classmethod
    def from_answer(cls, answer: Mapping[str, Any]) -> Self:
        """Read the daemon's answer. Raises KeyError, TypeError or ValueError for any other JSON."""
        return cls(
            target=str(answer["target"]),
            model=str(answer["model"]),
            version=None if answer["version"] is None else str(answer["version"]),
            replicas=tuple(str(replica["url"]).rstrip("/") for replica in answer["replicas"]),
            files={str(name): str(digest) for name, digest in dict(answer["files"]).items()},
        )


def keep_version(folder: Path, url: str, resolved: ActiveVersion) -> None:
    """Write what is active to a file, for an agent that starts while the daemon is down.

    A file that cannot be written is no error.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder, suffix=".partial")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(resolved.fields, file)
        Path(name).replace(_find_kept_file(folder, url, resolved.target))
    except OSError:
        return


def read_kept_version(folder: Path, url: str, target: str) -> ActiveVersion | None:
    """Return what was active when the daemon answered last; None where no readable file is kept."""
    try:
        kept = json.loads(_find_kept_file(folder, url, target).read_text("utf-8"))
        return ActiveVersion.from_answer(
            {**kept, "replicas": [{"url": replica} for replica in kept["replicas"]]}
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _find_kept_file(folder: Path, url: str, target: str) -> Path:
    name = hashlib.sha256(f"{url} {target}".encode()).hexdigest()[:32]
    return folder / f"{name}.json"
