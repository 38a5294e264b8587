"""Verdicts on really trained adapters: equal, worse, better but harmful, and judged by too little."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from daemon.demo.corpus import build_system_prompt, list_labels, load_corpus
from daemon.demo.model import prepare_smollm2
from evaluation.jobs.evaluate import evaluate
from evaluation.jobs.job import AdapterSide, EvaluationJob
from evaluation.jobs.seeds import SeedsJob, measure
from evaluation.report import Report
from evaluation.rules import Gate
from extractors.examples.types import Examples, ReviewedItem, SFTExample
from tests.e2e.test_training import LABELS, DyingProgress, make_case, make_plan, train_here
from tests.support.snapshots import make_example, make_item, make_snapshot
from tests.support.tiny_model import CACHE
from trainers.jobs.job import TrainingJob
from trainers.planning.hyperparameters import Hyperparameters

HELD_OUT = range(200, 280)
LIVE, CANDIDATE = "acme.routing.v1", "acme.routing.v2"
pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated:FutureWarning")


def make_items(numbers: Sequence[int]) -> list[ReviewedItem]:
    return [make_item(number, make_case(number)) for number in numbers]


@pytest.fixture(scope="module")
def adapters(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """`good` and `twin` learned both labels, with different seeds; `weak` knows one alone."""
    folder = tmp_path_factory.mktemp("adapters")
    both = Examples(sft=tuple(make_example(number, make_case(number)) for number in range(56)))
    one = Examples(sft=tuple(make_example(number, (make_case(number)[0], LABELS[0])) for number in range(56)))
    lessons = {"good": (both, 0), "twin": (both, 1), "weak": (one, 0)}
    trained = {}
    for name, (examples, seed) in lessons.items():
        snapshot = make_snapshot(folder / "snapshots", examples)
        job = TrainingJob(plan=make_plan(tiny_model, snapshot, seed=seed), snapshot=str(snapshot))
        trained[name] = folder / name / train_here(job, folder / name).adapter
    return trained


def evaluate_candidate(
    tmp_path: Path,
    base: Path,
    *,
    live: Path,
    candidate: Path,
    items: Sequence[ReviewedItem],
    golden: Sequence[SFTExample] = (),
    gate: Gate | None = None,
    labels: Sequence[str] = LABELS,
) -> Report:
    tmp_path.mkdir(exist_ok=True)
    snapshot = make_snapshot(tmp_path / "snapshots", Examples(), holdout=items)
    job = EvaluationJob(
        snapshot=str(snapshot),
        base_model=str(base),
        task="classification",
        output_space=tuple(labels),
        active=AdapterSide(name=LIVE, path=str(live)),
        candidate=AdapterSide(name=CANDIDATE, path=str(candidate)),
        # Both are as fast, but which of two is timed on a busy machine may not decide here.
        gate=gate or Gate(latency_margin=20),
        golden=tuple(golden),
        max_new_tokens=12,
    )
    evaluate(job, tmp_path, DyingProgress(tmp_path))
    return Report.model_validate_json((tmp_path / "report.json").read_text())


def test_of_two_adapters_that_differ_by_their_seed_none_is_better(
    tmp_path: Path, tiny_model: Path, adapters: dict[str, Path]
) -> None:
    report = evaluate_candidate(
        tmp_path, tiny_model, live=adapters["good"], candidate=adapters["twin"], items=make_items(HELD_OUT)
    )
    assert report.verdict in {"INCONCLUSIVE", "REJECT"}, report.reason
    assert report.find_comparison(LIVE).p_value > 0.2
    assert report.condition not in {"regression", "forgetting"}


def test_a_worse_one_is_a_regression(tmp_path: Path, tiny_model: Path, adapters: dict[str, Path]) -> None:
    report = evaluate_candidate(
        tmp_path, tiny_model, live=adapters["good"], candidate=adapters["weak"], items=make_items(HELD_OUT)
    )
    assert (report.verdict, report.condition) == ("REJECT", "regression")
    assert report.reason.startswith("a regression: accuracy -0.")
    labels = report.candidate.labels
    assert labels is not None
    assert {cell.answered for cell in labels.confusion} == {LABELS[0]}
    assert report.candidate.measures["error_rate"] == pytest.approx(1 - report.candidate.accuracy)


def test_a_better_one_is_promoted_and_says_how_sure_it_is(
    tmp_path: Path, tiny_model: Path, adapters: dict[str, Path]
) -> None:
    golden = [make_example(7, make_case(7)), make_example(8, make_case(8))]
    report = evaluate_candidate(
        tmp_path,
        tiny_model,
        live=adapters["weak"],
        candidate=adapters["good"],
        items=make_items(HELD_OUT),
        golden=golden,
    )
    assert (report.verdict, report.condition) == ("PROMOTE", "better"), report.reason
    assert report.golden is not None
    assert report.golden.broken == ()
    assert [guard.state for guard in report.guards] == ["kept", "kept", "kept"]
    assert report.candidate.confidence is not None
    assert report.candidate.measures["confidence"] > 0.9
    assert report.candidate.measures["confidence_calibration"] < 0.1
    assert {each.against for each in report.overheads} == {"base", LIVE}


def test_one_that_is_better_but_breaks_a_golden_case_is_rejected(
    tmp_path: Path, tiny_model: Path, adapters: dict[str, Path]
) -> None:
    golden = [make_example(7, (make_case(7)[0], LABELS[0])), make_example(8, make_case(8))]
    report = evaluate_candidate(
        tmp_path,
        tiny_model,
        live=adapters["weak"],
        candidate=adapters["good"],
        items=make_items(HELD_OUT),
        golden=golden,
    )
    assert (report.verdict, report.condition) == ("REJECT", "broken guard")
    assert f"it breaks 1 golden case of 2 that {LIVE} passes (0 allowed)" in report.reason
    assert "'shipping', not 'billing'" in report.reason
    tolerant = Gate(golden_tolerance=1, latency_margin=20)
    again = evaluate_candidate(
        tmp_path / "again",
        tiny_model,
        live=adapters["weak"],
        candidate=adapters["good"],
        items=make_items(HELD_OUT),
        golden=golden,
        gate=tolerant,
    )
    assert again.verdict == "PROMOTE"


def test_twelve_held_out_items_are_too_few_to_tell_equals_apart(
    tmp_path: Path, tiny_model: Path, adapters: dict[str, Path]
) -> None:
    report = evaluate_candidate(
        tmp_path,
        tiny_model,
        live=adapters["weak"],
        candidate=adapters["weak"],
        items=make_items(range(200, 212)),
    )
    assert (report.verdict, report.condition) == ("INCONCLUSIVE", "too few items")
    assert report.reason.startswith("12 held-out items are too few to show an effect of 0.05: it needs about")


def test_twelve_held_out_items_can_be_promising(
    tmp_path: Path, tiny_model: Path, adapters: dict[str, Path]
) -> None:
    report = evaluate_candidate(
        tmp_path,
        tiny_model,
        live=adapters["weak"],
        candidate=adapters["good"],
        items=make_items(range(200, 212)),
    )
    assert (report.verdict, report.condition) == ("PROBATION", "promising"), report.reason
    assert report.find_comparison(LIVE).gained == 6


def test_of_runs_with_several_seeds_the_median_one_is_the_candidate(
    tmp_path: Path, tiny_model: Path, adapters: dict[str, Path]
) -> None:
    runs = [adapters[name] for name in ("weak", "good", "twin")]
    # The holdout would tell another story: it has no say here.
    validation = Examples(sft=tuple(item.to_example() for item in make_items(HELD_OUT)))
    held_out = make_items(range(400, 404))
    job = SeedsJob(
        snapshot=str(make_snapshot(tmp_path / "snapshots", Examples(), validation, held_out)),
        base_model=str(tiny_model),
        task="classification",
        output_space=LABELS,
        runs=tuple(map(str, runs)),
        metric="accuracy",
        max_new_tokens=8,
    )
    found = measure(job, tmp_path, DyingProgress(tmp_path))
    assert found.scores[0] == 0.5
    assert found.median == sorted(range(3), key=lambda run: (found.scores[run], run))[1]
    assert found.deviation > 0.1


@pytest.mark.slow
def test_of_real_adapters_of_one_plan_with_different_seeds_none_is_promoted_over_another(
    tmp_path: Path,
) -> None:
    base = prepare_smollm2(CACHE / "smollm2")
    corpus = [(request.text, request.label) for request in load_corpus()]
    labels = tuple(list_labels(load_corpus()))
    system = build_system_prompt(labels)
    lessons = [make_example(number, each, system=system) for number, each in enumerate(corpus[:200])]
    items = [make_item(300 + number, each, system=system) for number, each in enumerate(corpus[200:320])]
    snapshot = make_snapshot(tmp_path / "lessons", Examples(sft=tuple(lessons)))
    adapters = []
    for seed in range(3):
        usual = Hyperparameters(epochs=2, seed=seed).model_dump()
        job = TrainingJob(plan=make_plan(base, snapshot, **usual), snapshot=str(snapshot))
        adapters.append(tmp_path / f"seed-{seed}" / train_here(job, tmp_path / f"seed-{seed}").adapter)
    for live, candidate in ((0, 1), (1, 2), (2, 0)):
        report = evaluate_candidate(
            tmp_path / f"{live}-{candidate}",
            base,
            live=adapters[live],
            candidate=adapters[candidate],
            items=items,
            labels=labels,
        )
        assert report.verdict != "PROMOTE", report.reason
        assert report.find_comparison("base").gained > 20
