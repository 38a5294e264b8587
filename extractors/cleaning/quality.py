"""Examples that are fit to train on: whole, not repeated, and far from everything that is held out.

examples ─> whole? ─> like a held-out prompt? ─> nearly repeated? ─> training
               └───────────────┴───────────────────────┴─> left out, counted by reason
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from datetime import datetime
from enum import StrEnum
from functools import cache
from typing import Any, NamedTuple

from extractors.cleaning.near_duplicates import (
    KnownTexts,
    find_near_duplicates,
    find_near_matches,
    find_templates_in_texts,
)
from extractors.cleaning.rules import QualityRules
from extractors.cleaning.templates import Templates
from extractors.errors import LearndError
from extractors.examples.prompt_keys import fold, is_nearly_equal, normalise
from extractors.examples.types import (
    AnyExample,
    Example,
    Examples,
    Message,
    PreferencePair,
    SFTExample,
    Trajectory,
    Triplet,
    UnpairedPreference,
)
from extractors.values import Reasons


class Flaw(StrEnum):
    """Reasons why an example is not trained on."""

    NO_QUESTION = "its prompt says nothing"
    NO_ANSWER = "its answer is empty"
    NOT_THE_ASSISTANT = "what it should learn is not said by the assistant"
    REJECTED = "a conversation that was rejected"
    NOTHING_LEARNED = "a conversation in which no turn is to be learned"
    SAME_ANSWER = "its better and its worse answer are the same but for case and white space"
    HELD_OUT = "its prompt is nearly one that is held out"
    REPEATED = "the same answer to nearly the same prompt is there already, newer"


class CleanedExamples(NamedTuple):
    """The examples that are left to train on, and a count of the others."""

    examples: Examples
    """In the order in which they were."""
    left_out: Reasons


class ExamplesInvalid(LearndError):
    """Some examples cannot be trained on; the message lists them with the reasons."""


# ---- whole?


def find_flaw(example: Example) -> Flaw | None:
    """Return the reason why this example cannot be trained on, whatever else there is; None if it can."""
    match example:
        case Triplet():
            return _find_triplet_flaw(example)
        case Trajectory():
            return _find_trajectory_flaw(example)
        case PreferencePair():
            if is_nearly_equal(example.chosen, example.rejected):
                return Flaw.SAME_ANSWER
            return _find_answer_flaw(example.prompt, (example.chosen, example.rejected))
        case SFTExample() | UnpairedPreference():
            return _find_answer_flaw(example.prompt, (example.completion,))
    raise TypeError(f"{type(example).__name__} is no kind of example")


def check_examples(examples: Examples) -> None:
    """Check each example on its own. Raises ExamplesInvalid with kind and index of the flawed ones."""
    wrong = [
        f"{kind} {index}: {found.value}"
        for kind, members in iterate_kinds(examples)
        for index, example in enumerate(members)
        if (found := find_flaw(example)) is not None
    ]
    if wrong:
        shown = "; ".join(wrong[:20]) + (f"; and {len(wrong) - 20} more" if len(wrong) > 20 else "")
        raise ExamplesInvalid(f"{len(wrong)} examples cannot be trained on: {shown}")


def _find_answer_flaw(prompt: Sequence[Message], answers: Iterable[Message]) -> Flaw | None:
    if not any(_has_content(message) for message in prompt if message.role != "assistant"):
        return Flaw.NO_QUESTION
    for answer in answers:
        if answer.role != "assistant":
            return Flaw.NOT_THE_ASSISTANT
        if not _has_content(answer):
            return Flaw.NO_ANSWER
    return None


def _find_trajectory_flaw(trajectory: Trajectory) -> Flaw | None:
    if trajectory.outcome == "rejected":
        return Flaw.REJECTED
    if not trajectory.learned:
        return Flaw.NOTHING_LEARNED
    if not all(0 <= at < len(trajectory.messages) for at in trajectory.learned):
        return Flaw.NOT_THE_ASSISTANT
    learned = [trajectory.messages[at] for at in trajectory.learned]
    return _find_answer_flaw(trajectory.messages[: min(trajectory.learned)], learned)


def _find_triplet_flaw(triplet: Triplet) -> Flaw | None:
    if not triplet.query.strip():
        return Flaw.NO_QUESTION
    if not triplet.positive.text.strip() or not triplet.negative.text.strip():
        return Flaw.NO_ANSWER
    same = normalise(triplet.positive.text) == normalise(triplet.negative.text)
    return Flaw.SAME_ANSWER if same else None


def _has_content(message: Message) -> bool:
    return bool(message.content.strip() or message.tool_calls)


# ---- apart from what is held out, and each once


def clean(
    examples: Examples,
    *,
    held_out: Sequence[Sequence[Message] | str],
    rules: QualityRules | None = None,
    templates: Templates | None = None,
) -> CleanedExamples:
    """Leave out the examples that are broken, near a held-out prompt, or nearly repeated in their kind.

    `held_out` are the prompts of holdout and golden items, as messages, or as text (queries). Prompts are
    compared without their system prompt. A conversation is near a held-out prompt where any of its turns is.
    `templates` are those that the texts were written in, by default those of `examples` and `held_out`.
    """
    rules = rules or QualityRules()
    templates = find_templates_in_examples(examples, held_out=held_out) if templates is None else templates
    known = KnownTexts(map(_prompt_to_text, held_out), rules.near_held_out, templates)
    whole, broken = _sift(examples, lambda members: [find_flaw(example) for example in members])
    apart, near = _sift(whole, lambda members: _mark_held_out(members, known))
    once, repeated = _sift(apart, lambda members: _mark_repeated(members, rules.near_duplicate, templates))
    return CleanedExamples(once, broken + near + repeated)


def drop_similar(
    examples: Examples, others: Examples, *, rules: QualityRules | None = None, templates: Templates
) -> Examples:
    """Leave out the examples whose prompt, or whole conversation, is nearly that of one of the `others`."""
    texts = [_get_comparison_text(example) for _, members in iterate_kinds(examples) for example in members]
    known = [_get_comparison_text(example) for _, members in iterate_kinds(others) for example in members]
    matches = find_near_matches(texts, known, (rules or QualityRules()).near_held_out, templates)
    near = {text for text, match in zip(texts, matches, strict=True) if match is not None}
    return Examples.model_validate(
        {
            kind: tuple(example for example in members if _get_comparison_text(example) not in near)
            for kind, members in iterate_kinds(examples)
        }
    )


def find_templates_in_examples(
    *sets: Examples, held_out: Sequence[Sequence[Message] | str] = ()
) -> Templates:
    """Find the templates that the prompts of examples and of held-out items were written in."""
    members = (example for examples in sets for _, members in iterate_kinds(examples) for example in members)
    return find_templates_in_texts([*map(_get_comparison_text, members), *map(_prompt_to_text, held_out)])


def _prompt_to_text(prompt: Sequence[Message] | str) -> str:
    return prompt if isinstance(prompt, str) else join_turns(prompt)


def join_turns(messages: Sequence[Message]) -> str:
    """Return all messages but the system prompt (unless there is nothing else) as text, a message a line."""
    turns = [message for message in messages if message.role != "system"] or messages
    return "\n".join(message_to_text(turn) for turn in turns)


def _sift(
    examples: Examples, mark_flaws: Callable[[Sequence[Example]], Sequence[Flaw | None]]
) -> tuple[Examples, Reasons]:
    """Keep the examples of each kind in which `mark_flaws` finds none, and count the others by flaw."""
    kept: dict[str, list[Example]] = {}
    left_out = Reasons()
    for kind, members in iterate_kinds(examples):
        flaws = mark_flaws(members)
        left_out.update(flaw for flaw in flaws if flaw is not None)
        kept[kind] = [example for example, flaw in zip(members, flaws, strict=True) if flaw is None]
    return Examples.model_validate(kept), left_out


def _mark_held_out(members: Sequence[Example], known: KnownTexts) -> list[Flaw | None]:
    """Mark the examples that show a prompt near a known one."""
    matched = cache(lambda text: known.find_match(text) is not None)
    return [
        Flaw.HELD_OUT
        if any(map(matched, _list_prompts(each))) or known.matches_beginning(_list_turns(each))
        else None
        for each in members
    ]


def _list_prompts(example: Any) -> list[str]:
    """Return the prompts that the example shows.

    Those of a conversation are what was said between its answers, which is all that an agent sends that does
    not send the history again.
    """
    if isinstance(example, Triplet):
        return [example.query]
    if isinstance(example, Trajectory):
        return [join_turns(part) for part in _split_at_answers(example) if part]
    return [join_turns(example.prompt)]


def _list_turns(example: Any) -> list[str]:
    """Return what was said in a conversation up to its first answer, from there to the second, and so on.

    Its first turns together are a prompt of an agent that sends the history. Other examples have no turns.
    """
    if not isinstance(example, Trajectory):
        return []
    answers = [at for at, message in enumerate(example.messages) if message.role == "assistant"]
    parts = (example.messages[start:end] for start, end in zip([0, *answers], answers, strict=False))
    return ["\n".join(message_to_text(said) for said in part if said.role != "system") for part in parts]


def _split_at_answers(trajectory: Trajectory) -> Iterator[Sequence[Message]]:
    since = 0
    for at, message in enumerate(trajectory.messages):
        if message.role == "assistant":
            yield trajectory.messages[since:at]
            since = at + 1


def _mark_repeated(members: Sequence[Example], threshold: float, templates: Templates) -> list[Flaw | None]:
    """Mark the examples that say nearly what a newer one says."""
    groups: defaultdict[Hashable, list[int]] = defaultdict(list)
    newest_first = sorted(enumerate(members), key=lambda numbered: _age(numbered[1]), reverse=True)
    for at, example in newest_first:
        groups[_compute_answer_key(example)].append(at)
    found: list[Flaw | None] = [None] * len(members)
    for group in groups.values():
        if len(group) > 1:
            links = find_near_duplicates(
                [_get_comparison_text(members[at]) for at in group], threshold, templates
            )
            for at, link in zip(group, links, strict=True):
                found[at] = None if link is None else Flaw.REPEATED
    return found


def _age(example: Any) -> tuple[datetime, str]:
    return example.started_at, example.id


def _get_comparison_text(example: Any) -> str:
    """Return the text by which examples with one answer are compared: prompt, or whole conversation."""
    if isinstance(example, Triplet):
        return example.query
    return join_turns(example.messages if isinstance(example, Trajectory) else example.prompt)


def _compute_answer_key(example: Example) -> Hashable:
    """Return one key for examples of a kind that give the same answer, but for case and white space."""
    match example:
        case SFTExample():
            return _compute_message_key(example.completion)
        case UnpairedPreference():
            return (_compute_message_key(example.completion), example.desirable)
        case PreferencePair():
            return (_compute_message_key(example.chosen), _compute_message_key(example.rejected))
        case Triplet():
            return (normalise(example.positive.text), normalise(example.negative.text))
    return None


def _compute_message_key(message: Message) -> Hashable:
    return str(fold(message))


def message_to_text(message: Message) -> str:
    """Return the content of a message and its tool calls as text."""
    calls = (f"{call.name} {call.arguments}" for call in message.tool_calls)
    return "\n".join(filter(None, (message.content, *calls)))


def iterate_kinds(examples: Examples) -> Iterator[tuple[str, Sequence[AnyExample]]]:
    """Yield each kind (a field of `Examples`) with its members."""
    for kind in Examples.model_fields:
        yield kind, getattr(examples, kind)
