"""The script, spoken by an agent that calls its SDK once for each answer."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from opentelemetry import trace

from tests.corpus import script
from tests.corpus.stand_in import StandIn


class Agent(Protocol):
    """One conversation of the agent, in an SDK's own words."""

    errors: type[Exception] | tuple[type[Exception], ...]
    """Classes of the errors with which the SDK reports a provider's failure."""

    def say(self, text: str, image: str | None = None) -> None:
        """Add what the user says; `image` is a PNG in base64."""

    def ask(self, *, streamed: bool = False, max_tokens: int | None = None) -> None:
        """Ask the model, and add its answer."""

    def run_tools(self) -> None:
        """Add the results of the tools that the last answer called."""


@contextmanager
def one_trace(name: str) -> Iterator[None]:
    """A root span, below which the block's calls are one trace."""
    with trace.get_tracer("harbour-office").start_as_current_span(name):
        yield


def speak(stand_in: StandIn, begin: Callable[[], Agent]) -> None:
    """Have all conversations that every SDK can have."""
    with one_trace("five turns"):
        speak_five_turns(stand_in, begin())
    with one_trace("cut off"):
        agent = begin()
        agent.say(script.CUT_OFF)
        stand_in.expect("cut off")
        agent.ask(max_tokens=script.CUT_OFF_TOKENS)
    with one_trace("streamed calls"):
        agent = begin()
        agent.say(script.CALLS_STREAMED)
        stand_in.expect("streamed calls")
        agent.ask(streamed=True)
        agent.run_tools()
        stand_in.expect("streamed results")
        agent.ask(streamed=True)


def speak_five_turns(stand_in: StandIn, agent: Agent) -> None:
    """Have the first conversation."""
    agent.say(script.PLAIN)
    stand_in.expect("plain")
    agent.ask()
    agent.say(script.CALLS)
    stand_in.expect("parallel calls")
    agent.ask()
    agent.run_tools()
    stand_in.expect("tool results")
    agent.ask()
    agent.say(script.STREAMED)
    stand_in.expect("streamed")
    agent.ask(streamed=True)
    agent.say(script.FAILED)
    stand_in.expect("error", "retry")
    try:
        agent.ask()
    except agent.errors:
        agent.ask()
    agent.say(script.PICTURED, script.IMAGE)
    stand_in.expect("image")
    agent.ask()
