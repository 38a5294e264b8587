"""What a run measured, as Phoenix's own datasets and experiments: its pages compare the sides.

    the target's holdout      a dataset, of which each window is a version
    an item of the holdout    an example, linked to the span it came from
    a side of the comparison  an experiment on that version
    a side's answer           a run of the experiment, with its evaluations

Phoenix makes a new experiment at every call, so whatever is written is looked for first: a run that was
killed half way goes on where it was.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Self
from urllib.parse import quote, urlencode

from pydantic import AwareDatetime, Field, JsonValue, model_validator

from extractors.phoenix.client import PhoenixClient
from extractors.phoenix.http import PhoenixAnswer, PhoenixHttp, storable
from extractors.values import Value

RUN_KEY, SIDE_KEY = "learnd.run_id", "learnd.side"
"""Metadata by which an experiment is known again."""
WRITERS = 4
"""Phoenix computes for about 7 ms on each write, one at a time; a few in flight hide the network."""
EXPERIMENTS_A_PAGE = 500


class HoldoutExample(Value):
    """An item of the holdout."""

    id: str
    """The item's id: in a later version the same example."""
    input: dict[str, JsonValue]
    """What is asked, e.g. `{"question": "…"}`."""
    output: dict[str, JsonValue] = {}
    """What would be right, e.g. `{"answer": "…"}`, of which Phoenix's pages show the text; empty where
    nobody said."""
    metadata: dict[str, JsonValue] = {}
    span_id: str | None = None
    """The span it came from. Phoenix ignores one that it does not have (any more)."""


class ExampleRun(Value):
    """What one side made of one example."""

    example_id: str
    output: JsonValue
    started_at: AwareDatetime
    ended_at: AwareDatetime
    correct: bool | None = None
    """None where nobody said what would be right."""
    valid: bool | None = None
    measures: dict[str, float] = {}
    """Further scores by name; what is no finite number is left out."""


class ExperimentSide(Value):
    """One side of the comparison: base, active version or candidate."""

    name: str
    """By which it is known again; unique within the run."""
    title: str
    """What Phoenix's pages call it."""
    description: str = ""
    metadata: dict[str, JsonValue] = {}
    runs: tuple[ExampleRun, ...]


class RunExperiments(Value):
    """Everything that one run of a target measured."""

    run_id: str
    dataset: str
    """Name of the target's dataset."""
    description: str = ""
    """Of the dataset; Phoenix keeps that of the first time."""
    examples: tuple[HoldoutExample, ...] = Field(min_length=1)
    sides: tuple[ExperimentSide, ...] = Field(min_length=1)
    """The first is the one with which Phoenix's page compares the others."""

    @model_validator(mode="after")
    def _is_about_its_examples(self) -> Self:
        ids = {example.id for example in self.examples}
        for side in self.sides:
            if unknown := [run.example_id for run in side.runs if run.example_id not in ids]:
                raise ValueError(f"side {side.name} answers examples that are not there: {unknown[:5]}")
        return self


class Published(Value):
    """Where in Phoenix a run is."""

    dataset_id: str
    version_id: str
    experiment_ids: dict[str, str]
    """By the side's name."""
    compare_path: str
    """Phoenix's page that shows the sides beside each other: a path, to be put behind its URL."""


class _Version(Value):
    """A version of a dataset, with Phoenix's ids of its examples by ours."""

    dataset_id: str
    id: str
    node_ids: dict[str, str]


def publish_experiments(
    client: PhoenixClient, run: RunExperiments, *, on_write: Callable[[], object] = lambda: None
) -> Published:
    """Have Phoenix keep the run, and say where; what is there already is not written again.

    Takes about 10 ms for each answer and each evaluation; before each of them some thread calls `on_write`,
    which may raise to stop. Raises PhoenixError, and what `on_write` raises; a later call goes on.
    """
    http = client.http
    dataset_id = _dataset_id(http, run.dataset)
    found = _experiments(http, dataset_id, run) if dataset_id else {}
    if dataset_id and found:
        # The window may have moved since, and another version be the newest.
        version_id = next(iter(found.values()))["dataset_version_id"]
        version = _version(http, dataset_id, {"version_id": version_id})
    else:
        version = _version(http, _upload(http, run), {})
    if version.node_ids.keys() != {example.id for example in run.examples}:
        raise PhoenixAnswer(
            f"version {version.id} of Phoenix's dataset {run.dataset!r} holds other examples than those of "
            f"run {run.run_id}: something else writes to it, or gave its experiments this run's id"
        )
    experiment_ids = {
        side.name: found[side.name]["id"] if side.name in found else _new_experiment(http, version, run, side)
        for side in run.sides
    }
    for side in run.sides:
        _answer(http, experiment_ids[side.name], side, version.node_ids, on_write)
    return Published(
        dataset_id=version.dataset_id,
        version_id=version.id,
        experiment_ids=experiment_ids,
        compare_path=compare_path(version.dataset_id, experiment_ids.values()),
    )


def compare_path(dataset_id: str, experiment_ids: Iterable[str]) -> str:
    """Path of Phoenix's page that compares experiments on one dataset with the first of them."""
    wanted = urlencode([("experimentId", experiment_id) for experiment_id in experiment_ids])
    return f"/datasets/{quote(dataset_id, safe='')}/compare?{wanted}"


def _dataset_id(http: PhoenixHttp, name: str) -> str | None:
    found = http.json("GET", "/v1/datasets", params={"name": name})["data"]
    return found[0]["id"] if found else None


def _upload(http: PhoenixHttp, run: RunExperiments) -> str:
    """Make the run's examples the newest version, where they are not; the dataset's id."""
    # Two items with one id are one item: the id says everything that was asked and answered.
    examples = list({example.id: example for example in run.examples}.values())
    body = {
        "action": "update",
        "name": run.dataset,
        "description": run.description,
        "inputs": [example.input for example in examples],
        "outputs": [example.output for example in examples],
        "metadata": [example.metadata for example in examples],
        "span_ids": [example.span_id for example in examples],
        "example_ids": [example.id for example in examples],
    }
    answer = http.json("POST", "/v1/datasets/upload", params={"sync": "true"}, json=storable(body))
    dataset_id: str = answer["data"]["dataset_id"]
    return dataset_id


def _version(http: PhoenixHttp, dataset_id: str, which: Mapping[str, str]) -> _Version:
    """The version of `which`, or the newest.

    The upload also names one, but of those made within one second not always the newest.
    """
    found = http.json("GET", f"/v1/datasets/{dataset_id}/examples", params=dict(which))["data"]
    node_ids = {example["id"]: example["node_id"] for example in found["examples"]}
    return _Version(dataset_id=dataset_id, id=found["version_id"], node_ids=node_ids)


def _experiments(http: PhoenixHttp, dataset_id: str, run: RunExperiments) -> dict[str, dict[str, Any]]:
    """The run's experiments that Phoenix has, by side."""
    found: dict[str, dict[str, Any]] = {}
    path, parameters = f"/v1/datasets/{dataset_id}/experiments", {"limit": str(EXPERIMENTS_A_PAGE)}
    while len(found) < len(run.sides):
        page = http.json("GET", path, params=parameters)
        for experiment in page["data"]:
            if experiment["metadata"].get(RUN_KEY) == run.run_id:
                found[experiment["metadata"].get(SIDE_KEY, "")] = experiment
        if page["next_cursor"] is None:
            break
        parameters["cursor"] = page["next_cursor"]
    return found


def _new_experiment(http: PhoenixHttp, version: _Version, run: RunExperiments, side: ExperimentSide) -> str:
    body = {
        "name": side.title,
        "description": side.description,
        "version_id": version.id,
        "metadata": {**side.metadata, RUN_KEY: run.run_id, SIDE_KEY: side.name},
    }
    experiment = http.made(f"/v1/datasets/{version.dataset_id}/experiments", json=storable(body))
    experiment_id: str = experiment["data"]["id"]
    return experiment_id


def _answer(
    http: PhoenixHttp,
    experiment_id: str,
    side: ExperimentSide,
    node_ids: Mapping[str, str],
    on_write: Callable[[], object],
) -> None:
    """Write those of the side's answers and evaluations that are not there."""
    path = f"/v1/experiments/{experiment_id}"
    runs = {node_ids[run.example_id]: run for run in side.runs}
    there = {run["dataset_example_id"] for run in http.json("GET", f"{path}/runs")["data"]}
    missing = [node_id for node_id in runs if node_id not in there]
    _write([partial(_write_run, http, path, node_id, runs[node_id]) for node_id in missing], on_write)
    lacking = _lacking(http, path, runs)
    _write(
        [partial(http.json, "POST", "/v1/experiment_evaluations", json=body) for body in lacking], on_write
    )


def _write(writes: Sequence[Callable[[], object]], on_write: Callable[[], object]) -> None:
    def one(write: Callable[[], object]) -> None:
        on_write()
        write()

    with ThreadPoolExecutor(WRITERS) as pool:
        # At the first error `map` gives up what has not begun.
        for _ in pool.map(one, writes):
            pass


def _lacking(http: PhoenixHttp, path: str, runs: Mapping[str, ExampleRun]) -> Iterator[dict[str, Any]]:
    """The evaluations that the experiment's runs do not have."""
    evaluations = {node_id: _evaluations(run) for node_id, run in runs.items()}
    names = sorted({name for of_run in evaluations.values() for name in of_run})
    if not names:
        return
    asked = [("evaluation_name", name) for name in names] + [("limit", str(len(runs)))]
    for entry in http.json("GET", f"{path}/incomplete-evaluations", params=asked)["data"]:
        run = entry["experiment_run"]
        of_run = evaluations.get(run["dataset_example_id"], {})
        for name in entry["evaluation_names"]:
            if name in of_run:
                yield _evaluation(run, name, of_run[name])


def _write_run(http: PhoenixHttp, path: str, node_id: str, run: ExampleRun) -> None:
    body = {
        "dataset_example_id": node_id,
        "output": run.output,
        "repetition_number": 1,
        "start_time": run.started_at.isoformat(),
        "end_time": run.ended_at.isoformat(),
    }
    try:
        http.json("POST", f"{path}/runs", json=storable(body))
    except PhoenixAnswer as error:
        if error.status != 409:  # it came through, and only its answer was lost
            raise


def _evaluations(run: ExampleRun) -> dict[str, dict[str, Any]]:
    """Label and score of the run, by the evaluation's name."""
    found: dict[str, dict[str, Any]] = {
        name: {"score": score} for name, score in run.measures.items() if math.isfinite(score)
    }
    if run.correct is not None:
        found["correct"] = {"label": "correct" if run.correct else "wrong", "score": float(run.correct)}
    if run.valid is not None:
        found["valid"] = {"label": "valid" if run.valid else "invalid", "score": float(run.valid)}
    return found


def _evaluation(run: Mapping[str, Any], name: str, result: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "experiment_run_id": run["id"],
        "name": name,
        "annotator_kind": "CODE",
        "start_time": run["end_time"],
        "end_time": run["end_time"],
        "result": result,
    }
