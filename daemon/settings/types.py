"""Types that the settings share: slugs, ports, URLs, secrets."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr

from extractors.errors import LearndError
from extractors.values import Value

Slug = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
"""A name of lower-case letters, digits, `-` and `_`, which becomes part of model and folder names."""
Port = Annotated[int, Field(ge=1, le=65535)]
EVERY_ADDRESS = frozenset({"0.0.0.0", "::"})  # noqa: S104 - nobody is reached by these
"""Addresses that stand for all of a machine's own, where a server listens."""


class SettingsError(LearndError):
    """The settings are missing or wrong."""


def check_url(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise ValueError("must begin with http:// or https://")
    return url.rstrip("/")


Url = Annotated[str, AfterValidator(check_url)]


class WithApiKey(Value):
    """A server that may require an API key."""

    api_key: SecretStr | None = None
    """The server's API key. It is read from the environment only; in the file it is an error."""
    api_key_file: Path | None = None
    """A file that contains the API key. Without it and without `api_key`, no key is sent."""

    def read_key(self) -> str | None:
        """Return the key, or None. Raises SettingsError when the file cannot be read."""
        if self.api_key is not None:
            return self.api_key.get_secret_value()
        return read_secret(self.api_key_file) if self.api_key_file else None


def read_lines(key: str, path: Path | None, form: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the words of each line of a file with secrets, and where the line stands.

    `form` names the words of a line, such as `TOKEN TENANT`. Raises SettingsError for any other line.
    """
    for number, line in enumerate(read_secret(path).splitlines() if path else (), start=1):
        words = line.split("#")[0].split()
        where = f"{key}: line {number} of {path}"
        if words and len(words) != len(form.split()):
            raise SettingsError(f"{where} is not `{form}`")
        if words:
            yield where, words


def read_secret(path: Path) -> str:
    """Return the content of a secret's file, without surrounding white space. Raises SettingsError."""
    try:
        return path.read_text("utf-8").strip()
    except OSError as unreadable:
        raise SettingsError(f"cannot read the secret in {path}: {unreadable.strerror}") from None
