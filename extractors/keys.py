"""The keys by which prompts are known again, for records of every kind."""

from collections.abc import Mapping
from typing import Any

from extractors.examples.prompt_keys import prompt_key
from extractors.feedback.searches import query_key


def prompt_keys(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The normalised prompts of a record with these `fields`, by the field that keeps them."""
    if "messages" in fields:
        said = fields["messages"]
        answers = [at for at, message in enumerate(said) if message.role == "assistant"]
        return {"prompt_keys": tuple(prompt_key(said[:at]) for at in answers)}
    if "prompt" in fields:
        return {"prompt_key": prompt_key(fields["prompt"])}
    return {"prompt_key": query_key(fields["query"])}
