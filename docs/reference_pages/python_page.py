"""What `import learnd` offers, read from the package."""

import inspect
import re
from collections.abc import Iterator
from typing import Any

import learnd
from reference_pages.markdown import GENERATED, code, prose

INTRO = """# Python

`pip install learnd` brings this, and httpx. `import learnd` loads nothing before it is used.

"""


def python_page() -> str:
    """Return the page as Markdown."""
    return (
        GENERATED
        + INTRO
        + "".join(part for name in learnd.__all__ for part in _describe(name, getattr(learnd, name)))
    )


def _describe(name: str, found: Any) -> Iterator[str]:
    yield f"## {code(name)}\n\n"
    if inspect.isclass(found) and issubclass(found, Exception):
        yield f"{prose(found.__doc__)}\n\n"
        yield from _errors(found)
        return
    shown = _signature(name, found)
    yield f"```python\n{shown}\n```\n\n{prose(found.__doc__)}\n\n"
    if not inspect.isclass(found):
        return
    for method, said in vars(found).items():
        public = said.fget if isinstance(said, property) else said
        if method.startswith("_") or not inspect.isfunction(public) or not public.__doc__:
            continue
        yield f"### {code(f'{name}.{method}')}\n\n"
        if not isinstance(said, property):
            yield f"```python\n{_signature(method, public)}\n```\n\n"
        yield f"{prose(public.__doc__)}\n\n"


def _signature(name: str, found: Any) -> str:
    """Return the signature as code, with an argument a line where it would be long."""
    signature = inspect.signature(found)
    parameters = [each for each in signature.parameters.values() if each.name != "self"]
    written = _short(f"{name}{signature.replace(parameters=parameters)}")
    if len(written) < 90:
        return written
    returned = written.rpartition(")")[2]
    lines, is_keyword = [], False
    for each in parameters:
        if each.kind is each.KEYWORD_ONLY and not is_keyword:
            lines.append("*")
            is_keyword = True
        lines.append(_short(str(each)))
    return f"{name}(\n" + "".join(f"    {line},\n" for line in lines) + f"){returned}"


def _short(written: str) -> str:
    """Annotations without the modules that they come from."""
    short = re.sub(r"(collections\.abc|typing|pathlib|datetime|learnd\.\w+)\.(?=[A-Za-z])|~", "", written)
    return re.sub(r"<built-in function (\w+)>", r"\1", short)


def _errors(root: type[Exception]) -> Iterator[str]:
    for each in root.__subclasses__():
        if each.__module__.startswith("learnd."):
            yield f"- {code(each.__name__)}: {prose(each.__doc__)}\n"
    yield "\n"
