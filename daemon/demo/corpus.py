"""The demo's traffic: what customers write to a support desk, each with the destination it belongs to.

The corpus beside this file was written for the demo. `DEMO_CORPUS` names another one: JSON lines
`{"text": …, "label": …}`, whose labels become the destinations.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import StringConstraints, ValidationError

from extractors.errors import LearndError
from extractors.values import Value, content_id

LEAST_REQUESTS = 200
LEAST_LABELS = 2
OWN_CORPUS = Path(__file__).with_name("corpus.jsonl")
SYSTEM_PROMPT = (
    "You route customer messages. Destinations: {destinations}. "
    "Answer with the one destination that fits the message, and nothing else."
)


class CorpusError(LearndError):
    """A corpus file that cannot be read, has a bad line, or is too small for the demo."""


class CustomerRequest(Value):
    """A customer's message, with the destination to which it belongs."""

    text: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)]
    label: Annotated[
        str, StringConstraints(strip_whitespace=True, max_length=64, pattern=r"^([^,\n.]|\.\S)+$")
    ]
    """The destination, as the agent should answer it. Commas separate the destinations in the
    system prompt, and the end of a sentence ends an answer: neither can stand within a label."""

    @property
    def normalised(self) -> str:
        """The text with case and white space folded, to compare it."""
        return " ".join(self.text.casefold().split())


def load_corpus(path: Path | None = None) -> list[CustomerRequest]:
    """Return the requests in `path`, or the demo's own, in an order that mixes the labels.

    The order depends on the texts alone, so a file that is sorted by label does as well as a
    shuffled one; a text that comes again with the same label counts once. Raises CorpusError,
    with the line, for one that is not a request or contradicts another, and for fewer than
    200 requests or 2 labels.
    """
    path = path or OWN_CORPUS
    requests = _read_distinct(path)
    labels = list_labels(requests)
    if len(requests) < LEAST_REQUESTS or len(labels) < LEAST_LABELS:
        raise CorpusError(
            f"{path} has {len(requests)} different requests and {len(labels)} labels; "
            f"the demo needs at least {LEAST_REQUESTS} and {LEAST_LABELS}"
        )
    return sorted(requests, key=lambda request: content_id(request.normalised))


def list_labels(requests: Sequence[CustomerRequest]) -> list[str]:
    """Return the destinations in alphabetical order."""
    return sorted({request.label for request in requests})


def build_system_prompt(labels: Sequence[str]) -> str:
    """Return the agent's system prompt, which names the destinations."""
    return SYSTEM_PROMPT.format(destinations=", ".join(labels))


def _read_distinct(path: Path) -> list[CustomerRequest]:
    seen: dict[str, tuple[int, CustomerRequest]] = {}
    for number, request in _read_lines(path):
        first_number, first = seen.setdefault(request.normalised, (number, request))
        if first.label != request.label:
            raise CorpusError(
                f"{path} line {number}: the text of line {first_number} comes again with another label, "
                f"{request.label!r} instead of {first.label!r}; keep the right one"
            )
    return [request for _, request in seen.values()]


def _read_lines(path: Path) -> Iterator[tuple[int, CustomerRequest]]:
    """Yield the requests with their line numbers, from 1. Blank lines are skipped."""
    try:
        # utf-8-sig: editors on Windows begin a file with a byte-order mark.
        content = path.read_text("utf-8-sig")
    except OSError as unreadable:
        raise CorpusError(f"cannot read the corpus {path}: {unreadable.strerror}") from None
    except UnicodeDecodeError as broken:
        raise CorpusError(f"the corpus {path} is not UTF-8 text: {broken}") from None
    # Not splitlines(): JSON text may hold other line separators, such as U+2028, as they are.
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            yield number, CustomerRequest.model_validate_json(line)
        except ValidationError as wrong:
            raise CorpusError(
                f'{path} line {number} is not {{"text": "…", "label": "…"}}: {_explain(wrong)}'
            ) from None


def _explain(wrong: ValidationError) -> str:
    return "; ".join(" ".join([*map(str, error["loc"]), error["msg"]]) for error in wrong.errors())
