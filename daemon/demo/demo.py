"""The whole loop on real parts, once, on this machine.

corpus ─> gateway ─> vLLM (base)           spans ─> Phoenix ─> scripted reviewer annotates
learnd once: poll ─> snapshot ─> train ─> evaluate ─> load, probe, flip, under steady traffic
"""

import os
import secrets
import shutil
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import tomli_w
from rich.table import Table

from daemon.data.ingest import open_phoenix
from daemon.demo.corpus import CustomerRequest, build_system_prompt, list_labels, load_corpus
from daemon.demo.display import Display, ShowProgress
from daemon.demo.model import prepare_smollm2
from daemon.demo.phoenix import run_phoenix
from daemon.demo.reviewer import ReviewedAnswer, write_annotations
from daemon.demo.servers import find_free_port, run_server
from daemon.demo.traffic import ANSWER_TOKENS, Agent, AgentReply, SteadyTraffic, keep_asking, send_all
from daemon.demo.vllm import run_vllm
from daemon.route_server import serve_routes
from daemon.run_once import run_once
from daemon.runtime.clock import utc_now
from daemon.runtime.data_dir import prepare_data_dir
from daemon.runtime.paths import adapter_folder
from daemon.settings.load import Settings, load_settings
from evaluation.report import BASE
from extractors.errors import LearndError
from extractors.phoenix.client import PhoenixClient
from extractors.phoenix.project import ProjectNotFound
from extractors.values import Value
from registry.cycles import Cycle, CycleState
from registry.store.store import Store
from trainers.job_folder import ProgressLine

TENANT, AGENT, PROJECT = "acme", "routing", "acme-routing"
TARGET = f"{TENANT}/{AGENT}"
VISITOR = "visitor"
"""The operator who is signed in by the link that the demo prints."""
SPANS_PATIENCE = 120.0


class DemoFailed(LearndError):
    """The demo could not do what it shows."""


class DemoReport(Value):
    """Result of the demo, written to `report.json`."""

    base_accuracy: float | None
    candidate_accuracy: float | None
    p_value: float | None
    holdout_size: int
    promoted: bool
    """The candidate was promoted, and has answered the last requests."""
    active_version: str | None
    requests_during_swap: int
    failed_requests: int
    seconds: float


def run_demo(
    folder: Path, *, corpus: Path | None, keep: bool, vllm_python: Path, show_progress: ShowProgress
) -> None:
    """Run the demo in `folder` and write its `report.json`.

    The base model is prepared once and kept; everything else begins anew. With `keep` the servers
    and a daemon go on until Ctrl-C. `show_progress` opens a display of the cycle. Raises LearndError with
    what went wrong; everything that was started is stopped in any case.
    """
    began, display = time.monotonic(), Display(show_progress)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # The bars here are ours; libraries that load a model show theirs otherwise.
    os.environ["TQDM_DISABLE"] = "1"
    requests = load_corpus(corpus)
    folder = folder.resolve()
    run = _clear(folder / "run")
    (folder / "report.json").unlink(missing_ok=True)
    if not vllm_python.exists():
        raise DemoFailed(
            f"there is no vLLM at {vllm_python}; `make demo` installs it, LEARND_VLLM_PYTHON names another"
        )
    with ExitStack() as stack:
        settings = _start_servers(stack, display, folder / "model", run, requests, vllm_python)
        gateway = f"http://127.0.0.1:{settings.gateway.port}"
        agent = stack.enter_context(Agent(gateway, TARGET, build_system_prompt(list_labels(requests))))
        replies = _send_requests(display, agent, requests)
        _review(display, settings, replies)
        cycle, traffic = _learn(display, settings, agent, requests)
        report = _build_report(cycle, traffic, time.monotonic() - began)
        (folder / "report.json").write_text(report.model_dump_json(indent=2), "utf-8")
        _show_tables(display, cycle, replies, traffic)
        _show_places(display, settings, cycle, report, folder)
        if keep:
            _keep_running(stack, display, run, settings)
    if not report.promoted or report.failed_requests:
        raise DemoFailed(f"the loop did not end as it should: {cycle.reason or report}")


def _clear(run: Path) -> Path:
    shutil.rmtree(run, ignore_errors=True)
    run.mkdir(parents=True)
    return run


def _start_servers(
    stack: ExitStack,
    display: Display,
    model: Path,
    run: Path,
    requests: Sequence[CustomerRequest],
    vllm_python: Path,
) -> Settings:
    """Start Phoenix, vLLM and the gateway, and write the settings that name them."""
    with display.status("Preparing SmolLM2-135M-Instruct"):
        prepare_smollm2(model)
    with display.status("Starting Phoenix (about 10 s)"):
        phoenix = stack.enter_context(run_phoenix(run / "phoenix"))
    display.print(f"Phoenix    {phoenix.url}")
    with display.status("Starting vLLM with runtime LoRA (up to a minute)"):
        vllm = stack.enter_context(run_vllm(model, python=str(vllm_python), log=run / "vllm.log"))
    display.print(f"vLLM       {vllm.url}")
    config = run / "learnd.toml"
    _write_operator(run)
    config.write_text(tomli_w.dumps(_build_settings(phoenix.url, vllm.url, model, requests)), "utf-8")
    settings = load_settings(config)
    gateway = f"http://127.0.0.1:{settings.gateway.port}"
    prepare_data_dir(settings)
    with (
        display.status("Starting the gateway"),
        Store.open(settings.data_dir, utc_now()) as store,
        # Without a daemon it goes by what it was told last; the cycle will tell it more.
        serve_routes(settings, store),
    ):
        _start_learnd(stack, "gateway", run, f"{gateway}/readyz")
    display.print(f"Gateway    {gateway}   (agents ask it for the model {TARGET})")
    return settings


def _start_learnd(stack: ExitStack, command: str, run: Path, health_url: str) -> None:
    """Start `learnd COMMAND` with the demo's settings until `stack` closes."""
    stack.enter_context(
        run_server(
            [sys.executable, "-m", "learnd", command, "--config", str(run / "learnd.toml")],
            health_url=health_url,
            log=run / f"{command}.log",
            env={},
            start_seconds=60,
        )
    )


def _write_operator(run: Path) -> None:
    """Write the files of an operator without a password, who signs in with a token."""
    (run / "operators").write_text(f"{VISITOR} operator -\n", "utf-8")
    tokens = run / "tokens"
    tokens.touch(0o600)
    tokens.write_text(f"{secrets.token_urlsafe(32)} {VISITOR}\n", "utf-8")


def _build_settings(
    phoenix: str, vllm: str, model: Path, requests: Sequence[CustomerRequest]
) -> Mapping[str, Any]:
    return {
        "data_dir": "data",
        "phoenix": {"url": phoenix},
        "daemon": {"port": find_free_port()},
        "gateway": {"port": find_free_port()},
        "agents": {"cache_seconds": 5},
        "operators": {"users_file": "operators", "tokens_file": "tokens"},
        "replicas": [{"name": "local", "url": vllm}],
        "targets": [
            {
                "tenant": TENANT,
                "agent": AGENT,
                "project": PROJECT,
                "task": "classification",
                "output_space": list_labels(requests),
                "base_model": str(model),
                "max_new_tokens": ANSWER_TOKENS,
            }
        ],
    }


def _send_requests(
    display: Display, agent: Agent, requests: Sequence[CustomerRequest]
) -> Sequence[AgentReply]:
    """Send what customers write; the base model answers, and the gateway traces the calls."""
    replies: list[AgentReply] = []
    with display.count("Customers' requests", len(requests)) as show:
        for reply in send_all(agent, requests):
            replies.append(reply)
            show(len(replies))
    failed = [reply for reply in replies if reply.error]
    if failed:
        raise DemoFailed(f"{len(failed)} requests failed before anything was learned: {failed[0].error}")
    return replies


def _review(display: Display, settings: Settings, replies: Sequence[AgentReply]) -> None:
    """Let the scripted reviewer annotate every span in Phoenix."""
    with open_phoenix(settings) as phoenix:
        spans = _wait_for_spans(display, phoenix, {reply.trace_id for reply in replies})
        answers = [ReviewedAnswer(spans[each.trace_id], each.text, each.request.label) for each in replies]
        annotations = write_annotations(answers, utc_now())
        project = phoenix.project(PROJECT)
        phoenix.annotations.offer(project, "approval", ("approved", "rejected"))
        phoenix.annotations.offer(project, "correction")
        with display.count("Reviewer's annotations", len(annotations)) as show:
            for start in range(0, len(annotations), 100):
                phoenix.annotations.write(annotations[start : start + 100])
                show(min(start + 100, len(annotations)))


def _wait_for_spans(display: Display, phoenix: PhoenixClient, trace_ids: set[str]) -> Mapping[str, str]:
    """Return the span id of the gateway's call by trace id, once Phoenix has committed them all."""
    deadline, found = time.monotonic() + SPANS_PATIENCE, dict[str, str]()
    with display.count("Spans in Phoenix", len(trace_ids)) as show:
        while time.monotonic() < deadline:
            try:
                spans = phoenix.spans.read_traces(phoenix.project(PROJECT), trace_ids)
            except ProjectNotFound:
                spans = []
            found = {span.trace_id: span.span_id for span in spans if span.kind == "LLM"}
            show(len(found))
            if len(found) == len(trace_ids):
                return found
            time.sleep(1)
    raise DemoFailed(f"Phoenix shows {len(found)} of {len(trace_ids)} spans after {SPANS_PATIENCE:.0f} s")


def _learn(
    display: Display, settings: Settings, agent: Agent, requests: Sequence[CustomerRequest]
) -> tuple[Cycle, SteadyTraffic]:
    """Run one cycle; customers keep asking from before the swap until the new version has answered them."""
    with ExitStack() as stack:
        progress = stack.enter_context(display.cycle())
        traffic = SteadyTraffic()

        def show(line: ProgressLine) -> None:
            nonlocal traffic
            if line.stage == CycleState.PROMOTING:
                traffic = stack.enter_context(keep_asking(agent, requests))
                traffic.wait_for(10)
            progress.show(line)

        cycle = run_once(settings, TARGET, on_progress=show)
        if cycle.verdict == "PROMOTE" and cycle.state is CycleState.DONE:
            traffic.wait_for(20, version=cycle.version_id)
    return cycle, traffic


def _build_report(cycle: Cycle, traffic: SteadyTraffic, seconds: float) -> DemoReport:
    report = cycle.report
    if report is None:
        raise DemoFailed(f"the cycle ended {cycle.state} without a report: {cycle.reason}")
    promoted = cycle.verdict == "PROMOTE" and cycle.state is CycleState.DONE
    last_versions = {reply.version for reply in traffic.replies[-5:]}
    return DemoReport(
        base_accuracy=report.find_side(BASE).accuracy,
        candidate_accuracy=report.sides[-1].accuracy,
        p_value=report.find_comparison(BASE).p_value,
        holdout_size=report.holdout_size,
        promoted=promoted and last_versions == {cycle.version_id},
        active_version=cycle.version_id if promoted else None,
        requests_during_swap=len(traffic.replies),
        failed_requests=traffic.failed,
        seconds=round(seconds, 1),
    )


def _show_tables(
    display: Display, cycle: Cycle, before: Sequence[AgentReply], traffic: SteadyTraffic
) -> None:
    """Show the accuracies, and some answers before and after."""
    if cycle.report is None:
        return
    table = Table(title=f"{cycle.report.holdout_size} held-out requests that were never trained on")
    for column in ("", "right", "valid destination", "ms an answer"):
        table.add_column(column, justify="left" if not column else "right")
    for side in cycle.report.sides:
        table.add_row(side.name, f"{side.accuracy:.0%}", f"{side.valid_rate:.0%}", f"{side.latency_ms:.0f}")
    display.print(table)
    samples = Table(title="The same customers, before and after", show_lines=False)
    for column in ("customer", "base model", "now"):
        samples.add_column(column, max_width=34, overflow="ellipsis", no_wrap=True)
    first = {reply.request.text: reply.text for reply in before}
    new = [reply for reply in traffic.replies if reply.version == cycle.version_id]
    for reply in new[:5]:
        samples.add_row(reply.request.text, first[reply.request.text].replace("\n", " "), reply.text)
    display.print(samples)


def _show_places(
    display: Display, settings: Settings, cycle: Cycle, report: DemoReport, folder: Path
) -> None:
    """Show the verdict, and where to look at what was made."""
    display.print(f"Verdict    {cycle.verdict}: {cycle.reason}")
    display.print(
        f"Swap       {report.requests_during_swap} requests during it, {report.failed_requests} failed"
    )
    with Store.open(settings.data_dir, datetime.now(UTC)) as store:
        if cycle.version_id:
            display.print(f"Adapter    {adapter_folder(settings.data_dir, store.version(cycle.version_id))}")
    with open_phoenix(settings) as phoenix:
        display.print(f"Phoenix    {phoenix.build_project_url(PROJECT)}   (with KEEP=1)")
    display.print(f"Report     {folder / 'report.json'}   ({report.seconds:.0f} s)")


def _keep_running(stack: ExitStack, display: Display, run: Path, settings: Settings) -> None:
    """Leave everything running, with the daemon and its console, until Ctrl-C."""
    config, url = run / "learnd.toml", f"http://127.0.0.1:{settings.daemon.port}"
    with display.status("Starting the daemon and its console"):
        _start_learnd(stack, "run", run, f"{url}/healthz")
    (token,) = settings.operators.read_tokens()
    display.print(f"Console    {url}/console/sign-in#token={token}   (this link signs you in)")
    display.print(f"API        {url}/docs   logs in {run}")
    display.print(f"Try        learnd status -c {config}   ·   learnd adapters list -c {config}")
    display.print(f"           learnd adapters rollback -c {config}")
    display.print(f"Everything of the demo lies in {run.parent}. Ctrl-C stops it all.")
    try:
        signal.pause()
    except KeyboardInterrupt:
        display.print("Stopping.")
