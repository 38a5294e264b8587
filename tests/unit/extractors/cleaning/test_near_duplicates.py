"""Tests of which texts count as the same, checked against the similarity of every pair."""

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extractors.cleaning.near_duplicates import find_near_duplicates, find_near_matches

QUESTIONS = (
    "can you check the status of my credit card application",
    "how many vacation days do i have left this year",
    "i need to transfer ten dollars from my checking to my savings account",
    "what is the best route to the airport at this time of the day",
    "who has the best record in the nfl",
)


def similarity(one: str, other: str) -> float:
    """Jaccard over padded 3-character shingles, of texts that have no template and no punctuation."""
    sets = [{f" {t} "[at : at + 3] for at in range(max(1, len(t)))} for t in (one, other)]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


@pytest.mark.parametrize(
    "again",
    [
        "Can you check the status of my credit card application?",
        "  can you check the\nstatus of my CREDIT CARD application ",
        "can you check on the status of my credit card application",
        "can you check the status of my creditcard application",
        "\uff43\uff41\uff4e you check the status of my credit card application…",
    ],
)
def test_a_question_asked_again_with_other_case_space_punctuation_or_a_typo_is_near(again: str) -> None:
    assert find_near_duplicates([*QUESTIONS, again]) == [None] * 5 + [0]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("who has the best record in the nfl", "who has the best record in the nba"),
        ("how many vacation days do i have", "how many vacation days do i have used"),
        ("what is the square root of 36", "what is the square root of 10500"),
        ("yes", "yep"),
        ("no", "on"),
        ("👍", "👎"),
        ("की", "का"),
        ("", "a"),
    ],
)
def test_short_questions_that_differ_in_the_word_that_matters_are_not_near(one: str, other: str) -> None:
    assert find_near_duplicates([one, other]) == [None, None]


@pytest.mark.parametrize(
    "text", ["", "?", "a", "ok", "…", "!!!", "😀", "你好", "\x00", "\ud800", "x" * 100_000]
)
def test_a_text_of_any_length_repeats_itself(text: str) -> None:
    assert find_near_duplicates([text, "something else", text]) == [None, None, 0]
    assert find_near_matches([text], ["another", text]) == [1]


def test_what_repeats_a_repetition_only_stays() -> None:
    # A chain of small changes does not pull together what is not alike.
    chain = ["a" * at + "b" * (80 - at) for at in range(0, 80, 2)]
    words = [
        "one two three four five six seven eight nine ten".replace("five", "five" + "x" * n)
        for n in range(40)
    ]
    for texts in (chain, words):
        for text, link in zip(texts, find_near_duplicates(texts, 0.8), strict=True):
            assert link is None or similarity(text, texts[link]) >= 0.8


def test_texts_that_share_a_long_template_are_not_near_for_that() -> None:
    template = (
        "You will be given a ticket that a customer of our shop wrote, and shall name the department "
        "that must answer it. The departments are billing, shipping and support. Ticket number {}: {}"
    )
    asked = [template.format(at, f"{word} {word[::-1]} {at * 7919}") for at, word in enumerate(WORDS)]
    assert find_near_duplicates(asked) == [None] * len(asked)
    assert find_near_matches(asked[1:], asked[:1]) == [None] * (len(asked) - 1)
    assert find_near_duplicates([*asked, asked[3].upper()])[-1] == 3


RNG = random.Random(0)
LEXICON = ["".join(RNG.choices("abcdefghijklmnopqrstuvwxyz", k=RNG.randint(3, 9))) for _ in range(3000)]


def words(count: int) -> str:
    return " ".join(RNG.choices(LEXICON, k=count))


@pytest.mark.parametrize("templates", [1, 2, 3, 10])
def test_texts_in_one_of_several_templates_differ_by_what_each_says(templates: int) -> None:
    written = [words(120) for _ in range(templates)]
    tickets = [f"{written[n % templates]}\nTicket: {words(6)}" for n in range(400)]
    assert find_near_duplicates(tickets) == [None] * 400
    assert find_near_matches(tickets[80:], tickets[:80]) == [None] * 320
    assert find_near_duplicates([*tickets, tickets[7].upper() + "!"])[-1] == 7


def test_a_template_that_changed_over_time_and_fields_in_its_middle_hide_nothing() -> None:
    head, changed, tail = words(80), (words(15), words(15), words(15)), words(40)
    tickets = []
    for n in range(300):
        fields = f"customer: {words(2)} tier: {('gold', 'free')[n % 2]} ticket: {words(6)}"
        tickets.append(f"{head} {changed[n // 100]} {fields} {tail}")
    assert find_near_duplicates(tickets) == [None] * 300


def test_questions_about_the_same_few_documents_differ() -> None:
    documents, asked = [words(150) for _ in range(20)], [words(4) for _ in range(30)]
    each = [f"{document} question: {question}" for document in documents for question in asked]
    assert find_near_duplicates(each) == [None] * len(each)
    found = [f"{' '.join(RNG.sample(documents, 3))} question: {words(7)}" for _ in range(300)]
    assert find_near_duplicates(found) == [None] * len(found)


def test_one_text_in_many_versions_is_still_one() -> None:
    base = words(40).split()
    versions = []
    for _ in range(200):
        at = RNG.randrange(40)
        versions.append(" ".join([*base[:at], base[at] + RNG.choice("xyz"), *base[at + 1 :]]))
    versions = list(dict.fromkeys(versions))
    assert find_near_duplicates([" ".join(base), *versions]) == [None] + [0] * len(versions)
    assert find_near_matches(versions, [" ".join(base)]) == [0] * len(versions)


def test_what_was_said_at_length_is_found_in_another_template_and_in_none() -> None:
    templates, said = (words(60), words(60)), [words(12) for _ in range(100)]
    tickets = [f"{templates[n % 2]} ticket: {text}" for n, text in enumerate(said)]
    again = f"{templates[1]} ticket: {said[4]}"
    assert find_near_matches([again, said[5]], tickets) == [4, 5]


def test_among_texts_that_are_nearly_near_it_takes_little_time_to_find_what_is() -> None:
    # Slots of a word after each six: no passage is long enough to be seen as a template's.
    forms = [[words(6) for _ in range(10)] for _ in range(3)]
    alike = [" ".join(f"{part} {RNG.choice(LEXICON)}" for part in forms[n % 3]) for n in range(1500)]
    typos = [text[:100] + "#" + text[101:] for text in alike[::10]]
    began = time.process_time()
    links = find_near_duplicates([*alike, *typos])
    assert links == [None] * 1500 + list(range(0, 1500, 10))
    assert time.process_time() - began < 10  # seconds


WORDS = [
    f"{a}{b}" for a in ("vacuum", "kettle", "lamp", "sofa", "toaster") for b in ("red", "blue", "xl", "pro")
] * 2

LETTERS = st.text(alphabet="abc ", min_size=0, max_size=40).map(lambda text: " ".join(text.split()))


@given(texts=st.lists(LETTERS, max_size=15), threshold=st.sampled_from([0.5, 0.7, 0.9, 1.0]))
def test_links_are_those_that_the_similarity_of_every_pair_gives(texts: list[str], threshold: float) -> None:
    links = find_near_duplicates(texts, threshold)
    kept: list[int] = []
    for at, link in enumerate(links):
        alike = {earlier: similarity(texts[at], texts[earlier]) for earlier in kept}
        if link is None:
            assert all(found < threshold for found in alike.values())
            kept.append(at)
        else:
            assert link in kept
            assert alike[link] == max(alike.values()) >= threshold
    assert links == find_near_duplicates(texts, threshold)


@given(texts=st.lists(st.text(max_size=60), max_size=10), known=st.lists(st.text(max_size=60), max_size=10))
def test_an_equal_text_always_matches(texts: list[str], known: list[str]) -> None:
    matches = find_near_matches([*texts, *known], known)
    assert None not in matches[len(texts) :]


def test_pairs_right_at_the_threshold_are_found_among_thousands() -> None:
    rng = random.Random(5)
    texts = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=60)) for _ in range(2000)]
    # One letter changed in 60: 57 of 63 shingles shared.
    changed = [text[:30] + ("a" if text[30] != "a" else "b") + text[31:] for text in texts]
    found = find_near_duplicates([*texts, *changed], 0.9)
    assert found == [None] * 2000 + list(range(2000))
