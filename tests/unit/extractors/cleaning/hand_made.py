"""Hand-made examples of each kind."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from extractors.examples.prompt_keys import compute_prompt_key, normalise
from extractors.examples.types import (
    Document,
    Message,
    PreferencePair,
    SFTExample,
    ToolCall,
    Trajectory,
    Triplet,
    UnpairedPreference,
)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SYSTEM = Message(role="system", content="Name the department that answers the customer.")
CALL = Message(role="assistant", tool_calls=(ToolCall(name="find", arguments='{"order": 7}'),))


def user(text: str) -> Message:
    return Message(role="user", content=text)


def assistant(text: str) -> Message:
    return Message(role="assistant", content=text)


def make_prompt(text: str) -> dict[str, Any]:
    messages = (SYSTEM, user(text))
    return {"prompt": messages, "prompt_key": compute_prompt_key(messages)}


def at_minute(minute: int) -> dict[str, Any]:
    return {"started_at": NOON + timedelta(minutes=minute)}


def make_sft(text: str, answer: str = "billing", minute: int = 0) -> SFTExample:
    return SFTExample(completion=assistant(answer), **make_prompt(text), **at_minute(minute))


def make_pair(
    text: str, chosen: str = "billing", rejected: str = "shipping", minute: int = 0
) -> PreferencePair:
    return PreferencePair(
        chosen=assistant(chosen),
        rejected=assistant(rejected),
        preferred_by="correction",
        **make_prompt(text),
        **at_minute(minute),
    )


def make_vote(
    text: str, answer: str = "billing", desirable: bool = True, minute: int = 0
) -> UnpairedPreference:
    return UnpairedPreference(
        completion=assistant(answer), desirable=desirable, **make_prompt(text), **at_minute(minute)
    )


def make_triplet(query: str, positive: str = "yes", negative: str = "no", minute: int = 0) -> Triplet:
    documents = {"positive": Document(id="1", text=positive), "negative": Document(id="2", text=negative)}
    return Triplet(query=query, prompt_key=normalise(query), **documents, **at_minute(minute))


def make_conversation(*texts: str, learned: Sequence[int] | None = None, minute: int = 0) -> Trajectory:
    """Turns by turns of user and assistant, after a system prompt."""
    turns = [assistant(text) if number % 2 else user(text) for number, text in enumerate(texts)]
    messages = (SYSTEM, *turns)
    answers = [number for number, message in enumerate(messages) if message.role == "assistant"]
    return Trajectory(
        messages=messages,
        learned=tuple(answers if learned is None else learned),
        outcome="approved",
        prompt_keys=tuple(compute_prompt_key(messages[:number]) for number in answers),
        **at_minute(minute),
    )
