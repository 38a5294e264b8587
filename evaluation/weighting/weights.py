"""Does the holdout represent the traffic? Weights of the held-out items that make it do so.

    did reviewers pick what to review? ─────> strata are weighted back to the traffic they came from
    rejected without a correction? ─────────> those corrected of the same stratum stand for them

Post-stratification (Holt and Smith 1979) is used only where a test says that reviewers picked: otherwise
chance in the strata's shares would make every verdict less sure. Picking wrong answers within a stratum goes
unnoticed, because nobody said which of the unreviewed answers are wrong.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

import numpy as np
import scipy
from numpy.typing import NDArray

from evaluation.weighting.strata import Embed, Strata, stratify
from evaluation.weighting.weighting import Stratum, Weighting
from extractors.dataset.holdout_split import find_group
from extractors.examples.types import ReviewedItem, ReviewedRetrieval
from extractors.traffic_sample import TrafficCall, normalise_question

ALPHA = 0.01
"""P-value below which reviewers are said to have picked."""
RESAMPLES = 1999
GREATEST = 10.0
"""Greatest weight of an item, the average being 1."""
SHOWN = 80
"""Characters shown of the text that represents a stratum."""
FEW = 0.1
"""Share of the traffic without a reviewed item of its kind that is worth a sentence."""

HeldOutItem = ReviewedItem | ReviewedRetrieval
Floats = NDArray[np.float64]


def weigh(
    holdout: Sequence[HeldOutItem],
    traffic: Sequence[TrafficCall] = (),
    *,
    live: str | None = None,
    excluded_prompts: Collection[str] = (),
    embed: Embed | None = None,
    seed: int = 0,
) -> Weighting:
    """Weigh each item of the `holdout` by a sample of all the `traffic` of its time.

    Without traffic only the verdicts decide the weights. Calls with one of the `excluded_prompts` do not
    count: they could not be held out. `live` is the version whose answers are pointed out. `embed` makes
    vectors of the inputs, which tell similarity better than characters do.
    """
    excluded = frozenset(excluded_prompts)
    calls = [call for call in traffic if call.prompt_key not in excluded]
    sample = _HoldoutInTraffic(holdout, calls, _stratify(holdout, calls, seed, embed))
    p_value = _compute_p_value(sample, seed)
    selected = p_value is not None and p_value < ALPHA
    back = sample.weigh_by_traffic() if selected else np.ones(len(holdout))
    weights, capped = _limit(_add_rejected(sample, back)[sample.gold])
    ids = [item.id for item, gold in zip(holdout, sample.gold, strict=True) if gold]
    found = Weighting(
        weights={item_id: round(weight, 6) for item_id, weight in zip(ids, weights.tolist(), strict=True)},
        effective_n=float(weights.sum() ** 2 / (weights**2).sum()) if len(weights) else 0.0,
        selected=selected,
        p_value=p_value,
        strata=tuple(
            sorted(_describe_strata(sample, back), key=lambda each: (-each.traffic, -each.reviewed))
        ),
        by_live=tuple(item.id for item in holdout if live is not None and _find_version(item) == live),
        capped=capped,
        unfair=_find_unfairness(sample),
        words="",
    )
    return found.model_copy(update={"words": " ".join(_write_sentences(found, sample))})


@dataclass(frozen=True)
class _HoldoutInTraffic:
    """Held-out items, calls of the traffic, and the strata of both."""

    holdout: Sequence[HeldOutItem]
    calls: Sequence[TrafficCall]
    found: Strata

    @property
    def strata(self) -> NDArray[np.int64]:
        """Strata of the held-out items, shape (items,)."""
        return self.found.strata[: len(self.holdout)]

    @cached_property
    def gold(self) -> NDArray[np.bool_]:
        return self._is("approved") | self._is("corrected")

    @cached_property
    def corrected(self) -> NDArray[np.bool_]:
        return self._is("corrected")

    @cached_property
    def rejected(self) -> NDArray[np.bool_]:
        """Mask of the calls that were rejected and not corrected, shape (items,).

        A search without a relevant document is not rejected: there was none to find.
        """
        calls = np.array([isinstance(item, ReviewedItem) for item in self.holdout], dtype=bool)
        return self._is("rejected") & calls

    @cached_property
    def others(self) -> list[tuple[int, TrafficCall]]:
        """Calls of sessions of which nothing was held out, with their positions in the strata's arrays."""
        held = {find_group(item) for item in self.holdout}
        places = enumerate(self.calls, start=len(self.holdout))
        return [(place, call) for place, call in places if find_group(call) not in held]

    def weigh_by_traffic(self) -> Floats:
        """Return the weights by which each stratum counts as in the traffic, shape (items,)."""
        size = self.found.strata.max(initial=0) + 1
        reviewed = np.bincount(self.strata, minlength=size) / len(self.holdout)
        traffic = np.bincount(self.found.strata[len(self.holdout) :], minlength=size) / len(self.calls)
        return np.asarray(traffic[self.strata] / reviewed[self.strata])

    def _is(self, outcome: str) -> NDArray[np.bool_]:
        return np.array([item.outcome == outcome for item in self.holdout], dtype=bool)


def _stratify(
    holdout: Sequence[HeldOutItem], calls: Sequence[TrafficCall], seed: int, embed: Embed | None
) -> Strata:
    texts = [*map(normalise_question, holdout), *(call.text for call in calls)]
    versions = [*map(_find_version, holdout), *(call.answered_by for call in calls)]
    return stratify(texts, versions, len(holdout), seed, embed)


def _find_version(item: HeldOutItem) -> str | None:
    return item.answered_by if isinstance(item, ReviewedItem) else None


def _compute_p_value(sample: _HoldoutInTraffic, seed: int) -> float | None:
    """Return how often chance makes held-out items this unlike other traffic (chi-squared over the cells).

    Only one call of each session counts: its turns are similar, which alone would look like picking.
    """
    cells = sample.found.cells
    reviewed = _pick_one_per_session(zip(sample.holdout, cells.tolist(), strict=False))
    others = _pick_one_per_session((call, int(cells[place])) for place, call in sample.others)
    size = cells.max(initial=0) + 1
    counts = np.array([np.bincount([*each.values()], minlength=size) for each in (reviewed, others)])
    counts = counts[:, counts.any(axis=0)]
    if min(len(reviewed), len(others), counts.shape[1]) < 2:
        return None
    chance = scipy.stats.MonteCarloMethod(n_resamples=RESAMPLES, rng=np.random.default_rng(seed))
    return float(scipy.stats.chi2_contingency(counts, correction=False, method=chance).pvalue)


def _pick_one_per_session(seen: Iterable[tuple[HeldOutItem | TrafficCall, int]]) -> dict[str, int]:
    """Return the cell of one call of each session, drawn at random (by hash), by session."""
    drawn = sorted(seen, key=lambda each: sha256(_find_span_id(each[0]).encode()).hexdigest(), reverse=True)
    return {find_group(call): cell for call, cell in drawn}


def _find_span_id(seen: HeldOutItem | TrafficCall) -> str:
    return seen.span_id if isinstance(seen, TrafficCall) else seen.source_span_ids[0]


def _add_rejected(sample: _HoldoutInTraffic, weights: Floats) -> Floats:
    """Move the weights of rejected items to corrected ones, of the same stratum if it has any."""
    full, strays = weights.copy(), 0.0
    for stratum in np.unique(sample.strata).tolist():
        inside = sample.strata == stratum
        corrected, lacking = inside & sample.corrected, float(weights[inside & sample.rejected].sum())
        if full[corrected].sum():
            full[corrected] *= 1 + lacking / full[corrected].sum()
        else:
            strays += lacking
    if full[sample.corrected].sum():
        full[sample.corrected] *= 1 + strays / full[sample.corrected].sum()
    return full


def _limit(weights: Floats) -> tuple[Floats, int]:
    """Return the weights, 1 on average and `GREATEST` at most, and how many would have been greater."""
    if not weights.sum():
        return np.ones_like(weights), 0
    limited, over = weights * (len(weights) / weights.sum()), np.zeros(len(weights), dtype=bool)
    while (limited[~over] > GREATEST).any():
        over |= limited > GREATEST
        limited[over] = GREATEST
        if limited[~over].sum():
            limited[~over] *= (len(weights) - GREATEST * over.sum()) / limited[~over].sum()
    return limited, int(over.sum())


def _describe_strata(sample: _HoldoutInTraffic, back: Floats) -> Iterator[Stratum]:
    strata, items = sample.found.strata, len(sample.holdout)
    versions = [*map(_find_version, sample.holdout), *(call.answered_by for call in sample.calls)]
    texts = [*map(normalise_question, sample.holdout), *(call.text for call in sample.calls)]
    for stratum in np.unique(strata).tolist():
        members, inside = np.flatnonzero(strata == stratum).tolist(), sample.strata == stratum
        traffic = int((strata[items:] == stratum).sum())
        yield Stratum(
            answered_by=tuple(sorted({versions[member] for member in members}, key=str)),
            like=texts[sample.found.find_typical(stratum)][:SHOWN],
            reviewed=int(inside.sum()),
            reviewed_share=float(inside.mean()) if items else 0.0,
            traffic=traffic,
            traffic_share=traffic / len(sample.calls) if sample.calls else None,
            corrected=int((inside & sample.corrected).sum()),
            rejected=int((inside & sample.rejected).sum()),
            weight=float(back[inside][0]) if inside.any() else 0.0,
        )


def _find_unfairness(sample: _HoldoutInTraffic) -> str:
    rejected = int(sample.rejected.sum())
    if not rejected or sample.corrected.any():
        return ""
    return (
        f"of the held-out answers that were rejected ({rejected}) none was corrected, so the holdout shows "
        "nothing of what is live doing wrong; ask reviewers for corrections"
    )


def _write_sentences(found: Weighting, sample: _HoldoutInTraffic) -> Iterator[str]:
    items, corrected, rejected = len(found.weights), sample.corrected.sum(), sample.rejected.sum()
    if not sample.others:
        yield "There is no other traffic to compare with: items count as they were reviewed."
    elif found.p_value is None:
        yield (
            f"The held-out items ({len(sample.holdout)}) are too few, or too much alike, to tell whether "
            "reviewers picked what to review: they count as they were reviewed."
        )
    elif not found.selected:
        yield f"The held-out items are like the traffic that they come from (p = {found.p_value:.2g})."
    else:
        yield (
            f"Reviewers picked what to review (p = {found.p_value:.2g}): held-out items are weighted back to "
            f"{len(sample.calls)} calls of the traffic."
        )
        rare = float((sample.found.cells != sample.found.strata)[len(sample.holdout) :].mean())
        if rare >= FEW:
            yield (
                f"Hardly any were reviewed of the kinds that {rare:.0%} of the traffic is of: what is most "
                "like them stands for them."
            )
    if rejected and corrected:
        yield f"Corrected items ({corrected}) stand for those rejected without a correction ({rejected})."
    if found.unfair:
        yield f"{found.unfair[0].upper()}{found.unfair[1:]}."
    if found.capped:
        yield f"Items that would count for more than {GREATEST:g} count for {GREATEST:g} ({found.capped})."
    if found.effective_n < 0.99 * items:
        yield f"Together the {items} items with gold count as {found.effective_n:.0f} would of equal weight."
    if found.by_live:
        yield f"Answered by what is live: {len(found.by_live)} of {len(sample.holdout)}."
