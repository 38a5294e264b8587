"""Reads from the daemon what learnd trained and how it was judged.

    from learnd import compare_experiments, get_experiment_details, list_experiments

    last, before = list_experiments("acme/routing", limit=2)
    print(last.candidate, get_experiment_details(last.id)["run"]["plan"]["reason"])
    print([fact for fact in compare_experiments([last.id, before.id]).facts if fact.best])

`url` is the daemon's (or `LEARND_URL`), `token` that of an operator or a viewer (or `LEARND_TOKEN`).
`Experiment`, `ComparisonFact` and `ExperimentComparison` have the fields of the daemon's types of the same
names (`daemon/views/experiments.py`): the same wire types, without importing the daemon.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx

from learnd.errors import DaemonUnreachable, NoSuchExperiment, RequestRefused

SECONDS = 30.0
"""How long the daemon may take to answer."""
Result = TypeVar("Result")


@dataclass(frozen=True)
class Experiment:
    """A run that trained, or that judged a version again, and its verdict."""

    id: str
    target: str
    state: str
    method: str
    """The methods that it trains by: `sft`, `sft+dpo`, …"""
    winner: str
    """The contender that won the race between ways to train; empty where there was no race, or it has not
    ended."""
    look: str
    """`first`, or `second`: it trained nothing, and judged a version on probation again."""
    verdict: str | None
    reason: str
    """Why it ended as it did, in words."""
    live_version: str | None
    """The version that the candidate was compared with; `base` where no version was live."""
    metric: str | None
    """The metric of the next four, 0 to 1."""
    base: float | None
    live: float | None
    candidate: float | None
    effect: float | None
    """The candidate's gain over what was live, weighted as the items are."""
    interval: tuple[float, float] | None
    """95%, of the effect."""
    p_value: float | None
    """One-sided: how often a candidate no better gains this much by chance."""
    n: int | None
    """Held-out items with a known answer."""
    version_id: str | None
    """The candidate."""
    started_at: datetime
    ended_at: datetime | None
    published_at: datetime | None
    """When it was published to Phoenix."""
    compare_url: str | None
    """Phoenix's page that compares the sides' answers."""

    @classmethod
    def from_answer(cls, answer: Mapping[str, Any]) -> Self:
        """Read the daemon's answer. Raises KeyError, TypeError, ValueError."""
        known = {field.name: answer[field.name] for field in fields(cls)}
        for name in ("started_at", "ended_at", "published_at"):
            known[name] = datetime.fromisoformat(known[name]) if known[name] else None
        low_high = known["interval"]
        return cls(**known | {"interval": tuple(low_high) if low_high else None})


@dataclass(frozen=True)
class ComparisonFact:
    """One line of a comparison."""

    group: str
    """`run`, `plan`, `data` or `measures`."""
    name: str
    values: Mapping[str, Any]
    """By run id."""
    best: tuple[str, ...]
    """Ids of the runs that are best by it, where that can be said."""


@dataclass(frozen=True)
class ExperimentComparison:
    """Runs side by side."""

    experiments: tuple[Experiment, ...]
    facts: tuple[ComparisonFact, ...]
    notes: tuple[str, ...]
    """Warnings about comparing these runs."""

    @classmethod
    def from_answer(cls, answer: Mapping[str, Any]) -> Self:
        """Read the daemon's answer. Raises KeyError, TypeError, ValueError."""
        return cls(
            experiments=tuple(Experiment.from_answer(each) for each in answer["experiments"]),
            facts=tuple(
                ComparisonFact(
                    group=fact["group"], name=fact["name"], values=fact["values"], best=tuple(fact["best"])
                )
                for fact in answer["facts"]
            ),
            notes=tuple(answer["notes"]),
        )


def list_experiments(
    target: str | None = None,
    *,
    method: str | None = None,
    verdict: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    limit: int = 100,
    url: str | None = None,
    token: str | None = None,
) -> list[Experiment]:
    """Return the newest `limit` runs that fit, newest first.

    `since` and `until` (aware) bound when they began.

    Raises DaemonUnreachable, RequestRefused.
    """
    asked: dict[str, Any] = {"target": target, "method": method, "verdict": verdict, "limit": limit}
    asked |= {"since": since.isoformat() if since else None, "until": until.isoformat() if until else None}
    known = {name: value for name, value in asked.items() if value is not None}
    return _ask_daemon("", known, url, token, lambda found: [Experiment.from_answer(each) for each in found])


def get_experiment_details(run: str, *, url: str | None = None, token: str | None = None) -> dict[str, Any]:
    """Return everything about a run, as JSON: `experiment`, `run` (data, plan, report), `in_phoenix`.

    `run` is its id, the beginning of its id, or the version that it trained. Raises NoSuchExperiment,
    DaemonUnreachable, RequestRefused.
    """
    return _ask_daemon(f"/{quote(run, safe='')}", {}, url, token, dict[str, Any])


def compare_experiments(
    runs: Sequence[str], *, url: str | None = None, token: str | None = None
) -> ExperimentComparison:
    """Compare runs, named as for `get_experiment_details`. Raises the same errors."""
    return _ask_daemon("/compare", {"run": list(runs)}, url, token, ExperimentComparison.from_answer)


def _ask_daemon(
    path: str,
    parameters: Mapping[str, Any],
    url: str | None,
    token: str | None,
    read: Callable[[Any], Result],
) -> Result:
    daemon = (url or os.environ.get("LEARND_URL") or "http://127.0.0.1:8710").rstrip("/")
    token = token or os.environ.get("LEARND_TOKEN")
    address = f"{daemon}/api/v1/experiments{path}"
    headers = {"authorization": f"Bearer {token}"} if token else {}
    try:
        answer = httpx.get(address, params=dict(parameters), headers=headers, timeout=SECONDS)
    except httpx.TransportError as unreachable:
        raise DaemonUnreachable(f"learnd's daemon at {daemon} does not answer: {unreachable}") from None
    if answer.status_code == httpx.codes.NOT_FOUND:
        raise NoSuchExperiment(_read_problem(answer))
    if answer.is_client_error:
        raise RequestRefused(f"{address}: {_read_problem(answer)}")
    if answer.is_server_error:
        raise DaemonUnreachable(f"{address} answered {answer.status_code}: {_read_problem(answer)}")
    try:
        return read(answer.raise_for_status().json())
    except (httpx.HTTPStatusError, ValueError, KeyError, TypeError) as odd:
        raise DaemonUnreachable(f"{address} gave no usable answer (is it learnd's daemon?): {odd}") from None


def _read_problem(answer: httpx.Response) -> str:
    """Return the daemon's message about a problem, or about each parameter that it refuses."""
    try:
        detail = answer.json()["detail"]
        if isinstance(detail, str):
            return detail
        return "; ".join(f"{each['loc'][-1]}: {each['msg']}" for each in detail)
    except (ValueError, KeyError, TypeError, IndexError):
        return answer.text[:200]
