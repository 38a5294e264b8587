"""Batches, shared beginnings and trees of labels must change nothing but the time that answers take."""

import copy

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaConfig

from evaluation.engine.generate import AnswerEngine, open_engine
from evaluation.engine.likelihood import build_label_trees, tokenize_labels
from evaluation.engine.shared_prompts import (
    LEAST_SAVED,
    MOST_TOKENS,
    RowCollector,
    SharedPrompts,
    TokenBatch,
    group_by_beginning,
    split_into_batches,
)
from evaluation.report import BASE
from extractors.examples.types import Message
from tests.support.tiny_model import tokenizer_folder
from tests.unit.trainers.batching.test_shared_forward import CONFIGS, SHAPE, SYSTEM, build_model

# PEFT's own call of transformers.
pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated:FutureWarning")
STOPS = [2, *range(40, 50)]
"""Many, so that some answers of a random model end by themselves."""
LIMIT = 4
SIDES = [BASE, "candidate"]
PROMPTS = [
    (*SYSTEM, *own)
    for own in ([20, 21, 3], [22, 3], [3], [20, 21, 3], [9, 8, 7, 6, 5, 4, 30, 31, 32, 3], [33, 34, 35, 3])
]
LABELS = [(30, 2), (30, 31, 2), (31, 32, 33, 2), (34, 2), (2,)]
COUNTED = [(30, 2), (30, 31), (31, 32, 33), (34,), (2,)]
"""An end says something where another label goes on from there."""


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(tokenizer_folder(), pad_token="<|endoftext|>")


def build_adapted_model(config):
    """A model whose weights are long enough for its answers to differ, and an adapter that matters."""
    config = copy.deepcopy(config)
    config.tie_word_embeddings = False  # tied, it would say one token again and again
    model = build_model(config)
    torch.manual_seed(3)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    model.generation_config.eos_token_id = STOPS
    model = get_peft_model(
        model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"), "side0"
    )
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def engine_of(config, tokenizer):
    return AnswerEngine(tokenizer, build_adapted_model(config), {"candidate": "side0"})


@pytest.fixture(scope="module", params=CONFIGS.values(), ids=CONFIGS)
def engine(request, tokenizer):
    return engine_of(request.param, tokenizer)


def alone(engine, side, prompt, limit):
    """The greedy answer as transformers gives it to one prompt."""
    config = GenerationConfig(do_sample=False, max_new_tokens=limit, eos_token_id=STOPS, pad_token_id=0)
    with engine.activate(side), torch.inference_mode():
        ids = torch.tensor([prompt])
        out = engine._model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config
        )
    return tuple(out[0, len(prompt) :].tolist())


def next_logprobs(engine, side, prompt, answer):
    """Log-probabilities of every token at each place of the answer, from one plain forward pass."""
    with engine.activate(side), torch.inference_mode():
        logits = engine._model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0]
    return logits.log_softmax(dim=-1)[len(prompt) - 1 : -1]


def likelihoods(engine, side, prompt, answer):
    """Log-probabilities of the answer's tokens."""
    scores = next_logprobs(engine, side, prompt, answer)
    return [float(row[token]) for row, token in zip(scores, answer, strict=True)]


def tokens_computed(engine, act):
    """Return how many tokens the model's embedding looks up during `act`, and what `act` returns."""
    seen = []
    embedding = engine._model.get_input_embeddings()
    handle = embedding.register_forward_hook(lambda _, args, __: seen.append(args[0].numel()))
    result = act()
    handle.remove()
    return sum(seen), result


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("batch_size", [1, 4])
def test_answers_are_those_of_every_prompt_alone(engine, side, batch_size):
    expected = [alone(engine, side, prompt, LIMIT) for prompt in PROMPTS]
    assert len({said[-1] in STOPS for said in expected}) == 2
    progress = []
    answers = engine.generate(
        side, PROMPTS, max_new_tokens=LIMIT, batch_size=batch_size, on_progress=progress.append
    )
    assert [answer.ids for answer in answers] == expected
    assert [answer.ended for answer in answers] == [said[-1] in STOPS for said in expected]
    assert all(answer.seconds > 0 for answer in answers)
    assert progress[-1] == len(PROMPTS)


def test_the_sides_differ(engine):
    base, candidate = (engine.generate(side, PROMPTS, max_new_tokens=LIMIT, batch_size=4) for side in SIDES)
    assert [answer.ids for answer in base] != [answer.ids for answer in candidate]


@pytest.mark.parametrize("batch_size", [1, 4])
def test_the_divergence_is_the_whole_sum_over_the_vocabulary_at_each_token(engine, batch_size):
    answers = [(30, 31, 2), (34, 2), (31, 32, 33, 2), (2,), (30, 2), (5, 6, 7, 8, 2)]
    found = engine.compute_divergences("candidate", PROMPTS, answers, batch_size=batch_size)
    for prompt, answer, each in zip(PROMPTS, answers, found, strict=True):
        base, candidate = (next_logprobs(engine, side, prompt, answer) for side in SIDES)
        expected = (base.exp() * (base - candidate)).sum(dim=-1)
        assert each == pytest.approx(expected.tolist(), abs=1e-4)
        assert min(each) > 0
    same = engine.compute_divergences(BASE, PROMPTS, answers, batch_size=batch_size)
    assert {nats for each in same for nats in each} == {0.0}


@pytest.mark.parametrize("side", SIDES)
def test_labels_weigh_what_each_weighs_alone_and_change_no_answer(engine, side):
    plain = engine.generate(side, PROMPTS, max_new_tokens=LIMIT, batch_size=4)
    weighed = engine.generate(side, PROMPTS, max_new_tokens=LIMIT, batch_size=4, labels=LABELS)
    assert [answer.ids for answer in weighed] == [answer.ids for answer in plain]
    assert {answer.label_logprobs for answer in plain} == {()}
    for prompt, answer in zip(PROMPTS, weighed, strict=True):
        expected = [sum(likelihoods(engine, side, prompt, label)) for label in COUNTED]
        assert answer.label_logprobs == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("side", SIDES)
def test_what_was_weighed_apart_for_its_length_is_generated_together(engine, side):
    prompts = [(*SYSTEM, *(20 + n % 15 for n in range(length)), 3) for length in (150, 4, 145, 7)]
    labels = [(5, 6, 2)]
    seen = []
    embedding = engine._model.get_input_embeddings()
    handle = embedding.register_forward_hook(lambda _, args, __: seen.append(args[0].shape))
    answers = engine.generate(side, prompts, max_new_tokens=LIMIT, batch_size=8, labels=labels)
    handle.remove()
    assert 2 in {rows for rows, _ in seen}
    # A tree knows which answers end at once.
    with torch.inference_mode():
        at_once = sum(len(answer.ids) == 1 for answer in answers) if engine._share(prompts).exact else 0
    assert seen[-1] == (4 - at_once, 1)
    assert at_once < 2
    assert [answer.ids for answer in answers] == [alone(engine, side, prompt, LIMIT) for prompt in prompts]


@pytest.mark.parametrize("side", SIDES)
def test_given_answers_are_as_likely_as_each_alone(engine, side):
    answers = [(30, 2), (31, 32, 33, 34, 35, 2), (), (40,), (9, 8, 7), (30, 2)]
    found = engine.compute_logprobs(side, PROMPTS, answers, batch_size=4)
    for prompt, answer, logprobs in zip(PROMPTS, answers, found, strict=True):
        assert list(logprobs) == pytest.approx(likelihoods(engine, side, prompt, answer), abs=1e-4)
        assert engine.compute_answer_logprobs(side, prompt, answer) == pytest.approx(logprobs, abs=1e-4)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
def test_what_all_prompts_begin_with_is_computed_once(kind, tokenizer):
    engine = engine_of(CONFIGS[kind], tokenizer)
    beginning = tuple(range(3, 60)) * 4
    prompts = [(*beginning, 20 + number) for number in range(8)]
    computed, answers = tokens_computed(
        engine, lambda: engine.generate("candidate", prompts, max_new_tokens=1, batch_size=4)
    )
    assert computed == len(beginning) + 8
    assert [answer.ids for answer in answers] == [alone(engine, "candidate", p, 1) for p in prompts]


def test_an_answer_that_is_a_label_is_not_generated(tokenizer):
    engine = engine_of(CONFIGS["llama"], tokenizer)
    generated = {alone(engine, "candidate", prompt, LIMIT) for prompt in PROMPTS}
    labels = sorted(said for said in generated if said[-1] in STOPS)
    assert labels
    inner = {label[:place] for label in labels for place in range(1, len(label) - 1)}
    ends = [{label[:-1] for label in labels if label[0] == first} - inner for first in range(1, 500)]
    known = [prompt for prompt in PROMPTS if alone(engine, "candidate", prompt, LIMIT) in labels]
    own = max(map(len, known)) - len(SYSTEM)
    computed, answers = tokens_computed(
        engine,
        lambda: engine.generate("candidate", known, max_new_tokens=LIMIT, batch_size=16, labels=labels),
    )
    # Of the labels, what another goes on from; of those that are begun with, their last tokens.
    assert computed == len(SYSTEM) + len(known) * (own + len(inner) + max(map(len, ends)))
    assert [answer.ids for answer in answers] == [alone(engine, "candidate", p, LIMIT) for p in known]
    # A shorter limit cuts it off as it would cut off what is generated.
    cut = engine.generate("candidate", known, max_new_tokens=1, batch_size=16, labels=labels)
    assert [answer.ids for answer in cut] == [alone(engine, "candidate", prompt, 1) for prompt in known]


def test_a_penalty_on_repetitions_is_heeded_with_labels_too(tokenizer):
    model = build_adapted_model(CONFIGS["llama"])
    model.generation_config.repetition_penalty = 3.0
    engine = AnswerEngine(tokenizer, model, {"candidate": "side0"})
    labels = [alone(engine_of(CONFIGS["llama"], tokenizer), "candidate", p, LIMIT) for p in PROMPTS]
    expected = [alone(engine, "candidate", prompt, LIMIT) for prompt in PROMPTS]
    assert expected != labels
    for batch_size in (1, 16):
        answers = engine.generate(
            "candidate", PROMPTS, max_new_tokens=LIMIT, batch_size=batch_size, labels=labels
        )
        assert [answer.ids for answer in answers] == expected


def test_rows_are_gathered_as_long_as_they_are_few_and_short_enough():
    gathered = RowCollector(most_rows=8, more=10)
    assert gathered.has_room(99, 99), "what comes alone is bounded already"
    rows = torch.arange(4 * 30).view(4, 30)
    gathered.add([3, 1, 2, 0], TokenBatch(rows, torch.ones_like(rows), None))
    assert gathered.has_room(4, 20)
    assert not gathered.has_room(5, 20)
    assert not gathered.has_room(1, MOST_TOKENS // 5 - 9)
    assert gathered.has_room(1, MOST_TOKENS // 5 - 10)
    gathered.add([9], TokenBatch(rows[:1, :28], torch.ones_like(rows[:1, :28]), None))
    numbers, batch = gathered.take()
    assert (numbers, gathered.numbers) == ([3, 1, 2, 0, 9], [])
    assert batch.ids[-1].tolist() == [27, 27, *range(28)]
    assert batch.mask[-1].tolist() == [0, 0, *[1] * 28]


def test_many_labels_are_weighed_in_several_trees(tokenizer):
    config = LlamaConfig(**SHAPE | {"vocab_size": 2**19, "hidden_size": 8, "head_dim": 4})
    engine = AnswerEngine(tokenizer, build_model(config).eval(), {})
    labels = [(10 + number % 5, 100 + number, 1000 + number, 2) for number in range(120)]
    trees = build_label_trees(labels, 2**19)
    assert len(trees) > 2
    assert sorted(number for tree in trees for number in tree.numbers) == list(range(120))
    answers = engine.generate(BASE, PROMPTS[:2], max_new_tokens=2, batch_size=16, labels=labels)
    for prompt, answer in zip(PROMPTS, answers, strict=False):
        expected = [sum(likelihoods(engine, BASE, prompt, label[:-1])) for label in labels[::40]]
        assert answer.label_logprobs[::40] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    "prompts",
    [[(1, 5, 3)], [(1, 5, 3)] * 3, [(1, 5, 3), (1, 5, 3, 7, 8)], [(1, 5), (6, 7, 8)], [(1,), (1, 4)], []],
    ids=["one", "the same", "one begins the other", "nothing in common", "one token", "none"],
)
def test_odd_prompts_are_answered_too(prompts, tokenizer):
    engine = engine_of(CONFIGS["llama"], tokenizer)
    answers = engine.generate("candidate", prompts, max_new_tokens=4, batch_size=2, labels=LABELS)
    assert [answer.ids for answer in answers] == [alone(engine, "candidate", p, 4) for p in prompts]


def test_prompts_are_grouped_by_what_they_begin_with():
    one, two = (1, *range(100, 160)), (1, *range(200, 280))
    questions = [(number, 3) for number in range(20)]
    prompts = [(*system, *question) for question in questions for system in (one, two)]
    odd = [(1, 7, 8), (1, *range(300, 340), 3)]
    groups = group_by_beginning([*odd, *prompts])
    assert sorted(map(sorted, groups)) == [[0, 1], list(range(2, 42, 2)), list(range(3, 42, 2))]


def test_prompts_are_not_scattered_for_a_few_tokens():
    prompts = [(1, 2, 3, number // 5, number, 9) for number in range(100)]
    assert sorted(group_by_beginning(prompts)[0]) == list(range(100))
    nested = [tuple(range(length)) for length in range(1, 1000)]
    assert sorted(number for group in group_by_beginning(nested) for number in group) == list(range(999))
    assert len(group_by_beginning(nested)) < sum(map(len, nested)) / LEAST_SAVED
    assert group_by_beginning([]) == []


def test_the_answers_of_several_groups_come_in_the_prompts_order(tokenizer):
    engine = engine_of(CONFIGS["llama"], tokenizer)
    prompts = [(*range(start, start + 40), own, 3) for own in range(15) for start in (3, 20)]
    assert len(group_by_beginning(prompts)) == 2
    answers = engine.generate("candidate", prompts, max_new_tokens=LIMIT, batch_size=4, labels=LABELS)
    assert [answer.ids for answer in answers] == [alone(engine, "candidate", p, LIMIT) for p in prompts]
    said = [answer.ids for answer in answers]
    for prompt, answer, found in zip(
        prompts, said, engine.compute_logprobs("candidate", prompts, said, batch_size=4), strict=True
    ):
        assert list(found) == pytest.approx(likelihoods(engine, "candidate", prompt, answer), abs=1e-4)


def test_batches_hold_like_lengths_and_are_bounded_by_tokens():
    assert list(split_into_batches([3, 9, 4, 8, 1], 2)) == [[1, 3], [2, 0], [4]]
    assert list(split_into_batches([MOST_TOKENS // 2, 2 * MOST_TOKENS, 5, MOST_TOKENS // 2], 16)) == [
        [1],
        [0, 3],
        [2],
    ]
    assert list(split_into_batches([], 4)) == []
    assert list(split_into_batches([9, 40, 35, 10, 1], 8, most_padding=10)) == [[1, 2], [3, 0, 4]]


@pytest.mark.parametrize("kind", CONFIGS)
def test_nothing_is_shared_where_tokens_do_not_see_all_before_them(kind):
    windows = {"mistral", "qwen2-sliding", "gemma2", "gemma3"}
    with torch.inference_mode():
        shared = SharedPrompts(build_model(CONFIGS[kind]), PROMPTS)
    assert shared.exact == (kind not in windows)


def test_a_label_has_the_tokens_that_a_model_was_trained_to_write(tokenizer):
    prompt = (Message(role="user", content="Hello"),)
    billing, empty = tokenize_labels(tokenizer, prompt, (), ["billing", ""])
    assert tokenizer.decode(billing) == "billing<|im_end|>"
    assert tokenizer.decode(empty) == "<|im_end|>"


def test_timed_answers_have_as_many_tokens_as_asked_for(tokenizer):
    engine = engine_of(CONFIGS["llama"], tokenizer)
    assert len(alone(engine, "candidate", PROMPTS[0], 9)) < 9
    for tokens in (1, 9):
        computed, seconds = tokens_computed(
            engine,
            lambda: engine.time_answer("candidate", PROMPTS[0], tokens=tokens),  # noqa: B023
        )
        assert seconds > 0
        assert computed == len(PROMPTS[0]) + tokens - 1


def test_two_adapters_of_one_base_answer_as_each_alone(tiny_model, tmp_path):
    folders = {}
    for seed, name in enumerate(("acme--routing--v1.2", "acme--routing--v3")):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
        made = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
        for parameter_name, parameter in made.named_parameters():
            if "lora_B" in parameter_name:
                torch.nn.init.normal_(parameter, std=0.3)
        folders[name] = tmp_path / name
        made.save_pretrained(folders[name])
    both = open_engine(str(tiny_model), folders, device="cpu", dtype="float32")
    assert isinstance(both._model, PeftModel)
    for side in (BASE, *folders):
        own = {side: folders[side]} if side in folders else {}
        engine = open_engine(str(tiny_model), own, device="cpu", dtype="float32")
        expected = [engine.generate(side, [p], max_new_tokens=5, batch_size=1)[0].ids for p in PROMPTS]
        assert [a.ids for a in both.generate(side, PROMPTS, max_new_tokens=5, batch_size=4)] == expected
