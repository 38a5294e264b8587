"""A run published to a real Phoenix: spans, a dataset, experiments; and Phoenix's compare page."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import timedelta
from typing import Any

import httpx
import pytest

from daemon.demo.phoenix import PhoenixServer
from daemon.demo.servers import find_free_port
from daemon.publishing.measured_run import ExampleRun, ExperimentSide, MeasuredRun
from daemon.publishing.span_attributes import (
    DataAttributes,
    EvaluationAttributes,
    EvaluationMetrics,
    EvaluationSpan,
    ExperimentAttributes,
    ExperimentSpan,
    FineTuningMetrics,
    ImprovementAttributes,
    OutputAttributes,
    ParameterAttributes,
    SideMetrics,
    flatten_attributes,
)
from daemon.publishing.write_experiments import (
    RUN_KEY,
    SIDE_KEY,
    PublishedExperiments,
    publish_experiments,
)
from daemon.publishing.write_spans import publish_spans
from extractors.phoenix.client import PhoenixClient
from extractors.phoenix.dataset_client import DatasetClient, DatasetExample
from extractors.phoenix.http import PhoenixAnswer, PhoenixHttp, PhoenixUnreachable
from tests.support.browser import chromium, open_page, take_picture
from tests.support.phoenix import NOON, chat_span, new_project, send_and_wait

LABELS = ("billing", "shipping", "returns")
CHARTS_MS = 2000
"""Phoenix's charts grow for a second and a half."""


@pytest.fixture
def client(phoenix: PhoenixServer) -> Iterator[PhoenixClient]:
    with PhoenixClient(phoenix.url) as client:
        yield client


@pytest.fixture
def http(phoenix: PhoenixServer) -> Iterator[PhoenixHttp]:
    with closing(PhoenixHttp(phoenix.url, None, timeout=60, patience=20)) as http:
        yield http


# ---- spans


def build_fine_tuning(run_id: str, **changes: Any) -> ExperimentSpan:
    return ExperimentSpan(
        **{
            "started_at": NOON,
            "ended_at": NOON + timedelta(seconds=61.25),
            "experiment": ExperimentAttributes(run_id=run_id, agent_type="routing"),
            "params": ParameterAttributes(
                base_model="HuggingFaceTB/SmolLM2-135M-Instruct",
                method="dpo",
                backend="local",
                backend_provider="transformers",
                epochs=3,
                batch_size=8,
                learning_rate=2e-4,
                use_lora=True,
                lora_r=16,
                lora_alpha=32,
            ),
            "data": DataAttributes(
                total_spans=500,
                approved_count=300,
                rejected_count=100,
                preference_pairs=80,
                dataset_size=280,
                used_synthetic=False,
                synthetic_approved_count=0,
            ),
            "metrics": FineTuningMetrics(
                train_loss=0.25,
                train_samples=2240,
                train_examples=280,
                epochs_completed=2.5,
                used_validation_split=True,
                eval_loss=0.5,
                eval_samples=30,
                val_examples=30,
                eval_reward_accuracy=0.75,
                eval_reward_margin=-1.5,
            ),
            "output": OutputAttributes(adapter_path="/var/lib/learnd/adapters/routing-v3"),
            **changes,
        }
    )


def build_evaluation(**changes: Any) -> EvaluationSpan:
    side = SideMetrics(
        accuracy=1,
        top_k_accuracy=0.9,
        confidence=0.75,
        confidence_calibration=0.1,
        error_rate=0,
        hallucination_rate=0.125,
        latency_ms=31.5,
    )
    return EvaluationSpan(
        **{
            "started_at": NOON + timedelta(minutes=2),
            "ended_at": NOON + timedelta(minutes=3),
            "evaluation": EvaluationAttributes(
                adapter_path="/adapters/v3", agent_type="routing", test_size=120
            ),
            "metrics": EvaluationMetrics(base=side, adapter=side),
            "improvement": ImprovementAttributes(
                accuracy=0.125,
                confidence=0,
                error_reduction=0.5,
                latency_overhead=0.1,
                significant=True,
                p_value=0.0009765625,
            ),
            **changes,
        }
    )


ASKED_OF_FINE_TUNING = {
    "": "openinference.span.kind operation.name experiment.run_id experiment.agent_type output.adapter_path",
    "params.": "base_model method backend backend_provider epochs batch_size learning_rate use_lora lora_r "
    "lora_alpha",
    "data.": "total_spans approved_count rejected_count preference_pairs dataset_size used_synthetic "
    "synthetic_approved_count",
    "metrics.": "train_loss train_samples train_examples epochs_completed used_validation_split eval_loss "
    "eval_samples val_examples eval_reward_accuracy eval_reward_margin",
}
A_SIDE = "accuracy top_k_accuracy confidence confidence_calibration error_rate hallucination_rate latency_ms"
ASKED_OF_EVALUATION = {
    "": "openinference.span.kind operation.name",
    "evaluation.": "adapter_path agent_type test_size",
    "metrics.base.": A_SIDE,
    "metrics.adapter.": A_SIDE,
    "improvement.": "accuracy confidence error_reduction latency_overhead significant p_value",
}


@pytest.mark.parametrize(
    ("stage", "asked"),
    [(build_fine_tuning("r"), ASKED_OF_FINE_TUNING), (build_evaluation(), ASKED_OF_EVALUATION)],
    ids=["fine-tuning", "evaluation"],
)
def test_a_span_has_the_attributes_that_were_agreed_and_no_other(
    stage: ExperimentSpan | EvaluationSpan, asked: Mapping[str, str]
) -> None:
    names = {f"{group}{name}" for group, listed in asked.items() for name in listed.split()}
    assert set(flatten_attributes(stage)) == names


def test_what_is_unknown_or_no_number_is_left_out() -> None:
    bare = ExperimentSpan(
        started_at=NOON,
        ended_at=NOON,
        experiment=ExperimentAttributes(run_id="r", agent_type="routing"),
        params=ParameterAttributes(base_model="m", method="sft", learning_rate=float("nan")),
    )
    assert flatten_attributes(bare) == {
        "openinference.span.kind": "EXPERIMENT",
        "operation.name": "fine_tuning",
        "experiment.run_id": "r",
        "experiment.agent_type": "routing",
        "params.base_model": "m",
        "params.method": "sft",
    }


def test_spans_come_back_as_they_were_published(client: PhoenixClient, http: PhoenixHttp) -> None:
    # Agents are called tenant/agent, and a project may be.
    project, trained, judged = (
        f"acme/{new_project()}",
        build_fine_tuning(new_project("run")),
        build_evaluation(),
    )
    assert publish_spans(client.spans, project, trained, judged)

    condition = "attributes['openinference']['span']['kind'] == 'EXPERIMENT'"
    found = client.project(project)
    (root,) = client.spans.find(found, condition, NOON + timedelta(days=1))
    spans = {span["name"]: span for span in read_spans(http, found.id)}
    kept, below = spans["fine_tuning"], spans["adapter_evaluation"]
    assert kept["context"]["span_id"] == root.id == below["parent_id"]
    assert kept["context"]["trace_id"] == below["context"]["trace_id"]
    assert kept["parent_id"] is None
    assert read_typed_attributes(kept) == add_types(flatten_attributes(trained))
    assert read_typed_attributes(below) == add_types(flatten_attributes(judged))
    assert (kept["start_time"], kept["end_time"]) == (
        "2026-03-10T12:00:00+00:00",
        "2026-03-10T12:01:01.250000+00:00",
    )
    assert (kept["status_code"], kept["status_message"]) == ("OK", "")


def test_a_failed_run_says_why_and_publishing_again_changes_nothing(
    client: PhoenixClient, project: str, http: PhoenixHttp
) -> None:
    run_id = new_project("run")
    failed = build_fine_tuning(run_id, error="out of memory \0\ud800", metrics=FineTuningMetrics())
    assert publish_spans(client.spans, project, failed)
    assert publish_spans(client.spans, project, build_fine_tuning(run_id), build_evaluation())
    assert publish_spans(client.spans, project, build_fine_tuning(run_id), build_evaluation())

    spans = {span["name"]: span for span in read_spans(http, client.project(project).id)}
    assert set(spans) == {"fine_tuning", "adapter_evaluation"}
    assert spans["fine_tuning"]["status_code"] == "ERROR"
    assert spans["fine_tuning"]["status_message"] == "out of memory \N{REPLACEMENT CHARACTER}?"
    assert read_typed_attributes(spans["fine_tuning"]) == add_types(flatten_attributes(failed))


def test_spans_are_published_only_once_phoenix_shows_them(
    client: PhoenixClient, project: str, http: PhoenixHttp
) -> None:
    # It answers before it keeps them: killed within a tenth of a second after, it has lost them.
    run = build_fine_tuning(new_project("run"))
    if not publish_spans(client.spans, project, run, seconds=0):
        assert publish_spans(client.spans, project, run)
    assert [span["name"] for span in read_spans(http, client.project(project).id)] == ["fine_tuning"]


# ---- the dataset and its experiments


def build_example(number: int, span_id: str | None = None) -> DatasetExample:
    return DatasetExample(
        id=f"{number:032x}",
        input={"question": f"Where is parcel {number}?"},
        output={"answer": LABELS[number % 3]} if number % 4 else {},
        metadata={"outcome": "approved" if number % 4 else "rejected", "system": "NUL \0"},
        span_id=span_id,
    )


def build_side(name: str, examples: Sequence[DatasetExample], right: int = 10**6) -> ExperimentSide:
    """A side that answers the first `right` examples right."""
    runs = []
    for number, asked in enumerate(examples):
        answer = asked.output.get("answer", "returns") if number < right else "none of these"
        runs.append(
            ExampleRun(
                example_id=asked.id,
                output=answer,
                started_at=NOON,
                ended_at=NOON + timedelta(milliseconds=40),
                correct=(number < right) if asked.output else None,
                valid=answer in LABELS,
                measures={"confidence": 0.5 + number / 1000, "perplexity": float("nan")},
            )
        )
    return ExperimentSide(name=name, title=f"{name} of a test", metadata={"model": name}, runs=tuple(runs))


def build_run(numbers: Sequence[int], dataset: str, run_id: str | None = None) -> MeasuredRun:
    examples = tuple(build_example(number) for number in numbers)
    return MeasuredRun(
        run_id=run_id or new_project("run"),
        dataset=dataset,
        examples=examples,
        sides=(build_side("base", examples, right=1), build_side("candidate", examples)),
    )


def new_holdout_name() -> str:
    return f"learnd acme/{new_project()} holdout"


def test_examples_are_linked_to_their_spans_and_one_whose_span_is_gone_is_there_without(
    phoenix: PhoenixServer, client: PhoenixClient, project: str, http: PhoenixHttp
) -> None:
    span = chat_span()
    send_and_wait(phoenix.url, project, span)
    examples = (build_example(1, span.span_id), build_example(2, "feedfeedfeedfeed"), build_example(4))
    run = MeasuredRun(
        run_id="r", dataset=new_holdout_name(), examples=examples, sides=(build_side("base", examples),)
    )
    published = publish_experiments(client.datasets, run)

    found = read_examples(http, published)
    assert {example["id"]: (example["source"] or {}).get("span_id") for example in found} == {
        examples[0].id: span.span_id,
        examples[1].id: None,
        examples[2].id: None,
    }
    assert found[0]["input"] == {"question": "Where is parcel 1?"}
    assert [example["output"] for example in found] == [{"answer": "shipping"}, {"answer": "returns"}, {}]
    assert found[0]["metadata"] == {"outcome": "approved", "system": "NUL \N{REPLACEMENT CHARACTER}"}


def test_each_side_is_an_experiment_with_its_answers_and_their_evaluations(
    client: PhoenixClient, http: PhoenixHttp
) -> None:
    run = build_run([1, 2, 4], new_holdout_name())
    published = publish_experiments(client.datasets, run)

    (first, second, without_gold) = read_answers(http, published.experiment_ids["base"])
    assert (first["output"], second["output"]) == ("shipping", "none of these")
    assert (first["latency_ms"], first["error"]) == (40.0, None)
    assert read_marks(first) == {
        "correct": ("correct", 1.0),
        "valid": ("valid", 1.0),
        "confidence": (None, 0.5),
    }
    assert read_marks(second) == {
        "correct": ("wrong", 0.0),
        "valid": ("invalid", 0.0),
        "confidence": (None, 0.501),
    }
    assert read_marks(without_gold) == {"valid": ("invalid", 0.0), "confidence": (None, 0.502)}
    right = read_answers(http, published.experiment_ids["candidate"])
    assert [answer["output"] for answer in right] == ["shipping", "returns", "returns"]
    (candidate, base) = read_experiments(http, published.dataset_id)
    assert [experiment["name"] for experiment in (base, candidate)] == [
        "base of a test",
        "candidate of a test",
    ]
    assert base["metadata"] == {"model": "base", "learnd.run_id": run.run_id, "learnd.side": "base"}
    assert (base["example_count"], base["successful_run_count"], base["missing_run_count"]) == (3, 3, 0)


def test_publishing_again_changes_nothing(client: PhoenixClient, http: PhoenixHttp) -> None:
    run = build_run([1, 2, 4], new_holdout_name())
    published = publish_experiments(client.datasets, run)
    before = read_everything(http, published.dataset_id)
    assert publish_experiments(client.datasets, run) == published
    assert read_everything(http, published.dataset_id) == before


class Killed(BaseException):
    """Not one of the errors that anything handles."""


class Dying(PhoenixHttp):
    """A connection of a process that is killed when Phoenix has done its `last` write."""

    def __init__(self, url: str, last: int) -> None:
        super().__init__(url, None, timeout=60, patience=5)
        self._writes = itertools.count(1)
        self._last = last

    def _send_once(self, method: str, path: str, **request: Any) -> httpx.Response:
        answer = super()._send_once(method, path, **request)
        if method == "POST" and next(self._writes) >= self._last:
            raise Killed
        return answer


class Forgetful(PhoenixHttp):
    """A connection on which the answer to every write is lost, the first time."""

    def __init__(self, url: str) -> None:
        super().__init__(url, None, timeout=60, patience=20)
        self._lost: set[str] = set()

    def _send_once(self, method: str, path: str, **request: Any) -> httpx.Response:
        answer = super()._send_once(method, path, **request)
        asked = f"{path} {request}"
        if method == "POST" and asked not in self._lost:
            self._lost.add(asked)
            answer.status_code = 503
            raise self._to_error(answer)
        return answer


@pytest.mark.parametrize("last", [1, 2, 3, 4, 6, 9, 12, 15, 17])
def test_a_run_killed_anywhere_goes_on_where_it_was(
    phoenix: PhoenixServer, client: PhoenixClient, last: int, http: PhoenixHttp
) -> None:
    run = build_run([1, 2, 4], new_holdout_name())
    with closing(Dying(phoenix.url, last)) as dying, pytest.raises(Killed):
        publish_experiments(DatasetClient(dying), run)
    published = publish_experiments(client.datasets, run)

    assert len(read_experiments(http, published.dataset_id)) == len(run.sides)
    whole = publish_experiments(client.datasets, build_run([1, 2, 4], new_holdout_name()))
    for name in ("base", "candidate"):
        assert read_outputs(http, published.experiment_ids[name]) == read_outputs(
            http, whole.experiment_ids[name]
        )


def test_publishing_stops_when_it_is_told_to_and_goes_on_later(
    client: PhoenixClient, http: PhoenixHttp
) -> None:
    run, asked = build_run([1, 2, 4], new_holdout_name()), itertools.count(1)

    def stop_after_four() -> None:
        if next(asked) > 4:
            raise Killed

    with pytest.raises(Killed):
        publish_experiments(client.datasets, run, on_write=stop_after_four)
    published = publish_experiments(client.datasets, run)
    answers = read_answers(http, published.experiment_ids["candidate"])
    assert [len(answer["annotations"]) for answer in answers] == [3, 3, 2]


def test_an_answer_that_gets_lost_makes_nothing_twice(phoenix: PhoenixServer, http: PhoenixHttp) -> None:
    run = build_run([1, 2], new_holdout_name())
    with closing(Forgetful(phoenix.url)) as forgetful:
        datasets = DatasetClient(forgetful)
        for _ in run.sides:
            with pytest.raises(PhoenixUnreachable):
                publish_experiments(datasets, run)
        published = publish_experiments(datasets, run)
    assert len(read_experiments(http, published.dataset_id)) == len(run.sides)
    assert len(read_answers(http, published.experiment_ids["base"])) == 2


def test_a_window_that_moved_is_a_new_version_with_precisely_its_examples(
    client: PhoenixClient, http: PhoenixHttp
) -> None:
    dataset = new_holdout_name()
    earlier, later = build_run([1, 2, 3], dataset), build_run([2, 3, 5], dataset)
    first, second = publish_experiments(client.datasets, earlier), publish_experiments(client.datasets, later)
    assert first.dataset_id == second.dataset_id
    assert first.version_id != second.version_id
    old, new = read_node_ids(http, first), read_node_ids(http, second)
    assert set(old) == {example.id for example in earlier.examples}
    assert set(new) == {example.id for example in later.examples}
    shared = old.keys() & new.keys()
    assert [old[example_id] for example_id in shared] == [new[example_id] for example_id in shared]

    assert publish_experiments(client.datasets, earlier) == first
    again = publish_experiments(client.datasets, build_run([2, 3, 5], dataset))
    assert again.version_id == second.version_id


def test_a_run_killed_before_its_first_experiment_finds_its_window_again(
    phoenix: PhoenixServer, client: PhoenixClient, http: PhoenixHttp
) -> None:
    dataset = new_holdout_name()
    earlier, later = build_run([1, 2, 3], dataset), build_run([2, 3, 5], dataset)
    # Of versions made within one second, Phoenix's answer to the same upload again names the wrong one.
    for run in (earlier, later):
        with closing(Dying(phoenix.url, 1)) as dying, pytest.raises(Killed):
            publish_experiments(DatasetClient(dying), run)
    for run in (later, earlier):
        published = publish_experiments(client.datasets, run)
        assert set(read_node_ids(http, published)) == {example.id for example in run.examples}


def test_experiments_that_another_wrote_under_this_runs_id_are_an_error(client: PhoenixClient) -> None:
    dataset, run_id = new_holdout_name(), new_project("run")
    publish_experiments(client.datasets, build_run([1, 2], dataset, run_id))
    with pytest.raises(PhoenixAnswer, match=f"other examples than those of run {run_id}"):
        publish_experiments(client.datasets, build_run([1, 3], dataset, run_id))


def test_of_several_experiments_for_one_side_the_oldest_is_used(client: PhoenixClient) -> None:
    run = build_run([1, 2], new_holdout_name())
    first = publish_experiments(client.datasets, run)
    version = client.datasets.read_version(first.dataset_id)
    for side in run.sides:
        again = {RUN_KEY: run.run_id, SIDE_KEY: side.name}
        client.datasets.create_experiment(version, name=side.title, description="", metadata=again)
    assert publish_experiments(client.datasets, run) == first


def test_an_answer_to_an_example_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="side base answers examples that are not there"):
        MeasuredRun(
            run_id="r",
            dataset="d",
            examples=(build_example(1),),
            sides=(build_side("base", [build_example(2)]),),
        )


def test_a_phoenix_that_is_down_is_unreachable() -> None:
    with PhoenixClient(f"http://127.0.0.1:{find_free_port()}", patience=0.1) as nobody:
        with pytest.raises(PhoenixUnreachable, match="does not answer"):
            publish_spans(nobody.spans, "p", build_fine_tuning("r"))
        with pytest.raises(PhoenixUnreachable, match="does not answer"):
            publish_experiments(nobody.datasets, build_run([1], "d"))


def test_phoenix_shows_the_sides_beside_each_other(phoenix: PhoenixServer, client: PhoenixClient) -> None:
    examples = tuple(build_example(number) for number in range(1, 9))
    sides = (
        build_side("active", examples, right=4),
        build_side("candidate", examples),
        build_side("base", examples, right=1),
    )
    run = MeasuredRun(run_id=new_project("run"), dataset=new_holdout_name(), examples=examples, sides=sides)
    published = publish_experiments(client.datasets, run)
    wide = {"width": 1680, "height": 1050}
    with chromium() as browser, open_page(browser, phoenix.url, viewport=wide) as page:
        page.goto(published.compare_path)
        for compared in run.sides:
            page.get_by_text(compared.title).first.wait_for()
        page.get_by_text("none of these").first.wait_for()
        page.wait_for_timeout(CHARTS_MS)
        take_picture(page, "phoenix-compare")


# ---- what Phoenix has


def read_spans(http: PhoenixHttp, project_id: str) -> list[dict[str, Any]]:
    spans: list[dict[str, Any]] = http.json("GET", f"/v1/projects/{project_id}/spans")["data"]
    return spans


def read_typed_attributes(span: Mapping[str, Any]) -> dict[str, tuple[type, Any]]:
    """All attributes of a span; Phoenix gives its kind apart from the others."""
    return add_types({**span["attributes"], "openinference.span.kind": span["span_kind"]})


def add_types(flat: Mapping[str, Any]) -> dict[str, tuple[type, Any]]:
    """With types: in Python 1, 1.0 and True are equal."""
    return {name: (type(value), value) for name, value in flat.items()}


def read_examples(http: PhoenixHttp, published: PublishedExperiments) -> list[dict[str, Any]]:
    path, which = f"/v1/datasets/{published.dataset_id}/examples", {"version_id": published.version_id}
    examples: list[dict[str, Any]] = http.json("GET", path, params=which)["data"]["examples"]
    return examples


def read_node_ids(http: PhoenixHttp, published: PublishedExperiments) -> dict[str, str]:
    """Phoenix's ids of the examples of the version, and of its experiments, by ours."""
    answered = {
        run["example_id"]
        for experiment_id in published.experiment_ids.values()
        for run in read_answers(http, experiment_id)
    }
    found = {example["id"]: example["node_id"] for example in read_examples(http, published)}
    assert set(found.values()) == answered
    return found


def read_experiments(http: PhoenixHttp, dataset_id: str) -> list[dict[str, Any]]:
    """Newest first."""
    found: list[dict[str, Any]] = http.json("GET", f"/v1/datasets/{dataset_id}/experiments")["data"]
    return found


def read_answers(http: PhoenixHttp, experiment_id: str) -> list[dict[str, Any]]:
    """The runs of an experiment with their evaluations, by example."""
    answers: list[dict[str, Any]] = http.json("GET", f"/v1/experiments/{experiment_id}/json")
    return answers


def read_marks(answer: Mapping[str, Any]) -> dict[str, tuple[str | None, float]]:
    return {mark["name"]: (mark["label"], mark["score"]) for mark in answer["annotations"]}


def read_outputs(http: PhoenixHttp, experiment_id: str) -> list[tuple[str, dict[str, Any]]]:
    return [(answer["output"], read_marks(answer)) for answer in read_answers(http, experiment_id)]


def read_everything(http: PhoenixHttp, dataset_id: str) -> Any:
    versions = http.json("GET", f"/v1/datasets/{dataset_id}/versions")["data"]
    experiments = read_experiments(http, dataset_id)
    return versions, experiments, [read_answers(http, experiment["id"]) for experiment in experiments]
