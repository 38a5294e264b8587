"""Fields of an extraction, counted."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_fscore_support

from evaluation.metrics.fields import compute_field_figures, count_fields, score_fields
from evaluation.metrics.scoring import build_scorer

SCORER = build_scorer("extraction", (), ())
GOLD = '{"name": "Ada", "address": {"city": "Köln", "zip": "50667"}, "orders": [{"id": 1}, {"id": 2}]}'

flat = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 2), min_size=1)
names = st.text("ab ", max_size=3)
leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | names
inner = st.recursive(leaves, lambda below: st.lists(below, max_size=3) | st.dictionaries(names, below))
objects = st.dictionaries(names, inner, max_size=4)


def f1(answer, gold):
    return score_fields([answer], [gold])[0]["field_f1"]


def test_each_value_with_its_path_is_a_field():
    assert count_fields(json.loads(GOLD)) == {
        (("name",), "text", "Ada"): 1,
        (("address", "city"), "text", "Köln"): 1,
        (("address", "zip"), "text", "50667"): 1,
        (("orders", None, "id"), "number", 1): 1,
        (("orders", None, "id"), "number", 2): 1,
    }


def test_what_is_wrong_missing_and_made_up_counts_against_an_answer():
    # Right: city, zip and one order. Wrong: the name. Missing: the other order. Made up: the country.
    answer = (
        '{"name": "Eva", "address": {"zip": "50667", "city": "Köln", "country": "DE"}, "orders": [{"id": 2}]}'
    )
    assert f1(answer, GOLD) == pytest.approx(2 * 3 / (5 + 5))
    assert compute_field_figures([answer, "no idea"], [GOLD, '{"name": "Bo"}']) == pytest.approx(
        {
            "field_precision": 3 / 5,
            "field_recall": 3 / 6,
            "field_micro_f1": 2 * 3 / (5 + 6),
            "valid_json_rate": 1 / 2,
        }
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('{"n": 1}', '{"n": 1.0}'),
        ('{"n": " Ada "}', '{"n": "Ada"}'),
        ('{"n": [1, 2, 2]}', '{"n": [2, 1, 2]}'),
        ('{"a": 1, "b": []}', '```json\n{"b": [], "a": 1}\n```'),
        ("{}", "{}"),
        ("[]", " [ ] "),
    ],
)
def test_what_says_the_same_is_the_same(one, other):
    assert f1(one, other) == f1(other, one) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('{"n": 1}', '{"n": true}'),
        ('{"n": 1}', '{"n": "1"}'),
        ('{"n": null}', '{"n": ""}'),
        ('{"n": "Ada"}', '{"n": "ada"}'),
        ('{"n": 1}', '{"n": [1]}'),
        ('{"n": {}}', '{"n": []}'),
        ("{}", "[]"),
        ('{"a.b": 1}', '{"a": {"b": 1}}'),
    ],
)
def test_what_differs_in_type_case_or_place_is_another_field(one, other):
    assert f1(one, other) == f1(other, one) == 0


def test_a_value_given_twice_counts_once_where_it_is_wanted_once():
    assert f1('{"n": [1, 1]}', '{"n": [1]}') == pytest.approx(2 / 3)


def test_an_answer_that_is_no_json_has_no_fields():
    assert f1("The name is Ada.", GOLD) == 0
    nothing = compute_field_figures(["The name is Ada."], [GOLD])
    assert nothing == dict.fromkeys(nothing, 0)


def test_an_item_whose_gold_answer_is_no_json_is_left_out():
    assert score_fields([GOLD, "{}"], ["see attachment", "{}"]) == ({}, {"field_f1": 1})
    assert compute_field_figures([GOLD, "{}"], ["see attachment", "{}"])["field_precision"] == 1
    assert compute_field_figures([GOLD], ["see attachment"]) == {}


def test_nesting_is_followed_as_deep_as_json_is_read():
    deep = '{"a": ' * 900 + "1" + "}" * 900
    assert f1(deep, deep) == 1


@given(st.lists(st.tuples(flat, flat), min_size=1, max_size=10))
@settings(deadline=None)
def test_figures_over_all_items_agree_with_scikit_learn(pairs):
    """Every (item, path, value) that either side has is one decision: a multi-label problem."""
    said = {(i, *field) for i, (answer, _) in enumerate(pairs) for field in answer.items()}
    wanted = {(i, *field) for i, (_, gold) in enumerate(pairs) for field in gold.items()}
    every = sorted(said | wanted)
    expected = precision_recall_fscore_support(
        [field in wanted for field in every],
        [field in said for field in every],
        pos_label=True,
        average="binary",
        zero_division=0,
    )
    found = compute_field_figures([json.dumps(a) for a, _ in pairs], [json.dumps(g) for _, g in pairs])
    assert [found[f"field_{name}"] for name in ("precision", "recall", "micro_f1")] == pytest.approx(
        expected[:3]
    )


@given(objects, objects)
@settings(max_examples=30, deadline=None)
def test_the_f1_is_symmetrical_within_bounds_and_1_against_itself(one, other):
    one, other = json.dumps(one), json.dumps(other)
    assert f1(one, one) == 1
    assert 0 <= f1(one, other) <= 1
    assert f1(one, other) == f1(other, one)


@given(objects, objects)
def test_an_answer_that_is_right_has_all_fields_right(one, other):
    one, other = json.dumps(one), json.dumps(other)
    assert SCORER.is_same(one, one)
    assert not SCORER.is_same(one, other) or f1(one, other) == 1


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ('{"n": true}', '{"n": 1}', False),
        ('{"n": 1.0, "m": [1e2]}', '{"m": [100], "n": 1}', True),
        ('{"n": "1"}', '{"n": 1}', False),
        ('{"n": 12345678901234567890}', '{"n": 12345678901234567891}', False),
    ],
)
def test_values_are_the_same_by_what_json_calls_them(one, other, same):
    assert SCORER.is_same(one, other) is same
