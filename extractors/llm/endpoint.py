"""The language model that writes proposals: where it is, what is asked of it, and how it fails."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import Field

from extractors.errors import LearndError
from extractors.values import Value

INTERNAL_HEADER = "x-learnd-internal"
"""`true` on each request: the gateway marks its span by it, and no example is ever made of that."""


class Endpoint(Value):
    """A model behind an OpenAI-compatible API. Its key is no part of it, and so is never written down."""

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
    """The language model does not take what it is sent."""

    def __init__(self, message: str, *, lasting: bool = False) -> None:
        super().__init__(message)
        self.lasting = lasting
        """Whether every other request would be refused as well."""


class UnusableReply(LearndError):
    """Nothing can be made of what the model wrote; says why, in words that are counted."""


@dataclass(frozen=True)
class Step:
    """One text of an example, and how it is asked for."""

    inputs: tuple[str, ...]
    """Names of what is given."""
    output: str
    """Name of what is written."""
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
    """What the model answered."""

    text: str
    cut_off: bool
    """Whether it ended at the limit of its length, not by itself."""
