"""The tables by which learnd decides: methods, hyperparameters, metrics, states, and reasons to leave out."""

import math
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from importlib import import_module
from typing import Any, get_args

from evaluation.rules import METRICS, USUAL_METRICS
from reference_pages.markdown import GENERATED, code, one_line, table
from registry import batches, cycles, versions
from trainers.planning.hyperparameters import MAX_EPOCHS, MIN_TRAINING_STEPS, TABLE, Method
from trainers.planning.method_rules import KIND_NAMES, METHOD_NAMES, RULES, MethodRule, Task

INTRO = """# Rules, states and reasons

The tables by which learnd decides, as the code has them.

"""
REASONS = {
    "extractors.span_parsing.drop_reasons": "Why a call or a search does not become an example",
    "extractors.dataset.triplets": "Why a search gives no triplets",
    "extractors.dataset.preference_pairs": "Why answers make no pair",
    "extractors.dataset.holdout_split": "Why something reviewed is on neither side",
    "extractors.cleaning.quality": "Why an example is not trained on",
    "extractors.synthesis.filters": "Why a proposal of a language model is left out",
}
"""Modules with reasons that `learnd data summary` and a cycle's page show, and what to call them."""
STARTS = {
    "base": "the base model",
    "live": "the live version",
    "live or base": "the live version, or else the base model",
}


def rules_page() -> str:
    """Return the page as Markdown."""
    return GENERATED + INTRO + _methods() + _hyperparameters() + _metrics() + _states() + _reasons()


def _methods() -> str:
    rows = [
        (
            code(rule.name),
            _listed(rule.tasks, Task),
            ", and ".join(_needs(rule)),
            ", then ".join(f"{METHOD_NAMES[method]} on {code(kind)}" for method, kind in rule.stages),
            STARTS[rule.start],
            ", ".join(f"{code(name)} {value}" for name, value in rule.variant.items()) or "–",
            _part(rule),
            rule.because,
        )
        for rule in RULES
    ]
    said = (
        "Read from the top. Of the rows that may be the default, the first whose needs are met is; where "
        "there is none, the cycle ends SKIPPED. The other rows whose needs are met challenge it in a race, "
        "where [`targets.race`](settings.md#targets.race) lets them. "
        "[Method and training](../concepts/training.md) describes the race.\n\n"
    )
    columns = ("name", "task", "needs", "trains", "starts from", "differs in", "part", "because")
    return "## Methods\n\n" + said + table(columns, rows)


def _needs(rule: MethodRule) -> Iterator[str]:
    for kind, limit in rule.needs.items():
        yield f"at least `thresholds.{limit}` {KIND_NAMES[kind]}"
    if rule.asks_live:
        yield (
            "at least `thresholds.valid_share` valid answers of the model that it starts from to the pairs' "
            "prompts, and `thresholds.pairs` pairs whose chosen answer it does not give yet"
        )


def _part(rule: MethodRule) -> str:
    """Return in words whether a row may be the default, and which races it enters."""
    race = "thorough races" if rule.thorough else "races"
    return f"default, or in {race}" if rule.leads else f"in {race}"


def _hyperparameters() -> str:
    rows = [
        (
            _listed(row.methods, Method),
            "any" if math.isinf(row.up_to_gb) else f"≤ {row.up_to_gb:g}",
            _values(row.efficient),
            _values(row.quality) or "as left",
            row.source,
        )
        for row in TABLE
    ]
    steps = " and ".join(f"{least} ({preset})" for preset, least in MIN_TRAINING_STEPS.items())
    epochs = " and ".join(f"{most} ({preset})" for preset, most in MAX_EPOCHS.items())
    said = (
        "All rows that fit are laid over each other, from the first to the last. Where the data is little, a "
        f"training gets more epochs: as many as {steps} optimiser steps take, and at most {epochs}. "
        "[`targets.hyperparameters`](settings.md#targets.hyperparameters) overrides each value.\n\n"
    )
    columns = ("method", "base in GB", "efficient", "quality", "source")
    return "## Hyperparameters\n\n" + said + table(columns, rows)


def _values(values: Mapping[str, float]) -> str:
    return ", ".join(f"{code(name)} {value:g}" for name, value in values.items())


def _metrics() -> str:
    rows = [
        (code(task), ", ".join(map(code, METRICS[task])), ", ".join(map(code, USUAL_METRICS[task])))
        for task in get_args(Task)
    ]
    said = "What [`gate.metrics`](settings.md#targets.gate.metrics) may name, the primary metric first.\n\n"
    return "## Metrics of a verdict\n\n" + said + table(("task", "there are", "gate by default"), rows)


def _states() -> str:
    parts = ["## States\n\n"]
    for title, transitions in (
        ("A cycle", cycles.TRANSITIONS),
        ("A version", versions.TRANSITIONS),
        ("A batch", batches.TRANSITIONS),
    ):
        transition: Mapping[StrEnum, frozenset[StrEnum]] = transitions  # type: ignore[assignment]
        order = list(transition)
        rows = [
            (
                code(state),
                ", ".join(code(each) for each in sorted(following, key=order.index)) or "ends there",
            )
            for state, following in transition.items()
        ]
        parts.append(f"### {title}\n\n" + table(("state", "may become"), rows))
    return "".join(parts)


def _reasons() -> str:
    parts = [
        "## Reasons to leave something out\n\n",
        "Every one is counted; `learnd data summary` shows the counts.\n\n",
    ]
    for module, title in REASONS.items():
        parts.append(f"### {title}\n\n")
        for reasons in _enums(import_module(module)):
            parts += [f"- {one_line(each.value)}\n" for each in reasons]
        parts.append("\n")
    return "".join(parts)


def _enums(module: Any) -> Iterator[type[StrEnum]]:
    for each in vars(module).values():
        if isinstance(each, type) and issubclass(each, StrEnum) and each.__module__ == module.__name__:
            yield each


def _listed(values: Iterable[str], known: Any) -> str:
    """Some of the words that a type allows, in its order."""
    there = set(values)
    return ", ".join(code(each) for each in get_args(known) if each in there)
