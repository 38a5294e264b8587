"""Types that the settings share: slugs, ports, URLs, secrets."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr

from extractors.errors import LearndError
from extractors.values import Value

Slug = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
"""Lower-case letters, digits, `-` and `_`: part of model names and of folder names."""


Port = Annotated[int, Field(ge=1, le=65535)]


class SettingsError(LearndError):
    """The settings file is missing, or says something that cannot be right."""


def check_url(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise ValueError("must begin with http:// or https://")
    return url.rstrip("/")


Url = Annotated[str, AfterValidator(check_url)]


class WithApiKey(Value):
    """A service that may want a key: from the environment, or from the file named here."""

    api_key: SecretStr | None = None
    """Only from the environment; in the settings file it is an error."""
    api_key_file: Path | None = None
    """File whose content is the key."""

    def read_key(self) -> str | None:
        """The key, or None. Raises SettingsError when the file cannot be read."""
        if self.api_key is not None:
            return self.api_key.get_secret_value()
        return read_secret(self.api_key_file) if self.api_key_file else None


def read_lines(key: str, path: Path | None, form: str) -> Iterator[tuple[str, list[str]]]:
    """The words of each line of a secrets' file, and where it stands. Raises SettingsError."""
    for number, line in enumerate(read_secret(path).splitlines() if path else (), start=1):
        words = line.split("#")[0].split()
        where = f"{key}: line {number} of {path}"
        if words and len(words) != len(form.split()):
            raise SettingsError(f"{where} is not `{form}`")
        if words:
            yield where, words


def read_secret(path: Path) -> str:
    """Content of a secret's file, without the space around it. Raises SettingsError."""
    try:
        return path.read_text("utf-8").strip()
    except OSError as unreadable:
        raise SettingsError(f"cannot read the secret in {path}: {unreadable.strerror}") from None
