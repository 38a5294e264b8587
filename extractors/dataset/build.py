"""From reviewed traffic to the content of a dataset: training examples by kind, and what is held out.

    extraction ──> split ──┬─> holdout, retention set
                           └─> trainable traffic ──┬─> validation examples ─────────────┬─> clean ─> dataset
    imported and synthetic examples ───────────────┴─> training examples ───────────────┘

Each step returns what it keeps and counts the rest by reason; `build_content` adds the counts up.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any

from extractors.cleaning.quality import clean, drop_similar, find_templates_in_examples, iterate_kinds
from extractors.cleaning.rules import QualityRules
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
from extractors.examples.prompt_keys import fold, is_nearly_equal
from extractors.examples.types import (
    Example,
    Examples,
    JudgedResponse,
    Message,
    Reviewed,
    ReviewedItem,
    ReviewedRetrieval,
    SFTExample,
    Trajectory,
)
from extractors.feedback.extract import Extraction
from extractors.values import Reasons, Value, content_id

ReviewedTraffic = Reviewed | JudgedResponse | Trajectory
"""Everything that people said something about."""
Sides = Split[ReviewedItem] | Split[ReviewedRetrieval]

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
    """Everything that a dataset is made from besides the traffic."""

    imported: Examples = Examples()
    """Examples from files, to train on."""
    synthetic: Examples = Examples()
    """Examples that a language model wrote and a person approved, to train on."""
    synthetic_share: float = 0.5
    """Greatest share of the training examples of a kind that is synthetic."""
    golden: tuple[SFTExample, ...] = ()
    """Cases that are never trained on."""
    quality: QualityRules = QualityRules()
    output_space: tuple[str, ...] = ()
    """Labels of a classification, for the class balance."""


def build_content(
    extraction: Extraction, rules: HoldoutRules, window: Window | None, extra: ExtraData
) -> DatasetContent:
    """Hold out the newest window of what was reviewed, retain a share of what was held out before, and make
    examples of what else is older.

    Whatever kind an example is of, it shares no session and no normalised prompt with the holdout or the
    retention set, and its prompt is not nearly one of theirs or a golden one; nor does validation share a
    session or prompt with training (a conversation: not all of its prompts).
    """
    sides = _split(extraction, rules, window)
    traffic, not_trained = _select_trainable(extraction, sides)
    choice = _choose_validation(traffic, rules.validation_share)
    train, validation, of_traffic = _build_sides(traffic, choice)

    held_out = [_get_prompt(item) for item in (*sides.held_out, *extra.golden)]
    offered = extra.imported.join(extra.synthetic)
    templates = find_templates_in_examples(train, validation, offered, held_out=held_out)
    apart, not_apart = _select_apart(offered, sides, traffic, choice)
    unlike = drop_similar(apart, validation, rules=extra.quality, templates=templates)
    similar = Reasons({LeftOutReason.IMPORT_VALIDATED: _count(apart) - _count(unlike)})

    clean_side = partial(clean, held_out=held_out, rules=extra.quality, templates=templates)
    clean_train, unclean_train = clean_side(train.join(unlike))
    clean_validation, unclean_validation = clean_side(validation)
    balanced, too_synthetic = _limit_synthetic(clean_train, extra.synthetic_share)
    left_out = sum(
        (not_trained, of_traffic, not_apart, similar, unclean_train, unclean_validation, too_synthetic),
        start=Reasons(sides.left_out),
    )
    return DatasetContent(
        train=balanced,
        validation=clean_validation,
        holdout=_select_calls(sides.holdout),
        retrievals=_select_searches(sides.holdout),
        retention=_select_calls(sides.retention),
        retained_retrievals=_select_searches(sides.retention),
        window=sides.window,
        excluded_prompts=sides.excluded_prompts,
        left_out={reason.value: count for reason, count in sorted(left_out.items())},
    )


def _split(extraction: Extraction, rules: HoldoutRules, window: Window | None) -> Sides:
    if extraction.retrievals:
        return split(extraction.retrievals, rules, window)
    return split(extraction.items, rules, window)


def _choose_validation(traffic: Extraction, share: float) -> ValidationChoice:
    seen = ((_find_group(each), find_prompt_keys(each)) for each in _iterate(traffic))
    return choose_validation(seen, share)


def count_allowed_synthetic(others: int, share: float) -> int:
    """Return how many synthetic examples may accompany `others`, so that at most `share` is synthetic."""
    return int(others * share / (1 - share) + 1e-9)


def _limit_synthetic(examples: Examples, share: float) -> tuple[Examples, Reasons]:
    """Keep no more synthetic examples of each kind than their share.

    Which ones are kept depends on their ids alone: with more of the others, more of the same are kept.
    """
    allowed: set[str] = set()
    for _, members in iterate_kinds(examples):
        synthetic: list[Any] = [each for each in members if each.origin == "synthetic"]
        most = count_allowed_synthetic(len(members) - len(synthetic), share)
        allowed |= set(sorted(each.id for each in synthetic)[:most])

    def is_allowed(each: Any) -> bool:
        return each.origin != "synthetic" or each.id in allowed

    return _filter(examples, is_allowed, LeftOutReason.TOO_MUCH_SYNTHETIC)


def _build_sides(traffic: Extraction, choice: ValidationChoice) -> tuple[Examples, Examples, Reasons]:
    """Build the training and the validation examples, and count what was left out of both.

    What was said about a prompt that both sides share is weighed as a whole, on the side of training; what
    came of it there from a session that is validated on is left out.
    """

    def is_validated(each: ReviewedTraffic) -> bool:
        return _find_group(each) in choice.groups

    def is_shared(each: Any) -> bool:
        return choice.shared.issuperset(find_prompt_keys(each))

    spans = _find_span_ids(_filter_traffic(traffic, is_validated))
    train_traffic = _filter_traffic(traffic, lambda each: not is_validated(each) or is_shared(each))
    validation_traffic = _filter_traffic(traffic, lambda each: is_validated(each) and not is_shared(each))
    train, no_training = _build_examples(train_traffic)
    validation, no_validation = _build_examples(validation_traffic)
    both = LeftOutReason.BOTH_SIDES
    train, from_validated = _filter(train, lambda each: spans.isdisjoint(each.source_span_ids), both)
    validation, shared = _filter(validation, lambda each: not is_shared(each), both)
    return train, validation, no_training + no_validation + from_validated + shared


def _select_apart(
    offered: Examples, sides: Sides, traffic: Extraction, choice: ValidationChoice
) -> tuple[Examples, Reasons]:
    """Keep the imported and synthetic examples that share nothing with what is held out or validated on."""
    free, held_out = _filter(offered, _is_not_held_out(sides), LeftOutReason.IMPORT_HELD_OUT)
    apart, validated = _filter(free, _is_not_validated(traffic, choice), LeftOutReason.IMPORT_VALIDATED)
    return apart, held_out + validated


def _is_not_held_out(sides: Sides) -> Callable[[Example], bool]:
    def is_free(example: Example) -> bool:
        return not sides.holds_out(_find_groups(example), find_prompt_keys(example), example.source_span_ids)

    return is_free


def _is_not_validated(traffic: Extraction, choice: ValidationChoice) -> Callable[[Example], bool]:
    """Return a test for examples that share no session, span or prompt with what is validated on.

    The first prompt of an imported conversation does not count: others may begin like it.
    """
    validated = _filter_traffic(traffic, lambda each: _find_group(each) in choice.groups)
    spans = _find_span_ids(validated)
    keys = {key for each in _iterate(validated) for key in find_prompt_keys(each)} - choice.shared

    def is_free(example: Example) -> bool:
        prompts = tuple(find_prompt_keys(example))
        return (
            choice.groups.isdisjoint(_find_groups(example))
            and keys.isdisjoint(prompts[1:] or prompts)
            and spans.isdisjoint(example.source_span_ids)
        )

    return is_free


def _filter(
    examples: Examples, is_wanted: Callable[[Any], bool], reason: LeftOutReason
) -> tuple[Examples, Reasons]:
    """Keep the wanted examples of each kind; count the others for `reason`."""
    kept = Examples.model_validate(
        {kind: tuple(filter(is_wanted, members)) for kind, members in iterate_kinds(examples)}
    )
    return kept, Reasons({reason: _count(examples) - _count(kept)})


def _count(examples: Examples) -> int:
    return sum(len(members) for _, members in iterate_kinds(examples))


def _get_prompt(held_out: Reviewed | SFTExample) -> Sequence[Message] | str:
    return held_out.query if isinstance(held_out, ReviewedRetrieval) else held_out.prompt


def _select_trainable(extraction: Extraction, sides: Sides) -> tuple[Extraction, Reasons]:
    """Keep what lies on the training side; count the conversations that do not."""
    judged = Extraction(judged=extraction.judged, conversations=extraction.conversations)
    kept = _filter_traffic(
        judged, lambda each: sides.may_train({_find_group(each)}, find_prompt_keys(each), each.started_at)
    )
    lost = len(extraction.conversations) - len(kept.conversations)
    trainable = kept.model_copy(
        update={"items": _select_calls(sides.train), "retrievals": _select_searches(sides.train)}
    )
    return trainable, Reasons({LeftOutReason.CONVERSATION_HELD_OUT: lost})


def _select_calls(reviewed: Iterable[Reviewed]) -> tuple[ReviewedItem, ...]:
    return tuple(each for each in reviewed if isinstance(each, ReviewedItem))


def _select_searches(reviewed: Iterable[Reviewed]) -> tuple[ReviewedRetrieval, ...]:
    return tuple(each for each in reviewed if isinstance(each, ReviewedRetrieval))


def _iterate(traffic: Extraction) -> Iterator[ReviewedTraffic]:
    return chain(traffic.items, traffic.judged, traffic.conversations, traffic.retrievals)


def _filter_traffic(traffic: Extraction, is_wanted: Callable[[ReviewedTraffic], bool]) -> Extraction:
    return Extraction(
        items=tuple(filter(is_wanted, traffic.items)),
        judged=tuple(filter(is_wanted, traffic.judged)),
        conversations=tuple(filter(is_wanted, traffic.conversations)),
        retrievals=tuple(filter(is_wanted, traffic.retrievals)),
    )


def _find_span_ids(traffic: Extraction) -> set[str]:
    return {span_id for each in _iterate(traffic) for span_id in each.source_span_ids}


def _find_group(reviewed: ReviewedTraffic) -> str:
    if isinstance(reviewed, Trajectory):
        return f"session {reviewed.session_id}"
    return find_group(reviewed)


def _find_groups(example: Example) -> set[str]:
    """Return the session and traces that an example is known to come from."""
    traces = example.trace_ids if isinstance(example, Trajectory) else {example.trace_id} - {None}
    session = {f"session {example.session_id}"} if example.session_id else set[str]()
    return session | {f"trace {trace_id}" for trace_id in traces}


def find_prompt_keys(example: Any) -> Collection[str]:
    """Return the normalised prompts of something reviewed, or of an example: one a turn of a conversation."""
    return example.prompt_keys if isinstance(example, Trajectory) else (example.prompt_key,)


def _build_examples(traffic: Extraction) -> tuple[Examples, Reasons]:
    """Build the examples of one side of the dataset, by kind, and count what gives none."""
    gold, no_gold = _select_newest_gold(traffic.items)
    pairs, no_pairs = build_preference_pairs(traffic.judged, traffic.conversations)
    triplets, no_triplets = build_triplets(traffic.retrievals, MOST_TRIPLETS)
    examples = Examples(
        sft=tuple(item.to_example() for item in gold),
        pairs=tuple(pairs),
        votes=tuple(build_unpaired_preferences(traffic.judged)),
        triplets=tuple(triplets),
        trajectories=tuple(each for each in traffic.conversations if each.learned),
    )
    return examples, no_gold + no_pairs + no_triplets


def _select_newest_gold(items: Iterable[ReviewedItem]) -> tuple[list[ReviewedItem], Reasons]:
    """Keep one item with gold for each prompt, the one with its newest answer; oldest item first.

    The newest by when people spoke, not by when the call was; who outranks another has the last word.
    """
    newest: dict[str, ReviewedItem] = {}
    left_out = Reasons()
    for item in sorted(items, key=lambda item: item.standing):
        request = _compute_request_key(item)
        earlier = newest.get(request)
        if item.gold is None:
            left_out[LeftOutReason.NO_GOLD] += 1
            if earlier is not None and _has_gold(earlier, item.response):
                left_out[LeftOutReason.REJECTED_LATER] += 1
                del newest[request]
            continue
        if earlier is not None:
            repeats = _has_gold(earlier, item.gold)
            left_out[LeftOutReason.REPEATED if repeats else LeftOutReason.ANSWERED_ANEW] += 1
            del newest[request]
        newest[request] = item
    return sorted(newest.values(), key=lambda item: item.started_at), left_out


def _compute_request_key(item: ReviewedItem) -> str:
    """Return one key for calls with the same request, but for case, white space, ids and the way of JSON."""
    system = [message.content for message in item.prompt if message.role == "system"]
    said = [fold(message) for message in item.prompt if message.role != "system"]
    return content_id([said, system, list(item.tools)])


def _has_gold(item: ReviewedItem, answer: Message) -> bool:
    return item.gold is not None and is_nearly_equal(item.gold, answer)
