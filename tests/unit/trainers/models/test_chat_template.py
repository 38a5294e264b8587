"""Training must see the very tokens that the server sees."""

import pytest
from transformers import AutoTokenizer

from extractors.examples.types import Message, ToolCall
from tests.support.tiny_model import tokenizer_folder
from trainers.models.chat_template import TemplateUnusable, render

PROMPT = (Message(role="system", content="Route."), Message(role="user", content="My card is gone"))
GOLD = Message(role="assistant", content="card_lost")
HERMES = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}<|im_end|>"
    "\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture
def tokenizer():
    return AutoTokenizer.from_pretrained(tokenizer_folder())


def test_the_answer_follows_the_served_prompt_and_ends_with_the_end_of_turn(tokenizer):
    rendered = render(tokenizer, PROMPT, completion=GOLD)
    served = tokenizer.apply_chat_template([m.to_chat() for m in PROMPT], add_generation_prompt=True)[
        "input_ids"
    ]
    assert list(rendered.prompt_ids) == served
    assert tokenizer.decode(rendered.completion_ids) == "card_lost<|im_end|>"


def test_a_prompt_is_the_same_with_and_without_an_answer(tokenizer):
    assert render(tokenizer, PROMPT).prompt_ids == render(tokenizer, PROMPT, completion=GOLD).prompt_ids
    assert render(tokenizer, PROMPT).completion_ids == ()


@pytest.mark.parametrize("content", ["\n\nleading newlines", " space", "<|im_end|>", "naïve 🎉", ""])
def test_whatever_the_answer_begins_with_the_served_prompt_keeps_its_tokens(tokenizer, content):
    rendered = render(tokenizer, PROMPT, completion=Message(role="assistant", content=content))
    assert rendered.prompt_ids == render(tokenizer, PROMPT).prompt_ids
    assert tokenizer.decode(rendered.completion_ids) == f"{content}<|im_end|>"


def test_a_template_that_does_not_end_the_turn_gets_the_end_that_generation_waits_for(tokenizer):
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    assert render(tokenizer, PROMPT, completion=GOLD).completion_ids[-1] == tokenizer.eos_token_id


def test_a_template_that_rewrites_the_prompt_once_it_is_answered_is_refused(tokenizer):
    tokenizer.chat_template = (
        "{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}>{% endif %}"
    )
    with pytest.raises(TemplateUnusable, match="not prefix-stable"):
        render(tokenizer, PROMPT, completion=GOLD)


def test_a_templates_own_refusal_is_told(tokenizer):
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(TemplateUnusable, match="roles must alternate"):
        render(tokenizer, PROMPT)


def test_arguments_of_a_tool_call_reach_the_template_as_an_object(tokenizer):
    tokenizer.chat_template = HERMES
    call = ToolCall(id="1", name="find", arguments='{"city": "Köln"}')
    rendered = render(tokenizer, PROMPT, completion=Message(role="assistant", tool_calls=(call,)))
    assert '{"name": "find", "arguments": {"city": "Köln"}}' in tokenizer.decode(rendered.completion_ids)


def test_a_template_that_leaves_out_tool_calls_cannot_teach_them(tokenizer):
    call = ToolCall(name="find", arguments="{}")
    with pytest.raises(TemplateUnusable, match="leaves out tool calls"):
        render(tokenizer, PROMPT, completion=Message(role="assistant", tool_calls=(call,)))
