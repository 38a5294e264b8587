"""The hyperparameters that a training gets."""

from itertools import product
from typing import get_args

import pytest

from trainers.planning.hyperparameters import (
    TABLE,
    Hyperparameters,
    Method,
    OverridesInvalid,
    Preset,
    choose_hyperparameters,
    select_overrides,
)

SIZES = SMALL, *_ = 270 * 10**6, 3 * 10**9, 16 * 10**9, 140 * 10**9
"""Bytes of the weights of a model of 135 million, 1.5, 8 and 70 billion parameters."""


def choose(
    method: Method = "sft",
    examples: int = 400,
    base_bytes: int = SMALL,
    preset: Preset = "efficient",
    max_lora_rank: int | None = None,
    **overrides: object,
) -> Hyperparameters:
    return choose_hyperparameters(
        method, examples, base_bytes, preset=preset, overrides=overrides, max_lora_rank=max_lora_rank
    )


def test_a_small_model_gets_what_was_measured_on_one() -> None:
    sft = choose(examples=300)
    assert (sft.lora_rank, sft.lora_alpha, sft.learning_rate, sft.batch_size) == (16, 32, 2e-3, 8)
    assert sft.epochs == 3


def test_little_data_gets_more_epochs_up_to_a_limit() -> None:
    assert choose(examples=50).epochs == 10
    assert choose(examples=110).epochs == 8
    assert choose(examples=400).epochs == 3
    # A larger batch makes fewer steps of the same data.
    assert choose(examples=400, batch_size=32).epochs == 9


@pytest.mark.parametrize("method", ["sft", "dpo", "kto"])
@pytest.mark.parametrize("preset", get_args(Preset))
def test_larger_models_get_a_lower_learning_rate(method: Method, preset: Preset) -> None:
    rates = [choose(method, base_bytes=size, preset=preset).learning_rate for size in SIZES]
    assert rates == sorted(set(rates), reverse=True)


@pytest.mark.parametrize("size", SIZES)
def test_preferences_are_learned_at_a_tenth_of_the_rate(size: int) -> None:
    sft, dpo, kto = (choose(method, base_bytes=size).learning_rate for method in ("sft", "dpo", "kto"))
    assert dpo == kto == pytest.approx(sft / 10)


@pytest.mark.parametrize(("method", "size"), list(product(get_args(Method), SIZES)))
def test_the_quality_preset_learns_longer_and_slower_with_more_capacity(method: Method, size: int) -> None:
    efficient = choose(method, base_bytes=size, examples=100)
    quality = choose(method, base_bytes=size, examples=100, preset="quality")
    assert quality.lora_rank > efficient.lora_rank
    assert quality.lora_alpha / quality.lora_rank == efficient.lora_alpha / efficient.lora_rank
    assert quality.epochs > efficient.epochs
    assert quality.learning_rate < efficient.learning_rate


def test_kto_has_enough_examples_a_step_for_its_estimate_of_the_divergence() -> None:
    kto = choose("kto")
    assert kto.batch_size >= 4
    assert kto.batch_size * kto.gradient_accumulation >= 16


def test_no_adapter_has_a_higher_rank_than_the_replicas_serve() -> None:
    bounded = choose(max_lora_rank=8)
    assert (bounded.lora_rank, bounded.lora_alpha) == (8, 16)
    with pytest.raises(OverridesInvalid, match=r"lora_rank = 32 is above training\.max_lora_rank = 16"):
        choose(lora_rank=32, max_lora_rank=16)


def test_the_rate_goes_with_the_rank_that_there_will_be() -> None:
    assert choose(preset="quality").learning_rate == choose().learning_rate / 2
    assert choose(preset="quality", max_lora_rank=16).learning_rate == choose().learning_rate
    assert choose(lora_rank=64).learning_rate == choose().learning_rate / 2
    assert choose(lora_rank=64, learning_rate=1e-3).learning_rate == 1e-3


@pytest.mark.parametrize(
    "name", sorted(Hyperparameters.model_fields.keys() - {"lora_targets", "dpo_loss", "triplet_loss"})
)
@pytest.mark.parametrize("method", get_args(Method))
def test_every_hyperparameter_can_be_overridden(method: Method, name: str) -> None:
    value = 0.5 if Hyperparameters.model_fields[name].annotation is float else 17
    assert getattr(choose(method, **{name: value}), name) == value


def test_overrides_hold_for_all_methods_or_for_one() -> None:
    given = {"epochs": 2, "dpo": {"epochs": 1, "beta": 0.3}}
    assert select_overrides("sft", given) == {"epochs": 2}
    assert select_overrides("dpo", given) == {"epochs": 1, "beta": 0.3}


@pytest.mark.parametrize(
    "overrides", [{"learnign_rate": 1e-4}, {"epochs": 0}, {"beta": 0}, {"seed": -1}, {"seed": 2**32}]
)
def test_an_override_that_cannot_be_names_itself(overrides: dict[str, float]) -> None:
    with pytest.raises(OverridesInvalid, match=next(iter(overrides))):
        choose(**overrides)


def test_every_row_sets_what_there_is_and_says_where_it_comes_from() -> None:
    for row in TABLE:
        assert row.source
        assert {*row.efficient, *row.quality} <= set(Hyperparameters.model_fields)
        assert set(row.quality) <= set(row.efficient) | {"evaluations_per_epoch"}
