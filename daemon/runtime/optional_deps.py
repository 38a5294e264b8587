"""Checks that the libraries of a command are installed, and names the extra that installs them."""

from importlib.util import find_spec

from extractors.errors import LearndError


class ExtraMissing(LearndError):
    """A command needs libraries that this installation does not have."""


def require_extra(extra: str, *modules: str) -> None:
    """Check that `modules` are installed. Raises ExtraMissing, which names the extra to install."""
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise ExtraMissing(
            f"this command needs {', '.join(missing)}; install it with: pip install 'learnd[{extra}]'"
        )
