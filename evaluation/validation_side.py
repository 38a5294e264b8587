"""The validation side of a snapshot in the shape of what is held out, so that models can answer it.

Runs and contenders are compared there; only the one that is chosen meets the holdout.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator

from extractors.dataset.holdout_split import find_group
from extractors.dataset.learned_traffic import LearnedTraffic
from extractors.dataset.snapshot import Snapshot
from extractors.examples.thoughts import get_answer
from extractors.examples.types import (
    Example,
    Examples,
    JudgedDocument,
    Message,
    PreferencePair,
    Reviewed,
    ReviewedItem,
    ReviewedRetrieval,
    Triplet,
)


def hold_out_validation(snapshot: Snapshot, left_out: Collection[str] = ()) -> Snapshot:
    """Return the snapshot with its validation side, without the prompts that are `left_out`, in the place of
    everything that is held out.
    """
    items, searches = _list_items(snapshot.validation), _list_searches(snapshot.validation.triplets)
    return snapshot.model_copy(
        update={
            "holdout": tuple(item for item in items if item.prompt_key not in left_out),
            "retrievals": tuple(search for search in searches if search.prompt_key not in left_out),
            "retention": (),
            "retained_retrievals": (),
        }
    )


def can_validate(snapshot: Snapshot) -> bool:
    """Return True if something on the validation side can be scored."""
    held_out = hold_out_validation(snapshot)
    return bool(held_out.holdout or held_out.retrievals)


def find_learned_prompts(snapshot: Snapshot, learned: LearnedTraffic) -> frozenset[str]:
    """Return the validation side's normalised prompts that were trained on, or whose session was."""
    held_out = hold_out_validation(snapshot)
    asked: tuple[Reviewed | PreferencePair, ...] = (
        *held_out.holdout,
        *held_out.retrievals,
        *snapshot.validation.pairs,
    )
    return frozenset(each.prompt_key for each in asked if learned.has(each))


def count_sessions(snapshot: Snapshot, left_out: Collection[str] = ()) -> int:
    """Return the number of sessions, or traces, of the items on the validation side that can be scored.

    Prompts that are `left_out` do not count.
    """
    held_out = hold_out_validation(snapshot, left_out)
    items: tuple[Reviewed, ...] = (*held_out.holdout, *held_out.retrievals)
    return len({find_group(item) for item in items})


def _list_items(validation: Examples) -> Iterator[ReviewedItem]:
    """Yield one item a prompt, with the answer that teaches most as gold: what people wrote or approved,
    unless they preferred another one to it; then what they chose, then what they liked.
    """
    rejected = {(pair.prompt_key, get_answer(pair.rejected)) for pair in validation.pairs}
    seen: set[str] = set()
    for item in _iterate_items(validation):
        is_best = item.gold is None or (item.prompt_key, get_answer(item.gold)) not in rejected
        if is_best and item.prompt_key not in seen:
            seen.add(item.prompt_key)
            yield item


def _iterate_items(validation: Examples) -> Iterator[ReviewedItem]:
    for example in validation.sft:
        yield _build_item(example, example.prompt, example.completion, example.tools, example.prompt_key)
    for pair in validation.pairs:
        yield _build_item(pair, pair.prompt, pair.chosen, pair.tools, pair.prompt_key)
    for conversation in validation.trajectories:
        if conversation.learned:
            last = conversation.learned[-1]
            prompt, answer = conversation.messages[:last], conversation.messages[last]
            yield _build_item(conversation, prompt, answer, conversation.tools, conversation.prompt_keys[-1])
    for vote in validation.votes:
        if vote.desirable:
            yield _build_item(vote, vote.prompt, vote.completion, vote.tools, vote.prompt_key)


def _build_item(
    example: Example,
    prompt: tuple[Message, ...],
    gold: Message,
    tools: tuple[dict[str, object], ...],
    prompt_key: str,
) -> ReviewedItem:
    return ReviewedItem(
        prompt=prompt,
        tools=tools,
        response=gold,
        outcome="approved",
        gold=gold,
        source_span_ids=example.source_span_ids,
        # Where no trace is known, items without a session count each for itself.
        trace_id=example.trace_id or next(iter(example.source_span_ids), prompt_key),
        session_id=example.session_id,
        prompt_key=prompt_key,
        started_at=example.started_at,
    )


def _list_searches(triplets: Iterable[Triplet]) -> Iterator[ReviewedRetrieval]:
    """Yield one search a query, whose documents are those of its triplets."""
    asked: defaultdict[str, list[Triplet]] = defaultdict(list)
    for triplet in triplets:
        asked[triplet.prompt_key].append(triplet)
    for key, of_query in asked.items():
        first = of_query[0]
        documents = [
            JudgedDocument(id=document.id, text=document.text, relevant=relevant)
            for triplet in of_query
            for document, relevant in ((triplet.positive, True), (triplet.negative, False))
        ]
        yield ReviewedRetrieval(
            query=first.query,
            documents=tuple(dict.fromkeys(documents)),
            source_span_ids=first.source_span_ids,
            trace_id=first.trace_id or next(iter(first.source_span_ids), key),
            session_id=first.session_id,
            prompt_key=key,
            started_at=first.started_at,
        )
