"""Filters for the proposals of a language model: only those worth an operator's time are shown.

    proposal ─> of the right form? ─> far from what is held out? ─> not there already? ─> its diversity
                     └───────────────────────┴───────────────────────────┴─> left out, counted by reason

Nearness is judged twice: by letters (`extractors.cleaning.near_duplicates`), and by meaning, with the
vectors of an encoder that is passed in as a function.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from pydantic import Field

from extractors.cleaning.near_duplicates import (
    find_near_duplicates,
    find_near_matches,
    find_templates_in_texts,
)
from extractors.cleaning.quality import find_flaw, iterate_kinds, join_turns
from extractors.cleaning.rules import NEAR
from extractors.cleaning.templates import Templates, find_templates
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
from extractors.synthesis.rules import ScreeningRules
from extractors.values import Reasons, Value

Encode = Callable[[Sequence[str]], Any]
"""Vectors of texts: numbers, shape (texts, dimensions), in their order; of any length but 0."""
Vectors = np.ndarray[Any, np.dtype[np.float32]]
Similarities = np.ndarray[Any, np.dtype[np.float32]]
BLOCK = 1024
"""Texts that are encoded and compared at once."""


class UnfitReason(StrEnum):
    """Reasons not to show a proposal to an operator, besides the flaws of any example."""

    OTHER_SHAPE = "its prompt or its documents are not formed as those of the demonstrations"
    OUT_OF_SPACE = "its answer is not in the output space"
    OTHER_FORM = "its answer is formed otherwise than those of the demonstrations"
    LENGTH = "much longer or shorter than the demonstrations"
    HELD_OUT = "near a held-out or golden item"
    TRAINED_ON = "nearly what is trained on already"
    REPEATED = "nearly another proposal"


class ScreenedExample(ProposedExample):
    """A proposal for an operator."""

    diversity: float = Field(ge=0, le=1)
    """1 less the greatest similarity to anything trained on, or to the proposals before it."""


class ScreeningResult(Value):
    """The proposals that passed the filters."""

    kept: tuple[ScreenedExample, ...]
    """In the order in which they were proposed."""
    left_out: dict[str, int]
    """Numbers of the other ones, by reason in words."""


class VectorsInvalid(LearndError):
    """An encoder did not return a vector other than 0 for each text."""


@dataclass(frozen=True)
class KnownExamples:
    """Everything that proposals are compared with."""

    demonstrations: Sequence[Example]
    """Approved examples: those of the request."""
    trained: Examples
    """All of the snapshot's training and validation examples."""
    held_out: Sequence[Sequence[Message] | str]
    """The prompts of holdout and golden items, as messages, or as text (queries)."""

    def list_questions(self) -> list[str]:
        """Return the questions of demonstrations and trained examples, each once."""
        examples = (*self.demonstrations, *_list_members(self.trained))
        return list(dict.fromkeys(text for each in examples for text in _list_questions(each)))

    def list_held_out_questions(self) -> list[str]:
        """Return the held-out questions, each once."""
        texts = (text if isinstance(text, str) else join_turns(text) for text in self.held_out)
        return list(dict.fromkeys(texts))


def screen(
    proposed: Sequence[ProposedExample],
    known: KnownExamples,
    *,
    output_space: Sequence[str] = (),
    encode: Encode,
    rules: ScreeningRules | None = None,
) -> ScreeningResult:
    """Return the proposals that can be shown, and count the others by the first reason against each.

    Raises VectorsInvalid.
    """
    rules = rules or ScreeningRules()
    well_formed, malformed = _filter_by_form(
        proposed, _ExpectedForm(known.demonstrations, output_space, rules)
    )
    kept, near = _filter_by_similarity(well_formed, known, encode, rules)
    left_out = {str(reason.value): count for reason, count in (malformed + near).items()}
    return ScreeningResult(kept=tuple(kept), left_out=left_out)


# ---- of the right form?


def _filter_by_form(
    proposed: Sequence[ProposedExample], form: "_ExpectedForm"
) -> tuple[list[ProposedExample], Reasons]:
    kept, left_out = list[ProposedExample](), Reasons()
    for each in proposed:
        reason = find_flaw(each.example) or form.find_misfit(each.example)
        if reason is None:
            kept.append(each)
        else:
            left_out[reason] += 1
    return kept, left_out


class _ExpectedForm:
    """The form that the demonstrations have in common."""

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
            self._frame, prompted = find_common_frame(prompted)
        answers = [choose_better_answer(each) for each in prompted]
        self._calls = {bool(answer.tool_calls) for answer in answers}
        self._keys = [_read_keys(answer) for answer in answers]
        self._question = _LengthRange(
            [_find_question(each) for each in (*prompted, *_select_triplets(demonstrations))], rules
        )
        worse = [each.rejected for each in prompted if isinstance(each, PreferencePair)]
        self._answer = _LengthRange([format_message(answer) for answer in (*answers, *worse)], rules)

    def find_misfit(self, example: Example) -> UnfitReason | None:
        """Return the first way in which the proposal differs from the form; None where it does not."""
        if isinstance(example, Triplet):
            negatives = self._documents.get(example.positive.text, set())
            if example.negative.text not in negatives:
                return UnfitReason.OTHER_SHAPE
            return None if self._question.fits(example.query) else UnfitReason.LENGTH
        if not isinstance(example, SFTExample | PreferencePair):
            return UnfitReason.OTHER_SHAPE
        frame = find_frame(example)
        if frame is None or frame.key != self._frame.key:
            return UnfitReason.OTHER_SHAPE
        if not self._question.fits(_find_question(example)):
            return UnfitReason.LENGTH
        return self._find_answer_misfit(example)

    def _find_answer_misfit(self, example: SFTExample | PreferencePair) -> UnfitReason | None:
        better = choose_better_answer(example)
        worse = [example.rejected] if isinstance(example, PreferencePair) else []
        if self._space is not None:
            spelled = [self._space.to_label(answer) == answer for answer in (better, *worse)]
            return None if all(spelled) else UnfitReason.OUT_OF_SPACE
        if bool(better.tool_calls) not in self._calls or not self._has_form(better):
            return UnfitReason.OTHER_FORM
        fits = all(self._answer.fits(format_message(answer)) for answer in (better, *worse))
        return None if fits else UnfitReason.LENGTH

    def _has_form(self, answer: Message) -> bool:
        """Return whether a JSON answer has every demonstration's keys, and none that no demonstration has."""
        if answer.tool_calls:
            return all(
                _is_callable(call.name, call.arguments, self._frame.tools) for call in answer.tool_calls
            )
        objects = [keys for keys in self._keys if keys is not None]
        if not objects or len(objects) < len(self._keys):
            return True
        keys = _read_keys(answer)
        return keys is not None and frozenset.intersection(*objects) <= keys <= frozenset.union(*objects)


class _LengthRange:
    """The range between the shortest and the longest text, with room on both sides."""

    def __init__(self, texts: Sequence[str], rules: ScreeningRules) -> None:
        lengths = [len(text.strip()) for text in texts] or [0]
        self._least = min(lengths) * rules.shortest
        self._most = max(lengths) * rules.longest

    def fits(self, text: str) -> bool:
        return self._least <= len(text.strip()) <= self._most


def _read_keys(answer: Message) -> frozenset[str] | None:
    """Return the keys of an answer that is a JSON object; None where it is not."""
    try:
        found = json.loads(answer.content)
    except (ValueError, RecursionError):
        return None
    return frozenset(found) if isinstance(found, dict) else None


def _is_callable(name: str, arguments: str, tools: Sequence[dict[str, Any]]) -> bool:
    """Return whether one of the tools takes these arguments: all that it requires, and none unknown."""
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


# ---- far from what is held out and from each other


def _filter_by_similarity(
    proposed: Sequence[ProposedExample], known: KnownExamples, encode: Encode, rules: ScreeningRules
) -> tuple[list[ScreenedExample], Reasons]:
    """Return the proposals that are near nothing known and not near each other."""
    texts = [_find_question(each.example) for each in proposed]
    if not texts:
        return [], Reasons()
    questions, held = known.list_questions(), known.list_held_out_questions()
    everything = [*texts, *questions, *held]
    templates = find_templates_in_texts(everything)
    like_held = find_near_matches(texts, held, NEAR, templates)
    like_known = find_near_matches(texts, questions, NEAR, templates)
    encoder = _TextEncoder(encode, everything)
    vectors = encoder.encode(texts)
    to_held = encoder.find_greatest_similarity(vectors, held)
    to_known = encoder.find_greatest_similarity(vectors, questions)
    new, left_out = list[int](), Reasons()
    for at in range(len(proposed)):
        if like_held[at] is not None or to_held[at] >= rules.near_held_out:
            left_out[UnfitReason.HELD_OUT] += 1
        elif like_known[at] is not None or to_known[at] >= rules.near_trained:
            left_out[UnfitReason.TRAINED_ON] += 1
        else:
            new.append(at)
    distinct = _find_distinct(texts, vectors, new, templates, rules)
    left_out[UnfitReason.REPEATED] += len(new) - len(distinct)
    return [
        ScreenedExample(
            **dict(proposed[at]), diversity=min(1.0, max(0.0, 1 - float(max(similarity, to_known[at]))))
        )
        for at, similarity in distinct
    ], +left_out


def _find_distinct(
    texts: Sequence[str],
    vectors: Vectors,
    candidates: Sequence[int],
    templates: Templates,
    rules: ScreeningRules,
) -> list[tuple[int, float]]:
    """Return the candidates that repeat no earlier one, each with its greatest similarity to an earlier one.

    `candidates` are positions in `texts` and `vectors`. The first one's similarity is -1.
    """
    repeats = find_near_duplicates([texts[at] for at in candidates], NEAR, templates)
    distinct: list[tuple[int, float]] = []
    for at, repeated in zip(candidates, repeats, strict=True):
        earlier = [position for position, _ in distinct]
        similarity = (vectors[earlier] @ vectors[at]).max(initial=-1.0)
        # In float32, as it was computed: a similarity of exactly the threshold counts.
        if repeated is None and similarity < rules.near_trained:
            distinct.append((at, float(similarity)))
    return distinct


class _TextEncoder:
    """Encodes texts as vectors of length 1, without the template that each was written in.

    A long template would make all texts near each other, and every proposal near what is held out.
    """

    def __init__(self, encode: Encode, everything: Sequence[str]) -> None:
        self._encode = encode
        self._templates = find_templates(map(normalise, everything))

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return vectors of shape (texts, dimensions). Raises VectorsInvalid."""
        vectors = np.asarray(self._encode([self._strip_template(text) for text in texts]), dtype=np.float32)
        if vectors.ndim != 2 or len(vectors) != len(texts):
            raise VectorsInvalid(f"the encoder gave an array of shape {vectors.shape} for {len(texts)} texts")
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        # A vector without a direction would be near nothing that is held out.
        if not np.isfinite(lengths).all() or not lengths.all():
            raise VectorsInvalid("the encoder gave vectors that are 0 or no numbers; is its folder whole?")
        directions: Vectors = vectors / lengths
        return directions

    def find_greatest_similarity(self, vectors: Vectors, texts: Sequence[str]) -> Similarities:
        """Return each vector's greatest cosine with one of the texts; -1 without texts. Shape (vectors,)."""
        greatest: Similarities = np.full(len(vectors), -1.0, dtype=np.float32)
        for start in range(0, len(texts), BLOCK):
            block = self.encode(texts[start : start + BLOCK])
            greatest = np.maximum(greatest, (vectors @ block.T).max(axis=1))
        return greatest

    def _strip_template(self, text: str) -> str:
        plain = normalise(text)
        own = self._templates.remove_passages(plain)
        return text if own == plain else own or text


def _find_question(example: Any) -> str:
    """Return the question of a proposal."""
    return example.query if isinstance(example, Triplet) else join_turns(example.prompt)


def _list_questions(example: Example) -> Iterator[str]:
    """Yield the questions of an example; of a conversation every one."""
    if isinstance(example, Trajectory):
        yield from (turn.content for turn in example.messages if turn.role == "user")
    else:
        yield _find_question(example)


def _list_members(examples: Examples) -> Iterator[Example]:
    for _, members in iterate_kinds(examples):
        yield from members


def _select_triplets(examples: Sequence[Example]) -> list[Triplet]:
    return [each for each in examples if isinstance(each, Triplet)]
