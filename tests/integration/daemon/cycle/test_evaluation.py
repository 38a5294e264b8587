"""A candidate that is judged while Phoenix, a replica or an operator does what nobody planned."""

import fcntl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from daemon.cycle.evaluation import SAMPLE_PATIENCE, sample_once
from daemon.cycle.steps import advance, begin_cycle
from daemon.serving.promotion import PROBES, SERVING_PATIENCE
from daemon.serving.replica_answers import Replies, confirm
from evaluation.engine.probe_record import ProbeRecord
from evaluation.jobs.job import REPORT, TRAFFIC, EvaluationResult, TrafficSample
from evaluation.report import Report
from evaluation.rules import Gate
from evaluation.score_side import RawAnswer
from extractors.phoenix.http import PhoenixRefused
from registry.cycles import Cycle, CycleState
from registry.serving.swap import NotServedYet
from registry.versions import VersionState
from tests.support.runs import MINUTE, NOWHERE, Runs, make_case, make_held_out, make_report
from tests.support.snapshots import make_example
from trainers.job_folder import ProgressLine


def write_report(runs: Runs, cycle: Cycle, report: Report) -> Path:
    """Write the files of the evaluation's child into its folder, except its result."""
    folder = runs.context.run_folder(cycle) / "evaluate"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / TRAFFIC).write_text(TrafficSample(calls=()).model_dump_json(), "utf-8")
    (folder / REPORT).write_text(report.model_dump_json(), "utf-8")
    (folder / PROBES).write_text(ProbeRecord(probes=()).model_dump_json(), "utf-8")
    return folder


def write_result(folder: Path) -> None:
    """End the evaluation's child, whose report is in `folder`."""
    report = Report.model_validate_json((folder / REPORT).read_text("utf-8"))
    result = EvaluationResult(verdict=report.verdict, reason=report.reason)
    (folder / "result.json").write_text(result.model_dump_json(), "utf-8")


def activate(runs: Runs, cycle: Cycle) -> None:
    """Activate the cycle's version as an operator does it."""
    moved = {"drain_until": runs.now, "now": runs.now, "actor": "ann", "reason": "now"}
    runs.store.activate(str(cycle.version_id), expected_active=None, **moved)  # type: ignore[arg-type]


# ---- an operator


def test_a_version_that_was_activated_before_its_evaluation_is_not_compared_with_itself(runs: Runs) -> None:
    cycle = runs.train(runs.snapshot(make_held_out(12)))
    activate(runs, cycle)
    cycle = advance(runs.context, cycle)
    assert (cycle.state, cycle.verdict, cycle.report) == (CycleState.DONE, None, None)
    assert cycle.reason == f"{cycle.version_id} was activated by an operator meanwhile"


def test_a_report_that_was_there_is_kept(runs: Runs) -> None:
    snapshot = runs.snapshot(make_held_out(12))
    cycle = runs.train(snapshot)
    report = make_report(snapshot, str(cycle.version_id), right=2)
    write_result(write_report(runs, cycle, report))
    activate(runs, cycle)
    cycle = advance(runs.context, cycle)
    assert (cycle.state, cycle.verdict, cycle.report) == (CycleState.DONE, report.verdict, report)
    assert cycle.reason == (
        f"{cycle.version_id} was activated by an operator meanwhile; {report.verdict}: {report.reason}"
    )


def test_a_version_that_is_activated_while_it_is_judged_stays_live_whatever_the_verdict(runs: Runs) -> None:
    snapshot = runs.snapshot(make_held_out(12))
    cycle = runs.train(snapshot)
    report = make_report(snapshot, str(cycle.version_id), right=2)
    assert report.verdict in {"REJECT", "INCONCLUSIVE"}
    folder = write_report(runs, cycle, report)
    ended: list[Cycle] = []
    with (folder / "lock").open("w") as child:
        # As the child holds it.
        fcntl.flock(child, fcntl.LOCK_EX)
        reported = threading.Event()
        context = replace(runs.context, on_progress=lambda _line: reported.set())
        judging = threading.Thread(target=lambda: ended.append(advance(context, cycle)))
        judging.start()
        while not reported.wait(0.1):
            with (folder / "progress.jsonl").open("a") as lines:
                lines.write(ProgressLine(at=runs.now, stage="judging").model_dump_json() + "\n")
        activate(runs, cycle)
        write_result(folder)
    judging.join(30)
    assert (ended[0].state, ended[0].report) == (CycleState.DONE, report)
    assert "activated by an operator meanwhile" in ended[0].reason
    assert runs.store.version(str(cycle.version_id)).state is VersionState.ACTIVE


# ---- a replica


def confirm_by_replica(tmp_path: Path) -> Runs:
    replicas = [{"name": "one", "url": NOWHERE}]
    return Runs(tmp_path, NOWHERE, replicas=replicas, evaluate_with="replica")


def test_a_replica_that_never_answers_makes_it_inconclusive_and_throws_nothing_away(tmp_path: Path) -> None:
    runs = confirm_by_replica(tmp_path)
    snapshot = runs.snapshot(make_held_out(40))
    cycle = runs.train(snapshot)
    report = make_report(snapshot, str(cycle.version_id), right=36, base_right=0)
    assert report.verdict == "PROMOTE"
    folder = write_report(runs, cycle, report)
    write_result(folder)
    at = (folder / REPORT).stat().st_mtime
    runs.now += timedelta(seconds=at - runs.now.timestamp())
    with pytest.raises(NotServedYet):
        advance(runs.context, cycle)
    assert runs.store.cycle(cycle.id).state is CycleState.EVALUATING
    runs.now += SERVING_PATIENCE + MINUTE
    cycle = advance(runs.context, cycle)
    assert (cycle.state, cycle.verdict) == (CycleState.DONE, "INCONCLUSIVE")
    assert "no replica could be asked:" in cycle.reason
    assert f"PROMOTE by transformers ({report.reason})" in cycle.reason
    assert runs.store.version(str(cycle.version_id)).wanted is False
    runs.store.close()


def write_replies(folder: Path, report: Report, *, refused: set[int]) -> None:
    """Write the report's answers as if a replica had given them; it refuses some prompts of the live side."""
    for number, name in enumerate((report.live, report.candidate.name)):
        said = tuple(
            None if n in refused and name == report.live else RawAnswer(text=answer.text, ended=True)
            for n, answer in enumerate(report.find_side(name).answers)
        )
        refusal = "HTTP 400: too long" if refused else ""
        replies = Replies(said=said, refusal="" if None not in said else refusal)
        (folder / f"replies-{number}.json").write_text(replies.model_dump_json(), "utf-8")


@pytest.mark.parametrize("margin", [0.24, 2.0])
def test_engines_that_agree_come_to_one_verdict_whatever_a_replica_does_not_measure(
    tmp_path: Path, margin: float
) -> None:
    runs = confirm_by_replica(tmp_path)
    snapshot = runs.snapshot(make_held_out(60))
    cycle = runs.train(snapshot)
    version = runs.store.version(str(cycle.version_id))
    gate = Gate(latency_margin=margin, golden_tolerance=1)
    report = make_report(
        snapshot,
        version.id,
        right=55,
        base_right=5,
        gate=gate,
        golden=[make_example(1, make_case(1))],
        everything=True,
    )
    wanted = ("PROMOTE", "better") if margin == 2.0 else ("PROBATION", "open guard")
    assert (report.verdict, report.condition) == wanted, report.reason
    folder = write_report(runs, cycle, report)
    write_replies(folder, report, refused=set())
    judged = confirm(runs.context, version, report, runs.context.snapshots / snapshot.id, folder)
    assert judged.served is not None
    assert (judged.verdict, judged.served.verdict, judged.served.agreement) == (report.verdict,) * 2 + (1.0,)
    assert judged.reason == report.reason
    runs.store.close()


def test_a_prompt_that_the_replica_refuses_to_one_side_counts_for_neither_and_is_spoken_of(
    tmp_path: Path,
) -> None:
    runs = confirm_by_replica(tmp_path)
    snapshot = runs.snapshot(make_held_out(60))
    cycle = runs.train(snapshot)
    version = runs.store.version(str(cycle.version_id))
    report = make_report(snapshot, version.id, right=55, base_right=5)
    folder = write_report(runs, cycle, report)
    write_replies(folder, report, refused={0, 10})
    judged = confirm(runs.context, version, report, runs.context.snapshots / snapshot.id, folder)
    assert judged.served is not None
    # The base was right about the first, and the candidate about both.
    before = report.find_comparison("base")
    assert (judged.served.comparison.gained, judged.served.comparison.lost) == (before.gained - 1, 0)
    assert judged.verdict == "PROMOTE"
    words = "refuses 2 of 60 held-out prompts, which counts as wrong for both sides (HTTP 400: too long)"
    assert words in judged.reason
    assert words in judged.served.reason
    runs.store.close()


# ---- Phoenix


@contextmanager
def serve_refusals() -> Iterator[str]:
    """Run a server that refuses every request, as Phoenix does for a key without permission."""

    class Refuses(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(403)
            self.end_headers()

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refuses)
    threading.Thread(target=server.serve_forever).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_without_a_sample_of_the_traffic_a_candidate_is_judged_after_a_while(tmp_path: Path) -> None:
    with serve_refusals() as url:
        runs = Runs(tmp_path, url)
        snapshot = runs.snapshot(make_held_out(12))
        folder, until = tmp_path / "evaluate", runs.now + SAMPLE_PATIENCE
        with pytest.raises(PhoenixRefused):
            sample_once(runs.context, runs.context.snapshots / snapshot.id, folder, patient_until=until)
        assert not (folder / TRAFFIC).exists()
        runs.now = until
        sample_once(runs.context, runs.context.snapshots / snapshot.id, folder, patient_until=until)
        runs.store.close()
    assert TrafficSample.model_validate_json((folder / TRAFFIC).read_text("utf-8")).calls == ()


def test_a_poll_in_the_foreground_that_phoenix_refuses_is_the_last_poll_error(tmp_path: Path) -> None:
    with serve_refusals() as url:
        runs = Runs(tmp_path, url)
        with pytest.raises(PhoenixRefused) as refused:
            begin_cycle(runs.context, "operator")
        state, begun = runs.store.target_state(runs.context.target.key), runs.store.cycles()
        runs.store.close()
    assert (state.last_poll_error, begun) == (str(refused.value), [])
