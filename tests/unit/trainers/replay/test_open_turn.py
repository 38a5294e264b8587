"""The user's turn is left open by the chat template's own rendering, or refused with the reason."""

from typing import Any

import pytest

from tests.support.tiny_model import tokenizer_folder
from trainers.models.base_model import load_tokenizer
from trainers.models.chat_template import TemplateUnusable
from trainers.replay.open_turn import open_user_turn


@pytest.fixture
def tokenizer() -> Any:
    return load_tokenizer(str(tokenizer_folder()))


def test_the_turn_begins_after_the_templates_own_system_prompt_and_ends_with_its_token(
    tokenizer: Any,
) -> None:
    turn = open_user_turn(tokenizer)
    assert tokenizer.decode(turn.ids).endswith("<|im_end|>\n<|im_start|>user\n")
    assert "SmolLM" in tokenizer.decode(turn.ids)
    assert turn.end_token == tokenizer.convert_tokens_to_ids("<|im_end|>")


def test_a_turn_may_end_with_plain_text(tokenizer: Any) -> None:
    tokenizer.chat_template = "{% for m in messages %}[INST] {{ m.content }} [/INST]{% endfor %}"
    turn = open_user_turn(tokenizer)
    assert tokenizer.decode(turn.ids) == "[INST]"
    assert (turn.end_token, turn.end_text) == (None, "[/INST]")


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% for m in messages %}User: {{ m.content }}{% endfor %}", "end of a user's message"),
        ("{% for m in messages %}{{ m.content | upper }}<|im_end|>{% endfor %}", "once and as it is"),
        ("{% for m in messages %}{{ m.content }} {{ m.content }}<|im_end|>{% endfor %}", "once and as it is"),
        ("{{ raise_exception('no messages, please') }}", "refuses"),
    ],
)
def test_a_template_that_does_not_frame_the_message_is_refused(
    tokenizer: Any, template: str, reason: str
) -> None:
    tokenizer.chat_template = template
    with pytest.raises(TemplateUnusable, match=reason):
        open_user_turn(tokenizer)
