"""Weights of held-out items where reviewers pick what to review, or correct few of the rejected answers."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from math import sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.metrics.retrieval import build_library, pick_one_per_query
from evaluation.weighting.weighting import Weighting
from evaluation.weighting.weights import GREATEST, weigh
from extractors.examples.types import JudgedDocument, Message, Outcome, ReviewedItem, ReviewedRetrieval
from extractors.traffic_sample import TrafficCall
from tests.support.traffic import NOON, item

GOLD: dict[Outcome, dict[str, Any]] = {
    "approved": {},
    "corrected": {"gold": Message(role="assistant", content="better")},
    "rejected": {"gold": None},
}
WORDS = {
    "parcel": "where is my parcel delivery shipment courier tracking number late",
    "refund": "refund money back invoice charged twice bill payment",
    "login": "password login account locked reset email code",
    "hours": "opening hours phone contact address visit branch office",
}


@dataclass(frozen=True)
class Asked:
    """One call of a simulated traffic."""

    number: int
    topic: str
    text: str
    right: bool
    version: str
    session: str

    def review(self, corrects: bool = True) -> ReviewedItem:
        outcome: Outcome = "approved" if self.right else "corrected" if corrects else "rejected"
        return item(
            self.number,
            text=self.text,
            outcome=outcome,
            session_id=self.session,
            answered_by=self.version,
            **GOLD[outcome],
        )

    def to_traffic(self) -> TrafficCall:
        return TrafficCall(
            span_id=f"span-{self.number}",
            trace_id=f"trace-{self.number}",
            session_id=self.session,
            text=self.text,
            prompt_key=str(self.number),
            answered_by=self.version,
        )


@dataclass
class World:
    """A traffic, and what reviewers take from it."""

    seed: int
    calls: int = 900
    wrong: Callable[[str, str], float] = lambda _topic, _version: 0.2
    versions: tuple[str, ...] = ("v1",)
    turns: int = 1
    asked: list[Asked] = field(init=False)

    def __post_init__(self) -> None:
        self._rng = rng = random.Random(self.seed)
        self.asked = []
        for session in range(self.calls // self.turns):
            topic, version = rng.choice(list(WORDS)), rng.choice(self.versions)
            for turn in range(self.turns):
                text = " ".join(rng.choices(WORDS[topic].split(), k=6))
                right = rng.random() >= self.wrong(topic, version)
                number = session * self.turns + turn
                self.asked.append(Asked(number, topic, text, right, version, f"session-{session}"))

    @property
    def accuracy(self) -> float:
        return float(np.mean([call.right for call in self.asked]))

    def sample(self, size: int) -> list[TrafficCall]:
        return [call.to_traffic() for call in self._rng.sample(self.asked, size)]

    def pick(self, size: int, likes: Callable[[Asked], float]) -> list[Asked]:
        """Draw `size` calls, each as likely as reviewers like it (Efraimidis and Spirakis 2006)."""
        return sorted(self.asked, key=lambda call: -(self._rng.random() ** (1 / likes(call))))[:size]

    def sessions(self, size: int) -> list[Asked]:
        """Return all calls of `size` sessions, drawn at random."""
        chosen = set(self._rng.sample(sorted({call.session for call in self.asked}), size))
        return [call for call in self.asked if call.session in chosen]


def anything(_: Asked) -> float:
    return 1.0


def by_topic(texts: Sequence[str]) -> np.ndarray:
    """A vector for each topic, as an encoder that knows them all would give."""
    words = [set(words.split()) for words in WORDS.values()]
    return np.array([[len(known.intersection(text.split())) for known in words] for text in texts])


def accuracy(items: Sequence[ReviewedItem], found: Weighting | None = None) -> float:
    """Share of the items with gold that were right, as they count."""
    gold = [each for each in items if each.gold is not None]
    weights = [found.weights[each.id] if found else 1.0 for each in gold]
    return float(np.average([each.outcome == "approved" for each in gold], weights=weights))


def error(found: Weighting, share: float) -> float:
    """Three standard deviations of a share that so many items show."""
    return 3 * sqrt(share * (1 - share) / found.effective_n)


def hard(topic: str, _: str) -> float:
    return 0.6 if topic == "refund" else 0.1


# ---- back to the traffic


@pytest.mark.parametrize("seed", range(2))
def test_reviewers_who_prefer_a_kind_of_question_are_weighted_back_to_the_traffic(seed: int) -> None:
    world = World(seed, wrong=hard)
    items = [call.review() for call in world.pick(200, lambda call: 8 if call.topic == "refund" else 1)]
    calls = world.sample(400)
    found = weigh(items, calls)
    assert found.selected
    assert found == weigh(items, calls), "it comes out the same again"
    assert found.p_value is not None
    assert found.p_value < 0.01
    assert abs(accuracy(items, found) - world.accuracy) < error(found, world.accuracy)
    assert abs(accuracy(items) - world.accuracy) > error(found, world.accuracy)
    assert found.effective_n < 200
    assert "picked" in found.words


@pytest.mark.parametrize("seed", range(2))
def test_reviewers_who_prefer_a_version_are_weighted_back_to_the_traffic(seed: int) -> None:
    world = World(seed, wrong=lambda _, version: 0.55 if version == "v1" else 0.05, versions=("v1", "v2"))
    items = [call.review() for call in world.pick(200, lambda call: 8 if call.version == "v1" else 1)]
    found = weigh(items, world.sample(400), live="v2")
    assert found.selected
    assert abs(accuracy(items, found) - world.accuracy) < error(found, world.accuracy)
    assert abs(accuracy(items) - world.accuracy) > error(found, world.accuracy)
    assert set(found.by_live) == {each.id for each in items if each.answered_by == "v2"}
    assert f"Answered by what is live: {len(found.by_live)} of 200." in found.words


@pytest.mark.parametrize("seed", range(2))
def test_reviewers_who_look_for_wrong_answers_and_correct_few_are_weighted_back(seed: int) -> None:
    world = World(seed, wrong=hard)
    picked = world.pick(240, lambda call: 6 if call.topic == "refund" else 1)
    rng = random.Random(seed)
    items = [call.review(corrects=rng.random() < (0.3 if call.topic == "refund" else 0.8)) for call in picked]
    found = weigh(items, world.sample(400))
    assert abs(accuracy(items, found) - world.accuracy) < error(found, world.accuracy)


def test_reviewers_who_do_not_pick_leave_all_weights_at_one() -> None:
    picked = 0
    for seed in range(100):
        world = World(seed, calls=260, wrong=hard, versions=("v1", "v2"))
        items = [call.review() for call in world.pick(80, anything)]
        found = weigh(items, world.sample(120), embed=by_topic)
        picked += found.selected
        assert found.selected or set(found.weights.values()) == {1.0}
    assert picked <= 4


@pytest.mark.parametrize("sampled", [400, 1600])
def test_turns_of_one_session_that_are_alike_do_not_look_like_picking(sampled: int) -> None:
    picked = 0
    for seed in range(40):
        world = World(seed, calls=1600, turns=8)
        items = [call.review() for call in world.sessions(12)]
        picked += weigh(items, world.sample(sampled), embed=by_topic).selected
    assert picked <= 2


def test_sessions_that_reviewers_pick_still_look_picked() -> None:
    for seed in range(4):
        world = World(seed, calls=1600, turns=8)
        refunds = [call.review() for call in world.asked if call.topic == "refund"][:240]
        others = [call.review() for call in world.sessions(10)]
        once = {each.id: each for each in (*refunds, *others)}
        assert weigh([*once.values()], world.sample(400), embed=by_topic).selected


def test_vectors_tell_what_is_alike_where_characters_do_not() -> None:
    world = World(0, wrong=hard)
    topics = {call.text: list(WORDS).index(call.topic) for call in world.asked}

    def disguise(text: str) -> str:
        return sha256(text.encode()).hexdigest()

    hidden = {disguise(text): topic for text, topic in topics.items()}

    def embed(texts: Sequence[str]) -> np.ndarray:
        return np.eye(4)[[hidden[text] for text in texts]]

    picked = world.pick(200, lambda call: 8 if call.topic == "refund" else 1)
    items = [
        each.model_copy(update={"prompt": (Message(role="user", content=disguise(each.prompt[0].content)),)})
        for each in (call.review() for call in picked)
    ]
    calls = [call.model_copy(update={"text": disguise(call.text)}) for call in world.sample(400)]
    found = weigh(items, calls, embed=embed)
    assert len(found.strata) == 4
    assert abs(accuracy(items, found) - world.accuracy) < error(found, world.accuracy)
    assert abs(accuracy(items, weigh(items, calls)) - world.accuracy) > error(found, world.accuracy)


def test_the_strata_say_who_answered_what_and_how_much_was_reviewed() -> None:
    world = World(1, versions=("v1", "v2"))
    items = [call.review() for call in world.pick(200, lambda call: 8 if call.topic == "login" else 1)]
    found = weigh(items, world.sample(400))
    assert sum(each.reviewed for each in found.strata) == 200
    assert sum(each.traffic for each in found.strata) == 400
    assert sum(each.traffic_share or 0 for each in found.strata) == pytest.approx(1)
    assert {version for each in found.strata for version in each.answered_by} == {"v1", "v2"}
    for each in found.strata:
        assert each.reviewed >= 5
        assert each.traffic_share is not None
        assert each.weight == pytest.approx(each.traffic_share / each.reviewed_share)
        assert each.like in {call.text for call in world.asked}
    assert sum(each.corrected for each in found.strata) == sum(each.outcome == "corrected" for each in items)


def test_kinds_that_hardly_anybody_reviewed_are_pointed_out() -> None:
    world = World(2)
    items = [call.review() for call in world.pick(200, lambda call: 0.002 if call.topic == "hours" else 1)]
    found = weigh(items, world.sample(400))
    assert found.selected
    assert "Hardly any were reviewed of the kinds that 2" in found.words


def test_what_could_not_be_held_out_is_no_part_of_the_traffic() -> None:
    world = World(3)
    items = [call.review() for call in world.pick(100, anything)]
    greetings = [
        call.model_copy(update={"text": "hello", "prompt_key": "hello"}) for call in world.sample(300)
    ]
    assert weigh(items, [*world.sample(300), *greetings]).selected
    found = weigh(items, [*world.sample(300), *greetings], excluded_prompts=["hello"])
    assert not found.selected
    assert sum(each.traffic for each in found.strata) == 300


def test_fewer_items_than_make_two_clusters_do_not_tell_whether_anybody_picked() -> None:
    world = World(5)
    items = [call.review() for call in world.pick(39, lambda call: 50 if call.topic == "refund" else 1)]
    found = weigh(items, world.sample(400))
    assert (found.selected, found.p_value) == (False, None)
    assert "The held-out items (39) are too few, or too much alike, to tell" in found.words


def test_where_everything_was_reviewed_there_is_nothing_to_compare_with() -> None:
    world = World(4, calls=120)
    items = [call.review() for call in world.asked]
    for traffic in ([call.to_traffic() for call in world.asked], []):
        found = weigh(items, traffic)
        assert (found.selected, found.p_value) == (False, None)
        assert set(found.weights.values()) == {1.0}
        assert "no other traffic to compare with" in found.words


# ---- rejected without a correction


def few(approved: int, corrected: int, rejected: int, start: int = 0, **changes: Any) -> list[ReviewedItem]:
    counts: dict[Outcome, int] = {"approved": approved, "corrected": corrected, "rejected": rejected}
    outcomes = [outcome for outcome, count in counts.items() for _ in range(count)]
    return [
        item(start + n, outcome=outcome, **GOLD[outcome], **changes) for n, outcome in enumerate(outcomes)
    ]


def test_corrected_items_stand_for_those_that_were_rejected() -> None:
    items = few(2, 1, 1)
    found = weigh(items)
    assert [found.weights[each.id] for each in items[:3]] == [0.75, 0.75, 1.5]
    assert found.effective_n == pytest.approx(9 / 3.375)
    assert accuracy(items, found) == pytest.approx(0.5)
    assert "Corrected items (1) stand for those rejected without a correction (1)" in found.words
    assert found.unfair == ""


def test_they_stand_for_those_of_their_stratum_first() -> None:
    often, seldom = few(10, 5, 0, answered_by="v1"), few(10, 2, 6, start=100, answered_by="v2")
    found = weigh([*often, *seldom])
    approved, corrected, stands_for_four = (
        found.weights[each.id] for each in (often[0], often[10], seldom[10])
    )
    assert corrected == pytest.approx(approved)
    assert stands_for_four == pytest.approx(4 * approved)


def test_where_a_stratum_has_no_corrected_item_those_of_the_others_stand_for_it() -> None:
    none, some = few(10, 0, 6, answered_by="v1"), few(10, 2, 0, start=100, answered_by="v2")
    found = weigh([*none, *some])
    assert found.weights[some[10].id] == pytest.approx(4 * found.weights[none[0].id])
    assert accuracy([*none, *some], found) == pytest.approx(20 / 28)


def test_where_nothing_was_corrected_the_holdout_cannot_judge() -> None:
    found = weigh(few(5, 0, 2))
    assert found.unfair.startswith("of the held-out answers that were rejected (2) none was corrected")
    assert found.unfair[1:] in found.words
    assert set(found.weights.values()) == {1.0}
    assert weigh(few(5, 0, 0)).unfair == ""


def test_no_item_counts_for_more_than_ten() -> None:
    items = few(60, 1, 59)
    found = weigh(items)
    assert found.weights[items[60].id] == GREATEST
    assert np.mean(list(found.weights.values())) == pytest.approx(1, abs=1e-5)
    assert found.capped == 1
    assert "Items that would count for more than 10 count for 10 (1)." in found.words


def search(number: int, relevant: bool, query: int | None = None) -> ReviewedRetrieval:
    query = number if query is None else query
    return ReviewedRetrieval(
        query=f"query {query}",
        documents=(JudgedDocument(text=f"document {number}", relevant=relevant),),
        source_span_ids=(f"span-{number}",),
        trace_id=f"trace-{number}",
        prompt_key=f"{query}",
        started_at=NOON,
    )


def test_a_query_that_comes_again_has_one_weight_whichever_of_its_searches_found_something() -> None:
    searches = [search(n, relevant=n % 2 == 1, query=n // 2) for n in range(10)]
    searches += [search(n, relevant=False) for n in range(10, 14)]
    once = pick_one_per_query(searches)
    assert [each.source_span_ids for each in once[:2]] == [("span-1", "span-0"), ("span-3", "span-2")]
    queries = build_library(searches).queries
    assert (
        {query.item_id for query in queries} == set(weigh(once).weights) == {s.id for s in searches[1:10:2]}
    )
    assert {query.session for query in queries} == {f"trace trace-{n}" for n in range(1, 10, 2)}


def test_a_search_without_a_relevant_document_is_no_wrong_answer() -> None:
    searches = [search(n, relevant=n % 2 == 0) for n in range(10)]
    found = weigh(searches)
    assert (found.unfair, set(found.weights.values())) == ("", {1.0})
    assert set(found.weights) == {each.id for each in searches[::2]}


def test_without_items_with_gold_there_are_no_weights() -> None:
    for items in ([], few(0, 0, 3)):
        found = weigh(items, World(0, calls=50).sample(20))
        assert (found.weights, found.effective_n) == ({}, 0)


# ---- whatever comes


CALLS = st.tuples(
    st.sampled_from(["", "a", "hello there", "where is my parcel", "mon colis 📦", "你好"]),
    st.sampled_from([None, "v1", "v2"]),
    st.integers(0, 9),
)


@given(
    held=st.lists(st.tuples(CALLS, st.sampled_from(["approved", "corrected", "rejected"])), max_size=60),
    traffic=st.lists(CALLS, max_size=80),
)
@settings(deadline=None, max_examples=40)
def test_weights_are_one_on_average_and_never_too_great(
    held: list[tuple[tuple[str, str | None, int], Outcome]], traffic: list[tuple[str, str | None, int]]
) -> None:
    items = [
        item(
            n, text=text, answer=f"{n}", answered_by=by, session_id=f"s{s}", outcome=outcome, **GOLD[outcome]
        )
        for n, ((text, by, s), outcome) in enumerate(held)
    ]
    calls = [
        TrafficCall(
            span_id=f"c{n}", trace_id=f"c{n}", session_id=f"s{s}", text=text, prompt_key=text, answered_by=by
        )
        for n, (text, by, s) in enumerate(traffic)
    ]
    found = weigh(items, calls)
    assert set(found.weights) == {each.id for each in items if each.gold is not None}
    weights = np.array(list(found.weights.values()))
    assert found.words
    if len(weights):
        assert weights.mean() == pytest.approx(1, abs=1e-4)
        assert weights.min() >= 0
        assert weights.max() <= GREATEST
        assert 0 < found.effective_n <= len(weights) + 1e-6
