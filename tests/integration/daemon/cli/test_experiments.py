"""`learnd experiments`, as an engineer looks runs up."""

import json
import shutil
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from daemon.cli import main, output
from registry.cycles import CycleState, StageResult
from registry.versions import VersionState
from tests.support.runs import (
    DPO,
    FIGURES,
    FROM_LIVE,
    FROM_PAIRS,
    LABELS,
    NOWHERE,
    ON_TOP,
    SFT,
    Runs,
    make_case,
    make_held_out,
    make_race,
    make_report,
)
from tests.support.snapshots import make_example

PHOENIX = "https://phoenix.example.com"


class Learnd:
    """The command in the folder of a target that has had runs; it runs in this process."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.runs = Runs(folder / "data", NOWHERE)
        self.patch, self.capsys = patch, capsys
        target = self.runs.settings.targets[0].model_dump(
            mode="json", include={"tenant", "agent", "project", "task", "output_space", "base_model"}
        )
        known = {"data_dir": "data", "phoenix": {"browser_url": PHOENIX}, "targets": [target]}
        (folder / "learnd.toml").write_text(tomli_w.dumps(known), "utf-8")
        patch.chdir(folder)
        patch.setattr(output.console, "width", 250)

    def __call__(self, *words: str, fails: bool = False) -> str:
        """What it prints; on stderr where it fails."""
        self.capsys.readouterr()
        with self.patch.context() as patch:
            patch.setattr(sys, "argv", ["learnd", *words])
            with pytest.raises(SystemExit) as ended:
                main()
        printed = self.capsys.readouterr()
        assert bool(ended.value.code) == fails, printed
        return printed.err if fails else printed.out

    def json(self, *words: str) -> Any:
        return json.loads(self("experiments", *words, "--json"))


@pytest.fixture
def learnd(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Learnd]:
    made = Learnd(tmp_path, monkeypatch, capsys)
    yield made
    made.runs.store.close()


def three(runs: Runs) -> tuple[str, str, str]:
    """A run on probation, its second look, and a promoted run by DPO; a day apart. Then a skipped cycle."""
    first = runs.run(runs.snapshot(make_held_out(40)), right=9)
    runs.now += timedelta(days=1)
    newer = runs.snapshot(make_held_out(60, first=200))
    look = runs.look_again(runs.store.version(str(first.version_id)), newer)
    runs.end(look, make_report(newer, str(first.version_id), right=40, look="second"))
    runs.now += timedelta(days=1)
    snapshot = runs.snapshot(make_held_out(60, first=200))
    last = runs.train(snapshot, (SFT, DPO))
    runs.end(last, make_report(snapshot, str(last.version_id), right=60))
    runs.now += timedelta(days=1)
    skipped = runs.store.start_cycle(runs.context.target.key, "schedule", runs.now)
    runs.store.advance_cycle(
        skipped.id, CycleState.EXTRACTING, CycleState.SKIPPED, runs.now, reason="too few"
    )
    return first.id, look.id, last.id


def test_the_list_has_what_trained_or_judged_newest_first(learnd: Learnd) -> None:
    assert "No run fits" in learnd("experiments", "list")
    first, look, last = three(learnd.runs)
    assert [each["id"] for each in learnd.json("list")] == [last, look, first]
    row = learnd.json("list")[0]
    assert (row["method"], row["verdict"], row["n"], row["candidate"]) == ("sft+dpo", "PROMOTE", 54, 1.0)
    assert (row["base"], row["live"], row["live_version"]) == (5 / 54, 5 / 54, "base")
    printed = learnd("experiments", "list")
    lines = printed.splitlines()
    columns = "run target method winner verdict metric base live candidate effect p n began"
    assert " ".join(lines[0].split()) == columns
    assert first in lines[3]
    assert "sft, second look" in lines[2]
    assert "+0.907" in lines[1]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["--method", "dpo"], [2]),
        # A second look is found by what its version was trained with.
        (["--method", "sft"], [2, 1, 0]),
        (["--verdict", "PROBATION"], [0]),
        (["--since", "2026-03-03"], [2, 1]),
        (["--until", "2026-03-03T00:00:00"], [0]),
        (["--since", "2026-03-03", "--until", "2026-03-04"], [1]),
        (["--limit", "2"], [2, 1]),
        (["--target", "acme/routing", "--limit", "1"], [2]),
    ],
)
def test_a_filter_leaves_what_fits(learnd: Learnd, words: list[str], found: list[int]) -> None:
    runs = three(learnd.runs)
    assert [each["id"] for each in learnd.json("list", *words)] == [runs[number] for number in found]


def test_a_run_is_shown_in_full(learnd: Learnd) -> None:
    runs = learnd.runs
    snapshot = runs.snapshot(make_held_out(40))
    cycle = runs.train(snapshot)
    golden = [make_example(n, make_case(n), system="Route it.") for n in range(3)]
    report = make_report(snapshot, str(cycle.version_id), right=30, golden=golden, everything=True)
    runs.end(cycle, report)
    shown = learnd("experiments", "show", cycle.id)
    for words in (
        report.reason[:60],
        "30 answers to imitate",
        "The candidate against the others",
        "What must not get worse",
        "Golden cases",
        "<b>a|b</b>",
        "older traffic",
        "where is parcel 1",
        "There is no other traffic to compare with",
        "Label by label",
        *LABELS,
        "calibration error",
        "in Phoenix",
        "not yet: a running daemon publishes it within seconds",
    ):
        assert words in shown, words
    # One printer for both.
    assert learnd("cycles", "show", cycle.id) == shown
    details = learnd.json("show", cycle.id)
    assert details["experiment"]["id"] == details["run"]["id"] == cycle.id
    assert details["run"]["report"]["golden"]["cases"] == 3
    assert [side["answers"] for side in details["run"]["report"]["sides"]] == [[], []]


def test_a_race_is_shown_and_compared(learnd: Learnd) -> None:
    runs = learnd.runs
    before = runs.run(runs.snapshot(make_held_out(40)), right=9)
    runs.now += timedelta(days=1)
    snapshot = runs.snapshot(make_held_out(60, first=200))
    raced = runs.train(snapshot, (SFT, DPO), raced=True)
    runs.end(raced, make_report(snapshot, str(raced.version_id), right=60, race=make_race()))
    shown = " ".join(learnd("experiments", "show", raced.id).split())
    assert f"Race between ways to train {ON_TOP} won. 3 challenged sft" in shown
    assert "sft 30 80 s – 0.750 – – beaten by sft+dpo (sigmoid+sft)" in shown
    assert [each["winner"] for each in learnd.json("list")] == [ON_TOP, ""]
    assert learnd.json("show", raced.id)["experiment"]["winner"] == ON_TOP
    race = learnd.json("show", raced.id)["run"]["report"]["race"]
    assert [each["name"] for each in race["contenders"]] == ["sft", FROM_LIVE, ON_TOP, FROM_PAIRS]
    facts = {fact["name"]: fact["values"] for fact in learnd.json("compare", before.id, raced.id)["facts"]}
    assert facts["way to train"] == {before.id: "sft", raced.id: ON_TOP}
    assert facts["race won by"] == {raced.id: ON_TOP}
    assert facts["race cost over the default"] == {raced.id: 1.75}


def test_a_list_in_a_narrow_terminal_breaks_no_word_and_says_what_it_leaves_out(learnd: Learnd) -> None:
    runs = learnd.runs
    snapshot = runs.snapshot(make_held_out(60))
    raced = runs.train(snapshot, (SFT, DPO), raced=True)
    runs.end(raced, make_report(snapshot, str(raced.version_id), right=60, race=make_race()))
    learnd.patch.setattr(output.console, "width", 100)
    head, row, note = learnd("experiments", "list").splitlines()
    assert head.split() == ["run", "target", "method", "winner", "verdict", "effect", "p"]
    assert row.split()[:6] == [raced.id, "acme/routing", "sft+dpo", *ON_TOP.split(), "PROMOTE"]
    assert note.startswith("No room for metric, base, live, candidate, n, began")


def test_a_run_whose_evaluation_failed_names_the_winner_of_its_race(learnd: Learnd) -> None:
    runs = learnd.runs
    raced = runs.train(runs.snapshot(make_held_out(12)), (SFT, DPO), raced=True)
    runs.fail(raced, "the evaluation's process was killed")
    assert learnd.json("list")[0]["winner"] == ON_TOP
    assert f"winner {ON_TOP}" in " ".join(learnd("experiments", "show", raced.id).split())


def test_what_others_said_does_nothing_in_a_terminal(learnd: Learnd) -> None:
    runs = learnd.runs
    cycle = runs.train(runs.snapshot(make_held_out(12)))
    runs.fail(cycle, "Phoenix failed (500 \x1b]0;mine\x07 [red]no\u202e)")
    for words in (("cycles", "list"), ("experiments", "show", cycle.id)):
        printed = learnd(*words)
        assert "Phoenix failed (500 �]0;mine� [red]no�)" in " ".join(printed.split())
    runs.store.mark_published(cycle.id, runs.now, None)
    assert "\x1b" not in learnd("experiments", "show", "no\x1b[2Jsuch", fails=True)


def test_a_list_reads_no_report_and_shows_means_that_differ_by_the_effect(learnd: Learnd) -> None:
    runs = learnd.runs
    snapshot = runs.snapshot(make_held_out(40))
    cycle = runs.train(snapshot)
    report = make_report(snapshot, str(cycle.version_id), right=30)
    [compared] = report.comparisons
    weighted = compared.model_copy(update={"means": (0.7, 0.6), "effect": 0.1})
    runs.end(cycle, report.model_copy(update={"comparisons": (weighted,)}))
    [listed] = runs.store.cycles()
    assert listed.report is None
    assert listed.outcome == runs.store.cycle(cycle.id).outcome
    [shown] = learnd.json("list")
    assert (shown["base"], shown["live"], shown["candidate"], shown["effect"]) == (0.6, 0.6, 0.7, 0.1)
    assert [each["id"] for each in learnd.json("list", "--method", "sft")] == [cycle.id]
    assert learnd.json("list", "--method", "dpo") == []


def test_a_skipped_second_look_is_not_on_its_way_to_phoenix(learnd: Learnd) -> None:
    runs = learnd.runs
    first = runs.run(runs.snapshot(make_held_out(40)), right=9)
    look = runs.store.start_cycle("acme/routing", "second look", runs.now, version_id=str(first.version_id))
    runs.store.advance_cycle(look.id, CycleState.EXTRACTING, CycleState.SKIPPED, runs.now, reason="too few")
    assert learnd.json("open", look.id)["in_phoenix"] == "no: it neither trained nor judged anything"


def test_a_run_is_named_by_its_id_a_beginning_of_it_or_its_version(learnd: Learnd) -> None:
    first, look, _ = three(learnd.runs)
    for name, found in ((first, first), (look[:12], look), ("acme.routing.v1", first)):
        assert learnd.json("show", name)["run"]["id"] == found
        assert json.loads(learnd("cycles", "show", name, "--json"))["id"] == found
    assert "several runs begin with '2026'" in learnd("experiments", "show", "2026", fails=True)
    unknown = learnd("experiments", "show", "acme.routing.v9", fails=True)
    assert "no run is called 'acme.routing.v9'" in unknown
    assert "`learnd cycles list` names them" in unknown


def test_runs_are_compared_and_the_best_is_marked(learnd: Learnd) -> None:
    first, look, last = three(learnd.runs)
    compared = learnd.json("compare", first, last)
    facts = {fact["name"]: fact for fact in compared["facts"]}
    assert facts["accuracy"]["best"] == [last]
    assert facts["latency_ms"]["best"] == []
    assert facts["error_rate"]["best"] == [last]
    assert facts["method"]["values"] == {first: "sft", last: "sft+dpo"}
    assert facts["dpo learning_rate"]["values"] == {last: 2e-4}
    assert facts["p (better)"]["best"] == []
    assert any("different held-out traffic" in note for note in compared["notes"])
    # The same items: nothing to warn of.
    assert learnd.json("compare", look, last)["notes"] == []
    printed = learnd("experiments", "compare", first, last)
    assert "dpo learning rate" in printed
    assert "sft learning rate" not in printed
    assert [line.split()[-2:] for line in printed.splitlines() if line.startswith("accuracy ")] == [
        ["1", "*"]
    ]
    assert "name at least two runs" in learnd("experiments", "compare", first, fails=True)
    assert f"all of these are {first}" in learnd("experiments", "compare", first, first, fails=True)


def test_the_status_says_what_a_version_on_probation_waits_for(learnd: Learnd) -> None:
    runs = learnd.runs
    cycle = runs.run(runs.snapshot(make_held_out(40)), right=9)
    runs.store.judge(str(cycle.version_id), VersionState.PROBATION, now=runs.now, actor="learnd", reason="")
    [waiting] = [line for line in learnd("status").splitlines() if "on probation" in line]
    until = f"{runs.now + timedelta(days=30):%Y-%m-%d}"
    assert waiting.startswith(f"{cycle.version_id} is on probation. It waits for 72 reviewed calls newer")
    assert waiting.endswith(f"to be judged again, until {until}.")


def test_the_status_says_which_version_waits_for_an_operator_and_why_a_target_is_on_hold(
    learnd: Learnd,
) -> None:
    runs = learnd.runs
    cycle = runs.run(runs.snapshot(make_held_out(40)), right=9)
    runs.store.judge(str(cycle.version_id), VersionState.READY, now=runs.now, actor="learnd", reason="")
    runs.store.hold("acme/routing", "ann", "the queue is being renamed", runs.now)
    words = " ".join(learnd("status").split())
    assert f"{cycle.version_id} is READY. It waits for an operator: learnd adapters promote" in words
    assert "acme/routing is on hold: the queue is being renamed." in words


def test_a_stage_that_was_left_out_is_no_method_of_its_run(learnd: Learnd) -> None:
    runs = learnd.runs
    training = [
        StageResult(method="sft", figures=FIGURES["sft"]),
        StageResult(method="dpo", left_out="too few pairs"),
    ]
    cycle = runs.train(runs.snapshot(make_held_out(40)), (SFT, DPO), training)
    runs.fail(cycle, "killed")
    assert [each["method"] for each in learnd.json("list", "--method", "sft")] == ["sft"]
    assert learnd.json("list", "--method", "dpo") == []


def test_the_link_to_phoenix_or_why_there_is_none(learnd: Learnd) -> None:
    runs = learnd.runs
    cycle = runs.run(runs.snapshot(make_held_out(12)), right=10)
    assert "not yet" in learnd("experiments", "open", cycle.id, fails=True)
    runs.store.mark_published(cycle.id, runs.now, "/datasets/D/compare?experimentId=A&experimentId=B")
    link = f"{PHOENIX}/datasets/D/compare?experimentId=A&experimentId=B"
    assert learnd("experiments", "open", cycle.id) == f"{link}\n"
    assert learnd.json("open", cycle.id)["url"] == link
    assert link in learnd("experiments", "show", cycle.id)
    runs.now += timedelta(days=1)
    gone = runs.run(runs.snapshot(make_held_out(12)), right=10)
    shutil.rmtree(runs.context.snapshots / str(gone.snapshot_id))
    runs.store.mark_published(gone.id, runs.now, None)
    assert "its held-out items were removed" in learnd("experiments", "open", gone.id, fails=True)
    runs.now += timedelta(days=1)
    failed = runs.train(runs.snapshot(make_held_out(12, first=300)))
    assert "it is EVALUATING" in learnd("experiments", "open", failed.id, fails=True)
    runs.fail(failed, "out of memory")
    runs.store.mark_published(failed.id, runs.now, None)
    assert "failed before it was judged" in learnd("experiments", "open", failed.id, fails=True)
