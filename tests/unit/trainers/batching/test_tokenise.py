"""Examples become the tokens that a trainer learns from, and what does not fit is counted."""

import pytest
from transformers import AutoTokenizer

from extractors.examples.types import Examples, Message, SFTExample, ToolCall
from tests.support.snapshots import make_conversation, make_example, make_pair, make_vote
from tests.support.tiny_model import tokenizer_folder
from trainers.batching.tokenise import NothingToLearn, check_learnable, tokenise
from trainers.planning.hyperparameters import Hyperparameters

CASES = [(f"Question number {number}?", f"answer {number}") for number in range(6)]
FORGETS_THOUGHTS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}<think></think>{% endif %}{{ m.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Like Qwen3's: only the last turn keeps its thoughts."""
THINKS = FORGETS_THOUGHTS.replace("<think>", "<think>{{ m.reasoning_content }}")
"""Renders what was thought before the last turn."""
WITH_TOOLS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}<|im_end|>"
    "\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture
def tokenizer():
    return AutoTokenizer.from_pretrained(tokenizer_folder())


def tokenise_alone(tokenizer, kind, *examples, **overrides):
    made = tokenise(tokenizer, kind, Examples(**{kind: examples}), Hyperparameters(**overrides))
    assert (made.too_long, made.refusals) == (0, ())
    return made.features


def list_learned(tokenizer, feature):
    """List the learned pieces of a feature as text."""
    pieces, before = [], -100
    for token, label in zip(feature["input_ids"], feature["labels"], strict=True):
        if label != -100:
            assert label == token
            pieces = [*pieces, [label]] if before == -100 else [*pieces[:-1], [*pieces[-1], label]]
        before = label
    return [tokenizer.decode(piece) for piece in pieces]


def test_every_assistant_turn_is_learned_with_its_end_and_nothing_else(tokenizer):
    [feature] = tokenise_alone(tokenizer, "trajectories", make_conversation(0, CASES[:3]))
    assert list_learned(tokenizer, feature) == [f"answer {number}<|im_end|>" for number in range(3)]
    text = tokenizer.decode(feature["input_ids"])
    assert text.startswith("<|im_start|>system\nRoute.<|im_end|>")
    assert text.endswith("answer 2<|im_end|>")


def test_a_turn_that_was_rejected_is_context_and_what_follows_the_last_learned_one_is_left_out(tokenizer):
    whole = make_conversation(0, CASES[:3])
    [feature] = tokenise_alone(tokenizer, "trajectories", whole.model_copy(update={"learned": (4,)}))
    assert list_learned(tokenizer, feature) == ["answer 1<|im_end|>"]
    text = tokenizer.decode(feature["input_ids"])
    assert "answer 0" in text
    assert "answer 2" not in text


def test_tool_calls_are_learned_and_their_results_are_not(tokenizer):
    tokenizer.chat_template = WITH_TOOLS
    call = ToolCall(id="1", name="lookup", arguments='{"parcel": 7}')
    plain = make_conversation(0, CASES[:1])
    messages = (
        *plain.messages[:2],
        Message(role="assistant", tool_calls=(call,)),
        Message(role="tool", content="on its way", tool_call_id="1"),
        plain.messages[2],
    )
    [feature] = tokenise_alone(
        tokenizer, "trajectories", plain.model_copy(update={"messages": messages, "learned": (2, 4)})
    )
    calling, answer = list_learned(tokenizer, feature)
    assert '"name": "lookup"' in calling
    assert "on its way" not in calling
    assert answer == "answer 0<|im_end|>"


def test_where_earlier_turns_change_each_turn_is_an_example_as_it_was_served(tokenizer):
    tokenizer.chat_template = FORGETS_THOUGHTS
    features = tokenise_alone(tokenizer, "trajectories", make_conversation(0, CASES[:2]))
    assert [list_learned(tokenizer, feature) for feature in features] == [
        ["<think></think>answer 0<|im_end|>"],
        ["<think></think>answer 1<|im_end|>"],
    ]
    assert tokenizer.decode(features[1]["input_ids"]).count("<think>") == 1


def test_each_turn_is_learned_with_its_own_thoughts_where_those_of_earlier_turns_are_dropped(tokenizer):
    tokenizer.chat_template = THINKS
    plain = make_conversation(0, CASES[:2])
    messages = tuple(
        message.model_copy(update={"reasoning": f"about {message.content}"})
        if message.role == "assistant"
        else message
        for message in plain.messages
    )
    features = tokenise_alone(tokenizer, "trajectories", plain.model_copy(update={"messages": messages}))
    assert [list_learned(tokenizer, feature) for feature in features] == [
        ["<think>about answer 0</think>answer 0<|im_end|>"],
        ["<think>about answer 1</think>answer 1<|im_end|>"],
    ]
    assert "about answer 0" not in tokenizer.decode(features[1]["input_ids"])


def call_with(example: SFTExample, arguments: str) -> SFTExample:
    call = ToolCall(id="1", name="lookup", arguments=arguments)
    return example.model_copy(update={"completion": Message(role="assistant", tool_calls=(call,))})


def test_an_example_that_the_template_cannot_express_is_counted_and_the_others_are_learned(tokenizer):
    tokenizer.chat_template = WITH_TOOLS.replace("c.function | tojson", "dict(c.function.arguments.items())")
    plain = [make_example(number, asked) for number, asked in enumerate(CASES[:4])]
    examples = (
        plain[0],
        call_with(plain[1], "[7]"),
        call_with(plain[2], '{"parcel": 7}'),
        plain[3],
    )
    made = tokenise(tokenizer, "sft", Examples(sft=examples), Hyperparameters())
    assert len(made.features) == 2
    assert len(made.refusals) == 2
    assert "no JSON object" in made.refusals[0]
    assert "leaves out or changes tool calls (here one of lookup)" in made.refusals[1]
    check_learnable(made, 1024)


@pytest.mark.parametrize(
    "template", ["{{ 1 / 0 }}", "{{ messages + 1 }}", "{{ messages[0].content.absent.x }}"]
)
@pytest.mark.parametrize("kind", ["sft", "pairs", "votes", "trajectories"])
def test_where_a_template_refuses_all_examples_the_reason_is_told(tokenizer, kind, template):
    tokenizer.chat_template = template
    made = tokenise(
        tokenizer,
        kind,
        Examples(
            sft=(make_example(0, CASES[0]),),
            pairs=(make_pair(0, CASES[0], "nothing"),),
            votes=(make_vote(0, CASES[0], "nothing", desirable=True),),
            trajectories=(make_conversation(0, CASES[:2]),),
        ),
        Hyperparameters(),
    )
    assert (made.features, len(made.refusals)) == ((), 1)
    with pytest.raises(NothingToLearn, match=r"can express none of the training examples: .*Error"):
        check_learnable(made, 1024)


@pytest.mark.parametrize("template", [None, FORGETS_THOUGHTS], ids=["stable", "unstable"])
def test_of_a_long_conversation_the_oldest_turns_are_dropped_and_the_system_prompt_stays(tokenizer, template):
    tokenizer.chat_template = template or tokenizer.chat_template
    whole = make_conversation(0, CASES)
    longest = max(len(each["input_ids"]) for each in tokenise_alone(tokenizer, "trajectories", whole))
    features = tokenise_alone(tokenizer, "trajectories", whole, max_length=longest - 1)
    last = tokenizer.decode(features[-1]["input_ids"])
    assert last.startswith("<|im_start|>system\nRoute.<|im_end|>\n<|im_start|>user\nQuestion number 1?")
    assert list_learned(tokenizer, features[-1])[-1].endswith("answer 5<|im_end|>")
    assert max(len(feature["input_ids"]) for feature in features) < longest


def test_a_conversation_whose_last_answer_alone_is_too_long_is_left_out_and_counted(tokenizer):
    long = make_conversation(0, [("Hello?", "yes " * 40)])
    made = tokenise(
        tokenizer,
        "trajectories",
        Examples(trajectories=(long, make_conversation(1, CASES[:1]))),
        Hyperparameters(max_length=40),
    )
    assert (len(made.features), made.too_long) == (1, 1)


def test_pairs_have_one_prompt_and_two_answers_and_count_both(tokenizer):
    pair = make_pair(0, CASES[0], "nothing")
    [feature] = tokenise_alone(tokenizer, "pairs", pair)
    assert tokenizer.decode(feature["chosen_ids"]) == "answer 0<|im_end|>"
    assert tokenizer.decode(feature["rejected_ids"]) == "nothing<|im_end|>"
    made = tokenise(tokenizer, "pairs", Examples(pairs=(pair,)), Hyperparameters())
    answers = len(feature["chosen_ids"]) + len(feature["rejected_ids"])
    assert made.label_tokens == answers
    assert made.tokens == 2 * len(feature["prompt_ids"]) + answers


def test_every_vote_meets_the_answer_of_another_in_its_batch(tokenizer):
    votes = [make_vote(number, asked, "nothing", desirable=True) for number, asked in enumerate(CASES[:5])]
    features = tokenise_alone(tokenizer, "votes", *votes, batch_size=3)
    for begin in (0, 3):
        batch = features[begin : begin + 3]
        own, others = ([each[name] for each in batch] for name in ("completion_ids", "KL_completion_ids"))
        assert others == [own[-1], *own[:-1]]
    assert [each["prompt_ids"] for each in features] != [
        each["prompt_ids"] for each in tokenise_alone(tokenizer, "votes", *votes, batch_size=3, seed=1)
    ]


@pytest.mark.parametrize("kind", ["sft", "pairs", "votes"])
def test_what_is_too_long_is_left_out_and_counted(tokenizer, kind):
    short, long = CASES[0], ("word " * 60, "answer")
    makers = {
        "sft": make_example,
        "pairs": lambda number, asked: make_pair(number, asked, "nothing"),
        "votes": lambda number, asked: make_vote(number, asked, "nothing", desirable=True),
    }
    examples = tuple(makers[kind](number, asked) for number, asked in enumerate([short, long]))
    made = tokenise(tokenizer, kind, Examples(**{kind: examples}), Hyperparameters(max_length=48))
    assert (len(made.features), made.too_long) == (1, 1)
    left = tokenise(tokenizer, kind, Examples(**{kind: examples[1:]}), Hyperparameters(max_length=48))
    with pytest.raises(NothingToLearn, match="max_length = 48"):
        check_learnable(left, 48)
