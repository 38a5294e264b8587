"""Chat messages as tokens, through the base model's chat template, exactly as a server renders them.

prompt      <|im_start|>user …<|im_end|> <|im_start|>assistant
completion                                                     billing<|im_end|>
"""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from extractors.errors import LearndError
from extractors.examples.types import Message
from extractors.values import Value
from trainers.models.lost_parts import (
    Chat,
    LostPart,
    describe_lost_part,
    find_lost_part,
    replace_with_marks,
)


class TemplateUnusable(LearndError):
    """The chat template cannot express an example, or only in a way that cannot be trained."""


class PromptUnstable(TemplateUnusable):
    """The chat template renders the prompt differently once it is answered."""


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

    Thoughts are rendered where the template renders them after the prompt as it is served; elsewhere the
    completion is the answer alone. Raises TemplateUnusable if the template refuses
    the messages or leaves out a part of them, if arguments of a call are no JSON object, or if the whole
    conversation does not begin with the prompt as it is served.
    """
    try:
        return _render(tokenizer, prompt, tools, completion)
    except PromptUnstable:
        if completion is None or completion.reasoning is None:
            raise
        # The prompt as it is served has the model answer without thoughts.
        return _render(tokenizer, prompt, tools, completion.model_copy(update={"reasoning": None}))


def _render(
    tokenizer: Any, prompt: Sequence[Message], tools: Sequence[dict[str, Any]], completion: Message | None
) -> ChatTokens:
    """Render as `render` does. Raises PromptUnstable also where only the thoughts do not fit the prompt."""
    chats = _to_template_messages(prompt if completion is None else [*prompt, completion])
    asked = chats[: len(prompt)]
    prompt_text = apply_template(tokenizer, asked, tools, add_generation_prompt=True)
    prompt_ids = _tokenise(tokenizer, prompt_text)
    if completion is None:
        _check_shape(tokenizer, chats, tools, add_generation_prompt=True)
        _check_whole(asked, find_lost_part(asked, prompt_text))
        return ChatTokens(prompt_ids=prompt_ids, completion_ids=())
    whole = apply_template(tokenizer, chats, tools, add_generation_prompt=False)
    _check_shape(tokenizer, chats, tools, add_generation_prompt=False)
    if not whole.startswith(prompt_text):
        raise PromptUnstable(
            "the chat template is not prefix-stable: a conversation with its answer does not begin with the "
            f"prompt as it is served, which ends {prompt_text[-60:]!r}; take another base model"
        )
    answer_text = whole[len(prompt_text) :]
    _check_whole(asked, find_lost_part(asked, prompt_text))
    _check_whole(chats[-1:], find_lost_part(chats[-1:], answer_text))
    whole_ids = _tokenise(tokenizer, whole)
    if whole_ids[: len(prompt_ids)] == prompt_ids:
        completion_ids = whole_ids[len(prompt_ids) :]
    else:
        # A token spans the border (an answer that begins with a newline): the prompt's tokens stay as served.
        completion_ids = _tokenise(tokenizer, answer_text)
    return ChatTokens(prompt_ids=prompt_ids, completion_ids=_cut_after_turn_end(tokenizer, completion_ids))


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


def _check_whole(chats: Sequence[Chat], lost: LostPart | None) -> None:
    """Raise TemplateUnusable if a part of `chats` is lost."""
    if lost is not None:
        raise TemplateUnusable(
            f"the chat template leaves out or changes {describe_lost_part(chats, lost)}; take a base "
            "model whose template renders them"
        )


def _check_shape(
    tokenizer: Any, chats: Sequence[Chat], tools: Sequence[dict[str, Any]], *, add_generation_prompt: bool
) -> None:
    """Check that the template renders all of a conversation of this shape. Raises TemplateUnusable."""
    try:
        marked, offered = json.dumps(replace_with_marks(chats)), json.dumps(list(tools))
    except RecursionError as deep:
        raise TemplateUnusable("the arguments of a call are nested too deeply") from deep
    template = str(tokenizer.chat_template)
    _check_whole(chats, _find_lost_mark(tokenizer, template, marked, offered, add_generation_prompt))


@lru_cache(maxsize=512)
def _find_lost_mark(
    tokenizer: Any, _template: str, marked: str, tools: str, add_generation_prompt: bool
) -> LostPart | None:
    """Return what the template leaves out of a conversation of marks; `marked` and `tools` are JSON.

    `_template` is the tokenizer's, which can be changed.
    """
    chats: list[Chat] = json.loads(marked)
    text = apply_template(tokenizer, chats, json.loads(tools), add_generation_prompt=add_generation_prompt)
    return find_lost_part(chats, text)


def apply_template(
    tokenizer: Any, chats: Sequence[Chat], tools: Sequence[dict[str, Any]], *, add_generation_prompt: bool
) -> str:
    """Return the text that the tokenizer's chat template makes of `chats`. Raises TemplateUnusable."""
    try:
        text: str = tokenizer.apply_chat_template(
            list(chats),
            tools=list(tools) or None,
            add_generation_prompt=add_generation_prompt,
            tokenize=False,
        )
        text.encode("utf-8")
    # A template is a program that came with the model. Whatever it raises on one conversation (from a
    # TypeError to a RecursionError) concerns that conversation alone, and must not end a training.
    except Exception as refused:
        raise TemplateUnusable(
            f"the base model's chat template refuses the messages ({type(refused).__name__}: {refused})"
        ) from refused
    return text


def _to_template_messages(messages: Sequence[Message]) -> list[Chat]:
    """Convert messages as vLLM does for the template.

    Arguments of calls are objects, not text, and thoughts have both of the names that templates read.
    """
    chats = [message.to_chat() for message in messages]
    for chat in chats:
        if "reasoning_content" in chat:
            chat["reasoning"] = chat["reasoning_content"]
        for call in chat.get("tool_calls", ()):
            call["function"]["arguments"] = _parse_arguments(call["function"])
    return chats


def _parse_arguments(function: Mapping[str, str]) -> dict[str, Any]:
    """Return the arguments of a call as an object, an empty one for none at all.

    Raises TemplateUnusable where they are something else: vLLM would make that an empty object, so the
    call could be seen neither as it was made nor as it is served.
    """
    text = function["arguments"].strip()
    try:
        found = json.loads(text) if text else None
    except (ValueError, RecursionError) as broken:
        raise TemplateUnusable(
            f"the arguments of a call of {function['name']} are not JSON ({broken})"
        ) from broken
    if found is not None and not isinstance(found, dict):
        raise TemplateUnusable(f"the arguments of a call of {function['name']} are no JSON object")
    return found or {}


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
