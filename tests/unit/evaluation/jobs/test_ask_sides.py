"""What a chat template cannot express is left out of an evaluation, and never ends it."""

import pytest
from transformers import AutoTokenizer

from evaluation.engine.generate import GeneratedAnswer, open_engine
from evaluation.jobs.ask_sides import build_prompts, to_raw_answers
from evaluation.jobs.record_probes import NothingToAsk, record_probes
from evaluation.metrics.scoring import build_scorer
from evaluation.report import BASE
from evaluation.score_side import RawAnswer, SideAnswers, score_side
from extractors.dataset.snapshot import read_snapshot
from extractors.examples.types import Examples, Message, ToolCall
from tests.support.snapshots import make_example, make_item, make_snapshot
from tests.support.tiny_model import tokenizer_folder
from trainers.models.chat_template import render

CASES = [(f"Question {number}?", "billing") for number in range(4)]
CALLING = (
    Message(role="user", content="What time is it?"),
    Message(role="assistant", tool_calls=(ToolCall(id="1", name="now", arguments="[]"),)),
    Message(role="tool", content="noon", tool_call_id="1"),
)
"""Its arguments are no object."""
OPENS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' %}<think>\n{{ m.reasoning }}\n</think>\n\n{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
"""Begins the thoughts itself, so that the model writes only their end."""


@pytest.fixture
def tokenizer():
    return AutoTokenizer.from_pretrained(tokenizer_folder())


@pytest.fixture
def build_snapshot(tmp_path):
    def build(train=None, holdout=()):
        return read_snapshot(make_snapshot(tmp_path, train or Examples(), holdout=holdout))

    return build


def generate(text: str, *, ended: bool = True) -> GeneratedAnswer:
    return GeneratedAnswer(ids=(1,), text=text, ended=ended, seconds=0.1)


def test_prompts_and_golden_cases_that_cannot_be_rendered_are_left_out(tokenizer, build_snapshot):
    items = [make_item(number, asked) for number, asked in enumerate(CASES)]
    items[1] = items[1].model_copy(update={"prompt": CALLING})
    case = make_example(9, CASES[0]).model_copy(update={"prompt": CALLING})
    snapshot = build_snapshot(holdout=tuple(items))
    prompts = build_prompts(tokenizer, snapshot, [case])
    assert prompts.held_out == (items[0], *items[2:])
    assert prompts.golden == ()


def test_thoughts_that_the_prompt_began_are_taken_off_with_or_without_their_end(tokenizer):
    tokenizer.chat_template = OPENS
    prompt = render(tokenizer, CALLING[:1]).prompt_ids
    texts = [generate("Noon?\n</think>\n\nnoon"), generate("Is it no", ended=False)]
    assert to_raw_answers(tokenizer, [prompt] * 2, texts) == (
        RawAnswer(text="noon", ended=True),
        RawAnswer(text="", ended=False),
    )


def test_an_answer_has_room_for_thoughts_where_the_gold_ones_have_any(tokenizer, build_snapshot):
    item = make_item(0, CASES[0])
    assert item.gold is not None
    thinking = item.model_copy(update={"gold": item.gold.model_copy(update={"reasoning": "Money."})})
    limits = [
        build_prompts(tokenizer, build_snapshot(holdout=(each,))).find_answer_limit(
            "classification", 500, tokenizer, ["billing"]
        )
        for each in (item, thinking)
    ]
    assert limits[0] < 20
    assert limits[1] == 500


def test_probes_are_recorded_from_the_training_prompts_that_can_be_rendered(tiny_model, build_snapshot):
    engine = open_engine(str(tiny_model), {}, device="cpu")
    examples = [make_example(number, asked) for number, asked in enumerate(CASES[:2])]
    unusable = examples[0].model_copy(update={"prompt": CALLING})
    nothing = score_side(BASE, [], SideAnswers(held_out=()), build_scorer("generation", (), ()))

    def record(*learned):
        snapshot = build_snapshot(train=Examples(sft=learned))
        prompts = build_prompts(engine.tokenizer, build_snapshot())
        return record_probes(engine, BASE, snapshot, prompts, [nothing, nothing])

    [probe] = record(unusable, examples[1]).probes
    assert probe.prompt_ids == render(engine.tokenizer, examples[1].prompt).prompt_ids
    with pytest.raises(NothingToAsk):
        record(unusable)
