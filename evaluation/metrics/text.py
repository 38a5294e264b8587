"""How near a generated text comes to the gold one, where hardly any is the very same.

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
"""What counts as a word in scripts that write no spaces between words."""
_WORD = regex.compile(rf"(?V1){_UNSPACED}\p{{M}}*|[[\p{{L}}\p{{M}}\p{{N}}]--{_UNSPACED}]+")
_LETTER = regex.compile(r"\p{L}")
_PUNCTUATION = regex.compile(r"[\p{P}$+<=>^`|~]")
"""Unicode's punctuation (as Lewis et al. 2020, MLQA) and what else is punctuation in ASCII."""
_ARTICLE = regex.compile(r"\b(a|an|the)\b")


class _Words:
    """Words for ROUGE. Its own tokenizer knows those of a-z and 0-9 alone; on these the two agree."""

    def tokenize(self, text: str) -> list[str]:
        return list(_WORD.findall(_fold(text)))


_ROUGE = RougeScorer(["rougeL"], tokenizer=_Words())
_CHRF = CHRF()


def score_texts(answers: Sequence[str], golds: Sequence[str]) -> tuple[dict[str, float], ...]:
    """How near each answer comes to its gold one: `exact_match`, `compute_token_f1`, `rouge_l` and `chrf`.

    ROUGE-L is its F-measure (Lin 2004); chrF has six orders and beta 2 (Popović 2015).
    """
    return tuple(_score_text(answer, gold) for answer, gold in zip(answers, golds, strict=True))


def _score_text(answer: str, gold: str) -> dict[str, float]:
    if answer.split() == gold.split():
        # Also where there is no word, or no character, to compare.
        return dict.fromkeys(("exact_match", "token_f1", "rouge_l", "chrf"), 1.0)
    return {
        "exact_match": 0.0,
        "token_f1": compute_token_f1(answer, gold),
        "rouge_l": float(_ROUGE.score(gold, answer)["rougeL"].fmeasure),
        "chrf": _CHRF.sentence_score(answer, [gold]).score / 100,
    }


def compute_corpus_figures(answers: Sequence[str], golds: Sequence[str]) -> dict[str, float]:
    """`bleu` and `corpus_chrf`, which count over the whole corpus, by sacreBLEU (Post 2018).

    BLEU of mostly Chinese, Japanese, Thai, … gold is over characters, as these have no spaces; else its
    tokenizer is `13a`. Where no answer has four tokens, it goes by the shorter n-grams that there are.
    One item at least.
    """
    letters = "".join(golds)
    unspaced = 2 * len(_CHARACTER.findall(letters)) > len(_LETTER.findall(letters))
    bleu = BLEU(tokenize="char" if unspaced else "13a", effective_order=True, force=True)
    return {
        "bleu": bleu.corpus_score(answers, [golds]).score / 100,
        "corpus_chrf": _CHRF.corpus_score(answers, [golds]).score / 100,
    }


def compute_token_f1(answer: str, gold: str) -> float:
    """F1 of the words in common, whatever their order (SQuAD 1.1: Rajpurkar et al. 2016).

    Without case, punctuation and articles. Of articles English ones alone: which other words are
    articles depends on the language, and of short texts that would be a guess. In scripts without
    spaces every character is a word (as in MLQA).
    """
    said, wanted = split_words(answer), split_words(gold)
    if not said or not wanted:
        return float(said == wanted)
    return 2 * (Counter(said) & Counter(wanted)).total() / (len(said) + len(wanted))


def split_words(text: str) -> list[str]:
    """The words that `compute_token_f1` compares."""
    without_articles = _ARTICLE.sub(" ", _PUNCTUATION.sub("", _fold(text)))
    return _CHARACTER.sub(r" \g<0> ", without_articles).split()


def _fold(text: str) -> str:
    """Lower case, and one form for what Unicode can write in several."""
    return unicodedata.normalize("NFKC", text).lower()


def compute_perplexity(logprobs: Iterable[Sequence[float]]) -> float | None:
    """Of gold answers: exp of the mean negative log-likelihood of a token; 1 is best.

    `logprobs` has the tokens' log-probabilities in nats, answer by answer; a token counts the same in
    each. None without tokens, and where one was impossible.
    """
    tokens = [nats for answer in logprobs for nats in answer]
    mean = -math.fsum(tokens) / len(tokens) if tokens and all(map(math.isfinite, tokens)) else math.inf
    # Beyond this there is no float.
    return math.exp(mean) if mean < 700 else None
