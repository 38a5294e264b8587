"""Chat messages as tokens, through the base model's chat template, exactly as a server renders them.

prompt      <|im_start|>user …<|im_end|> <|im_start|>assistant
completion                                                     billing<|im_end|>
"""

import json
from collections.abc import Sequence
from typing import Any

from extractors.errors import LearndError
from extractors.examples.types import Message
from extractors.values import Value


class TemplateUnusable(LearndError):
    """The chat template cannot express an example, or only in a way that cannot be trained."""


class TurnsUnstable(TemplateUnusable):
    """The chat template renders an earlier turn of a conversation differently than when it was the last."""


class ChatTokens(Value):
    """The tokens of one example."""

    prompt_ids: tuple[int, ...]
    """Tokens that the server makes of the messages, generation prompt included."""
    completion_ids: tuple[int, ...]
    """Tokens that the model must generate, the end of its turn included; empty without a completion."""


def render(
    tokenizer: Any,
    prompt: Sequence[Message],
    tools: Sequence[dict[str, Any]] = (),
    completion: Message | None = None,
) -> ChatTokens:
    """Render `prompt` to tokens, and `completion` to those that the model must generate after it.

    Raises TemplateUnusable if the template refuses the messages, if the whole conversation does not
    begin with the prompt as it is served, or if the template leaves out the tool calls.
    """
    prompt_text = _apply_template(tokenizer, prompt, tools, add_generation_prompt=True)
    prompt_ids = _tokenise(tokenizer, prompt_text)
    if completion is None:
        return ChatTokens(prompt_ids=prompt_ids, completion_ids=())
    whole = _apply_template(tokenizer, [*prompt, completion], tools, add_generation_prompt=False)
    if not whole.startswith(prompt_text):
        raise TemplateUnusable(
            "the chat template is not prefix-stable: a conversation with its answer does not begin with the "
            f"prompt as it is served, which ends {prompt_text[-60:]!r}; take another base model"
        )
    answer_text = whole[len(prompt_text) :]
    _check_tool_calls(completion, answer_text)
    whole_ids = _tokenise(tokenizer, whole)
    if whole_ids[: len(prompt_ids)] == prompt_ids:
        completion_ids = whole_ids[len(prompt_ids) :]
    else:
        # A token spans the border (an answer that begins with a newline): the prompt's tokens stay as served.
        completion_ids = _tokenise(tokenizer, answer_text)
    return ChatTokens(prompt_ids=prompt_ids, completion_ids=_cut_after_turn_end(tokenizer, completion_ids))


def _check_tool_calls(completion: Message, text: str) -> None:
    """Raise TemplateUnusable if `text`, the rendered completion, lacks one of its tool calls."""
    for call in completion.tool_calls:
        if call.name not in text:
            raise TemplateUnusable(
                f"the chat template leaves out tool calls (here of {call.name}), so nothing can be learned; "
                "take a base model whose template renders them"
            )


def render_conversation(
    tokenizer: Any,
    messages: Sequence[Message],
    tools: Sequence[dict[str, Any]],
    learned: Sequence[int],
) -> tuple[list[int], list[bool]]:
    """Render `messages` up to the last learned turn; return the tokens, and a mask of those that are learned.

    `learned` are indices of assistant turns; a turn's tokens and the one that ends it are learned. Many
    templates do not mark them (`{% generation %}`), so they are found by rendering: the whole
    conversation must begin with the prompt that the server got before each turn.

    Raises TurnsUnstable if it does not (a template that drops the thoughts of earlier turns): then
    each turn must become an example of its own. Raises TemplateUnusable as `render` does.
    """
    rendered = [render(tokenizer, messages[:turn], tools, messages[turn]) for turn in sorted(learned)]
    # The template may go on after the last turn's end, or not write that end.
    ids = (*rendered[-1].prompt_ids, *rendered[-1].completion_ids)
    mask = [False] * len(ids)
    for turn in rendered:
        until = (*turn.prompt_ids, *turn.completion_ids)
        if ids[: len(until)] != until:
            raise TurnsUnstable(
                "the chat template renders earlier turns of a conversation differently than they were served"
            )
        mask[len(turn.prompt_ids) : len(until)] = [True] * len(turn.completion_ids)
    return list(ids), mask


def _apply_template(
    tokenizer: Any,
    messages: Sequence[Message],
    tools: Sequence[dict[str, Any]],
    *,
    add_generation_prompt: bool,
) -> str:
    from jinja2 import TemplateError

    try:
        text: str = tokenizer.apply_chat_template(
            [_to_template_message(message) for message in messages],
            tools=list(tools) or None,
            add_generation_prompt=add_generation_prompt,
            tokenize=False,
        )
    except TemplateError as refused:
        raise TemplateUnusable(f"the base model's chat template refuses the messages: {refused}") from refused
    return text


def _to_template_message(message: Message) -> dict[str, Any]:
    """Convert a message as vLLM does for the template: arguments of tool calls are objects, not text."""
    chat = message.to_chat()
    for call in chat.get("tool_calls", ()):
        try:
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])
        except json.JSONDecodeError as broken:
            raise TemplateUnusable(
                f"the arguments of a call of {call['function']['name']} are not JSON ({broken})"
            ) from broken
    return chat


def _tokenise(tokenizer: Any, text: str) -> tuple[int, ...]:
    # The template writes the special tokens itself.
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def _cut_after_turn_end(tokenizer: Any, ids: tuple[int, ...]) -> tuple[int, ...]:
    """Return `ids` up to the end of the turn, which is appended if the template writes none."""
    special = {token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special}
    ends = [position for position, token_id in enumerate(ids) if token_id in special]
    if ends and not tokenizer.decode(ids[ends[-1] + 1 :]).strip():
        return ids[: ends[-1] + 1]
    return (*ids, tokenizer.eos_token_id)
