"""The whole loop on real parts, once, on this machine.

corpus ─> gateway ─> vLLM (base)           spans ─> Phoenix ─> scripted reviewer annotates
learnd once: poll ─> snapshot ─> train ─> evaluate ─> load, probe, flip, under steady traffic
"""

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import tomli_w
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from daemon.cli.progress import CycleProgress
from daemon.data.ingest import open_phoenix
from daemon.demo.corpus import Request, labels_of, load_corpus, system_prompt
from daemon.demo.model import prepare_smollm2
from daemon.demo.phoenix import phoenix_server
from daemon.demo.reviewer import Answer, review
from daemon.demo.servers import free_port, server
from daemon.demo.traffic import ANSWER_TOKENS, Agent, Reply, Steady, send_all, steady_traffic
from daemon.demo.vllm import vllm_server
from daemon.run_once import run_once
from daemon.runtime.clock import utc_now
from daemon.runtime.paths import adapter_folder
from daemon.settings.load import Settings, load_settings
from extractors.errors import LearndError
from extractors.phoenix.client import PhoenixClient, ProjectNotFound
from registry.cycles import Cycle, CycleState
from registry.store.store import Store
from trainers.job_folder import ProgressLine

TENANT, AGENT, PROJECT = "acme", "routing", "acme-routing"
TARGET = f"{TENANT}/{AGENT}"
SPANS_PATIENCE = 120.0
out = Console(highlight=False)


class DemoFailed(LearndError):
    """The demo could not do what it shows."""


def run_demo(folder: Path, *, corpus: Path | None, keep: bool, vllm_python: Path) -> None:
    """Run the demo in `folder` and write its `report.json`.

    The base model is prepared once and kept; everything else begins anew. With `keep` the servers
    and a daemon go on until Ctrl-C. Raises LearndError with what went wrong; everything that was
    started is stopped in any case.
    """
    began = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # The bars here are ours; libraries that load a model show theirs otherwise.
    os.environ["TQDM_DISABLE"] = "1"
    requests = load_corpus(corpus)
    folder = folder.resolve()
    run = _fresh(folder / "run")
    (folder / "report.json").unlink(missing_ok=True)
    if not vllm_python.exists():
        raise DemoFailed(
            f"there is no vLLM at {vllm_python}; `make demo` installs it, LEARND_VLLM_PYTHON names another"
        )
    with ExitStack() as stack:
        settings = _start(stack, folder, run, requests, vllm_python)
        gateway = f"http://127.0.0.1:{settings.gateway.port}"
        agent = stack.enter_context(Agent(gateway, TARGET, system_prompt(labels_of(requests))))
        replies = _send(agent, requests)
        _review(settings, replies)
        cycle, traffic = _learn(settings, agent, requests)
        report = _report(cycle, traffic, time.monotonic() - began)
        (folder / "report.json").write_text(json.dumps(report, indent=2), "utf-8")
        _show(settings, cycle, report, folder, replies, traffic)
        if keep:
            _explore(stack, folder, run, settings)
    if not report["promoted"] or report["failed_requests"]:
        raise DemoFailed(f"the loop did not end as it should: {cycle.reason or report}")


def _fresh(run: Path) -> Path:
    shutil.rmtree(run, ignore_errors=True)
    run.mkdir(parents=True)
    return run


def _start(
    stack: ExitStack, folder: Path, run: Path, requests: Sequence[Request], vllm_python: Path
) -> Settings:
    """Start Phoenix, vLLM and the gateway, and write the settings that name them."""
    with out.status("Preparing SmolLM2-135M-Instruct"):
        model = prepare_smollm2(folder / "model")
    with out.status("Starting Phoenix (about 10 s)"):
        phoenix = stack.enter_context(phoenix_server(run / "phoenix"))
    out.print(f"Phoenix    {phoenix.url}")
    with out.status("Starting vLLM with runtime LoRA (up to a minute)"):
        vllm = stack.enter_context(vllm_server(model, python=str(vllm_python), log=run / "vllm.log"))
    out.print(f"vLLM       {vllm.url}")
    config = run / "learnd.toml"
    config.write_text(tomli_w.dumps(_settings(phoenix.url, vllm.url, model, labels_of(requests))), "utf-8")
    settings = load_settings(config)
    gateway = f"http://127.0.0.1:{settings.gateway.port}"
    stack.enter_context(
        server(
            [sys.executable, "-m", "learnd", "gateway", "--config", str(config)],
            health_url=f"{gateway}/readyz",
            log=run / "gateway.log",
            env={},
            start_seconds=60,
        )
    )
    out.print(f"Gateway    {gateway}   (agents ask it for the model {TARGET})")
    return settings


def _settings(phoenix: str, vllm: str, model: Path, labels: list[str]) -> dict[str, Any]:
    return {
        "data_dir": "data",
        "phoenix": {"url": phoenix},
        "daemon": {"port": free_port()},
        "gateway": {"port": free_port(), "refresh_seconds": 0.5},
        "agents": {"cache_seconds": 5},
        "replicas": [{"name": "local", "url": vllm}],
        "targets": [
            {
                "tenant": TENANT,
                "agent": AGENT,
                "project": PROJECT,
                "task": "classification",
                "output_space": labels,
                "base_model": str(model),
                "max_new_tokens": ANSWER_TOKENS,
            }
        ],
    }


def _send(agent: Agent, requests: Sequence[Request]) -> list[Reply]:
    """What customers write, answered by the base model and traced by the gateway."""
    with _bar("Customers' requests", len(requests)) as (progress, task):
        replies = list(send_all(agent, requests, lambda: progress.advance(task)))
    failed = [reply for reply in replies if reply.error]
    if failed:
        raise DemoFailed(f"{len(failed)} requests failed before anything was learned: {failed[0].error}")
    return replies


def _review(settings: Settings, replies: Sequence[Reply]) -> None:
    """The scripted reviewer annotates every span in Phoenix."""
    with open_phoenix(settings) as phoenix:
        spans = _spans(phoenix, {reply.trace_id for reply in replies})
        answers = [Answer(spans[reply.trace_id], reply.text, reply.request.label) for reply in replies]
        annotations = review(answers, utc_now())
        project = phoenix.project(PROJECT)
        phoenix.offer_annotation(project, "approval", ("approved", "rejected"))
        phoenix.offer_annotation(project, "correction")
        with _bar("Reviewer's annotations", len(annotations)) as (progress, task):
            for start in range(0, len(annotations), 100):
                phoenix.annotate_spans(annotations[start : start + 100])
                progress.update(task, completed=min(start + 100, len(annotations)))


def _spans(phoenix: PhoenixClient, trace_ids: set[str]) -> dict[str, str]:
    """Trace id to the span id of the gateway's call, once Phoenix has committed them all."""
    deadline, found = time.monotonic() + SPANS_PATIENCE, dict[str, str]()
    with _bar("Spans in Phoenix", len(trace_ids)) as (progress, task):
        while time.monotonic() < deadline:
            try:
                spans = phoenix.spans_of_traces(phoenix.project(PROJECT), trace_ids)
            except ProjectNotFound:
                spans = []
            found = {span.trace_id: span.span_id for span in spans if span.kind == "LLM"}
            progress.update(task, completed=len(found))
            if len(found) == len(trace_ids):
                return found
            time.sleep(1)
    raise DemoFailed(f"Phoenix shows {len(found)} of {len(trace_ids)} spans after {SPANS_PATIENCE:.0f} s")


def _learn(settings: Settings, agent: Agent, requests: Sequence[Request]) -> tuple[Cycle, Steady]:
    """One cycle; customers keep asking from before the swap until the new version has answered them."""
    with ExitStack() as stack:
        progress = stack.enter_context(CycleProgress(out))
        traffic = Steady()

        def on_progress(line: ProgressLine) -> None:
            nonlocal traffic
            if line.stage == CycleState.PROMOTING:
                traffic = stack.enter_context(steady_traffic(agent, requests))
                traffic.wait_for(10)
            progress.show(line)

        cycle = run_once(settings, TARGET, on_progress=on_progress)
        if cycle.verdict == "PROMOTE" and cycle.state is CycleState.DONE:
            traffic.wait_for(20, version=cycle.version_id)
    return cycle, traffic


def _report(cycle: Cycle, traffic: Steady, seconds: float) -> dict[str, Any]:
    report = cycle.report
    if report is None:
        raise DemoFailed(f"the cycle ended {cycle.state} without a report: {cycle.reason}")
    promoted = cycle.verdict == "PROMOTE" and cycle.state is CycleState.DONE
    served = {reply.version for reply in traffic.replies[-5:]}
    return {
        "base_accuracy": report.side("base").accuracy,
        "candidate_accuracy": report.sides[-1].accuracy,
        "p_value": report.against("base").p_value,
        "holdout_size": report.holdout_size,
        "promoted": promoted and served == {cycle.version_id},
        "active_version": cycle.version_id if promoted else None,
        "requests_during_swap": len(traffic.replies),
        "failed_requests": traffic.failed,
        "seconds": round(seconds, 1),
    }


def _show(
    settings: Settings,
    cycle: Cycle,
    report: dict[str, Any],
    folder: Path,
    before: Sequence[Reply],
    traffic: Steady,
) -> None:
    """The before / after table, some answers, and where to look."""
    if cycle.report is None:
        return
    table = Table(title=f"{report['holdout_size']} held-out requests that were never trained on")
    for column in ("", "right", "valid destination", "ms an answer"):
        table.add_column(column, justify="left" if not column else "right")
    for side in cycle.report.sides:
        table.add_row(side.name, f"{side.accuracy:.0%}", f"{side.valid_rate:.0%}", f"{side.latency_ms:.0f}")
    out.print(table)
    first = {reply.request.text: reply.text for reply in before}
    samples = Table(title="The same customers, before and after", show_lines=False)
    for column in ("customer", "base model", "now"):
        samples.add_column(column, max_width=34, overflow="ellipsis", no_wrap=True)
    new = [reply for reply in traffic.replies if reply.version == cycle.version_id]
    for reply in new[:5]:
        samples.add_row(reply.request.text, first[reply.request.text].replace("\n", " "), reply.text)
    out.print(samples)
    out.print(f"Verdict    {cycle.verdict}: {cycle.reason}")
    out.print(
        f"Swap       {report['requests_during_swap']} requests during it, {report['failed_requests']} failed"
    )
    with Store.open(settings.data_dir, datetime.now(UTC)) as store:
        if cycle.version_id:
            out.print(f"Adapter    {adapter_folder(settings.data_dir, store.version(cycle.version_id))}")
    with open_phoenix(settings) as phoenix:
        out.print(f"Phoenix    {phoenix.project_url(PROJECT)}   (with KEEP=1)")
    out.print(f"Report     {folder / 'report.json'}   ({report['seconds']:.0f} s)")


def _explore(stack: ExitStack, folder: Path, run: Path, settings: Settings) -> None:
    """Leave everything running, with the daemon beside it, until Ctrl-C."""
    config = run / "learnd.toml"
    api = f"http://127.0.0.1:{settings.daemon.port}"
    stack.enter_context(
        server(
            [sys.executable, "-m", "learnd", "run", "--config", str(config)],
            health_url=f"{api}/healthz",
            log=run / "daemon.log",
            env={},
            start_seconds=60,
        )
    )
    out.print(f"Daemon     {api}/docs   logs in {run}")
    out.print(f"Try        learnd status -c {config}   ·   learnd adapters list -c {config}")
    out.print(f"           learnd adapters rollback -c {config}")
    out.print(f"Everything of the demo lies in {folder}. Ctrl-C stops it all.")
    try:
        signal.pause()
    except KeyboardInterrupt:
        out.print("Stopping.")


@contextmanager
def _bar(title: str, total: int) -> Iterator[tuple[Progress, TaskID]]:
    columns = (TextColumn(f"{title:<24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=out) as progress:
        yield progress, progress.add_task("", total=total)
