"""Frozen values, content ids and counts of reasons, which every stage shares.

Stages hand each other frozen pydantic values. A step that keeps some of its input returns
what it kept, and `Reasons` for the rest.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict

Reasons = Counter[StrEnum]
"""How many things were left out or dropped, by reason."""


class Value(BaseModel):
    """A frozen value; a key it does not know is an error, never ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with changes, without what was computed from the old content (a cached id)."""
        copied = super().model_copy(update=update, deep=deep)
        for name in copied.__dict__.keys() - type(self).model_fields.keys():
            del copied.__dict__[name]
        return copied


Record = TypeVar("Record", bound=Value)


def content_id(content: Any) -> str:
    """Return a hex digest (32 characters) of JSON-serialisable `content`: equal content, equal id."""
    canonical = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hex. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
