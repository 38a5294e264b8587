"""The demo's corpus, and the checks on one that a user brings."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from daemon.demo.corpus import CorpusError, CustomerRequest, build_system_prompt, list_labels, load_corpus


def write(path: Path, requests: list[dict[str, str]]) -> Path:
    path.write_text("\n".join(json.dumps(request) for request in requests), "utf-8")
    return path


def many(count: int = 200, labels: int = 2) -> list[dict[str, str]]:
    """Requests sorted by label."""
    return [{"text": f"message {i}", "label": f"desk {i * labels // count}"} for i in range(count)]


def test_the_demos_own_corpus_has_ten_destinations_of_equal_size():
    counts = Counter(request.label for request in load_corpus())
    assert len(counts) == 10
    assert set(counts.values()) == {44}


def test_no_two_requests_of_the_demos_own_corpus_say_the_same():
    words = [" ".join(re.findall(r"\w+", request.text.casefold())) for request in load_corpus()]
    assert len(set(words)) == len(words)


def test_the_system_prompt_names_the_labels_that_are_there():
    requests = [
        CustomerRequest(text="where is it?", label="shipping"),
        CustomerRequest(text="bill?", label="billing"),
    ]
    assert "Destinations: billing, shipping." in build_system_prompt(list_labels(requests))


def test_a_file_sorted_by_label_comes_out_mixed(tmp_path):
    newest = load_corpus(write(tmp_path / "sorted.jsonl", many()))[-80:]
    assert 20 < Counter(request.label for request in newest)["desk 0"] < 60


def test_the_order_does_not_depend_on_the_order_in_the_file(tmp_path):
    forwards = load_corpus(write(tmp_path / "a.jsonl", many()))
    backwards = load_corpus(write(tmp_path / "b.jsonl", many()[::-1]))
    assert forwards == backwards


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("billing, where is my invoice", "JSON"),
        ('{"text": "hello"}', "label"),
        ('{"text": "hello", "label": 3}', "label"),
        ('{"text": "  ", "label": "billing"}', "text"),
        ('{"text": "hello", "label": "billing, shipping"}', "label"),
        ('{"text": "hello", "label": "billing", "lang": "en"}', "lang"),
    ],
)
def test_a_bad_line_is_refused_with_its_number(tmp_path, line, problem):
    file = tmp_path / "bad.jsonl"
    file.write_text(f'{{"text": "hi", "label": "billing"}}\n\n{line}\n', "utf-8")
    with pytest.raises(CorpusError, match=rf"line 3 .*{problem}"):
        load_corpus(file)


def test_one_text_with_two_labels_is_refused_with_both_lines(tmp_path):
    contradicting = [{"text": "My bill?", "label": "billing"}, {"text": "my  BILL?", "label": "returns"}]
    with pytest.raises(CorpusError, match=r"line 2: the text of line 1"):
        load_corpus(write(tmp_path / "two.jsonl", contradicting))


def test_a_repeated_request_counts_once(tmp_path):
    with pytest.raises(CorpusError, match="199 different requests"):
        load_corpus(write(tmp_path / "repeated.jsonl", many()[:199] + many()[:1]))


def test_a_single_label_is_nothing_to_learn(tmp_path):
    with pytest.raises(CorpusError, match="1 labels"):
        load_corpus(write(tmp_path / "one.jsonl", many(labels=1)))


def test_a_line_separator_within_a_text_does_not_end_the_line(tmp_path):
    odd = {"text": "first\u2028second", "label": "desk 0"}
    file = tmp_path / "odd.jsonl"
    file.write_text("\n".join(json.dumps(r, ensure_ascii=False) for r in [*many(), odd]), "utf-8-sig")
    assert CustomerRequest(**odd) in load_corpus(file)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CorpusError, match=r"nowhere\.jsonl: No such file"):
        load_corpus(tmp_path / "nowhere.jsonl")
