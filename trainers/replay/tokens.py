"""Replay as tokens, as the chat template renders it."""

from typing import Any

from extractors.examples.types import Message
from trainers.models.chat_template import ChatTokens, render
from trainers.replay.examples import ReplayExample


def render_replay(tokenizer: Any, example: ReplayExample) -> ChatTokens:
    """Return the tokens of a question and of its answer, the end of the turn only after a whole answer.

    Raises TemplateUnusable.
    """
    asked = (Message(role="user", content=example.question),)
    found = render(tokenizer, asked, (), Message(role="assistant", content=example.answer))
    if example.is_whole:
        return found
    return ChatTokens(prompt_ids=found.prompt_ids, completion_ids=found.completion_ids[:-1])
