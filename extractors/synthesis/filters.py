"""Which proposals of a language model are worth an operator's time.

    proposal ─> of the right form? ─> far from what is held out? ─> not there already? ─> its diversity
                     └───────────────────────┴───────────────────────────┴─> left out, counted by reason

Nearness is judged twice: by letters (`extractors.cleaning.near_duplicates`), and by meaning, with the
vectors of an encoder that is passed in as a function.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import Any

import numpy as np
from pydantic import Field

from extractors.cleaning.near_duplicates import (
    NEAR,
    find_near_duplicates,
    find_near_matches,
    find_templates_in_texts,
)
from extractors.cleaning.quality import find_flaw, iterate_kinds, join_turns
from extractors.cleaning.templates import find_templates
from extractors.errors import LearndError
from extractors.examples.output_space import OutputSpace
from extractors.examples.prompt_keys import normalise
from extractors.examples.types import (
    Example,
    Examples,
    Message,
    PreferencePair,
    SFTExample,
    Trajectory,
    Triplet,
)
from extractors.synthesis.generate import ProposedExample
from extractors.synthesis.recipes import (
    choose_better_answer,
    find_common_frame,
    find_frame,
    format_message,
    list_functions,
)
from extractors.values import Value

Encode = Callable[[Sequence[str]], Any]
"""Vectors of texts: numbers, shape (texts, dimensions), in their order; of any length but 0."""
Vectors = np.ndarray[Any, np.dtype[np.float32]]
Similarities = np.ndarray[Any, np.dtype[np.float32]]
BLOCK = 1024
"""Texts that are encoded and compared at once."""


class UnfitReason(StrEnum):
    """Why a proposal is not shown to an operator, besides the flaws of any example."""

    OTHER_SHAPE = "its prompt or its documents are not formed as those of the demonstrations"
    OUT_OF_SPACE = "its answer is not in the output space"
    OTHER_FORM = "its answer is formed otherwise than those of the demonstrations"
    LENGTH = "much longer or shorter than the demonstrations"
    HELD_OUT = "near a held-out or golden item"
    TRAINED_ON = "nearly what is trained on already"
    REPEATED = "nearly another proposal"


class ScreeningRules(Value):
    """How alike is too alike, and how long is too long.

    The similarities are cosines of all-MiniLM-L6-v2, chosen on CLINC150's short questions, 50 of a
    label: at 0.92, 27 % of what people wrote themselves is near another's question, differing in a
    politeness or the order of words ("what are the carry on rules for united" / "what are the carry-on
    restrictions for united"); at 0.8, 61 %, and pairs have different answers ("can you find me a recipe
    for coffee cakes" / "what ingredients are in coffee cakes"). Another encoder may want others.
    """

    near_trained: float = Field(0.92, gt=0, le=1)
    """Similarity from which a proposal says what is trained on, or another proposal says, already."""
    near_held_out: float = Field(0.85, gt=0, le=1)
    """Similarity from which it gives away a held-out or golden item: lower, as a proposal too few costs
    less than a measurement that flatters. 39 % of CLINC150's test questions are this near to training."""
    longest: float = Field(2.0, ge=1)
    """Times the longest of the demonstrations."""
    shortest: float = Field(0.3, gt=0, le=1)
    """Times the shortest of them."""


class ScreenedExample(ProposedExample):
    """A proposal for an operator."""

    diversity: float = Field(ge=0, le=1)
    """How unlike what is trained on, and the proposals before it: 1 less the greatest similarity."""


class ScreeningResult(Value):
    """What is left of a model's proposals."""

    kept: tuple[ScreenedExample, ...]
    """In the order in which they were."""
    left_out: dict[str, int]
    """By reason in words."""


class VectorsInvalid(LearndError):
    """An encoder did not give a direction for each text."""


def screen(
    proposed: Sequence[ProposedExample],
    *,
    demonstrations: Sequence[Example],
    output_space: Sequence[str] = (),
    trained: Examples,
    held_out: Sequence[Sequence[Message] | str],
    encode: Encode,
    rules: ScreeningRules | None = None,
) -> ScreeningResult:
    """The proposals that can be shown, with their diversity; what is left out is counted by its first reason.

    `demonstrations`: those of the request; `trained`: all of the snapshot's training and validation
    examples; `held_out`: the prompts of holdout and golden items, as messages, or as text (queries).
    Raises VectorsInvalid.
    """
    rules = rules or ScreeningRules()
    left_out: Counter[str] = Counter()
    form = _ExpectedForm(demonstrations, output_space, rules)
    whole: list[ProposedExample] = []
    for each in proposed:
        reason = find_flaw(each.example) or form.unfit(each.example)
        if reason is None:
            whole.append(each)
        else:
            left_out[reason.value] += 1
    known = [text for each in (*demonstrations, *_list_members(trained)) for text in _list_questions(each)]
    held = [text if isinstance(text, str) else join_turns(text) for text in held_out]
    kept = _apart(whole, list(dict.fromkeys(known)), list(dict.fromkeys(held)), encode, rules, left_out)
    return ScreeningResult(kept=tuple(kept), left_out=dict(left_out))


# ---- of the right form?


class _ExpectedForm:
    """What the demonstrations have in common."""

    def __init__(
        self, demonstrations: Sequence[Example], output_space: Sequence[str], rules: ScreeningRules
    ) -> None:
        self._space = OutputSpace(output_space) if output_space else None
        self._documents: defaultdict[str, set[str]] = defaultdict(set)
        for each in demonstrations:
            if isinstance(each, Triplet):
                self._documents[each.positive.text].add(each.negative.text)
        prompted = [each for each in demonstrations if isinstance(each, SFTExample | PreferencePair)]
        if prompted:
            self._shape, prompted = find_common_frame(prompted)
        answers = [choose_better_answer(each) for each in prompted]
        self._calls = {bool(answer.tool_calls) for answer in answers}
        self._keys = [_read_keys(answer) for answer in answers]
        self._question = _LengthRange(
            [_find_question(each) for each in (*prompted, *_select_triplets(demonstrations))], rules
        )
        worse = [each.rejected for each in prompted if isinstance(each, PreferencePair)]
        self._answer = _LengthRange([format_message(answer) for answer in (*answers, *worse)], rules)

    def unfit(self, example: Example) -> UnfitReason | None:
        """Why the proposal is formed otherwise; None where it is not."""
        if isinstance(example, Triplet):
            negatives = self._documents.get(example.positive.text, set())
            if example.negative.text not in negatives:
                return UnfitReason.OTHER_SHAPE
            return None if self._question.fits(example.query) else UnfitReason.LENGTH
        if not isinstance(example, SFTExample | PreferencePair):
            return UnfitReason.OTHER_SHAPE
        shape = find_frame(example)
        if shape is None or shape.key != self._shape.key:
            return UnfitReason.OTHER_SHAPE
        if not self._question.fits(_find_question(example)):
            return UnfitReason.LENGTH
        return self._unfit_answer(example)

    def _unfit_answer(self, example: SFTExample | PreferencePair) -> UnfitReason | None:
        better = choose_better_answer(example)
        worse = [example.rejected] if isinstance(example, PreferencePair) else []
        if self._space is not None:
            spelled = [self._space.to_label(answer) == answer for answer in (better, *worse)]
            return None if all(spelled) else UnfitReason.OUT_OF_SPACE
        if bool(better.tool_calls) not in self._calls or not self._formed(better):
            return UnfitReason.OTHER_FORM
        fits = all(self._answer.fits(format_message(answer)) for answer in (better, *worse))
        return None if fits else UnfitReason.LENGTH

    def _formed(self, answer: Message) -> bool:
        """As JSON: with the keys that every demonstration has, and none that no demonstration has."""
        if answer.tool_calls:
            return all(
                _is_callable(call.name, call.arguments, self._shape.tools) for call in answer.tool_calls
            )
        objects = [keys for keys in self._keys if keys is not None]
        if not objects or len(objects) < len(self._keys):
            return True
        keys = _read_keys(answer)
        return keys is not None and frozenset.intersection(*objects) <= keys <= frozenset.union(*objects)


class _LengthRange:
    """Between the shortest and the longest text, with room on both sides."""

    def __init__(self, texts: Sequence[str], rules: ScreeningRules) -> None:
        lengths = [len(text.strip()) for text in texts] or [0]
        self._least = min(lengths) * rules.shortest
        self._most = max(lengths) * rules.longest

    def fits(self, text: str) -> bool:
        return self._least <= len(text.strip()) <= self._most


def _read_keys(answer: Message) -> frozenset[str] | None:
    """The keys of an answer that is a JSON object."""
    try:
        found = json.loads(answer.content)
    except (ValueError, RecursionError):
        return None
    return frozenset(found) if isinstance(found, dict) else None


def _is_callable(name: str, arguments: str, tools: Sequence[dict[str, Any]]) -> bool:
    """Whether one of the tools takes these arguments: what it requires, and nothing that it does not name."""
    try:
        given = json.loads(arguments)
    except (ValueError, RecursionError):
        return False
    schema = list_functions(tools).get(name)
    if schema is None or not isinstance(given, dict):
        return False
    required, known = schema.get("required"), schema.get("properties")
    lacking = set(required) - given.keys() if isinstance(required, list) else set()
    return not lacking and (not isinstance(known, dict) or given.keys() <= known.keys())


# ---- apart from what is held out, and said once


def _apart(
    whole: Sequence[ProposedExample],
    known: Sequence[str],
    held: Sequence[str],
    encode: Encode,
    rules: ScreeningRules,
    left_out: Counter[str],
) -> Iterator[ScreenedExample]:
    texts = [_find_question(each.example) for each in whole]
    if not texts:
        return
    everything = [*texts, *known, *held]
    templates = find_templates_in_texts(everything)
    like_held = find_near_matches(texts, held, NEAR, templates)
    like_known = find_near_matches(texts, known, NEAR, templates)
    directions = _TextEncoder(encode, everything)
    vectors = directions.of(texts)
    to_held, to_known = directions.greatest(vectors, held), directions.greatest(vectors, known)
    new: list[int] = []
    for at in range(len(whole)):
        if like_held[at] is not None or to_held[at] >= rules.near_held_out:
            left_out[UnfitReason.HELD_OUT.value] += 1
        elif like_known[at] is not None or to_known[at] >= rules.near_trained:
            left_out[UnfitReason.TRAINED_ON.value] += 1
        else:
            new.append(at)
    repeats = find_near_duplicates([texts[at] for at in new], NEAR, templates)
    taken: list[int] = []
    for at, repeated in zip(new, repeats, strict=True):
        to_taken = (vectors[taken] @ vectors[at]).max(initial=-1.0)
        if repeated is not None or to_taken >= rules.near_trained:
            left_out[UnfitReason.REPEATED.value] += 1
            continue
        taken.append(at)
        diversity = min(1.0, max(0.0, 1 - float(max(to_taken, to_known[at]))))
        yield ScreenedExample(**dict(whole[at]), diversity=diversity)


class _TextEncoder:
    """Texts as vectors of length 1, by what each says beside the template that it was written in.

    A long template would make all texts near each other, and every proposal near what is held out.
    """

    def __init__(self, encode: Encode, everything: Sequence[str]) -> None:
        self._encode = encode
        self._templates = find_templates(map(normalise, everything))

    def of(self, texts: Sequence[str]) -> Vectors:
        """Shape (texts, dimensions). Raises VectorsInvalid."""
        vectors = np.asarray(self._encode([self._own(text) for text in texts]), dtype=np.float32)
        if vectors.ndim != 2 or len(vectors) != len(texts):
            raise VectorsInvalid(f"the encoder gave an array of shape {vectors.shape} for {len(texts)} texts")
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        # Without a direction nothing could be told to be near what is held out.
        if not np.isfinite(lengths).all() or not lengths.all():
            raise VectorsInvalid("the encoder gave vectors that are 0 or no numbers; is its folder whole?")
        directions: Vectors = vectors / lengths
        return directions

    def greatest(self, vectors: Vectors, texts: Sequence[str]) -> Similarities:
        """Of each vector the greatest cosine with one of the texts; -1 without texts. Shape (vectors,)."""
        greatest: Similarities = np.full(len(vectors), -1.0, dtype=np.float32)
        for start in range(0, len(texts), BLOCK):
            block = self.of(texts[start : start + BLOCK])
            greatest = np.maximum(greatest, (vectors @ block.T).max(axis=1))
        return greatest

    def _own(self, text: str) -> str:
        plain = normalise(text)
        own = self._templates.remove_passages(plain)
        return text if own == plain else own or text


def _find_question(example: Any) -> str:
    """What a proposal asks."""
    return example.query if isinstance(example, Triplet) else join_turns(example.prompt)


def _list_questions(example: Example) -> Iterator[str]:
    """What an example shows of questions; of a conversation each of them."""
    if isinstance(example, Trajectory):
        yield from (turn.content for turn in example.messages if turn.role == "user")
    else:
        yield _find_question(example)


def _list_members(examples: Examples) -> Iterator[Example]:
    for _, members in iterate_kinds(examples):
        yield from members


def _select_triplets(examples: Sequence[Example]) -> list[Triplet]:
    return [each for each in examples if isinstance(each, Triplet)]
