"""Only proposals of the right form, far from the holdout and new are kept. Vectors are made by hand."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extractors.cleaning.quality import Flaw
from extractors.examples.prompt_keys import compute_prompt_key, compute_query_key
from extractors.examples.types import (
    Document,
    Examples,
    Message,
    PreferencePair,
    SFTExample,
    ToolCall,
    Trajectory,
    Triplet,
    UnpairedPreference,
)
from extractors.synthesis.filters import KnownExamples, ScreeningResult, UnfitReason, VectorsInvalid, screen
from extractors.synthesis.generate import ProposedExample
from extractors.synthesis.recipes import Synthetic
from extractors.synthesis.rules import ScreeningRules

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SYSTEM = Message(role="system", content="Route.")
SPACE = ("billing", "shipping")
TOOLS = (
    {
        "type": "function",
        "function": {
            "name": "stock",
            "parameters": {"properties": {"item": {}, "shop": {}}, "required": ["item"]},
        },
    },
)


def build_answer(content: str) -> Message:
    return Message(role="assistant", content=content)


def build_sft(message: str, answer: Message | str = "billing", **changes: Any) -> SFTExample:
    prompt = changes.pop("prompt", (SYSTEM, Message(role="user", content=message)))
    answer = build_answer(answer) if isinstance(answer, str) else answer
    return SFTExample(
        prompt=prompt, completion=answer, prompt_key=compute_prompt_key(prompt), started_at=NOW, **changes
    )


def build_pair(message: str, chosen: str, rejected: str) -> PreferencePair:
    example = build_sft(message)
    return PreferencePair(
        prompt=example.prompt,
        chosen=build_answer(chosen),
        rejected=build_answer(rejected),
        prompt_key=example.prompt_key,
        started_at=NOW,
        preferred_by="candidate",
    )


def build_triplet(query: str, positive: str, negative: str) -> Triplet:
    return Triplet(
        query=query,
        positive=Document(text=positive),
        negative=Document(text=negative),
        prompt_key=compute_query_key(query),
        started_at=NOW,
    )


APPROVED = (
    build_sft("I was charged twice last week"),
    build_sft("where is the parcel I ordered?", "shipping"),
)


class Meaning:
    """An encoder of few words: a text is the sum of the directions of the words that it knows."""

    def __init__(self, **directions: Sequence[float]) -> None:
        self._directions = directions
        self.asked: list[str] = []

    def __call__(self, texts: Sequence[str]) -> Any:
        self.asked.extend(texts)
        return [
            np.sum([d for word, d in self._directions.items() if word in text] or [[0.0, 0.0, 1.0]], axis=0)
            for text in texts
        ]


APART = Meaning(
    charged=(1, 0, 0), parcel=(0, 1, 0), invoice=(1, 0.1, 0), lamp=(0.5, 0.5, 1), kettle=(-1, 0, 0.2)
)


def run_screen(
    examples: Sequence[Synthetic],
    demonstrations: Sequence[Synthetic] = APPROVED,
    *,
    output_space: Sequence[str] = SPACE,
    trained: Examples | None = None,
    held_out: Sequence[Any] = (),
    encode: Any = APART,
    rules: ScreeningRules | None = None,
) -> ScreeningResult:
    return screen(
        [ProposedExample(example=example, demonstrations=("a",)) for example in examples],
        KnownExamples(demonstrations, trained or Examples(), held_out),
        output_space=output_space,
        encode=encode,
        rules=rules,
    )


def find_only_reason(*arguments: Any, **more: Any) -> str:
    result = run_screen(*arguments, **more)
    assert result.kept == ()
    ((reason, count),) = result.left_out.items()
    assert count == 1
    return reason


# ---- of the right form


def test_a_proposal_of_the_right_form_is_kept_with_where_it_comes_from() -> None:
    result = run_screen([build_sft("my kettle never came back")])
    assert [(each.example, each.demonstrations) for each in result.kept] == [
        (build_sft("my kettle never came back"), ("a",))
    ]
    assert result.left_out == {}


@pytest.mark.parametrize(
    ("example", "reason"),
    [
        (build_sft("  "), UnfitReason.LENGTH),
        (build_sft("my kettle never came back", " "), Flaw.NO_ANSWER),
        (build_sft("my kettle never came back", Message(role="user", content="x")), Flaw.NOT_THE_ASSISTANT),
        (build_sft("my kettle never came back", "refunds"), UnfitReason.OUT_OF_SPACE),
        (build_sft("my kettle never came back", "Billing"), UnfitReason.OUT_OF_SPACE),
        (
            build_sft("", prompt=(Message(role="user", content="my kettle never came"),)),
            UnfitReason.OTHER_SHAPE,
        ),
        (build_sft("my kettle never came back", tools=TOOLS), UnfitReason.OTHER_SHAPE),
        (
            build_sft("", prompt=(SYSTEM, Message(role="user", content="hello"), build_answer("hi"))),
            UnfitReason.OTHER_SHAPE,
        ),
        (build_sft("kettle"), UnfitReason.LENGTH),
        (build_sft("my kettle never came back, and " * 3), UnfitReason.LENGTH),
    ],
)
def test_what_is_formed_otherwise_is_left_out_with_the_reason(example: SFTExample, reason: str) -> None:
    assert find_only_reason([example]) == reason


def test_both_answers_of_a_pair_are_labels_and_differ() -> None:
    known = [build_pair("I was charged twice last week", "billing", "shipping")]
    message = "my kettle never came back"
    assert len(run_screen([build_pair(message, "billing", "shipping")], known).kept) == 1
    assert find_only_reason([build_pair(message, "billing", "Billing")], known) == Flaw.SAME_ANSWER
    assert find_only_reason([build_pair(message, "billing", "dunno")], known) == UnfitReason.OUT_OF_SPACE


def test_free_answers_are_about_as_long_as_approved_ones() -> None:
    known = [build_sft("is the kettle in stock?", "Yes, three of them are.")]
    message = "is the sofa in stock?"
    assert len(run_screen([build_sft(message, "No, not before May.")], known, output_space=()).kept) == 1
    for answer in ("No.", "No, and that is " * 6):
        assert find_only_reason([build_sft(message, answer)], known, output_space=()) == UnfitReason.LENGTH


def test_json_has_the_keys_of_approved_answers() -> None:
    known = [
        build_sft("two kettles for Ann, please", json.dumps({"item": "kettle", "count": 2})),
        build_sft("a lamp for Bob, in blue", json.dumps({"item": "lamp", "count": 1, "colour": "blue"})),
    ]
    message = "three red sofas for Cid"
    good = json.dumps({"item": "sofa", "count": 3, "colour": "red"})
    assert len(run_screen([build_sft(message, good)], known, output_space=()).kept) == 1
    for answer in ('{"item": "sofa", "colour": "red"}', '{"item": "sofa", "count": 3, "size": 1}'):
        assert (
            find_only_reason([build_sft(message, answer)], known, output_space=()) == UnfitReason.OTHER_FORM
        )
    for answer in ("three red sofas, please", '{"item": "sofa", "count"', '["sofa", 3, "red", 1]'):
        assert (
            find_only_reason([build_sft(message, answer)], known, output_space=()) == UnfitReason.OTHER_FORM
        )


def test_a_tool_is_called_as_it_was_offered() -> None:
    def calling(name: str, arguments: str) -> Message:
        return Message(role="assistant", tool_calls=(ToolCall(name=name, arguments=arguments),))

    known = [build_sft("is the kettle in stock?", calling("stock", '{"item": "kettle"}'), tools=TOOLS)]
    message = "is the sofa in stock?"

    def reason(answer: Message | str) -> str:
        return find_only_reason([build_sft(message, answer, tools=TOOLS)], known, output_space=())

    good = build_sft(message, calling("stock", '{"item": "sofa", "shop": 1}'), tools=TOOLS)
    assert len(run_screen([good], known, output_space=()).kept) == 1
    for arguments in ("{}", '{"item": "sofa", "colour": 1}', '["sofa"]', '{"item'):
        assert reason(calling("stock", arguments)) == UnfitReason.OTHER_FORM
    assert reason(calling("order", '{"item": "sofa"}')) == UnfitReason.OTHER_FORM
    assert reason("Yes, I am sure that it is there.") == UnfitReason.OTHER_FORM


@pytest.mark.parametrize(
    "tool", [{}, {"function": None}, {"function": {"name": "stock", "parameters": []}}, {"function": {}}]
)
def test_tools_that_say_little_are_no_trouble(tool: dict[str, Any]) -> None:
    known = [build_sft("is the kettle in stock?", "Yes, three of them are.", tools=(tool,))]
    proposal = build_sft("is the sofa in stock?", "No, not before May.", tools=(tool,))
    assert len(run_screen([proposal], known, output_space=()).kept) == 1


def test_documents_of_a_triplet_come_from_one_approved_result_list() -> None:
    known = [
        build_triplet("refund time", "five days", "two days"),
        build_triplet("opening hours", "at nine", "at six"),
    ]

    def screen_triplet(positive: str, negative: str) -> ScreeningResult:
        return run_screen([build_triplet("kettle back?", positive, negative)], known, output_space=())

    assert len(screen_triplet("five days", "two days").kept) == 1
    assert screen_triplet("five days", "at six").left_out == {UnfitReason.OTHER_SHAPE: 1}
    assert screen_triplet("at some time", "two days").left_out == {UnfitReason.OTHER_SHAPE: 1}


# ---- apart


def test_what_means_nearly_a_held_out_prompt_is_never_shown() -> None:
    held = [(SYSTEM, Message(role="user", content="the lamp is late"))]
    assert find_only_reason([build_sft("lamp still not here, help")], held_out=held) == UnfitReason.HELD_OUT


def test_the_bar_to_what_is_held_out_is_higher_than_to_what_is_trained_on() -> None:
    near = Meaning(kettle=(1, 0, 0), parcel=(0, 1, 0), charged=(0, -1, 0), lamp=(0.88, 0.475, 0))
    proposal = [build_sft("my lamp never came back")]
    trained = Examples(sft=(build_sft("my kettle is broken, I fear"),))
    assert len(run_screen(proposal, trained=trained, encode=near).kept) == 1
    assert (
        find_only_reason(proposal, held_out=["my kettle is broken, I fear"], encode=near)
        == UnfitReason.HELD_OUT
    )


def test_what_is_held_out_and_trained_on_counts_as_held_out() -> None:
    text = "the lamp is late"
    trained = Examples(sft=(build_sft(text),))
    assert (
        find_only_reason([build_sft("lamp still not here")], trained=trained, held_out=[text])
        == UnfitReason.HELD_OUT
    )


def test_equal_letters_are_near_whatever_the_encoder_says() -> None:
    class Scattered:
        """Gives each text it meets a direction of its own, equal ones too."""

        def __init__(self) -> None:
            self._met = 0

        def __call__(self, texts: Sequence[str]) -> Any:
            self._met += len(texts)
            return np.eye(64, dtype=np.float32)[self._met - len(texts) : self._met]

    text = "My kettle never came back!"
    shown = [build_sft(text)]
    same = "my kettle never  came back"
    assert find_only_reason(shown, held_out=[same], encode=Scattered()) == UnfitReason.HELD_OUT
    trained = Examples(sft=(build_sft(same),))
    assert find_only_reason(shown, trained=trained, encode=Scattered()) == UnfitReason.TRAINED_ON
    twice = run_screen([build_sft(text), build_sft(same)], encode=Scattered())
    assert (len(twice.kept), twice.left_out) == (1, {UnfitReason.REPEATED: 1})


@pytest.mark.parametrize("kind", Examples.model_fields)
def test_every_kind_of_training_example_counts(kind: str) -> None:
    asked = "the lamp is late"
    prompt = build_sft(asked).prompt
    known: dict[str, Any] = {
        "sft": build_sft(asked),
        "pairs": build_pair(asked, "billing", "shipping"),
        "votes": UnpairedPreference(
            prompt=prompt, completion=build_answer("billing"), prompt_key="k", desirable=True, started_at=NOW
        ),
        "triplets": build_triplet(asked, "a", "b"),
        "trajectories": Trajectory(
            messages=(
                *prompt,
                build_answer("billing"),
                Message(role="user", content="thanks"),
                build_answer("welcome"),
            ),
            learned=(2,),
            outcome="approved",
            prompt_keys=("k", "l"),
            started_at=NOW,
        ),
    }
    trained = Examples.model_validate({kind: [known[kind]]})
    assert (
        find_only_reason([build_sft("lamp still not here, help")], trained=trained) == UnfitReason.TRAINED_ON
    )


def test_a_paraphrase_of_a_demonstration_teaches_nothing_new() -> None:
    assert find_only_reason([build_sft("charged for it two times")]) == UnfitReason.TRAINED_ON


def test_of_proposals_that_mean_the_same_the_first_stays() -> None:
    result = run_screen([build_sft("my kettle never came back"), build_sft("the kettle: lost on its way?")])
    assert [each.example.prompt[-1].content for each in result.kept] == ["my kettle never came back"]
    assert result.left_out == {UnfitReason.REPEATED: 1}


def test_diversity_is_one_less_the_greatest_similarity() -> None:
    meaning = Meaning(charged=(1, 0, 0), parcel=(0, 1, 0), lamp=(0.6, 0, 0.8), kettle=(-1, 0, 0))
    lamp, kettle = run_screen(
        [build_sft("my lamp never came back"), build_sft("no kettle in that box")], encode=meaning
    ).kept
    assert lamp.diversity == pytest.approx(0.4)
    assert kettle.diversity == 1.0


def test_what_is_like_an_earlier_proposal_adds_less() -> None:
    meaning = Meaning(charged=(1, 0, 0), parcel=(1, 0, 0), lamp=(0, 1, 0), kettle=(0, 0.8, 0.6))
    lamp, kettle = run_screen(
        [build_sft("my lamp never came back"), build_sft("no kettle in that box")], encode=meaning
    ).kept
    assert (lamp.diversity, kettle.diversity) == (pytest.approx(1.0), pytest.approx(0.2))


def test_prompts_of_one_template_are_compared_by_what_stands_in_it() -> None:
    animals = ("ant", "bee", "cat", "dog", "elk", "fox", "gnu", "hen", "jay", "kite")
    names = [f"{colour} {animal}" for animal in animals for colour in ("white", "black")]

    def fill_template(word: str) -> str:
        return f"Read this ticket of a customer of our shop: {word} Then name the team that answers it."

    meaning = Meaning(yak=(1, 0, 0), zebra=(0, 1, 0), shop=(50, 50, 50))
    known = [build_sft(fill_template(name)) for name in names]
    result = run_screen(
        [build_sft(fill_template("a yak"))], known, held_out=[fill_template("a zebra")], encode=meaning
    )
    assert len(result.kept) == 1
    assert not any("shop" in text for text in meaning.asked)


@given(st.lists(st.sampled_from(["charged", "parcel", "lamp", "kettle", "invoice"]), max_size=8))
def test_everything_is_kept_or_counted(words: list[str]) -> None:
    examples = [build_sft(f"about my {word}, the number {at}") for at, word in enumerate(words)]
    result = run_screen(examples, held_out=["my invoice is wrong"])
    assert len(result.kept) + sum(result.left_out.values()) == len(examples)
    assert not any("invoice" in each.example.prompt[-1].content for each in result.kept)
    assert all(0 <= each.diversity <= 1 for each in result.kept)


@pytest.mark.parametrize(
    "broken",
    [
        lambda texts: np.ones((len(texts) + 1, 3)),
        lambda texts: np.ones(len(texts)),
        lambda texts: np.zeros((len(texts), 3)),
        lambda texts: np.full((len(texts), 3), np.nan),
    ],
)
def test_an_encoder_that_gives_no_directions_is_not_taken_for_one_that_finds_no_likeness(broken: Any) -> None:
    with pytest.raises(VectorsInvalid):
        run_screen([build_sft("my kettle never came back")], encode=broken)


def test_a_similarity_of_exactly_the_threshold_counts_for_trained_ones_and_for_other_proposals() -> None:
    # As a float32, 0.96 is less than 0.96.
    encode = Meaning(kettle=(1, 0, 0), toaster=(0.96, 0.28, 0), charged=(-1, 0, 0), parcel=(-1, 0, 0))
    kettle, toaster = build_sft("my kettle never came back"), build_sft("the toaster burns my bread")
    rules = ScreeningRules(near_trained=0.96)
    known = Examples(sft=(kettle,))
    assert find_only_reason([toaster], trained=known, encode=encode, rules=rules) == UnfitReason.TRAINED_ON
    result = run_screen([kettle, toaster], encode=encode, rules=rules)
    assert [each.example for each in result.kept] == [kettle]
    assert result.left_out == {UnfitReason.REPEATED.value: 1}


def test_without_proposals_nothing_is_encoded() -> None:
    seen = Meaning()
    assert run_screen([], encode=seen) == ScreeningResult(kept=(), left_out={})
    assert seen.asked == []
