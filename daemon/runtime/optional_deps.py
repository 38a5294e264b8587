"""Which extra brings what a command needs."""

from importlib.util import find_spec

from extractors.errors import LearndError


class ExtraMissing(LearndError):
    """A command needs libraries that this installation does not have."""


def require_extra(extra: str, *modules: str) -> None:
    """Raises ExtraMissing, naming the extra to install, where one of `modules` is not there."""
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise ExtraMissing(
            f"this command needs {', '.join(missing)}; install it with: pip install 'learnd[{extra}]'"
        )
