"""Writes what a run measured as Phoenix's own datasets and experiments: its pages compare the sides.

    the target's holdout      a dataset, of which each window is a version
    an item of the holdout    an example, linked to the span it came from
    a side of the comparison  an experiment on that version
    a side's answer           a run of the experiment, with its evaluations

Phoenix creates a new experiment at every call, so everything is looked for before it is written: a
publication that was killed half way goes on where it was.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from urllib.parse import quote, urlencode

from daemon.publishing.measured_run import ExampleRun, ExperimentSide, MeasuredRun
from extractors.phoenix.dataset_client import DatasetClient, DatasetVersion, Evaluation, StoredExperiment
from extractors.phoenix.http import PhoenixAnswer
from extractors.values import Value

RUN_KEY, SIDE_KEY = "learnd.run_id", "learnd.side"
"""Metadata by which an experiment is found again."""
WRITERS = 4
"""Phoenix computes for about 7 ms on each write, one at a time; a few in flight hide the network."""

Write = Callable[[], object]


class PublishedExperiments(Value):
    """The place of a run in Phoenix."""

    dataset_id: str
    version_id: str
    experiment_ids: dict[str, str]
    """By the side's name."""
    compare_path: str
    """Path of Phoenix's page that shows the sides beside each other; append it to Phoenix's URL."""


def publish_experiments(
    datasets: DatasetClient, run: MeasuredRun, *, on_write: Write = lambda: None
) -> PublishedExperiments:
    """Write the run's examples and answers to Phoenix, and return where they are; repeat nothing.

    Takes about 10 ms for each answer and each evaluation; before each of them some thread calls `on_write`,
    which may raise to stop. Raises PhoenixError, and what `on_write` raises; a later call goes on.
    """
    dataset_id = datasets.find_dataset(run.dataset)
    found = _find_experiments(datasets, dataset_id, run) if dataset_id else {}
    version = _find_version(datasets, dataset_id, run, found)
    experiment_ids = {
        side.name: found[side.name].id if side.name in found else _create(datasets, version, run, side)
        for side in run.sides
    }
    for side in run.sides:
        _write_side(datasets, experiment_ids[side.name], side, version.node_ids, on_write)
    return PublishedExperiments(
        dataset_id=version.dataset_id,
        version_id=version.id,
        experiment_ids=experiment_ids,
        compare_path=build_compare_path(version.dataset_id, experiment_ids.values()),
    )


def build_compare_path(dataset_id: str, experiment_ids: Iterable[str]) -> str:
    """Return the path of Phoenix's page that compares experiments on one dataset with the first of them."""
    parameters = urlencode([("experimentId", experiment_id) for experiment_id in experiment_ids])
    return f"/datasets/{quote(dataset_id, safe='')}/compare?{parameters}"


def _find_experiments(
    datasets: DatasetClient, dataset_id: str, run: MeasuredRun
) -> dict[str, StoredExperiment]:
    """Return the run's experiments that Phoenix has, by side: of several on a page, the oldest."""
    found: dict[str, StoredExperiment] = {}
    for page in datasets.read_experiment_pages(dataset_id):
        for experiment in page:
            if experiment.metadata.get(RUN_KEY) == run.run_id:
                # The newest come first, so the one that was there first stays.
                found[str(experiment.metadata.get(SIDE_KEY, ""))] = experiment
        if len(found) >= len(run.sides):
            break
    return found


def _find_version(
    datasets: DatasetClient,
    dataset_id: str | None,
    run: MeasuredRun,
    found: Mapping[str, StoredExperiment],
) -> DatasetVersion:
    """Return the version that holds the run's examples; it is uploaded where there is no experiment yet.

    Raises PhoenixAnswer where the version holds other examples.
    """
    if dataset_id and found:
        # The window may have moved since, and another version be the newest.
        version = datasets.read_version(dataset_id, next(iter(found.values())).version_id)
    else:
        # Two items with one id are one item: the id says everything that was asked and answered.
        examples = list({example.id: example for example in run.examples}.values())
        version = datasets.read_version(datasets.upload(run.dataset, run.description, examples))
    if version.node_ids.keys() != {example.id for example in run.examples}:
        raise PhoenixAnswer(
            f"version {version.id} of Phoenix's dataset {run.dataset!r} holds other examples than those of "
            f"run {run.run_id}: something else writes to it, or gave its experiments this run's id"
        )
    return version


def _create(datasets: DatasetClient, version: DatasetVersion, run: MeasuredRun, side: ExperimentSide) -> str:
    metadata = {**side.metadata, RUN_KEY: run.run_id, SIDE_KEY: side.name}
    return datasets.create_experiment(
        version, name=side.title, description=side.description, metadata=metadata
    )


def _write_side(
    datasets: DatasetClient,
    experiment_id: str,
    side: ExperimentSide,
    node_ids: Mapping[str, str],
    on_write: Write,
) -> None:
    """Write those of the side's answers and evaluations that are not there."""
    runs = {node_ids[run.example_id]: run for run in side.runs}
    answered = datasets.list_answered(experiment_id)
    _write_all(
        [
            partial(datasets.write_run, experiment_id, node_id, run.output, run.started_at, run.ended_at)
            for node_id, run in runs.items()
            if node_id not in answered
        ],
        on_write,
    )
    _write_all(list(_find_lacking(datasets, experiment_id, runs)), on_write)


def _write_all(writes: Sequence[Write], on_write: Write) -> None:
    def write_one(write: Write) -> None:
        on_write()
        write()

    with ThreadPoolExecutor(WRITERS) as pool:
        # At the first error `map` gives up what has not begun.
        for _ in pool.map(write_one, writes):
            pass


def _find_lacking(
    datasets: DatasetClient, experiment_id: str, runs: Mapping[str, ExampleRun]
) -> Iterator[Write]:
    """Yield a write for each evaluation that the experiment's runs do not have."""
    evaluations = {node_id: _build_evaluations(run) for node_id, run in runs.items()}
    names = {name for of_run in evaluations.values() for name in of_run}
    if not names:
        return
    for run in datasets.find_lacking_evaluations(experiment_id, names, most_runs=len(runs)):
        of_run = evaluations.get(run.node_id, {})
        for name in run.names:
            if name in of_run:
                yield partial(datasets.write_evaluation, run, name, of_run[name])


def _build_evaluations(run: ExampleRun) -> dict[str, Evaluation]:
    """Return label and score of the run, by the evaluation's name."""
    found = {name: Evaluation(score=score) for name, score in run.measures.items() if math.isfinite(score)}
    if run.correct is not None:
        found["correct"] = Evaluation(label="correct" if run.correct else "wrong", score=run.correct)
    if run.valid is not None:
        found["valid"] = Evaluation(label="valid" if run.valid else "invalid", score=run.valid)
    return found
