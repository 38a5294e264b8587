"""Nearness of texts, against ROUGE and sacreBLEU called directly, and SQuAD's script."""

import math
import re
import string
from collections import Counter

import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from evaluation.metrics.text import (
    compute_corpus_figures,
    compute_perplexity,
    compute_token_f1,
    score_texts,
    split_words,
)

ASCII = st.text(st.sampled_from(string.printable), max_size=40)
ENGLISH = st.lists(
    st.sampled_from(["the", "A", "cat", "Cat.", "sat", "on", "an", "mat", "--", "it's", "3.5"]), max_size=12
).map(" ".join)
UNICODE = st.text(max_size=25)
TEXTS = {
    "English": ("The parcel was sent on Monday.", "Your parcel left on Monday."),
    "German": ("Die Rechnung über 20 € wurde geprüft.", "Die Rechnung über 30 € wurde geprüft."),
    "Chinese": ("您的包裹已于星期一寄出。", "您的包裹星期一已寄出。"),
    "Japanese": ("荷物は月曜日に発送されました。", "荷物は火曜日に発送されました。"),
    "Thai": ("พัสดุของคุณถูกส่งแล้ว", "พัสดุของคุณมาถึงแล้ว"),
    "Hindi": ("आपका पार्सल सोमवार को भेजा गया", "आपका पार्सल मंगलवार को भेजा गया"),
    "Arabic": ("تم إرسال الطرد يوم الاثنين", "تم إرسال الطرد يوم الثلاثاء"),
    "Korean": ("소포는 월요일에 발송되었습니다", "소포는 화요일에 발송되었습니다"),
}


def item(answer, gold):
    return score_texts([answer], [gold])[0]


def squad_script(prediction, truth):
    """F1 as SQuAD's evaluate-v1.1.py computes it."""

    def words(text):
        text = "".join(c for c in text.lower() if c not in set(string.punctuation))
        return re.sub(r"\b(a|an|the)\b", " ", text).split()

    common = Counter(words(prediction)) & Counter(words(truth))
    same = sum(common.values())
    if same == 0:
        return 0
    precision, recall = same / len(words(prediction)), same / len(words(truth))
    return 2 * precision * recall / (precision + recall)


@pytest.mark.parametrize(
    ("answer", "gold", "f1"),
    [
        ("Denver Broncos", "Denver Broncos", 1),
        ("the Denver Broncos!", "denver broncos", 1),
        ("The Broncos", "Denver Broncos", 2 / 3),  # 1 of 1 words, 1 of 2
        ("Denver Denver", "Denver Broncos", 1 / 2),  # a word counts as often as it is wanted
        ("Santa Clara, California", "Levi's Stadium in Santa Clara", 2 * (2 / 3) * (2 / 5) / (2 / 3 + 2 / 5)),
        ("Carolina Panthers", "Denver Broncos", 0),
        ("", "Denver Broncos", 0),
        ("$24~", "24", 1),  # symbols of ASCII are punctuation
        ("the", "a", 1),  # nothing is left of either
    ],
)
def test_the_token_f1_of_examples_counted_by_hand(answer, gold, f1):
    assert compute_token_f1(answer, gold) == pytest.approx(f1)


@given(ENGLISH | ASCII, ENGLISH | ASCII)
@settings(deadline=None)
def test_the_token_f1_of_english_agrees_with_squads_script(answer, gold):
    if split_words(answer) and split_words(gold):
        assert compute_token_f1(answer, gold) == pytest.approx(squad_script(answer, gold))


@given(ENGLISH | ASCII, ENGLISH | ASCII)
@settings(deadline=None)
def test_rouge_of_ascii_agrees_with_its_own_tokenizer(answer, gold):
    if answer.split() != gold.split():
        expected = RougeScorer(["rougeL"]).score(gold, answer)["rougeL"].fmeasure
        assert item(answer, gold)["rouge_l"] == pytest.approx(expected)


@given(UNICODE, UNICODE)
@settings(deadline=None)
def test_chrf_agrees_with_sacrebleu(answer, gold):
    if answer.split() != gold.split():
        expected = sacrebleu.sentence_chrf(answer, [gold]).score / 100
        assert item(answer, gold)["chrf"] == pytest.approx(expected)


@pytest.mark.parametrize("language", TEXTS)
def test_a_text_of_any_language_is_the_same_as_itself_and_near_to_one_like_it(language):
    text, like_it = TEXTS[language]
    assert set(item(text, f" {text}\n").values()) == {1}
    # Longer by a word on either side, so that it is not simply equal.
    found = item(f"{text} {like_it}", f"{text} {text}")
    assert all(0.5 < found[name] < 1 for name in ("token_f1", "rouge_l", "chrf")), found
    assert found["exact_match"] == 0


def test_letters_of_every_script_count_and_their_signs_with_them():
    assert item("Größe", "Grüße")["rouge_l"] == 0
    assert item("की", "कि")["rouge_l"] == 0
    assert split_words("की कि") == ["की", "कि"]
    assert split_words("ที่นี่") == ["ที่", "นี่"]
    assert split_words("「春節」是iPhone的") == ["春", "節", "是", "iphone", "的"]


def test_one_letter_written_in_two_ways_is_one():
    assert compute_token_f1("Mu\N{COMBINING DIAERESIS}ller", "Müller") == 1


def test_a_text_without_any_word_is_the_same_as_itself_alone():
    assert set(item("?!", "?!").values()) == {1}
    assert item("?!", "well?")["rouge_l"] == 0
    assert set(item("", "well").values()) == {0}


@given(UNICODE, UNICODE)
@settings(deadline=None)
def test_every_figure_is_a_share_and_1_for_the_same_text(answer, gold):
    assert all(0 <= figure <= 1 + 1e-9 for figure in item(answer, gold).values())
    assert set(item(gold, gold).values()) == {1}
    assert compute_token_f1(answer, gold) == pytest.approx(compute_token_f1(gold, answer))
    assert item(answer, gold)["rouge_l"] == pytest.approx(item(gold, answer)["rouge_l"])


@pytest.mark.parametrize(
    ("language", "tokenizer"), [("English", "13a"), ("German", "13a"), ("Chinese", "char")]
)
def test_figures_of_a_corpus_agree_with_sacrebleu(language, tokenizer):
    gold, answer = TEXTS[language]
    answers, wanted = [answer, gold, gold], [gold, gold, answer]
    found = compute_corpus_figures(answers, wanted)
    bleu = sacrebleu.corpus_bleu(answers, [wanted], tokenize=tokenizer, force=True).score / 100
    assert found["bleu"] == pytest.approx(bleu)
    assert found["corpus_chrf"] == pytest.approx(sacrebleu.corpus_chrf(answers, [wanted]).score / 100)
    assert 0 < found["bleu"] < 1


def test_short_answers_that_are_all_right_have_all_of_the_bleu():
    assert compute_corpus_figures(["Yes", "No"], ["Yes", "No"]) == pytest.approx(
        {"bleu": 1, "corpus_chrf": 1}
    )


def test_perplexity_is_the_size_of_an_even_choice():
    """A model that chooses among 50 tokens evenly has perplexity 50 (Jelinek et al. 1977)."""
    assert compute_perplexity([[math.log(1 / 50)] * 7, [math.log(1 / 50)]]) == pytest.approx(50)


@given(st.lists(st.lists(st.floats(-20, 0), max_size=6), min_size=1, max_size=6))
@settings(deadline=None)
def test_perplexity_is_the_inverse_geometric_mean_of_the_tokens_probabilities(logprobs):
    tokens = [math.exp(nats) for answer in logprobs for nats in answer]
    if tokens:
        assert compute_perplexity(logprobs) == pytest.approx(
            math.prod(p ** (-1 / len(tokens)) for p in tokens)
        )
    else:
        assert compute_perplexity(logprobs) is None


@pytest.mark.parametrize("impossible", [-math.inf, math.nan, -1e9])
def test_there_is_no_perplexity_where_a_token_was_impossible(impossible):
    assert compute_perplexity([[-1.0, impossible]]) is None
