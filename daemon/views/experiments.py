"""Experiments: the cycles that trained or judged something, as a list, one by one, and side by side.

A run is a cycle. It is named by its id, by a beginning of the id, or by the version that it trained.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, Unpack

from daemon.settings.servers import PhoenixSettings
from daemon.views.cycle_list import find_training_cycle, list_methods, list_newest
from evaluation.race_report import RaceReport
from evaluation.report import Verdict
from evaluation.rules import Look
from extractors.errors import LearndError
from extractors.values import Value
from registry.cycles import MOST_PUBLISH_TRIES, Cycle, CycleState, ReportSummary
from registry.store.cycles import CycleFilter, UnknownCycle
from registry.store.store import Store
from registry.store.versions import UnknownVersion
from trainers.planning.hyperparameters import Method

LOWER_IS_BETTER = frozenset(
    {"error_rate", "hallucination_rate", "confidence_calibration", "reference_perplexity", "latency_ms"}
)
NEITHER_GOOD_NOR_BAD = frozenset({"live", "95% interval", "p (better)", "items", "worth", "confidence"})
Group = Literal["run", "plan", "data", "measures"]


class UnknownExperiment(LearndError):
    """No run has this name, or several have."""


class Experiment(Value):
    """A run in the list. The client's `learnd.experiments.Experiment` is the same wire type."""

    id: str
    target: str
    state: CycleState
    method: str
    """The methods that it trains with: `sft`, `sft+dpo`, …"""
    winner: str
    """The contender that won the race between ways to train; empty where there was no race, or it has not
    ended."""
    look: Look
    """`second`: it trained nothing, and looked at a version on probation again."""
    verdict: Verdict | None
    reason: str
    live_version: str | None
    """The version that was live then and the candidate was compared with; `base` where no version was."""
    metric: str | None
    """The primary metric, of which the next four are values: 0 to 1, weighted as the items are."""
    base: float | None
    live: float | None
    candidate: float | None
    effect: float | None
    """The candidate's gain over what was live."""
    interval: tuple[float, float] | None
    p_value: float | None
    n: int | None
    """Held-out items with a known answer."""
    version_id: str | None
    """The candidate."""
    started_at: datetime
    ended_at: datetime | None
    published_at: datetime | None
    """When it was published to Phoenix."""
    compare_url: str | None
    """Phoenix's page that compares the sides."""


class ExperimentDetails(Value):
    """Everything that is known about a run, except the single answers."""

    experiment: Experiment
    in_phoenix: str
    """The address of Phoenix's page that compares the sides, or why there is none, in words."""
    run: Cycle
    """Data, plan, trainings, and the report without its answers."""


class ComparisonFact(Value):
    """One line of a comparison."""

    group: Group
    name: str
    values: dict[str, Any]
    """Value by run id; runs without a value are left out."""
    best: tuple[str, ...] = ()
    """The runs with the best value, where there is a best one."""


class ExperimentComparison(Value):
    """Runs side by side. The client's `learnd.experiments.ExperimentComparison` is the same wire type."""

    experiments: tuple[Experiment, ...]
    facts: tuple[ComparisonFact, ...]
    notes: tuple[str, ...]
    """What to know before reading anything into the differences."""


def list_experiments(
    store: Store,
    phoenix: PhoenixSettings,
    *,
    target: str | None = None,
    method: Method | None = None,
    limit: int = 100,
    **wanted: Unpack[CycleFilter],
) -> list[Experiment]:
    """Return the newest `limit` runs that match, newest first."""
    wanted["learned"] = True
    found = list_newest(store, target=target, method=method, limit=limit, **wanted)
    return [build_experiment(cycle, find_training_cycle(store, cycle), phoenix) for cycle in found]


def find_run(store: Store, run: str) -> Cycle:
    """Return the run with this id, beginning of an id, or version. Raises UnknownExperiment."""
    for known in (store.cycle, lambda version: store.cycle(store.version(version).cycle_id)):
        try:
            return known(run)
        except (UnknownCycle, UnknownVersion):
            continue
    begun = store.cycles(limit=2, beginning=run)
    if len(begun) > 1:
        raise UnknownExperiment(
            f"several runs begin with {run!r}, {begun[0].id} and {begun[1].id} among them; say more"
        )
    if not begun:
        raise UnknownExperiment(
            f"no run is called {run!r} or begins so, and no version has this name; "
            "`learnd cycles list` names them"
        )
    return store.cycle(begun[0].id)


def build_details(store: Store, phoenix: PhoenixSettings, cycle: Cycle) -> ExperimentDetails:
    """Return everything that is known about a run."""
    report = cycle.report
    if report is not None:
        bare = tuple(side.model_copy(update={"answers": ()}) for side in report.sides)
        report = report.model_copy(update={"sides": bare})
    return ExperimentDetails(
        experiment=build_experiment(cycle, find_training_cycle(store, cycle), phoenix),
        in_phoenix=describe_phoenix_page(cycle, phoenix),
        run=cycle.model_copy(update={"report": report}),
    )


def build_experiment(cycle: Cycle, trained: Cycle, phoenix: PhoenixSettings) -> Experiment:
    """Return the run's row in a list; `trained` is the cycle that trained its candidate."""
    known = dict.fromkeys(ReportSummary.model_fields) if cycle.outcome is None else cycle.outcome.model_dump()
    return Experiment(
        **cycle.model_dump(include=Experiment.model_fields.keys() & Cycle.model_fields.keys()),
        **{name: known[name] for name in Experiment.model_fields.keys() & known.keys()},
        method="+".join(list_methods(trained)),
        winner=trained.plan.winner if trained.plan else "",
        look="first" if cycle.plan else "second",
        ended_at=cycle.updated_at if cycle.ended else None,
        compare_url=build_compare_url(cycle, phoenix),
    )


# ---- where Phoenix shows it


def build_compare_url(cycle: Cycle, phoenix: PhoenixSettings) -> str | None:
    """Return the address of Phoenix's page that compares the run's sides; None where there is none."""
    return f"{phoenix.public_url}{cycle.compare_path}" if cycle.compare_path else None


def describe_phoenix_page(cycle: Cycle, phoenix: PhoenixSettings) -> str:
    """Return the address of Phoenix's page that compares the run's sides, or why there is none, in words."""
    if url := build_compare_url(cycle, phoenix):
        return url
    if not cycle.ended:
        return f"not before the run has ended; it is {cycle.state}"
    if cycle.state is CycleState.SKIPPED or (cycle.plan is None and cycle.version_id is None):
        return "no: it neither trained nor judged anything"
    if cycle.published_at is None:
        tried = (
            f"publishing it failed {cycle.publish_tries} times, the last time with: {cycle.publish_problem}"
        )
        if cycle.publish_tries >= MOST_PUBLISH_TRIES:
            return f"no, and there is no further try: {tried}"
        if cycle.publish_tries:
            return f"not yet: {tried}; a running daemon tries again"
        return (
            "not yet: a running daemon publishes it within seconds, and tries again until Phoenix answers; "
            "`learnd status` says whether it does"
        )
    spans = f"its spans are in the project {phoenix.experiments_project}"
    if cycle.report is None:
        return f"nothing to compare, since it failed before it was judged; {spans}"
    return (
        "nothing to compare: its held-out items were removed before they could be published, or it ended "
        f"before learnd published runs; if it was published, {spans}"
    )


# ---- side by side


def compare_experiments(
    store: Store, phoenix: PhoenixSettings, cycles: Sequence[Cycle]
) -> ExperimentComparison:
    """Compare runs by plan, data and measures."""
    chosen = list({cycle.id: cycle for cycle in cycles}.values())
    makers = {cycle.id: _read_training_cycle(store, cycle) for cycle in chosen}
    one_target = len({cycle.target for cycle in chosen}) == 1
    return ExperimentComparison(
        experiments=tuple(build_experiment(cycle, makers[cycle.id], phoenix) for cycle in chosen),
        facts=(
            *_build_facts("run", {cycle.id: _list_run_facts(cycle) for cycle in chosen}),
            *_build_facts("plan", {run: _list_plan_facts(cycle) for run, cycle in makers.items()}),
            *_build_facts("data", {cycle.id: _list_data_facts(cycle) for cycle in chosen}),
            *_build_facts(
                "measures", {cycle.id: _list_measures(cycle) for cycle in chosen}, ranked=one_target
            ),
        ),
        notes=tuple(_list_notes(chosen, one_target=one_target)),
    )


def _read_training_cycle(store: Store, cycle: Cycle) -> Cycle:
    """Return the cycle that trained the candidate, with its report."""
    found = find_training_cycle(store, cycle)
    return cycle if found is cycle else store.cycle(found.id)


def _build_facts(
    group: Group, known: Mapping[str, Mapping[str, Any]], *, ranked: bool = False
) -> Iterator[ComparisonFact]:
    """Yield a fact for each name under which any run has a value."""
    for name in dict.fromkeys(name for facts in known.values() for name in facts):
        values = {run: facts[name] for run, facts in known.items() if facts.get(name) is not None}
        if values:
            best = _find_best(name, values) if ranked and name not in NEITHER_GOOD_NOR_BAD else ()
            yield ComparisonFact(group=group, name=name, values=values, best=best)


def _find_best(name: str, values: Mapping[str, float]) -> tuple[str, ...]:
    """Return the runs with the best value; none where all values are the same."""
    if len(set(values.values())) < 2:
        return ()
    best = (min if name in LOWER_IS_BETTER else max)(values.values())
    return tuple(run for run, value in values.items() if value == best)


def _list_run_facts(cycle: Cycle) -> dict[str, Any]:
    return {
        "target": cycle.target,
        "began": cycle.started_at,
        "state": str(cycle.state),
        "verdict": cycle.verdict,
        "reason": cycle.reason,
        "version": cycle.version_id,
    }


def _list_plan_facts(trained: Cycle) -> dict[str, Any]:
    plan = trained.plan
    if plan is None:
        return {}
    known: dict[str, Any] = {
        "method": plan.method,
        "way to train": plan.name or None,
        **(_list_race_facts(trained.report.race) if trained.report and trained.report.race else {}),
        "base model": plan.base_model,
        "goes on from": plan.start_version,
        "base in 4 bits": plan.quantization,
    }
    for stage in plan.stages:
        for name, value in stage.hyperparameters.model_dump(exclude={"lora_targets"}).items():
            known[f"{stage.method} {name}"] = value
    took = [stage.figures.seconds for stage in trained.training if stage.figures.seconds is not None]
    return known | {"training seconds": sum(took) if took else None}


def _list_race_facts(race: RaceReport) -> dict[str, Any]:
    return {
        "raced": tuple(each.name for each in race.contenders),
        "race won by": race.winner,
        "race seconds": race.seconds,
        "race cost over the default": race.cost,
    }


def _list_data_facts(cycle: Cycle) -> dict[str, Any]:
    counts = cycle.counts
    known: dict[str, Any] = {"snapshot": cycle.snapshot_id}
    reviewed = counts.reviewed.model_dump() if counts.reviewed else {}
    for name, by_kind in (
        ("train", counts.train or {}),
        ("validation", counts.validation or {}),
        ("reviewed", reviewed),
    ):
        for kind, many in by_kind.items():
            known[f"{name} {kind}"] = many or None
    return known | {"holdout": counts.holdout, "retention": counts.retention}


def _list_measures(cycle: Cycle) -> dict[str, Any]:
    report = cycle.report
    if report is None:
        return {}
    compared, candidate = report.find_comparison(report.live), report.candidate
    return {
        "accuracy": candidate.accuracy if report.gold_size else None,
        **candidate.measures,
        "valid answers": candidate.valid_rate,
        "latency_ms": candidate.latency_ms or None,
        "live": report.live,
        f"gain in {compared.metric}": compared.effect,
        "95% interval": compared.interval,
        "p (better)": compared.p_value,
        "items": compared.n,
        "worth": compared.effective_n,
    }


def _list_notes(cycles: Sequence[Cycle], *, one_target: bool) -> Iterator[str]:
    if not one_target:
        yield "These are runs of different targets: nothing says which one is better."
        return
    judged = [
        frozenset(answer.item_id for answer in cycle.report.candidate.answers)
        for cycle in cycles
        if cycle.report
    ]
    if len(set(judged)) > 1:
        yield (
            "They were judged on different held-out traffic, so a small difference between them says nothing."
        )
    lives = {cycle.report.live for cycle in cycles if cycle.report}
    if len(lives) > 1:
        yield f"Their gains are over different versions: {', '.join(sorted(lives))}."
