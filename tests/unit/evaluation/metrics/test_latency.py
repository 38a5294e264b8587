"""Ratios of times are judged by their median, whose bounds hold their level on a noisy machine too."""

from functools import partial

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from scipy.stats import binom
from transformers import AutoModelForCausalLM

from evaluation.engine.encode import open_encoder
from evaluation.engine.generate import open_engine
from evaluation.metrics.latency import ROUNDS, compute_overhead, find_typical_length, time_sides
from evaluation.metrics.measures import Overhead
from evaluation.report import BASE
from tests.support.tiny_encoder import tiny_encoder

TIMES = {"candidate": 0.3, "active": 0.2, "base": 0.1}


def order_statistic(ratios, alpha):
    """The least of the ratios that the median exceeds by chance at most a share `alpha` of the time."""
    n = len(ratios)
    rank = next(rank for rank in range(1, n + 1) if binom.sf(rank - 1, n, 0.5) <= alpha)
    return sorted(ratios)[rank - 1]


def test_the_overhead_is_the_median_of_paired_ratios():
    other = 2.0 ** np.arange(-8, 8)
    found = compute_overhead(1.25 * other, other, against="base", alpha=0.05)
    same = Overhead(against="base", n=16, ratio=1.25, interval=(1.25, 1.25), lower=1.25, upper=1.25)
    assert found == same


@pytest.mark.parametrize("alpha", [0.05, 0.01, 0.2])
@pytest.mark.parametrize("n", [8, 16, 33])
def test_its_bounds_are_the_order_statistics_of_the_binomial(n, alpha):
    rng = np.random.default_rng(n)
    candidate, other = rng.lognormal(0.2, 0.1, n), rng.lognormal(0, 0.1, n)
    found = compute_overhead(candidate, other, against="base", alpha=alpha)
    ratios = candidate / other
    assert found.ratio == pytest.approx(np.median(ratios))
    assert found.upper == pytest.approx(order_statistic(ratios, alpha))
    assert found.lower == pytest.approx(1 / order_statistic(1 / ratios, alpha))
    assert found.interval == pytest.approx(
        (1 / order_statistic(1 / ratios, 0.025), order_statistic(ratios, 0.025))
    )


def test_its_bounds_hold_their_level_where_the_machine_holds_up_some_answers():
    rng, times, fails = np.random.default_rng(0), 200, np.zeros(2)
    for _ in range(times):
        busy = np.where(rng.random(16) < 0.2, rng.exponential(1.0, 16), 0)
        ratios = 1.2 * np.exp(rng.normal(0, 0.08, 16) + rng.permutation(busy) * rng.choice([-1, 1], 16))
        found = compute_overhead(ratios, np.ones(16), against="base", alpha=0.05)
        fails += found.upper < 1.2, not found.interval[0] <= 1.2 <= found.interval[1]
    assert (fails / times <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / times)).all()


def test_one_answer_that_was_held_up_hardly_moves_it():
    ratios = np.linspace(1.1, 1.3, 16)
    held_up = np.where(np.arange(16) == 3, 50.0, ratios)
    calm, busy = (
        compute_overhead(each, np.ones(16), against="base", alpha=0.05) for each in (ratios, held_up)
    )
    assert busy.ratio == pytest.approx(calm.ratio, abs=0.02)
    assert busy.upper == pytest.approx(calm.upper, abs=0.02)


def test_too_few_questions_give_the_extremes():
    found = compute_overhead([1.0, 3.0], [1.0, 2.0], against="base", alpha=0.05)
    assert (found.interval, found.lower, found.upper) == ((1.0, 1.5), 1.0, 1.5)


def test_all_sides_do_the_same_questions_in_turn_and_the_first_round_does_not_count():
    asked = []

    def clock(side, question):
        asked.append((side, question))
        return 10 * TIMES[side] if len(asked) <= 3 else TIMES[side]

    found = time_sides(clock, list(TIMES), ["a", "b", "c", "d"], rounds=4)
    assert [side for side, _ in asked[3:]] == [
        *("candidate", "active", "base"),
        *("active", "base", "candidate"),
        *("base", "candidate", "active"),
        *("candidate", "active", "base"),
    ]
    assert [question for _, question in asked[3::3]] == ["a", "b", "c", "d"]
    assert found.seconds == {side: (each,) * 4 for side, each in TIMES.items()}
    assert found.latency_ms("active") == pytest.approx(200)
    against = found.compute_overhead("candidate", "active", alpha=0.05)
    assert (against.against, against.n, against.ratio) == ("active", 4, pytest.approx(1.5))


def test_questions_are_spread_and_few_come_again():
    asked = []

    def clock(_, question):
        asked.append(question)
        return 1.0

    time_sides(clock, ["base"], range(160))
    assert asked[1:] == list(range(0, 160, 10))
    asked.clear()
    assert len(time_sides(clock, ["base"], ["a", "b"]).seconds["base"]) == ROUNDS
    assert set(asked) == {"a", "b"}


def test_a_timed_answer_is_as_long_as_gold_is():
    assert find_typical_length([3, 1, 4, 100]) == 3
    assert find_typical_length([100, 200]) == 32
    assert find_typical_length([0]) == 1
    assert find_typical_length([]) == 32


# PEFT's own call of transformers.
@pytest.mark.filterwarnings("ignore:.*deprecated:FutureWarning")
def test_language_models_are_timed(tiny_model, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    lora = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    get_peft_model(model, lora).save_pretrained(tmp_path)
    engine = open_engine(str(tiny_model), {"v1": tmp_path}, device="cpu", dtype="float32")
    found = time_sides(partial(engine.time_answer, tokens=2), [BASE, "v1"], [(5, 6, 7), (8, 9)], rounds=4)
    assert all(each > 0 for side in (BASE, "v1") for each in found.seconds[side])
    assert found.compute_overhead("v1", BASE, alpha=0.05).ratio > 0


def test_encoders_are_timed(tmp_path):
    encoder = open_encoder(str(tiny_encoder(tmp_path, ["a cat", "a dog"])), {}, device="cpu", dtype="float32")
    found = time_sides(encoder.time_query, [BASE], ["a cat", "a dog"], rounds=4)
    assert all(each > 0 for each in found.seconds[BASE])
