"""The chat template up to the user's turn: an instruct model that goes on there writes the user's message.

This is how Magpie gets questions out of a model without any data (Xu et al. 2024, arXiv 2406.08464).
"""

from typing import Any

from extractors.values import Value
from trainers.models.chat_template import TemplateUnusable, apply_template

MARK = "LearndQuestion"
"""Stands for the user's message where the template is rendered."""


class OpenTurn(Value):
    """An open turn of the user."""

    ids: tuple[int, ...]
    """Tokens of the conversation up to the user's message."""
    end_token: int | None
    """The token that ends the user's turn, where a special one does."""
    end_text: str
    """The text that ends it."""


def open_user_turn(tokenizer: Any) -> OpenTurn:
    """Return the open user's turn of the tokenizer's chat template.

    Raises TemplateUnusable where the template does not simply frame a user's message.
    """
    text = apply_template(tokenizer, [{"role": "user", "content": MARK}], (), add_generation_prompt=False)
    before, *after = text.split(MARK)
    if len(after) != 1:
        raise TemplateUnusable("the chat template does not render a user's message once and as it is")
    end = after[0].strip()
    if not end:
        raise TemplateUnusable("the chat template does not mark the end of a user's message")
    first = tokenizer(end, add_special_tokens=False)["input_ids"][0]
    known = tokenizer.added_tokens_decoder.get(first)
    return OpenTurn(
        # A space before the message belongs to the message's first token.
        ids=tuple(tokenizer(before.rstrip(" "), add_special_tokens=False)["input_ids"]),
        end_token=first if known is not None and known.special else None,
        end_text=end.splitlines()[0],
    )
