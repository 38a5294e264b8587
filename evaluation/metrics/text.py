"""Nearness of a generated text to the gold one, for tasks where hardly any text equals it.

Importing this module loads ROUGE and sacreBLEU: import it where it is used. Pure functions: texts and
log-probabilities in, figures from 0 (nothing in common) to 1 (the same) out.
"""

import math
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

import regex
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
_CHARACTER = regex.compile(rf"{_UNSPACED}\p{{M}}*")
"""A word in scripts that write no spaces between words."""
_WORD = regex.compile(rf"(?V1){_UNSPACED}\p{{M}}*|[[\p{{L}}\p{{M}}\p{{N}}]--{_UNSPACED}]+")
_LETTER = regex.compile(r"\p{L}")
_PUNCTUATION = regex.compile(r"[\p{P}$+<=>^`|~]")
"""Unicode's punctuation (as Lewis et al. 2020, MLQA) and ASCII's further punctuation."""
_ARTICLE = regex.compile(r"\b(a|an|the)\b")


class _Words:
    """Words for ROUGE. ROUGE's own tokenizer knows only words of a-z and 0-9; on these the two agree."""

    def tokenize(self, text: str) -> list[str]:
        return list(_WORD.findall(_fold(text)))


_ROUGE = RougeScorer(["rougeL"], tokenizer=_Words())
_CHRF = CHRF()


def score_texts(answers: Sequence[str], golds: Sequence[str]) -> tuple[dict[str, float], ...]:
    """Return how near each answer comes to its gold one: `exact_match`, `token_f1`, `rouge_l` and `chrf`.

    ROUGE-L is its F-measure (Lin 2004); chrF has six orders and beta 2 (Popović 2015).
    """
    return tuple(_score_text(answer, gold) for answer, gold in zip(answers, golds, strict=True))


def _score_text(answer: str, gold: str) -> dict[str, float]:
    if answer.split() == gold.split():
        # This also covers texts without a word or a character to compare.
        return dict.fromkeys(("exact_match", "token_f1", "rouge_l", "chrf"), 1.0)
    return {
        "exact_match": 0.0,
        "token_f1": compute_token_f1(answer, gold),
        "rouge_l": float(_ROUGE.score(gold, answer)["rougeL"].fmeasure),
        "chrf": _CHRF.sentence_score(answer, [gold]).score / 100,
    }


def compute_corpus_figures(answers: Sequence[str], golds: Sequence[str]) -> dict[str, float]:
    """Return `bleu` and `corpus_chrf`, which count over the whole corpus, by sacreBLEU (Post 2018).

    For gold that is mostly Chinese, Japanese, Thai, …, which write no spaces, BLEU is over characters; else
    its tokenizer is `13a`. Where no answer has four tokens, BLEU uses the shorter n-grams that there are.
    There must be at least one item.
    """
    letters = "".join(golds)
    unspaced = 2 * len(_CHARACTER.findall(letters)) > len(_LETTER.findall(letters))
    bleu = BLEU(tokenize="char" if unspaced else "13a", effective_order=True, force=True)
    return {
        "bleu": bleu.corpus_score(answers, [golds]).score / 100,
        "corpus_chrf": _CHRF.corpus_score(answers, [golds]).score / 100,
    }


def compute_token_f1(answer: str, gold: str) -> float:
    """Return the F1 of the words in common, whatever their order (SQuAD 1.1: Rajpurkar et al. 2016).

    Case, punctuation and English articles do not count. Articles of other languages do, since the language
    of a short text would be a guess. In scripts without spaces every character is a word (as in MLQA).
    """
    said, wanted = split_words(answer), split_words(gold)
    if not said or not wanted:
        return float(said == wanted)
    return 2 * (Counter(said) & Counter(wanted)).total() / (len(said) + len(wanted))


def split_words(text: str) -> list[str]:
    """Split a text into the words that `compute_token_f1` compares."""
    without_articles = _ARTICLE.sub(" ", _PUNCTUATION.sub("", _fold(text)))
    return _CHARACTER.sub(r" \g<0> ", without_articles).split()


def _fold(text: str) -> str:
    """Return the text in lower case, and in one form where Unicode has several."""
    return unicodedata.normalize("NFKC", text).lower()


def compute_perplexity(logprobs: Iterable[Sequence[float]]) -> float | None:
    """Return the perplexity of gold answers: exp of a token's mean negative log-likelihood; 1 is best.

    `logprobs` has the tokens' log-probabilities in nats, answer by answer; every token counts the same.
    Returns None without tokens, and where one was impossible.
    """
    tokens = [nats for answer in logprobs for nats in answer]
    mean = -math.fsum(tokens) / len(tokens) if tokens and all(map(math.isfinite, tokens)) else math.inf
    # Beyond this there is no float.
    return math.exp(mean) if mean < 700 else None
