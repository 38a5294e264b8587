"""Training must see the very tokens that the server sees."""

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from extractors.examples.types import Message, ToolCall
from tests.support.tiny_model import tokenizer_folder
from trainers.models.chat_template import TemplateUnusable, TurnsUnstable, render, render_conversation

PROMPT = (Message(role="system", content="Route."), Message(role="user", content="My card is gone"))
GOLD = Message(role="assistant", content="card_lost")
HERMES = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}<|im_end|>"
    "\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TOOLS = ({"type": "function", "function": {"name": "look_up", "description": "Looks.", "parameters": {}}},)


def look_up(arguments: dict[str, Any], call_id: str = "call_1") -> ToolCall:
    return ToolCall(id=call_id, name="look_up", arguments=json.dumps(arguments))


def say(text: str, *calls: ToolCall) -> Message:
    return Message(role="assistant", content=text, tool_calls=calls)


def result(text: str, call_id: str = "call_1") -> Message:
    return Message(role="tool", content=text, tool_call_id=call_id, name="look_up")


@pytest.fixture(scope="module")
def loaded():
    return AutoTokenizer.from_pretrained(tokenizer_folder())


@pytest.fixture
def tokenizer(loaded):
    """The tokenizer, whose template a test may change."""
    own = loaded.chat_template
    yield loaded
    loaded.chat_template = own


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


# ---- all of a conversation, or none of it

ASK = Message(role="user", content="Is jib in stock?")
ODD = {
    "quotes": "a \"b\" and 'c'",
    "lines": "one\n\ttwo \\ three",
    "markup": "<b>&amp;</b> </tool_call>",
    "ünïcode": "Zürich 🎉",
    "nested": {"list": [1, {"deep": "kelp"}, []], "none": {}},
    "zero": 0,
    "share": 0.5,
    "no": False,
    "nothing": None,
    "empty": "",
}


def find_templates() -> dict[str, Path]:
    """Find the chat templates of other models that TRL ships: name to file."""
    spec = importlib.util.find_spec("trl")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "chat_templates"
    return {file.stem: file for file in sorted(folder.glob("*.jinja")) if "_training" not in file.stem}


TEMPLATES = find_templates()
NO_CALLS = {"call", "text and call", "two calls", "call in history", "two in history", "no arguments"}
CONVERSATIONS = {
    "text": (ASK, say("Three left.")),
    "call": (ASK, say("", look_up({"item": "jib"}))),
    "text and call": (ASK, say("Let me look up that.", look_up({"item": "jib"}))),
    "two calls": (ASK, say("", look_up({"item": "jib"}), look_up({"item": "luff"}, "call_2"))),
    "call in history": (ASK, say("", look_up({"item": "jib"})), result("3 pieces"), say("Three left.")),
    "two in history": (
        ASK,
        say("", look_up({"item": "jib"}), look_up({"item": "luff"}, "call_2")),
        result("3 pieces"),
        result("none", "call_2"),
        say("Three left."),
    ),
    "no arguments": (ASK, say("", look_up({}))),
    "odd values": (ASK, say("", look_up(ODD))),
}
REFUSED = {
    "cohere2": NO_CALLS | {"odd values"},
    "gemma3": NO_CALLS | {"odd values"},
    "gemma4_v2": set[str](),
    "glm4moe": set[str](),
    "gptoss": {"two calls", "two in history"},
    "lfm2": NO_CALLS | {"odd values"},
    "lfm2_v2": set[str](),
    "llama3": NO_CALLS | {"odd values"},
    "llama3_1": {"text and call", "two calls", "two in history"},
    "phi3": NO_CALLS | {"odd values"},
    "qwen2_5": set[str](),
    "qwen3": set[str](),
    "qwen3_5_think": set[str](),
    "smolvlm": {*NO_CALLS, "odd values", "text"},
}
"""Conversations that a template cannot express; `smolvlm` takes parts instead of texts."""


def render_last(tokenizer, messages: Sequence[Message], template: str | None = None) -> str:
    """Render a conversation; return the text of what is learned of its last message."""
    if template is not None:
        tokenizer.chat_template = TEMPLATES[template].read_text("utf-8")
    return tokenizer.decode(render(tokenizer, messages[:-1], TOOLS, messages[-1]).completion_ids)


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("template", REFUSED)
def test_a_conversation_is_refused_just_where_the_template_loses_a_part(tokenizer, template, conversation):
    messages = CONVERSATIONS[conversation]
    if conversation in REFUSED[template]:
        with pytest.raises(TemplateUnusable):
            render_last(tokenizer, messages, template)
    else:
        render_last(tokenizer, messages, template)


@pytest.mark.parametrize("template", TEMPLATES)
def test_every_template_renders_all_or_refuses(tokenizer, template):
    """The words are such that none stands in the text by chance."""
    tokenizer.chat_template = TEMPLATES[template].read_text("utf-8")
    words = ("brig", "gaff", "jib", "luff", "keel", "oars", "ruddr", "sprit")
    calls = (look_up({"item": "gaff"}), look_up({"item": "jib", "rope": ["luff"]}, "call_2"))
    whole = (
        Message(role="user", content="brig"),
        say("", *calls),
        result("keel"),
        result("oars", "call_2"),
        say("ruddr"),
        Message(role="user", content="sprit"),
        say("Done."),
    )
    try:
        rendered = render(tokenizer, whole[:-1], TOOLS, whole[-1])
    except TemplateUnusable:
        return
    places = [tokenizer.decode(rendered.prompt_ids).find(word) for word in words]
    assert places == sorted(places)
    assert places[0] >= 0


@pytest.mark.parametrize(
    ("template", "conversation", "lost"),
    [
        ("llama3", "text and call", r"tool calls \(here one of look_up\)"),
        ("llama3", "no arguments", r"tool calls \(here one of look_up\)"),
        ("phi3", "call in history", r"tool calls \(here one of look_up\)"),
        ("gptoss", "two calls", r"tool calls \(here one of look_up\)"),
        ("llama3_1", "text and call", "the text of the assistant's messages"),
        ("smolvlm", "text", "the text of the user's messages"),
    ],
)
def test_the_reason_names_the_lost_part(tokenizer, template, conversation, lost):
    with pytest.raises(TemplateUnusable, match=f"leaves out or changes {lost}"):
        render_last(tokenizer, CONVERSATIONS[conversation], template)


def test_smollm2s_own_template_writes_no_calls_though_the_text_names_the_tool(tokenizer):
    for conversation in NO_CALLS:
        with pytest.raises(TemplateUnusable, match="leaves out or changes tool calls"):
            render_last(tokenizer, CONVERSATIONS[conversation])


@pytest.mark.parametrize(
    ("piece", "instead", "lost"),
    [
        ("m.tool_calls or []", "(m.tool_calls or [])[:1]", "tool calls"),
        ("c.function | tojson", "c.function.name", "tool calls"),
        ("c.function | tojson", "c.function.arguments | tojson", "tool calls"),
        (
            "c.function | tojson",
            "{'name': c.function.name, 'of': c.function.arguments.values() | list}",
            "tool calls",
        ),
        ("{{ m.content }}", "{% if m.role != 'tool' %}{{ m.content }}{% endif %}", "tools' results"),
        ("{{ m.content }}", "{% if not m.tool_calls %}{{ m.content }}{% endif %}", "text of the assistant's"),
        ("{{ m.content }}", "{{ m.content[:9] }}", "text of the"),
        ("in messages %}", "in messages if m.role != 'system' %}", "text of the system's"),
        ("{% for m in messages %}", "{% for m in messages | reverse %}", "text of the"),
    ],
)
def test_a_lost_part_is_noticed_wherever_it_stands(tokenizer, piece, instead, lost):
    messages = (
        Message(role="system", content="You look_up things: item jib, item luff."),
        ASK,
        say("Let me look_up both.", look_up({"item": "jib"}), look_up({"item": "luff"}, "call_2")),
        result("look_up of item jib: 3"),
        result("look_up of item luff: 0", "call_2"),
        say("Three and none."),
    )
    tokenizer.chat_template = HERMES
    render_last(tokenizer, messages)
    assert piece in HERMES
    tokenizer.chat_template = HERMES.replace(piece, instead)
    with pytest.raises(TemplateUnusable, match=lost):
        render_last(tokenizer, messages)


@pytest.mark.parametrize(
    ("piece", "instead"),
    [
        ("{{ m.content }}", "{{ m.content | trim }}"),
        ("{{ m.content }}", "{{ m.content | tojson }}"),
        ("c.function | tojson", "c.function | tojson(ensure_ascii=true, indent=2)"),
        ("c.function | tojson", "{'arguments': c.function.arguments, 'name': c.function.name} | tojson"),
        ("c.function | tojson", "c.function"),
        (
            "{{ c.function | tojson }}",
            "<function={{ c.function.name }}>"
            "{% for key, value in c.function.arguments | dictsort | reverse %}"
            "<parameter={{ key }}>\n{{ value if value is string else value | tojson }}\n</parameter>"
            "{% endfor %}</function>",
        ),
    ],
)
def test_other_spellings_lose_nothing(tokenizer, piece, instead):
    assert piece in HERMES
    tokenizer.chat_template = HERMES.replace(piece, instead)
    told = result(' It\'s "3" pieces,\nin Zürich. \n')
    render_last(tokenizer, (ASK, say("  Let me see.\n", look_up(ODD)), told, say('\n"Three" left. ')))
    render_last(tokenizer, (ASK, say("  Let me see.\n", look_up(ODD))))


def test_a_text_that_a_template_cuts_is_noticed_though_others_of_its_shape_are_whole(tokenizer):
    """Qwen3's takes what stands before the tag for thoughts, which it drops from earlier turns."""
    asked = (ASK, say("Write </think> to close the block."), Message(role="user", content="Thanks."))
    with pytest.raises(TemplateUnusable, match="the text of the assistant's messages"):
        render_last(tokenizer, (*asked, say("Welcome.")), "qwen3")
    written = "<think>Hm.</think>Write it to close the block."
    assert render_last(tokenizer, (ASK, say(written), asked[2], say("Welcome.")), "qwen3")


# ---- arguments


@pytest.mark.parametrize("arguments", ["", " \n", "null", "{}"])
@pytest.mark.parametrize("template", ["qwen3", "llama3_1", "qwen3_6", "nemotron_3_nano"])
def test_no_arguments_are_an_empty_object(tokenizer, template, arguments):
    tokenizer.chat_template = TEMPLATES[template].read_text("utf-8")
    calling = say("", ToolCall(id="call_1", name="look_up", arguments=arguments))
    empty = say("", look_up({}))
    told = (result("3 pieces"), Message(role="user", content="And now?"))
    assert render(tokenizer, (ASK, calling, *told), TOOLS) == render(tokenizer, (ASK, empty, *told), TOOLS)
    if template != "nemotron_3_nano":  # It answers only after thoughts.
        assert render_last(tokenizer, (ASK, calling)) == render_last(tokenizer, (ASK, empty))


@pytest.mark.parametrize(
    "arguments",
    ["[1]", '"Oslo"', "7", "true", '{"item": ', "item=jib", "[" * 100_000, '{"a":' * 900 + "1" + "}" * 900],
)
@pytest.mark.parametrize("place", ["history", "answer"])
def test_other_arguments_are_refused(tokenizer, arguments, place):
    calling = say("", ToolCall(id="call_1", name="look_up", arguments=arguments))
    messages = (ASK, calling) if place == "answer" else (ASK, calling, result("3"), say("Three."))
    with pytest.raises(TemplateUnusable, match=r"argument|RecursionError"):
        render_last(tokenizer, messages, "qwen3")


# ---- whatever a template raises


@pytest.mark.parametrize(
    "broken",
    [
        "{{ raise_exception('no') }}",
        "{{ 'a' + 1 }}",
        "{{ messages[0].absent.deeper }}",
        "{{ messages[99].content }}",
        "{{ {}.absent() }}",
        "{{ 1 // 0 }}",
        "{{ 'x' | no_such_filter }}",
        "{% for m in messages %}",
        "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
        "{{ range(999999999) | list }}",
        "{{ '{:d}'.format('x') }}",
        "{{ [1] | sum(attribute='x.y') }}",
    ],
)
def test_whatever_a_template_raises_concerns_its_example_alone(tokenizer, broken):
    tokenizer.chat_template = broken
    with pytest.raises(TemplateUnusable, match="refuses the messages"):
        render(tokenizer, PROMPT)


def test_half_a_character_that_arguments_spell_is_refused(tokenizer):
    calling = say("", ToolCall(id="call_1", name="look_up", arguments='{"item": "\\ud83d"}'))
    with pytest.raises(TemplateUnusable, match="refuses the messages"):
        render_last(tokenizer, (ASK, calling), "qwen3")


# ---- thoughts

THOUGHT = say("Three left.").model_copy(update={"reasoning": "Three pieces are three."})
THINKING = ["glm4moe", "qwen3", "qwen3_5_think", "qwen3_6", "nemotron_3_nano"]


@pytest.mark.parametrize("template", THINKING)
def test_thoughts_are_learned_before_the_answer_where_the_template_renders_them(tokenizer, template):
    learned = render_last(tokenizer, (ASK, THOUGHT), template)
    assert learned.index("Three pieces are three.") < learned.index("</think>") < learned.index("Three left.")


@pytest.mark.parametrize(
    "template", ["qwen2_5", "qwen3_instruct_2507", "llama3_1", "gemma3", "qwen3_5_nothink"]
)
def test_elsewhere_the_answer_alone_is_learned(tokenizer, template):
    learned = render_last(tokenizer, (ASK, THOUGHT), template)
    assert learned == render_last(tokenizer, (ASK, say("Three left.")))
    assert "Three pieces" not in learned


def test_thoughts_have_the_names_that_the_server_gives_them(tokenizer):
    for name in ("reasoning", "reasoning_content"):
        tokenizer.chat_template = HERMES.replace("{{ m.content }}", f"{{{{ m.{name} }}}}{{{{ m.content }}}}")
        assert render_last(tokenizer, (ASK, THOUGHT)).startswith("Three pieces are three.Three left.")


def test_where_thoughts_of_earlier_turns_are_dropped_a_conversation_is_no_single_example(tokenizer):
    tokenizer.chat_template = TEMPLATES["qwen3"].read_text("utf-8")
    messages = (ASK, THOUGHT, Message(role="user", content="Sure?"), THOUGHT)
    with pytest.raises(TurnsUnstable):
        render_conversation(tokenizer, messages, TOOLS, (1, 3))
    ids, mask = render_conversation(tokenizer, messages, TOOLS, (3,))
    assert tokenizer.decode(ids).count("Three pieces are three.") == 1
    assert tokenizer.decode([token for token, learned in zip(ids, mask, strict=True) if learned]) == (
        "<think>\nThree pieces are three.\n</think>\n\nThree left.<|im_end|>"
    )
