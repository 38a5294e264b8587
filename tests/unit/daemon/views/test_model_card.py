"""The model card: what programs read in its head, what people read below, and what it must not break."""

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from daemon.serving.promotion import verify_files
from daemon.views.model_card import CARD, write_card
from evaluation.report import ReplicaVerdict, Report, SeedRuns
from registry.cycles import Cycle
from tests.support.runs import (
    DPO,
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
    make_search,
    make_search_report,
)
from tests.support.snapshots import make_example


def write_and_load(runs: Runs, cycle: Cycle, report: Report) -> tuple[Path, ModelCard]:
    version = runs.store.version(str(cycle.version_id))
    write_card(runs.context, version, report)
    path = runs.context.data_dir / version.path / CARD
    return path, ModelCard.load(path)


def find_table(text: str, heading: str) -> list[list[str]]:
    """Return the rows of the table below a heading, column names first."""
    below = text.split(f"# {heading}\n", 1)[1].split("\n#")[0]
    rows = [line.strip("| ").split(" | ") for line in below.splitlines() if line.startswith("|")]
    return [rows[0], *rows[2:]]


def test_the_head_is_what_the_hub_reads(runs: Runs) -> None:
    snapshot = runs.snapshot(make_held_out(40))
    cycle = runs.train(snapshot, (SFT, DPO))
    report = make_report(snapshot, str(cycle.version_id), right=30)
    _, card = write_and_load(runs, cycle, report)
    head: Any = card.data
    assert (head.base_model, head.library_name, head.pipeline_tag) == ("tiny", "peft", "text-generation")
    assert head.tags == ["learnd", "lora", "classification", "sft", "dpo"]
    assert head.model_name == cycle.version_id
    results = {result.metric_type: result for result in head.eval_results}
    assert set(results) == set(head.metrics) >= {"accuracy", "macro_f1", "confidence_calibration"}
    assert results["accuracy"].metric_value == pytest.approx(report.candidate.accuracy)
    assert results["accuracy"].dataset_revision == snapshot.id
    assert results["accuracy"].task_name == "classification"


def test_people_read_data_plan_measures_limits_and_digests(runs: Runs) -> None:
    snapshot = runs.snapshot(
        make_held_out(40), left_out={"the same prompt and answer again": 3}, replaced={"EMAIL_ADDRESS": 2}
    )
    cycle = runs.train(snapshot)
    report = make_report(snapshot, str(cycle.version_id), right=30)
    path, card = write_and_load(runs, cycle, report)
    text = card.text
    headings = [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]
    assert headings == [
        "What it is for",
        "Data",
        "Left out",
        "How it was trained",
        "How the training went",
        "What was measured",
        "Limits",
        "Digests",
    ]
    assert f"The labels are: {', '.join(LABELS)}." in text
    assert "60 answers or searches that people approved, 30 corrected" in text
    assert find_table(text, "Data") == [
        ["kind", "to train on", "synthetic among them", "to validate on"],
        ["sft", "30", "6 (20%)", "5"],
        ["pairs", "10", "0", "0"],
    ]
    assert "Personal data was not looked for" in text
    assert ["the same prompt and answer again", "3"] in find_table(text, "Left out")
    (compared,) = find_table(text, "The candidate against the others")[1:]
    found = report.find_comparison("base")
    assert found.means is not None
    assert compared[:6] == [
        "base (live)",
        "accuracy",
        f"{found.means[0]:.3f}",
        f"{found.means[1]:.3f}",
        f"{found.effect:+.3f}",
        f"{found.interval[0]:+.3f} to {found.interval[1]:+.3f}",
    ]
    assert f"Judged on {found.n} items" in text
    assert "There are no golden cases" in text
    version = runs.store.version(str(cycle.version_id))
    digests = {row[0]: row[1] for row in find_table(text, "Digests")[1:]}
    assert digests["adapter_model.safetensors"] == version.files["adapter_model.safetensors"]
    assert (digests["base model"], digests["snapshot"]) == ("base1", snapshot.id)
    # Nothing of the traffic is quoted.
    assert "parcel" not in text
    assert path.parent == runs.context.data_dir / version.path


def test_the_card_is_no_part_of_what_is_served(runs: Runs) -> None:
    snapshot = runs.snapshot(make_held_out(12))
    cycle = runs.train(snapshot)
    path, _ = write_and_load(runs, cycle, make_report(snapshot, str(cycle.version_id), right=10))
    version = runs.store.version(str(cycle.version_id))
    assert CARD not in version.files
    verify_files(path.parent, version)


def test_everything_that_was_measured_has_its_section(runs: Runs) -> None:
    snapshot = runs.snapshot(make_held_out(40))
    cycle = runs.train(snapshot)
    golden = [make_example(n, make_case(n), system="Route it.") for n in range(3)]
    seeds = SeedRuns(metric="accuracy", scores=(0.7, 0.75, 0.8))
    report = make_report(
        snapshot,
        str(cycle.version_id),
        right=30,
        live="acme.routing.v0",
        live_right=10,
        golden=golden,
        seeds=seeds,
        everything=True,
    )
    served = ReplicaVerdict(
        verdict="REJECT", reason="no better", agreement=0.95, comparison=report.find_comparison(report.live)
    )
    text = write_and_load(runs, cycle, report.model_copy(update={"served": served}))[1].text
    assert [line.removeprefix("### ") for line in text.splitlines() if line.startswith("### ")] == [
        "Measures",
        "The candidate against the others",
        "What must not get worse",
        "Golden cases",
        "Latency",
        "How fair the held-out items are",
        "What a judge prefers",
        "By a replica's answers",
        "Several seeds",
        "Label by label",
        "What the candidate confuses",
        "Confidence",
        "How often the candidate is right when it is so sure",
    ]
    # A stratum is told without what was asked in it.
    assert find_table(text, "How fair the held-out items are")[0][:2] == ["answered by", "reviewed"]
    # What a model says is shown and does nothing.
    assert (find_table(text, "Golden cases")[1]) == [
        "1",
        "where is parcel 0?",
        "billing",
        "billing",
        r"\<b>a\|b\</b> \[c](d)",
        "broken",
    ]
    assert "3 runs of the plan: accuracy 0.750 ± 0.050" in text
    assert any(row[0] == "older traffic" for row in find_table(text, "The candidate against the others"))
    assert "95% of the candidate's answers are the same" in text
    assert "There are no golden cases" not in text
    assert "was not measured" not in text


def test_a_race_is_told_with_every_contender(runs: Runs) -> None:
    snapshot = runs.snapshot(make_held_out(40))
    cycle = runs.train(snapshot, (SFT, DPO), raced=True)
    report = make_report(snapshot, str(cycle.version_id), right=30, race=make_race())
    _, card = write_and_load(runs, cycle, report)
    rows = find_table(card.text, "Race between ways to train")
    assert [row[0] for row in rows] == ["contender", "sft", FROM_LIVE, ON_TOP, FROM_PAIRS]
    assert rows[3][-3:] == ["+0.125", "0.031", "it won"]
    assert "1.75 times the 80 s that the default alone takes" in card.text
    assert card.data["tags"][-2:] == ["sft", "dpo"]


def test_what_is_quoted_becomes_neither_link_nor_emphasis(runs: Runs) -> None:
    snapshot = runs.snapshot(make_held_out(40))
    cycle = runs.train(snapshot)
    said = (
        "*now* `x` _y_ token_f1 ~z~ &lt; 3 < 4 http://evil.example/a_b*c), www.evil.example or a.b@c.example"
    )
    golden = [make_example(0, (said, LABELS[0]))]
    report = make_report(snapshot, str(cycle.version_id), right=30, golden=golden)
    (row,) = find_table(write_and_load(runs, cycle, report)[1].text, "Golden cases")[1:]
    assert row[1] == (
        r"\*now\* \`x\` \_y\_ token_f1 \~z\~ \&lt; 3 < 4 `http://evil.example/a_b*c),` `www.evil.example` or "
        "`a.b@c.example`"
    )
    from markdown_it import MarkdownIt

    # But for code, a reader sees what was said.
    [line] = MarkdownIt("commonmark").parseInline(row[1])
    assert "".join(each.content for each in line.children or ()) == said


def test_after_a_second_look_both_looks_are_there(runs: Runs) -> None:
    first = runs.run(runs.snapshot(make_held_out(40)), right=9)
    version = runs.store.version(str(first.version_id))
    snapshot = runs.snapshot(make_held_out(60, first=200))
    look = runs.look_again(version, snapshot)
    report = make_report(snapshot, version.id, right=40, look="second")
    text = write_and_load(runs, look, report)[1].text
    assert text.index("What was measured, second look") < text.index("What was measured, first look")
    assert "30 answers to imitate" in text


def test_an_adapter_that_finds_documents_has_a_card_too(tmp_path: Path) -> None:
    runs = Runs(tmp_path, NOWHERE, "search", task="embedding", output_space=())
    snapshot = runs.searches([make_search(number) for number in range(3)])
    cycle = runs.train(snapshot)
    report = make_search_report(
        snapshot, str(cycle.version_id), {"base": (2, 0, 0), str(cycle.version_id): (1, 1, 4)}
    )
    _, card = write_and_load(runs, cycle, report)
    assert card.data["pipeline_tag"] == "sentence-similarity"
    assert "Finds documents by a query." in card.text
    assert "Documents without feedback count as irrelevant" in card.text
    runs.store.close()
