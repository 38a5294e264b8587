"""The decisions of a race: how many challengers enter, how long each is trained, who displaces the default.

The default is trained to its end, as it would be alone. The challengers share the rest of the race's time by
successive halving (Jamieson, Talwalkar 2016, arXiv 1502.07943): every rung has the same time, the better half
goes on to the next, and the last one left is trained to its end. Then it must be better than the default at
p <= 0.2 / challengers. Of equal contenders the default therefore stays in four of five races, however many
there are. Pure functions.
"""

from collections.abc import Hashable, Mapping, Sequence

from evaluation.verdict.paired_tests import Gain, PairedScores, compute_gain

LEVEL = 0.2
"""The chance that of equal contenders the default is displaced."""
LEAST_SHARE = 1 / 16
"""Least time of a challenger in the first rung, as a share of the default's."""


def find_level(challengers: int) -> float:
    """Return the greatest p-value at which one of so many challengers displaces the default."""
    return LEVEL / max(1, challengers)


def plan_rungs(challengers: int) -> list[int]:
    """Return how many challengers run in each rung: always half as many, and one in the last."""
    rungs = [challengers]
    while rungs[-1] > 1:
        rungs.append(-(-rungs[-1] // 2))
    # Even a single challenger has a first rung, which shows how fast its steps are.
    return rungs if len(rungs) > 1 else [*rungs, *rungs]


def share_time(rungs: Sequence[int], *, answers: float, left: float) -> float:
    """Return the seconds of training of each challenger in the first of these `rungs`.

    `answers` are the seconds of one contender's answers to the validation side, which each challenger gives
    at the end of each rung; `left` are the seconds of all these rungs together.
    """
    return (left - answers * sum(rungs)) / len(rungs) / rungs[0]


def count_entrants(challengers: int, *, default: float, answers: float, left: float) -> int:
    """Return how many of the challengers, in their order, the seconds that are `left` let enter.

    `default` are the seconds of the default's training, `answers` as for `share_time`.
    """
    for entrants in range(challengers, 0, -1):
        if share_time(plan_rungs(entrants), answers=answers, left=left) >= LEAST_SHARE * default:
            return entrants
    return 0


def pick_better(means: Mapping[str, float], count: int) -> list[str]:
    """Return the `count` names with the greatest means; of equal ones, the first."""
    return sorted(means, key=lambda name: -means[name])[:count]


def compare(
    challenger: Sequence[float], other: Sequence[float], sessions: Sequence[Hashable], metric: str
) -> Gain:
    """Return the challenger's gain over another contender on the same items, sessions as clusters."""
    return compute_gain(PairedScores(challenger, other, sessions), metric)
