"""Tests of the triplets that reviewed searches give."""

from extractors.dataset.triplets import TripletDropReason, build_triplets
from extractors.examples.prompt_keys import compute_query_key
from extractors.examples.types import JudgedDocument, ReviewedRetrieval
from tests.support.traffic import NOON


def make_search(*documents: tuple[str, bool | None], query: str = "q", minute: int = 0) -> ReviewedRetrieval:
    return ReviewedRetrieval(
        query=query,
        documents=tuple(
            JudgedDocument(id=f"id of {text}", text=text, relevant=relevant) for text, relevant in documents
        ),
        source_span_ids=(f"s{minute}",),
        trace_id=f"t{minute}",
        prompt_key=compute_query_key(query),
        started_at=NOON.replace(minute=minute),
    )


def list_pairs(*retrievals: ReviewedRetrieval, most: int = 100) -> list[tuple[str, str]]:
    return [(each.positive.text, each.negative.text) for each in build_triplets(retrievals, most)[0]]


def test_relevant_documents_stand_against_irrelevant_ones_of_their_own_list() -> None:
    made, dropped = build_triplets(
        [
            make_search(("no", False), ("yes", True), ("maybe", None), ("never", False)),
            make_search(("other", False), minute=1),
        ],
        10,
    )
    assert [(each.query, each.positive.text, each.negative.text) for each in made] == [
        ("q", "yes", "no"),
        ("q", "yes", "never"),
    ]
    assert made[0].positive.id == "id of yes"
    assert (made[0].source_span_ids, made[0].trace_id) == (("s0",), "t0")
    assert dropped == {TripletDropReason.NO_RELEVANT: 1}


def test_every_relevant_document_comes_before_any_comes_again_and_the_cap_is_counted() -> None:
    many = make_search(("n1", False), ("p1", True), ("p2", True), ("n2", False))
    assert list_pairs(many, most=3) == [("p1", "n1"), ("p2", "n1"), ("p1", "n2")]
    assert build_triplets([many], 3)[1][TripletDropReason.BEYOND_MOST] == 1


def test_the_cap_is_for_the_query_over_all_its_searches_the_newest_first() -> None:
    old, new = (
        make_search(("p", True), ("n", False)),
        make_search(("p", True), ("m", False), query=" Q", minute=5),
    )
    assert list_pairs(old, new, most=1) == [("p", "m")]
    assert list_pairs(old, new, most=2) == [("p", "n"), ("p", "m")]


def test_what_one_search_calls_relevant_is_no_negative_of_the_same_query() -> None:
    one = make_search(("yes", True), ("also yes", False), ("no", False))
    other = make_search(("also yes", True), ("no", False), query="Q", minute=1)
    assert list_pairs(one, other) == [("yes", "no"), ("also yes", "no")]


def test_a_text_that_nearly_equals_a_relevant_one_is_no_negative() -> None:
    text = " ".join(f"word{n}" for n in range(60))
    made, dropped = build_triplets(
        [make_search((text, True), (f"{text.upper()}!", False), (f"{text} more", False))], 10
    )
    assert made == []
    assert dropped[TripletDropReason.SAME_AS_RELEVANT] == 2
    assert dropped[TripletDropReason.NO_IRRELEVANT] == 1


def test_texts_are_the_same_only_when_nearly_all_words_are() -> None:
    def negatives(relevant: str, irrelevant: str) -> int:
        return len(list_pairs(make_search((relevant, True), (irrelevant, False))))

    assert not negatives("Return a parcel.", "return  a PARCEL")
    assert negatives("Return a parcel", "Return a letter")
    assert negatives("yes", "no")
    long = " ".join(f"w{n}" for n in range(100))
    assert not negatives(long, long.replace("w50 ", ""))
    assert negatives(long, long.replace("w20 ", "x ").replace("w50 ", "y ").replace("w80 ", "z "))


def test_older_searches_of_a_query_that_has_enough_are_not_read_but_counted() -> None:
    def passage(number: int) -> str:
        return " ".join(f"{number}w{n}" for n in range(60))

    def one(minute: int) -> ReviewedRetrieval:
        return make_search(*((passage(20 * minute + n), n == 3) for n in range(5)), minute=minute)

    made, dropped = build_triplets([one(minute) for minute in range(50)], 5)
    assert [each.source_span_ids for each in made] == [("s48",)] + [("s49",)] * 4
    assert dropped[TripletDropReason.ENOUGH] == 48
    assert dropped[TripletDropReason.BEYOND_MOST] == 3
