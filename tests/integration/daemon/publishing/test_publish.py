"""Runs published to Phoenix: each attribute's meaning; nothing is lost or doubled while Phoenix is down."""

import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from daemon.demo.phoenix import PhoenixServer
from daemon.demo.servers import find_free_port
from daemon.publishing.holdout_dataset import build_measured_run
from daemon.publishing.measured_run import MeasuredRun
from daemon.publishing.publish import NotPublished, publish_target
from daemon.publishing.run import FinishedRun, read_run
from daemon.publishing.span_attributes import flatten_attributes
from daemon.publishing.spans import build_evaluation_span, build_experiment_span
from daemon.run_once import run_once
from daemon.runtime.child_process import Interrupted
from daemon.service import Service
from daemon.serving.pruning import RUNS_KEPT, prune_target
from daemon.views.experiments import describe_phoenix_page
from evaluation.report import GeneralAbility, SeedRuns, SideAbility
from extractors.phoenix.client import PhoenixClient
from extractors.phoenix.http import PhoenixHttp, PhoenixUnreachable
from registry.cycles import MOST_PUBLISH_TRIES, Cycle, CycleState, StageResult
from registry.store.store import Store
from registry.versions import VersionState
from tests.support.phoenix import new_project, wait_until
from tests.support.runs import (
    DPO,
    FIGURES,
    LABELS,
    MINUTE,
    NOWHERE,
    ON_TOP,
    SFT,
    Runs,
    make_held_out,
    make_race,
    make_report,
    make_search,
    make_search_report,
)
from tests.support.snapshots import make_item
from trainers.job_folder import ProgressLine


def read_finished(runs: Runs, cycle: Cycle) -> FinishedRun:
    return read_run(runs.context, cycle.id)


# ---- the spans


def test_the_spans_say_what_was_trained_on_what_and_how_it_did(runs: Runs) -> None:
    began = runs.now
    cycle = runs.run(runs.snapshot(make_held_out(40)), right=30)
    run = read_finished(runs, cycle)
    experiment = build_experiment_span(run)
    folder = str(runs.context.data_dir / "adapters" / "acme.routing" / cycle.id)
    assert flatten_attributes(experiment) == {
        "openinference.span.kind": "EXPERIMENT",
        "operation.name": "fine_tuning",
        "experiment.run_id": cycle.id,
        "experiment.agent_type": "routing",
        "params.base_model": "tiny",
        "params.method": "sft",
        "params.backend": "trl",
        "params.backend_provider": "local",
        "params.epochs": 3.0,
        "params.batch_size": 8,
        "params.learning_rate": 2e-3,
        "params.use_lora": True,
        "params.lora_r": 16,
        "params.lora_alpha": 32,
        "data.total_spans": 112,
        "data.approved_count": 60,
        "data.rejected_count": 40,
        "data.preference_pairs": 10,
        "data.dataset_size": 35,
        "data.used_synthetic": True,
        "data.synthetic_approved_count": 6,
        "metrics.train_loss": 0.5,
        "metrics.train_samples": 30,
        "metrics.train_examples": 30,
        "metrics.epochs_completed": 3.0,
        "metrics.used_validation_split": True,
        # Of the step whose weights were kept, not of the last.
        "metrics.eval_loss": 0.8,
        "metrics.eval_samples": 4,
        "metrics.val_examples": 5,
        "output.adapter_path": folder,
    }
    assert (experiment.started_at, experiment.ended_at) == (began + MINUTE, began + 2 * MINUTE)
    evaluation = build_evaluation_span(run)
    assert evaluation is not None
    found = flatten_attributes(evaluation)
    assert (found["evaluation.test_size"], found["evaluation.adapter_path"]) == (36, folder)
    # 27 of the first 30 items have gold, as have 5 of the first 5.
    assert found["metrics.adapter.accuracy"] == 27 / 36
    assert found["metrics.base.accuracy"] == 5 / 36
    assert found["metrics.base.hallucination_rate"] == 35 / 40
    assert found["metrics.base.latency_ms"] == 20.0
    assert found["improvement.accuracy"] == pytest.approx(22 / 36)
    assert found["improvement.error_reduction"] == pytest.approx(22 / 31)
    assert found["improvement.latency_overhead"] == pytest.approx(0.2, abs=0.05)
    assert found["improvement.significant"] is True
    assert found["improvement.p_value"] == pytest.approx(0.5**22)
    both = {name for name in found if name.startswith("metrics.")}
    assert {name.rpartition(".")[2] for name in both} == {
        "accuracy",
        "top_k_accuracy",
        "confidence",
        "confidence_calibration",
        "error_rate",
        "hallucination_rate",
        "latency_ms",
    }
    assert evaluation.started_at == began + 10 * MINUTE


def test_what_is_said_of_the_accuracy_is_weighted_and_goes_with_its_own_test(runs: Runs) -> None:
    snapshot = runs.snapshot(make_held_out(40))
    cycle = runs.train(snapshot)
    report = make_report(snapshot, str(cycle.version_id), right=30)
    [compared] = report.comparisons
    weighted = compared.model_copy(update={"means": (0.5, 0.6), "effect": -0.1, "p_value": 0.9})
    primary = compared.model_copy(update={"metric": "token_f1", "p_value": 1e-9})
    runs.end(cycle, report.model_copy(update={"comparisons": (primary, weighted)}))
    evaluation = build_evaluation_span(read_finished(runs, cycle))
    assert evaluation is not None
    assert (evaluation.metrics.adapter.accuracy, evaluation.metrics.base.error_rate) == (0.5, 0.4)
    found = evaluation.improvement
    assert (found.accuracy, found.error_reduction) == (pytest.approx(-0.1), pytest.approx(-0.25))
    assert (found.p_value, found.significant) == (0.9, False)

    runs.now += MINUTE
    cycle = runs.train(runs.snapshot(make_held_out(40, first=200)))
    runs.end(cycle, report.model_copy(update={"comparisons": (primary,)}))
    untested = build_evaluation_span(read_finished(runs, cycle))
    assert untested is not None
    assert untested.improvement.accuracy == pytest.approx(22 / 36)
    assert (untested.improvement.p_value, untested.improvement.significant) == (None, None)


def test_of_several_stages_and_seeds_the_last_stage_of_the_median_run_is_told(runs: Runs) -> None:
    snapshot = runs.snapshot(make_held_out(40))
    worse = FIGURES["dpo"] | {"train_loss": 9.0}
    training = [
        StageResult(method=method, run=run, figures=figures)
        for run in range(3)
        for method, figures in (("sft", FIGURES["sft"]), ("dpo", FIGURES["dpo"] if run == 1 else worse))
    ]
    cycle = runs.train(snapshot, (SFT, DPO), training)
    seeds = SeedRuns(metric="accuracy", scores=(0.9, 0.8, 0.7))
    runs.end(cycle, make_report(snapshot, str(cycle.version_id), right=30, seeds=seeds))
    found = flatten_attributes(build_experiment_span(read_finished(runs, cycle)))
    assert (found["params.method"], found["params.learning_rate"], found["params.batch_size"]) == (
        "sft+dpo",
        2e-4,
        4,
    )
    assert (found["data.dataset_size"], found["metrics.train_loss"]) == (45, 0.4)
    assert (found["metrics.eval_reward_accuracy"], found["metrics.eval_reward_margin"]) == (0.75, 1.5)


def test_a_stage_that_was_left_out_is_not_said_to_have_been_trained(runs: Runs) -> None:
    training = [
        StageResult(method="sft", figures=FIGURES["sft"]),
        StageResult(method="dpo", left_out="dpo left out: too few pairs"),
    ]
    cycle = runs.train(runs.snapshot(make_held_out(40)), (SFT, DPO), training)
    runs.fail(cycle, "the evaluation's process was killed")
    span = build_experiment_span(read_finished(runs, cycle))
    assert span.params.method == "sft"
    assert span.metrics.train_loss == 0.5
    assert span.error == "the evaluation's process was killed"


def test_a_race_is_told_with_every_contender_its_scores_its_cost_and_why_it_left(runs: Runs) -> None:
    snapshot = runs.snapshot(make_held_out(40))
    began = runs.now
    cycle = runs.train(snapshot, (SFT, DPO), raced=True)
    runs.end(cycle, make_report(snapshot, str(cycle.version_id), right=30, race=make_race()))
    span = build_experiment_span(read_finished(runs, cycle))
    told = {
        name.removeprefix("race."): value
        for name, value in flatten_attributes(span).items()
        if name.startswith("race.")
    }
    assert {name: value for name, value in told.items() if not name.startswith("contenders.")} == {
        "winner": ON_TOP,
        "metric": "accuracy",
        "items": 48,
        "sessions": 44,
        "level": 0.2 / 3,
        "seconds": 140.0,
        "cost": 1.75,
        "cost_bound": 1.85,
    }
    contenders = [
        {
            name.rpartition(".")[2]: value
            for name, value in told.items()
            if name.startswith(f"contenders.{place}.")
        }
        for place in range(4)
    ]
    assert contenders[0] == {
        "name": "sft",
        "steps": 30,
        "seconds": 80.0,
        "score": 0.75,
        "left": f"beaten by {ON_TOP}",
    }
    assert contenders[2] == {
        "name": ON_TOP,
        "steps": 12,
        "seconds": 46.0,
        "score": 0.875,
        "effect": 0.125,
        "p_value": 0.03125,
    }
    assert contenders[3]["left"].startswith("did not enter")
    assert span.params.method == "sft+dpo"
    assert span.started_at == began + MINUTE
    assert span.ended_at > began + 2 * MINUTE


def test_the_candidate_s_general_ability_is_told_where_it_was_measured(runs: Runs) -> None:
    snapshot = runs.snapshot(make_held_out(40))
    cycle = runs.train(snapshot)
    sides = (
        SideAbility(name="acme.routing.v1", divergence=0.125, agreement=0.75, same=20),
        SideAbility(name=str(cycle.version_id), divergence=0.25, agreement=0.5, same=9),
    )
    general = GeneralAbility(items=64, tokens=6000, sides=sides, change=-0.25, interval=(-0.3, -0.2))
    report = make_report(snapshot, str(cycle.version_id), right=30)
    runs.end(cycle, report.model_copy(update={"general": general}))
    span = build_experiment_span(read_finished(runs, cycle))
    told = {
        name.removeprefix("general_ability."): value
        for name, value in flatten_attributes(span).items()
        if name.startswith("general_ability.")
    }
    assert told == {"items": 64, "tokens": 6000, "divergence": 0.25, "agreement": 0.5, "change": -0.25}


def test_a_second_look_is_judged_but_counts_no_training_twice(runs: Runs) -> None:
    first = runs.run(runs.snapshot(make_held_out(40)), right=9)
    version = runs.store.version(str(first.version_id))
    snapshot = runs.snapshot(make_held_out(60, first=200))
    look = runs.look_again(version, snapshot)
    runs.end(look, make_report(snapshot, version.id, right=40, look="second"))
    run = read_finished(runs, look)
    span = build_experiment_span(run)
    assert (span.experiment.run_id, span.params.method) == (look.id, "sft")
    assert span.output == build_experiment_span(read_finished(runs, first)).output
    assert not [name for name in flatten_attributes(span) if name.startswith(("data.", "metrics."))]
    evaluation = build_evaluation_span(run)
    assert evaluation is not None
    assert evaluation.evaluation.test_size == 54


# ---- the dataset and its experiments


def measure(runs: Runs, cycle: Cycle) -> MeasuredRun:
    found = build_measured_run(read_finished(runs, cycle))
    assert found is not None
    return found


def test_the_holdout_and_each_side_s_answers_are_told_item_by_item(runs: Runs) -> None:
    items = make_held_out(20)
    snapshot = runs.snapshot(items)
    cycle = runs.train(snapshot)
    runs.end(
        cycle,
        make_report(snapshot, str(cycle.version_id), right=20, live="acme.routing.v0", live_right=10),
    )
    measured = measure(runs, cycle)
    assert (measured.run_id, measured.dataset) == (cycle.id, "learnd acme/routing holdout")
    first, rejected = measured.examples[0], measured.examples[9]
    assert first.model_dump() == {
        "id": items[0].id,
        "input": {"question": "where is parcel 100?"},
        "output": {"answer": "shipping"},
        "metadata": {"system": "Route.", "outcome": "corrected", "answered": "dunno"},
        "span_id": f"{100:016x}",
    }
    assert rejected.output == {}
    # Phoenix's page compares the others with the first.
    assert [side.title for side in measured.sides] == [
        "acme.routing.v0 (live)",
        f"{cycle.version_id} (candidate)",
        "base",
    ]
    candidate = measured.sides[1]
    assert candidate.description == runs.store.cycle(cycle.id).reason
    assert candidate.metadata["verdict"] == "PROMOTE"
    assert [run.output for run in candidate.runs[:2]] == ["shipping", "returns"]
    assert (candidate.runs[0].correct, candidate.runs[9].correct) == (True, None)
    assert candidate.runs[0].ended_at - candidate.runs[0].started_at == 22 * MINUTE / 60_000


def test_a_conversation_is_told_as_messages(runs: Runs) -> None:
    from extractors.examples.types import Message

    (item,) = make_held_out(1)
    said = (Message(role="assistant", content="which parcel?"), Message(role="user", content="number 5"))
    snapshot = runs.snapshot([item.model_copy(update={"prompt": (*item.prompt, *said)})])
    cycle = runs.run(snapshot, right=1, base_right=0)
    (example,) = measure(runs, cycle).examples
    assert example.input == {
        "messages": [
            {"role": "user", "content": "where is parcel 100?"},
            {"role": "assistant", "content": "which parcel?"},
            {"role": "user", "content": "number 5"},
        ]
    }


@pytest.mark.parametrize("beside", [True, False], ids=["beside the text", "in the text"])
def test_the_right_answer_is_told_without_the_thoughts_before_it(runs: Runs, beside: bool) -> None:
    from extractors.examples.types import Message

    (item,) = make_held_out(1)
    gold = (
        Message(role="assistant", content="shipping", reasoning="A parcel.")
        if beside
        else Message(role="assistant", content="<think>\nA parcel.\n</think>\n\nshipping")
    )
    snapshot = runs.snapshot([item.model_copy(update={"gold": gold, "response": gold})])
    (example,) = measure(runs, runs.run(snapshot, right=1, base_right=0)).examples
    assert example.output == {"answer": "shipping"}
    assert example.metadata["answered"] == "shipping"


def test_searches_are_told_by_what_should_be_found_and_at_which_rank_it_was(tmp_path: Path) -> None:
    runs = Runs(tmp_path, NOWHERE, "search", task="embedding", output_space=())
    snapshot = runs.searches([make_search(number) for number in range(3)])
    cycle = runs.train(snapshot)
    ranks: dict[str, Sequence[int]] = {"base": (2, 0, 0), str(cycle.version_id): (1, 1, 4)}
    runs.end(cycle, make_search_report(snapshot, str(cycle.version_id), ranks))
    measured = measure(runs, cycle)
    assert measured.examples[0].input == {"query": "query 0"}
    assert measured.examples[0].output == {"relevant": ["document 0-1"]}
    base, candidate = measured.sides
    assert [run.output for run in base.runs] == [
        "first relevant document at rank 2",
        "no relevant document among the first 10",
        "no relevant document among the first 10",
    ]
    assert candidate.runs[2].measures["mrr@10"] == 0.25
    evaluation = build_evaluation_span(read_finished(runs, cycle))
    assert evaluation is not None
    assert evaluation.metrics.adapter.accuracy == pytest.approx(2 / 3)
    assert evaluation.metrics.adapter.hallucination_rate is None
    runs.store.close()


# ---- at least once, and there once


@pytest.fixture
def reachable(tmp_path: Path, phoenix: PhoenixServer) -> Iterator[Runs]:
    """A new target whose Phoenix answers."""
    runs = Runs(tmp_path, phoenix.url, new_project("agent"))
    yield runs
    runs.store.close()


@pytest.fixture
def client(phoenix: PhoenixServer) -> Iterator[PhoenixClient]:
    with PhoenixClient(phoenix.url) as client:
        yield client


@pytest.fixture
def http(phoenix: PhoenixServer) -> Iterator[PhoenixHttp]:
    with closing(PhoenixHttp(phoenix.url, None, timeout=60, patience=20)) as http:
        yield http


def read_spans(runs: Runs, client: PhoenixClient, http: PhoenixHttp) -> dict[str, dict[str, Any]]:
    """The spans of the target's experiments' project by run id and name."""
    project = client.project(runs.settings.phoenix.experiments_project)
    found = http.json("GET", f"/v1/projects/{project.id}/spans", params={"limit": 100})["data"]
    of_trace = {
        span["context"]["trace_id"]: span["attributes"]["experiment.run_id"]
        for span in found
        if span["name"] == "fine_tuning"
    }
    named = {f"{of_trace[span['context']['trace_id']]} {span['name']}": span for span in found}
    assert len(named) == len(found)
    return named


def read_sides(runs: Runs, http: PhoenixHttp) -> list[tuple[str, str, int]]:
    """Run, side and number of answers of every experiment on the target's dataset, oldest first."""
    name = f"learnd {runs.context.target.key} holdout"
    datasets = http.json("GET", "/v1/datasets", params={"name": name})["data"]
    if not datasets:
        return []
    (dataset,) = datasets
    found = http.json("GET", f"/v1/datasets/{dataset['id']}/experiments")["data"]
    return [
        (
            each["metadata"]["learnd.run_id"],
            each["name"],
            len(http.json("GET", f"/v1/experiments/{each['id']}/runs")["data"]),
        )
        for each in reversed(found)
    ]


def test_a_run_that_ended_while_phoenix_was_down_arrives_later_and_once(
    reachable: Runs, client: PhoenixClient, http: PhoenixHttp
) -> None:
    cycle = reachable.run(reachable.snapshot(make_held_out(12)), right=10)
    with PhoenixClient(f"http://127.0.0.1:{find_free_port()}", patience=0.2) as nobody:
        for _ in range(2):
            with pytest.raises(PhoenixUnreachable):
                publish_target(reachable.context, nobody)
    assert reachable.store.cycle(cycle.id).published_at is None
    assert [publish_target(reachable.context, client) for _ in range(2)] == [1, 0]
    known = reachable.store.cycle(cycle.id)
    assert known.published_at == reachable.now
    assert known.compare_path is not None
    assert known.compare_path.startswith("/datasets/")
    there = [(cycle.id, "base (live)", 12), (cycle.id, f"{cycle.version_id} (candidate)", 12)]
    assert read_sides(reachable, http) == there
    assert set(read_spans(reachable, client, http)) == {
        f"{cycle.id} fine_tuning",
        f"{cycle.id} adapter_evaluation",
    }


def test_a_kill_before_it_was_noted_doubles_nothing(
    reachable: Runs, client: PhoenixClient, http: PhoenixHttp
) -> None:
    cycle = reachable.run(reachable.snapshot(make_held_out(12)), right=10)
    publish_target(reachable.context, client)
    before, path = read_sides(reachable, http), reachable.store.cycle(cycle.id).compare_path
    # What a kill between the last answer and the note leaves.
    with sqlite3.connect(next(reachable.context.data_dir.rglob("*.db"))) as database:
        database.execute("UPDATE cycles SET published_at = NULL, compare_path = NULL")
    assert reachable.store.cycle(cycle.id).published_at is None
    assert publish_target(reachable.context, client) == 1
    assert (read_sides(reachable, http), reachable.store.cycle(cycle.id).compare_path) == (before, path)
    assert len(read_spans(reachable, client, http)) == 2


def test_what_cannot_be_compared_has_its_spans_all_the_same(
    reachable: Runs, client: PhoenixClient, http: PhoenixHttp
) -> None:
    gone = reachable.run(reachable.snapshot(make_held_out(12)), right=10)
    shutil.rmtree(reachable.context.snapshots / str(gone.snapshot_id))
    reachable.now += MINUTE
    failed = reachable.train(reachable.snapshot(make_held_out(12, first=300)))
    reachable.fail(failed, "out of memory at rank 1")
    assert publish_target(reachable.context, client) == 2
    found = read_spans(reachable, client, http)
    assert set(found) == {
        f"{gone.id} fine_tuning",
        f"{gone.id} adapter_evaluation",
        f"{failed.id} fine_tuning",
    }
    assert found[f"{failed.id} fine_tuning"]["status_message"] == "out of memory at rank 1"
    assert read_sides(reachable, http) == []
    published = [reachable.store.cycle(each.id) for each in (gone, failed)]
    assert [(each.published_at is not None, each.compare_path) for each in published] == [(True, None)] * 2


def test_a_run_that_phoenix_does_not_take_keeps_no_later_one_waiting(
    reachable: Runs, client: PhoenixClient
) -> None:
    refused = reachable.run(reachable.snapshot(make_held_out(12)), right=10)
    publish_target(reachable.context, client)
    reachable.now += MINUTE
    with sqlite3.connect(next(reachable.context.data_dir.rglob("*.db"))) as database:
        # Another holdout than the one that Phoenix has under this run's id.
        other = reachable.snapshot(make_held_out(5)).id
        database.execute(
            "UPDATE cycles SET published_at = NULL, compare_path = NULL, snapshot_id = ?", (other,)
        )
    later = reachable.run(reachable.snapshot(make_held_out(6, first=400)), right=6)
    with pytest.raises(NotPublished, match=f"other examples than those of run {refused.id}"):
        publish_target(reachable.context, client)
    unpublished = [
        cycle.id for cycle in reachable.store.find_unpublished_cycles(reachable.context.target.key)
    ]
    assert unpublished == [refused.id]
    assert reachable.store.cycle(later.id).compare_path is not None
    known = reachable.store.cycle(refused.id)
    assert known.publish_tries == 1
    assert describe_phoenix_page(known, reachable.settings.phoenix).startswith(
        "not yet: publishing it failed 1 times, the last"
    )


def test_a_run_that_nobody_can_read_is_given_up_in_words_and_keeps_no_other_waiting(
    reachable: Runs, client: PhoenixClient
) -> None:
    broken = reachable.run(reachable.snapshot(make_held_out(12)), right=10)
    with sqlite3.connect(next(reachable.context.data_dir.rglob("*.db"))) as database:
        database.execute("UPDATE cycles SET plan = NULL")
    reachable.now += MINUTE
    later = reachable.run(reachable.snapshot(make_held_out(6, first=400)), right=6)
    with pytest.raises(NotPublished, match="lacks its plan"):
        publish_target(reachable.context, client)
    assert reachable.store.cycle(later.id).published_at is not None
    for _ in range(MOST_PUBLISH_TRIES - 2):
        reachable.store.record_publish_failure(broken.id, "as before")
    with pytest.raises(NotPublished, match="lacks its plan"):
        publish_target(reachable.context, client)
    assert publish_target(reachable.context, client) == 0
    given_up = reachable.store.cycle(broken.id)
    assert given_up.published_at is None
    words = describe_phoenix_page(given_up, reachable.settings.phoenix)
    assert words.startswith(
        "no, and there is no further try: publishing it failed 20 times, the last time with: LookupE"
    )


def test_what_phoenix_is_still_to_get_outlives_the_retention_policy(reachable: Runs) -> None:
    untold = reachable.run(reachable.snapshot(make_held_out(12)), right=2)
    for number in range(RUNS_KEPT + 5):
        reachable.now += MINUTE
        cycle = reachable.run(reachable.snapshot(make_held_out(2, first=1000 + 10 * number)), right=1)
        reachable.store.mark_published(cycle.id, reachable.now, None)
    version = reachable.store.version(str(untold.version_id))
    reachable.store.judge(
        version.id, VersionState.REJECTED, now=reachable.now, actor="learnd", reason="no better"
    )
    reachable.store.mark_files_removed(version.id, reachable.now)
    prune_target(reachable.context)
    assert reachable.context.snapshot(str(untold.snapshot_id)).holdout
    assert reachable.context.run_folder(untold).exists()
    reachable.store.mark_published(untold.id, reachable.now, None)
    prune_target(reachable.context)
    assert not (reachable.context.snapshots / str(untold.snapshot_id)).exists()
    assert not reachable.context.run_folder(untold).exists()


def test_publishing_stops_when_the_daemon_does_and_goes_on_later(
    reachable: Runs, client: PhoenixClient, http: PhoenixHttp
) -> None:
    cycle = reachable.run(reachable.snapshot(make_held_out(12)), right=10)
    reachable.context.stop.set()
    with pytest.raises(Interrupted):
        publish_target(reachable.context, client)
    assert [answers for _, _, answers in read_sides(reachable, http)] == [0, 0]
    reachable.context.stop.clear()
    assert publish_target(reachable.context, client) == 1
    assert read_sides(reachable, http) == [
        (cycle.id, "base (live)", 12),
        (cycle.id, f"{cycle.version_id} (candidate)", 12),
    ]


def test_the_daemon_publishes_by_itself(reachable: Runs) -> None:
    cycle = reachable.run(reachable.snapshot(make_held_out(5)), right=5, base_right=0)
    service = Service(reachable.settings, reachable.store)
    service.start()
    try:
        wait_until(
            lambda: reachable.store.cycle(cycle.id).published_at is not None, 60, "the run to be in Phoenix"
        )
    finally:
        service.close()


def test_a_cycle_in_the_foreground_ends_well_though_phoenix_is_down(tmp_path: Path) -> None:
    runs = Runs(tmp_path, NOWHERE, promotion="manual")
    snapshot = runs.snapshot(make_held_out(12))
    cycle = runs.train(snapshot)
    report = make_report(snapshot, str(cycle.version_id), right=12, base_right=0)
    assert report.verdict == "PROMOTE"
    judged: dict[str, Any] = {"report": report, "verdict": report.verdict, "reason": report.reason}
    runs.store.advance_cycle(cycle.id, CycleState.EVALUATING, CycleState.PROMOTING, runs.now, **judged)
    runs.store.close()
    said: list[ProgressLine] = []
    done = run_once(runs.settings, "acme/routing", on_progress=said.append)
    assert (done.state, done.published_at) == (CycleState.DONE, None)
    assert "does not answer" in said[-1].message
    assert "the next call, or a daemon, goes on with it" in said[-1].message
    with Store.open(tmp_path, runs.now) as store:
        assert [each.id for each in store.find_unpublished_cycles("acme/routing")] == [cycle.id]


def test_answers_outside_the_output_space_are_invalid_runs(runs: Runs) -> None:
    item = make_item(1, ("where is parcel 1?", LABELS[1]))
    cycle = runs.run(runs.snapshot([item]), right=0, base_right=1)
    base, candidate = measure(runs, cycle).sides
    assert [(run.output, run.correct, run.valid) for run in (*base.runs, *candidate.runs)] == [
        ("shipping", True, True),
        ("no idea", False, False),
    ]
