"""Is the holdout a fair picture of the traffic? What each held-out item counts for, so that it is one.

    did reviewers pick what to review? ─────> strata are weighted back to the traffic they came from
    rejected without a correction? ─────────> those corrected of the same stratum stand for them

Post-stratification (Holt and Smith 1979), only where a test says that reviewers picked: else the chance in
the strata's shares would make every verdict less sure. Within a stratum, picking wrong answers goes unseen:
nobody said which of the unreviewed ones are wrong.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

import numpy as np
import scipy
from numpy.typing import NDArray

from evaluation.weighting.strata import Embed, Strata, stratify
from extractors.dataset.holdout_split import find_group
from extractors.examples.types import ReviewedItem, ReviewedRetrieval
from extractors.traffic_sample import TrafficCall, normalise_question
from extractors.values import Value

ALPHA = 0.01
"""P-value below which reviewers picked."""
RESAMPLES = 1999
GREATEST = 10.0
"""What an item counts for at most, the average being 1."""
SHOWN = 80
"""Characters of the text that tells what a stratum is about."""
FEW = 0.1
"""Share of the traffic from which it is said that hardly any of its kind was reviewed."""

HeldOutItem = ReviewedItem | ReviewedRetrieval
Floats = NDArray[np.float64]


class Stratum(Value):
    """Items and calls that one version answered (or several, where one has few) and that are about alike."""

    answered_by: tuple[str | None, ...]
    """None is unknown."""
    like: str
    """The beginning of the most typical of what was asked."""
    reviewed: int
    """Held-out items."""
    reviewed_share: float
    traffic: int
    """Calls of the sample."""
    traffic_share: float | None
    """None where the traffic is not known."""
    corrected: int
    rejected: int
    """Without a correction."""
    weight: float
    """Of a held-out item, before those corrected stand for those rejected; 1 where nobody picked."""


class Weighting(Value):
    """How fair the holdout is, and what makes up for it."""

    weights: dict[str, float]
    """By id of each item with gold; 1 on average."""
    effective_n: float
    """As how many items of equal weight they count (Kish 1965)."""
    selected: bool
    """Whether reviewers picked what to review, as far as version and input tell."""
    p_value: float | None
    """How often reviewers who do not pick would leave a holdout so unlike the traffic; None where that cannot
    be told."""
    strata: tuple[Stratum, ...]
    """Those with the most traffic first."""
    by_live: tuple[str, ...]
    """Ids of items that the live version answered in production."""
    capped: int
    """Items that would count for more than `GREATEST`."""
    unfair: str
    """Why no weights make up for what is missing; empty if they do."""
    words: str
    """What was found, for people."""


def weigh(
    holdout: Sequence[HeldOutItem],
    traffic: Sequence[TrafficCall] = (),
    *,
    live: str | None = None,
    excluded_prompts: Collection[str] = (),
    embed: Embed | None = None,
    seed: int = 0,
) -> Weighting:
    """What each item of the `holdout` counts for, beside a sample of all the `traffic` of its time.

    Without traffic only the verdicts are weighed. Calls with one of the `excluded_prompts` do not count: they
    could not be held out. `live` is the version whose answers are pointed out. `embed` makes vectors of what
    was asked, which tell better than characters what is alike.
    """
    excluded = frozenset(excluded_prompts)
    calls = [call for call in traffic if call.prompt_key not in excluded]
    picture = _HoldoutInTraffic(holdout, calls, _stratify(holdout, calls, seed, embed))
    p_value = _compute_p_value(picture, seed)
    selected = p_value is not None and p_value < ALPHA
    back = picture.back_to_traffic() if selected else np.ones(len(holdout))
    weights, capped = _limit(_add_rejected(picture, back)[picture.gold])
    ids = [item.id for item, gold in zip(holdout, picture.gold, strict=True) if gold]
    found = Weighting(
        weights={item_id: round(weight, 6) for item_id, weight in zip(ids, weights.tolist(), strict=True)},
        effective_n=float(weights.sum() ** 2 / (weights**2).sum()) if len(weights) else 0.0,
        selected=selected,
        p_value=p_value,
        strata=tuple(
            sorted(_describe_strata(picture, back), key=lambda each: (-each.traffic, -each.reviewed))
        ),
        by_live=tuple(item.id for item in holdout if live is not None and _find_version(item) == live),
        capped=capped,
        unfair=_find_unfairness(picture),
        words="",
    )
    return found.model_copy(update={"words": " ".join(_write_sentences(found, picture))})


@dataclass(frozen=True)
class _HoldoutInTraffic:
    """Held-out items beside calls of the traffic, and the strata of both."""

    holdout: Sequence[HeldOutItem]
    calls: Sequence[TrafficCall]
    found: Strata

    @property
    def strata(self) -> NDArray[np.int64]:
        """Of the held-out items, (items,)."""
        return self.found.strata[: len(self.holdout)]

    @cached_property
    def gold(self) -> NDArray[np.bool_]:
        return self._is("approved") | self._is("corrected")

    @cached_property
    def corrected(self) -> NDArray[np.bool_]:
        return self._is("corrected")

    @cached_property
    def rejected(self) -> NDArray[np.bool_]:
        """Calls that were rejected and not corrected. A search without a relevant document is none: nobody
        could have found one there.
        """
        calls = np.array([isinstance(item, ReviewedItem) for item in self.holdout], dtype=bool)
        return self._is("rejected") & calls

    @cached_property
    def others(self) -> list[tuple[int, TrafficCall]]:
        """Calls of sessions of which nothing was held out, with their places among all."""
        held = {find_group(item) for item in self.holdout}
        places = enumerate(self.calls, start=len(self.holdout))
        return [(place, call) for place, call in places if find_group(call) not in held]

    def back_to_traffic(self) -> Floats:
        """What each held-out item counts for if its stratum is to count as in the traffic, (items,)."""
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


# ---- did reviewers pick?


def _compute_p_value(picture: _HoldoutInTraffic, seed: int) -> float | None:
    """How often chance makes held-out items so unlike the rest of the traffic (chi-squared over the cells).

    Of each session one call counts, since its turns are about the same, which alone would look like picking.
    """
    cells = picture.found.cells
    reviewed = _pick_one_per_session(zip(picture.holdout, cells.tolist(), strict=False))
    others = _pick_one_per_session((call, int(cells[place])) for place, call in picture.others)
    size = cells.max(initial=0) + 1
    counts = np.array([np.bincount([*each.values()], minlength=size) for each in (reviewed, others)])
    counts = counts[:, counts.any(axis=0)]
    if min(len(reviewed), len(others), counts.shape[1]) < 2:
        return None
    chance = scipy.stats.MonteCarloMethod(n_resamples=RESAMPLES, rng=np.random.default_rng(seed))
    return float(scipy.stats.chi2_contingency(counts, correction=False, method=chance).pvalue)


def _pick_one_per_session(seen: Iterable[tuple[HeldOutItem | TrafficCall, int]]) -> dict[str, int]:
    """By session the cell of one of its calls, drawn by lot."""
    drawn = sorted(seen, key=lambda each: sha256(_find_span_id(each[0]).encode()).hexdigest(), reverse=True)
    return {find_group(call): cell for call, cell in drawn}


def _find_span_id(seen: HeldOutItem | TrafficCall) -> str:
    return seen.span_id if isinstance(seen, TrafficCall) else seen.source_span_ids[0]


# ---- what each item counts for


def _add_rejected(picture: _HoldoutInTraffic, weights: Floats) -> Floats:
    """The same, but those corrected count for those rejected, too: of their stratum, else wherever."""
    full, strays = weights.copy(), 0.0
    for stratum in np.unique(picture.strata).tolist():
        inside = picture.strata == stratum
        corrected, lacking = inside & picture.corrected, float(weights[inside & picture.rejected].sum())
        if full[corrected].sum():
            full[corrected] *= 1 + lacking / full[corrected].sum()
        else:
            strays += lacking
    if full[picture.corrected].sum():
        full[picture.corrected] *= 1 + strays / full[picture.corrected].sum()
    return full


def _limit(weights: Floats) -> tuple[Floats, int]:
    """The weights, 1 on average and `GREATEST` at most, and how many would have been greater."""
    if not weights.sum():
        return np.ones_like(weights), 0
    limited, over = weights * (len(weights) / weights.sum()), np.zeros(len(weights), dtype=bool)
    while (limited[~over] > GREATEST).any():
        over |= limited > GREATEST
        limited[over] = GREATEST
        if limited[~over].sum():
            limited[~over] *= (len(weights) - GREATEST * over.sum()) / limited[~over].sum()
    return limited, int(over.sum())


# ---- in words


def _describe_strata(picture: _HoldoutInTraffic, back: Floats) -> Iterator[Stratum]:
    strata, items = picture.found.strata, len(picture.holdout)
    versions = [*map(_find_version, picture.holdout), *(call.answered_by for call in picture.calls)]
    texts = [*map(normalise_question, picture.holdout), *(call.text for call in picture.calls)]
    for stratum in np.unique(strata).tolist():
        members, inside = np.flatnonzero(strata == stratum).tolist(), picture.strata == stratum
        traffic = int((strata[items:] == stratum).sum())
        yield Stratum(
            answered_by=tuple(sorted({versions[member] for member in members}, key=str)),
            like=texts[picture.found.typical(stratum)][:SHOWN],
            reviewed=int(inside.sum()),
            reviewed_share=float(inside.mean()) if items else 0.0,
            traffic=traffic,
            traffic_share=traffic / len(picture.calls) if picture.calls else None,
            corrected=int((inside & picture.corrected).sum()),
            rejected=int((inside & picture.rejected).sum()),
            weight=float(back[inside][0]) if inside.any() else 0.0,
        )


def _find_unfairness(picture: _HoldoutInTraffic) -> str:
    rejected = int(picture.rejected.sum())
    if not rejected or picture.corrected.any():
        return ""
    return (
        f"of the held-out answers that were rejected ({rejected}) none was corrected, so the holdout shows "
        "nothing of what is live doing wrong; ask reviewers for corrections"
    )


def _write_sentences(found: Weighting, picture: _HoldoutInTraffic) -> Iterator[str]:
    items, corrected, rejected = len(found.weights), picture.corrected.sum(), picture.rejected.sum()
    if not picture.others:
        yield "There is no other traffic to compare with: items count as they were reviewed."
    elif found.p_value is None:
        yield (
            f"The held-out items ({len(picture.holdout)}) are too few, or too much alike, to tell whether "
            "reviewers picked what to review: they count as they were reviewed."
        )
    elif not found.selected:
        yield f"The held-out items are like the traffic that they come from (p = {found.p_value:.2g})."
    else:
        yield (
            f"Reviewers picked what to review (p = {found.p_value:.2g}): held-out items are weighted back to "
            f"{len(picture.calls)} calls of the traffic."
        )
        rare = float((picture.found.cells != picture.found.strata)[len(picture.holdout) :].mean())
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
        yield f"Answered by what is live: {len(found.by_live)} of {len(picture.holdout)}."
