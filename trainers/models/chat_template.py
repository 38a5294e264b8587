"""From chat messages to tokens, through the base model's chat template, exactly as a server renders them.

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
    """The chat template cannot express an example, or not in a way that can be trained."""


class TurnsUnstable(TemplateUnusable):
    """The chat template writes an earlier turn of a conversation otherwise than when it was the last."""


class ChatTokens(Value):
    """The tokens of one example."""

    prompt_ids: tuple[int, ...]
    """What the server makes of the messages, generation prompt included."""
    completion_ids: tuple[int, ...]
    """What the model has to say then, the token that ends its turn included; empty without completion."""


def render(
    tokenizer: Any,
    prompt: Sequence[Message],
    tools: Sequence[dict[str, Any]] = (),
    completion: Message | None = None,
) -> ChatTokens:
    """Tokens of `prompt`, and of `completion` as the model would have to generate it after that.

    Raises TemplateUnusable when the template refuses the messages, when the whole conversation
    does not begin with the prompt as it is served, or when it leaves out the tool calls.
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
    said = whole[len(prompt_text) :]
    for call in completion.tool_calls:
        if call.name not in said:
            raise TemplateUnusable(
                f"the chat template leaves out tool calls (here of {call.name}), so nothing can be learned; "
                "take a base model whose template renders them"
            )
    whole_ids = _tokenise(tokenizer, whole)
    if whole_ids[: len(prompt_ids)] == prompt_ids:
        completion_ids = whole_ids[len(prompt_ids) :]
    else:
        # A token spans the border (an answer that begins with a newline): as served, the prompt's stand.
        completion_ids = _tokenise(tokenizer, said)
    return ChatTokens(prompt_ids=prompt_ids, completion_ids=_cut_after_turn_end(tokenizer, completion_ids))


def render_conversation(
    tokenizer: Any,
    messages: Sequence[Message],
    tools: Sequence[dict[str, Any]],
    learned: Sequence[int],
) -> tuple[list[int], list[bool]]:
    """Tokens of `messages` up to the last learned turn, and which of them are learned.

    `learned` are indices of assistant turns; of each are learned its tokens and the one that ends it.
    Many templates do not mark them (`{% generation %}`), so they are found by rendering: what the
    server would have been given before a turn must be how the whole conversation begins.

    Raises TurnsUnstable where it is not (a template that drops the thoughts of earlier turns): then
    each turn has to be an example of its own. Raises TemplateUnusable as `render` does.
    """
    rendered = [render(tokenizer, messages[:turn], tools, messages[turn]) for turn in sorted(learned)]
    # The template may go on after the last turn's end, or not write that end.
    ids = (*rendered[-1].prompt_ids, *rendered[-1].completion_ids)
    mask = [False] * len(ids)
    for turn in rendered:
        until = (*turn.prompt_ids, *turn.completion_ids)
        if ids[: len(until)] != until:
            raise TurnsUnstable(
                "the chat template writes earlier turns of a conversation otherwise than they were served"
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
    """The message as vLLM hands it to the template: arguments of tool calls as objects, not as text."""
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
    """`ids` without what the template writes after the turn's end; with an end where it writes none."""
    special = {token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special}
    ends = [position for position, token_id in enumerate(ids) if token_id in special]
    if ends and not tokenizer.decode(ids[ends[-1] + 1 :]).strip():
        return ids[: ends[-1] + 1]
    return (*ids, tokenizer.eos_token_id)
