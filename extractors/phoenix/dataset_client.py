"""Datasets, and the experiments on them: the calls of Phoenix's REST API.

    dataset     versions, each with its examples
    experiment  on one version; a run for each example, and evaluations of each run

Phoenix creates a new experiment at every call. Everything else may be written twice.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from pydantic import AwareDatetime, JsonValue

from extractors.phoenix.http import PhoenixAnswer, PhoenixHttp, to_storable
from extractors.values import Value

EXPERIMENTS_A_PAGE = 500


class DatasetExample(Value):
    """One example of a dataset."""

    id: str
    """Our id: in a later version the same example."""
    input: dict[str, JsonValue]
    """The question, e.g. `{"question": "…"}`."""
    output: dict[str, JsonValue] = {}
    """The right answer, e.g. `{"answer": "…"}`, of which Phoenix's pages show the text; empty where nobody
    gave one."""
    metadata: dict[str, JsonValue] = {}
    span_id: str | None = None
    """The span it came from. Phoenix ignores one that it does not have (any more)."""


class DatasetVersion(Value):
    """A version of a dataset, with Phoenix's ids of its examples by ours."""

    dataset_id: str
    id: str
    node_ids: dict[str, str]


class StoredExperiment(Value):
    """An experiment as Phoenix lists it."""

    id: str
    version_id: str
    metadata: dict[str, JsonValue]


class Evaluation(Value):
    """One result of a run of an experiment."""

    label: str | None = None
    score: float


class LackingEvaluations(Value):
    """A run of an experiment that lacks some evaluations."""

    run_id: str
    node_id: str
    """Phoenix's id of the run's example."""
    ended_at: str
    names: tuple[str, ...]


class DatasetClient:
    """The datasets and experiments of one Phoenix. Every method raises PhoenixError."""

    def __init__(self, http: PhoenixHttp) -> None:
        self._http = http

    def find_dataset(self, name: str) -> str | None:
        """Return the id of the dataset called `name`; None where there is none."""
        found = self._http.json("GET", "/v1/datasets", params={"name": name})["data"]
        return found[0]["id"] if found else None

    def upload(self, name: str, description: str, examples: Sequence[DatasetExample]) -> str:
        """Make `examples` the newest version of the dataset, unless they are; return the dataset's id.

        Phoenix keeps the description of the first upload.
        """
        body = {
            "action": "update",
            "name": name,
            "description": description,
            "inputs": [example.input for example in examples],
            "outputs": [example.output for example in examples],
            "metadata": [example.metadata for example in examples],
            "span_ids": [example.span_id for example in examples],
            "example_ids": [example.id for example in examples],
        }
        answer = self._http.json(
            "POST", "/v1/datasets/upload", params={"sync": "true"}, json=to_storable(body)
        )
        dataset_id: str = answer["data"]["dataset_id"]
        return dataset_id

    def read_version(self, dataset_id: str, version_id: str | None = None) -> DatasetVersion:
        """Return a version of the dataset: the one of this id, or the newest.

        The answer to an upload also names one, but of those made within one second not always the newest.
        """
        parameters = {"version_id": version_id} if version_id else {}
        found = self._http.json("GET", f"/v1/datasets/{dataset_id}/examples", params=parameters)["data"]
        node_ids = {example["id"]: example["node_id"] for example in found["examples"]}
        return DatasetVersion(dataset_id=dataset_id, id=found["version_id"], node_ids=node_ids)

    def read_experiment_pages(self, dataset_id: str) -> Iterator[list[StoredExperiment]]:
        """Yield the experiments on all versions of the dataset page by page, the newest first."""
        path = f"/v1/datasets/{dataset_id}/experiments"
        for page in self._http.read_pages(path, [("limit", str(EXPERIMENTS_A_PAGE))]):
            yield [
                StoredExperiment(
                    id=found["id"], version_id=found["dataset_version_id"], metadata=found["metadata"]
                )
                for found in page
            ]

    def create_experiment(
        self, version: DatasetVersion, *, name: str, description: str, metadata: Mapping[str, JsonValue]
    ) -> str:
        """Create an experiment on a version and return its id. Called again, it creates another."""
        body = {
            "name": name,
            "description": description,
            "version_id": version.id,
            "metadata": dict(metadata),
        }
        experiment = self._http.post_once(
            f"/v1/datasets/{version.dataset_id}/experiments", json=to_storable(body)
        )
        experiment_id: str = experiment["data"]["id"]
        return experiment_id

    def list_answered(self, experiment_id: str) -> set[str]:
        """Return Phoenix's ids of the examples that have a run in the experiment."""
        runs = self._http.json("GET", f"/v1/experiments/{experiment_id}/runs")["data"]
        return {run["dataset_example_id"] for run in runs}

    def write_run(
        self,
        experiment_id: str,
        node_id: str,
        output: JsonValue,
        started_at: AwareDatetime,
        ended_at: AwareDatetime,
    ) -> None:
        """Write the answer to one example, unless it is there."""
        body = {
            "dataset_example_id": node_id,
            "output": output,
            "repetition_number": 1,
            "start_time": started_at.isoformat(),
            "end_time": ended_at.isoformat(),
        }
        try:
            self._http.json("POST", f"/v1/experiments/{experiment_id}/runs", json=to_storable(body))
        except PhoenixAnswer as error:
            if error.status != 409:  # it came through, and only its answer was lost
                raise

    def find_lacking_evaluations(
        self, experiment_id: str, names: Collection[str], most_runs: int
    ) -> Iterator[LackingEvaluations]:
        """Yield the experiment's runs that lack evaluations of these names: at most `most_runs` of them."""
        path = f"/v1/experiments/{experiment_id}/incomplete-evaluations"
        parameters = [("evaluation_name", name) for name in sorted(names)] + [("limit", str(most_runs))]
        for entry in self._http.json("GET", path, params=parameters)["data"]:
            run: dict[str, Any] = entry["experiment_run"]
            yield LackingEvaluations(
                run_id=run["id"],
                node_id=run["dataset_example_id"],
                ended_at=run["end_time"],
                names=tuple(entry["evaluation_names"]),
            )

    def write_evaluation(self, run: LackingEvaluations, name: str, evaluation: Evaluation) -> None:
        """Write one evaluation of a run, dated at the run's end."""
        body = {
            "experiment_run_id": run.run_id,
            "name": name,
            "annotator_kind": "CODE",
            "start_time": run.ended_at,
            "end_time": run.ended_at,
            "result": evaluation.model_dump(exclude_none=True),
        }
        self._http.json("POST", "/v1/experiment_evaluations", json=body)
