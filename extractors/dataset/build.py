"""From reviewed traffic to the two sides of a dataset: what is taught, by kind, and what is held out."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from enum import StrEnum
from itertools import chain
from typing import Any

from extractors.cleaning.quality import (
    QualityRules,
    clean,
    drop_similar,
    find_templates_in_examples,
    iterate_kinds,
)
from extractors.dataset.holdout_split import (
    HoldoutRules,
    LeftOutReason,
    Split,
    ValidationChoice,
    Window,
    choose_validation,
    find_group,
    split,
)
from extractors.dataset.preference_pairs import build_preference_pairs, build_unpaired_preferences
from extractors.dataset.triplets import build_triplets
from extractors.examples.prompt_keys import is_nearly_equal
from extractors.examples.types import (
    Example,
    Examples,
    JudgedResponse,
    Message,
    ReviewedItem,
    ReviewedRetrieval,
    SFTExample,
    Trajectory,
)
from extractors.feedback.extract import Extraction
from extractors.values import Value, content_id

Reviewed = ReviewedItem | JudgedResponse | Trajectory | ReviewedRetrieval
"""What people said something about."""


MOST_TRIPLETS = 8
"""Of one query; more would teach that query instead of the task."""


class DatasetContent(Value):
    """The content of a dataset."""

    train: Examples
    validation: Examples
    holdout: tuple[ReviewedItem, ...]
    retrievals: tuple[ReviewedRetrieval, ...]
    retention: tuple[ReviewedItem, ...]
    retained_retrievals: tuple[ReviewedRetrieval, ...]
    window: Window | None
    excluded_prompts: tuple[str, ...]
    left_out: dict[str, int]
    """By reason in words."""


class ExtraData(Value):
    """What a dataset is made from beside the traffic."""

    imported: Examples = Examples()
    """Examples from files, to train on."""
    synthetic: Examples = Examples()
    """What a language model wrote and a person approved, to train on."""
    synthetic_share: float = 0.5
    """Greatest share of the training examples of a kind that is synthetic."""
    golden: tuple[SFTExample, ...] = ()
    """Cases that are never trained on."""
    quality: QualityRules = QualityRules()
    output_space: tuple[str, ...] = ()
    """Labels of a classification, for the class balance."""


def build_content(
    extraction: Extraction, rules: HoldoutRules, window: Window | None, beside: ExtraData
) -> DatasetContent:
    """Hold out the newest window of what was reviewed, retain a share of what was held out before, and make
    examples of what else is older.

    Whatever kind an example is of, it shares no session and no normalised prompt with the holdout or the
    retention set, and its prompt is not nearly one of theirs or a golden one; nor does validation share a
    session or prompt with training (a conversation: not all of its prompts).
    """
    if extraction.retrievals:
        return _taught(extraction, split(extraction.retrievals, rules, window), rules, beside)
    return _taught(extraction, split(extraction.items, rules, window), rules, beside)


def _taught(
    extraction: Extraction,
    sides: Split[ReviewedItem] | Split[ReviewedRetrieval],
    rules: HoldoutRules,
    beside: ExtraData,
) -> DatasetContent:
    left_out: Counter[StrEnum] = Counter(sides.left_out)
    traffic = _teachable(extraction, sides, left_out)
    seen = ((_group(each), find_prompt_keys(each)) for each in _all(traffic))
    apart = choose_validation(seen, rules.validation_share)
    train, validation = _on_sides(traffic, apart, left_out)
    held_out = [_asked(item) for item in (*sides.judged_by, *beside.golden)]
    more = beside.imported.joined(beside.synthetic)
    templates = find_templates_in_examples(train, validation, more, held_out=held_out)

    def cleaned(examples: Examples) -> Examples:
        clean_ones = clean(examples, held_out=held_out, rules=beside.quality, templates=templates)
        left_out.update(clean_ones.left_out)
        return clean_ones.examples

    more = _kept(more, _not_held_out(sides), left_out, LeftOutReason.IMPORT_HELD_OUT)
    trainable = _kept(more, _not_validated(traffic, apart), Counter(), LeftOutReason.IMPORT_VALIDATED)
    trainable = drop_similar(trainable, validation, rules=beside.quality, templates=templates)
    left_out[LeftOutReason.IMPORT_VALIDATED] += _size(more) - _size(trainable)
    return DatasetContent(
        train=_few_synthetic(cleaned(train.joined(trainable)), beside.synthetic_share, left_out),
        validation=cleaned(validation),
        holdout=_calls(sides.holdout),
        retrievals=_searches(sides.holdout),
        retention=_calls(sides.retention),
        retained_retrievals=_searches(sides.retention),
        window=sides.window,
        excluded_prompts=sides.excluded_prompts,
        left_out={reason.value: left_out[reason] for reason in sorted(left_out) if left_out[reason]},
    )


def count_allowed_synthetic(others: int, share: float) -> int:
    """How many synthetic examples may stand beside so many others."""
    return int(others * share / (1 - share) + 1e-9)


def _few_synthetic(examples: Examples, share: float, left_out: Counter[StrEnum]) -> Examples:
    """Of each kind no more synthetic examples than their share; with more of the others, more of the same."""
    allowed: set[str] = set()
    for _, members in iterate_kinds(examples):
        synthetic: list[Any] = [each for each in members if each.origin == "synthetic"]
        most = count_allowed_synthetic(len(members) - len(synthetic), share)
        allowed |= set(sorted(each.id for each in synthetic)[:most])

    def wanted(each: Any) -> bool:
        return each.origin != "synthetic" or each.id in allowed

    return _kept(examples, wanted, left_out, LeftOutReason.TOO_MUCH_SYNTHETIC)


def _on_sides(
    traffic: Extraction, apart: ValidationChoice, left_out: Counter[StrEnum]
) -> tuple[Examples, Examples]:
    """What is trained on, and what is validated on.

    What was said about a prompt that both share is weighed as a whole, on the side of training; what came
    of it there from a session that is validated on is left out.
    """

    def validated(each: Reviewed) -> bool:
        return _group(each) in apart.groups

    def shared(each: Any) -> bool:
        return apart.shared.issuperset(find_prompt_keys(each))

    spans = {span_id for each in _all(_only(traffic, validated)) for span_id in each.source_span_ids}
    train = _examples(_only(traffic, lambda each: not validated(each) or shared(each)), left_out)
    validation = _examples(_only(traffic, lambda each: validated(each) and not shared(each)), left_out)
    return (
        _kept(train, lambda each: spans.isdisjoint(each.source_span_ids), left_out, LeftOutReason.BOTH_SIDES),
        _kept(validation, lambda each: not shared(each), left_out, LeftOutReason.BOTH_SIDES),
    )


def _not_held_out(sides: Split[ReviewedItem] | Split[ReviewedRetrieval]) -> Callable[[Example], bool]:
    def wanted(example: Example) -> bool:
        return not sides.holds_out(_groups(example), find_prompt_keys(example), example.source_span_ids)

    return wanted


def _not_validated(traffic: Extraction, apart: ValidationChoice) -> Callable[[Example], bool]:
    """What an imported conversation begins with may be what others begin with, too."""
    validated = list(_all(_only(traffic, lambda each: _group(each) in apart.groups)))
    spans = {span_id for each in validated for span_id in each.source_span_ids}
    keys = {key for each in validated for key in find_prompt_keys(each)} - apart.shared

    def wanted(example: Example) -> bool:
        asked = tuple(find_prompt_keys(example))
        return (
            apart.groups.isdisjoint(_groups(example))
            and keys.isdisjoint(asked[1:] or asked)
            and spans.isdisjoint(example.source_span_ids)
        )

    return wanted


def _kept(
    examples: Examples, wanted: Callable[[Any], bool], left_out: Counter[StrEnum], reason: LeftOutReason
) -> Examples:
    """The wanted examples of each kind; the others are counted for `reason`."""
    kept = {kind: tuple(filter(wanted, members)) for kind, members in iterate_kinds(examples)}
    left_out[reason] += sum(len(members) - len(kept[kind]) for kind, members in iterate_kinds(examples))
    return Examples.model_validate(kept)


def _asked(held_out: ReviewedItem | ReviewedRetrieval | SFTExample) -> Sequence[Message] | str:
    return held_out.query if isinstance(held_out, ReviewedRetrieval) else held_out.prompt


def _teachable(
    extraction: Extraction,
    sides: Split[ReviewedItem] | Split[ReviewedRetrieval],
    left_out: Counter[StrEnum],
) -> Extraction:
    """What lies on the training side."""
    beside = Extraction(judged=extraction.judged, conversations=extraction.conversations)
    kept = _only(
        beside, lambda each: sides.may_train({_group(each)}, find_prompt_keys(each), each.started_at)
    )
    left_out[LeftOutReason.CONVERSATION_HELD_OUT] += len(beside.conversations) - len(kept.conversations)
    return kept.model_copy(update={"items": _calls(sides.train), "retrievals": _searches(sides.train)})


def _calls(reviewed: Iterable[ReviewedItem | ReviewedRetrieval]) -> tuple[ReviewedItem, ...]:
    return tuple(each for each in reviewed if isinstance(each, ReviewedItem))


def _searches(reviewed: Iterable[ReviewedItem | ReviewedRetrieval]) -> tuple[ReviewedRetrieval, ...]:
    return tuple(each for each in reviewed if isinstance(each, ReviewedRetrieval))


def _all(traffic: Extraction) -> Iterator[Reviewed]:
    return chain(traffic.items, traffic.judged, traffic.conversations, traffic.retrievals)


def _only(traffic: Extraction, wanted: Callable[[Reviewed], bool]) -> Extraction:
    return Extraction(
        items=tuple(filter(wanted, traffic.items)),
        judged=tuple(filter(wanted, traffic.judged)),
        conversations=tuple(filter(wanted, traffic.conversations)),
        retrievals=tuple(filter(wanted, traffic.retrievals)),
    )


def _group(seen: Reviewed) -> str:
    return f"session {seen.session_id}" if isinstance(seen, Trajectory) else find_group(seen)


def _groups(example: Example) -> set[str]:
    """The session and traces that an example is known to come from."""
    traces = example.trace_ids if isinstance(example, Trajectory) else ()
    session = {f"session {example.session_id}"} if example.session_id else set[str]()
    return session | {f"trace {trace_id}" for trace_id in traces}


def _size(examples: Examples) -> int:
    return sum(len(members) for _, members in iterate_kinds(examples))


def find_prompt_keys(seen: Any) -> Collection[str]:
    """Of something reviewed, or of an example."""
    return seen.prompt_keys if isinstance(seen, Trajectory) else (seen.prompt_key,)


def _examples(traffic: Extraction, left_out: Counter[StrEnum]) -> Examples:
    """What one side of the dataset teaches, by kind."""
    pairs, no_pairs = build_preference_pairs(traffic.judged, traffic.conversations)
    made, no_triplets = build_triplets(traffic.retrievals, MOST_TRIPLETS)
    left_out += Counter(no_pairs) + Counter(no_triplets)
    return Examples(
        sft=tuple(_newest_gold(traffic.items, left_out)),
        pairs=tuple(pairs),
        votes=tuple(build_unpaired_preferences(traffic.judged)),
        triplets=tuple(made),
        trajectories=tuple(each for each in traffic.conversations if each.learned),
    )


def _newest_gold(items: Iterable[ReviewedItem], left_out: Counter[StrEnum]) -> Iterable[SFTExample]:
    """Items with gold as examples, one for each prompt with its newest answer, oldest first.

    The newest by when people spoke, not by when the call was; who outranks another has the last word.
    """
    newest: dict[str, ReviewedItem] = {}
    for item in sorted(items, key=lambda item: item.standing):
        asked = _asked_alike(item)
        earlier = newest.get(asked)
        if item.gold is None:
            left_out[LeftOutReason.NO_GOLD] += 1
            if earlier is not None and _answers(earlier, item.response):
                left_out[LeftOutReason.REJECTED_LATER] += 1
                del newest[asked]
            continue
        if earlier is not None:
            left_out[
                LeftOutReason.REPEATED if _answers(earlier, item.gold) else LeftOutReason.ANSWERED_ANEW
            ] += 1
            del newest[asked]
        newest[asked] = item
    return (item.to_example() for item in sorted(newest.values(), key=lambda item: item.started_at))


def _asked_alike(item: ReviewedItem) -> str:
    """One key for calls that were asked the same, but for case, white space and the ids of tool calls."""
    system = [message.content for message in item.prompt if message.role == "system"]
    return content_id([item.prompt_key, system, list(item.tools)])


def _answers(item: ReviewedItem, answer: Message) -> bool:
    return item.gold is not None and is_nearly_equal(item.gold, answer)
