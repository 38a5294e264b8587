"""A language model behind an endpoint: its address, the requests to it, and its failures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import Field

from extractors.errors import LearndError
from extractors.values import Value

INTERNAL_HEADER = "x-learnd-internal"
"""`true` on each request: the gateway marks the span by it, and no example is ever made of such a span."""


class Endpoint(Value):
    """A model behind an OpenAI-compatible API. Its key is not part of this value, so it is never stored."""

    model: str = Field(min_length=1)
    """As the endpoint names it."""
    url: str = Field(pattern="^https?://")
    """As OpenAI's clients take it: of a vLLM server, with `/v1`."""
    timeout_seconds: float = Field(60, gt=0)
    """Longest wait for an answer."""
    concurrency: int = Field(8, ge=1, le=256)
    """Calls at once."""


class EndpointUnreachable(LearndError):
    """The language model does not answer, or only with server errors; it may later."""


class EndpointRefused(LearndError):
    """The language model refuses the request."""

    def __init__(self, message: str, *, lasting: bool = False) -> None:
        super().__init__(message)
        self.lasting = lasting
        """Whether every other request would be refused as well."""


class UnusableReply(LearndError):
    """The model's reply cannot be used. The message is the reason; reasons are counted."""


@dataclass(frozen=True)
class Step:
    """One text of an example, and the prompt for it."""

    inputs: tuple[str, ...]
    """Names of the given texts."""
    output: str
    """Name of the text to write."""
    instructions: str
    inventive: bool
    """Whether answers should differ from call to call, rather than be right."""


@dataclass(frozen=True)
class StepRequest:
    """One request of a step."""

    shown: Sequence[Mapping[str, str]]
    """Demonstrations: inputs and output by name."""
    inputs: Mapping[str, str]
    temperature: float
    seed: int
    most_tokens: int


@dataclass(frozen=True)
class ModelReply:
    """The model's reply."""

    text: str
    cut_off: bool
    """Whether the limit of its length ended it, not the model."""
