"""The processes that the extraction benchmark compares: each reads Phoenix its own way and reports.

python -m tests.benchmarks.readers ROLE URL FOLDER [COUNT]

ROLE is `first_poll`, `idle_polls`, `changed_polls` or `full_sweep` (ours, into the store in FOLDER), or
`official_client`. The report is one JSON object on standard output. Memory is the highest resident
memory while reading, less what was resident before, when everything was imported (from Linux's
`/proc/self`, whose `clear_refs` forgets the highest so far).
"""

import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from daemon.data.ingest import open_phoenix, poll_target
from daemon.runtime.context import TargetContext
from daemon.settings.load import Settings
from registry.store.store import Store
from tests.benchmarks.filled_phoenix import END, NAMES, PROJECT, SPANS

TARGET = "acme/support"
NOW = END + timedelta(hours=1)
"""When the first poll is made."""
Report = dict[str, float]


def first_poll(url: str, folder: Path) -> Report:
    """Everything into an empty store."""
    with following(url, folder) as follow:
        measured = _measured(follow)
    with Store.open(folder, NOW) as store:
        spans, annotations = store.read_mirror(TARGET)
    reviewed = {annotation.subject_id for annotation in annotations}
    whole = [
        span for span in spans if span.span_id in reviewed and {"input", "llm"} <= span.attributes.keys()
    ]
    return measured | {"whole_spans": len(whole), "annotations": len(annotations)}


def idle_polls(url: str, folder: Path, count: str) -> Report:
    """The median of `count` polls that find nothing new."""
    with following(url, folder) as follow:
        return {"seconds": statistics.median(_seconds(follow) for _ in range(int(count)))}


def changed_polls(url: str, folder: Path, count: str) -> Report:
    """Polls until `count` changed annotations are in the store, or none is found any more."""
    changes = polls = 0
    with following(url, folder) as follow:
        began = time.perf_counter()
        while changes < int(count) and (found := follow()):
            changes, polls = changes + found, polls + 1
        return {"seconds": time.perf_counter() - began, "changes": changes, "polls": polls}


def full_sweep(url: str, folder: Path) -> Report:
    """The poll that reads all feedback again, whatever changed, to find what was deleted."""
    with following(url, folder, later=timedelta(hours=1)) as follow:
        return _measured(follow)


def official_client(url: str, _folder: Path) -> Report:
    """All spans and all annotations as data frames; by default it would stop at 1,000 spans."""
    import pandas  # noqa: F401 - the client imports it while it reads, which is no reading
    from phoenix.client import Client

    client = Client(base_url=url).spans
    report: Report = {}

    def read() -> None:
        spans = client.get_spans_dataframe(project_identifier=PROJECT, limit=2 * SPANS, timeout=600)
        annotations = client.get_span_annotations_dataframe(
            spans_dataframe=spans, project_identifier=PROJECT, limit=10_000, timeout=600
        )
        report.update(spans=len(spans), annotations=len(annotations))

    return _measured(read) | report


@contextmanager
def following(url: str, folder: Path, later: timedelta = timedelta(0)) -> Iterator[Callable[[], int]]:
    """A poll of the benchmark's project as the daemon makes it; returns how many annotations changed.

    Time goes on from the last poll into this folder, or so much `later`.
    """
    rules = {"annotations": [{"name": name} for name in NAMES], "correction_names": []}
    target = {"tenant": "acme", "agent": "support", "project": PROJECT, "task": "generation"}
    settings = Settings.model_validate(
        {
            "data_dir": folder,
            "phoenix": {"url": url},
            "targets": [target | {"base_model": "none", "feedback": rules}],
        }
    )
    with Store.open(folder, NOW) as store, open_phoenix(settings) as client:
        start = (store.target_state(TARGET).last_poll_at or NOW) + later
        began = time.monotonic()

        def clock() -> datetime:
            return start + timedelta(seconds=time.monotonic() - began)

        context = TargetContext(settings, settings.targets[0], store, clock)
        yield lambda: poll_target(context, client)


def _measured(read: Callable[[], Any]) -> Report:
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    seconds = _seconds(read)
    return {"seconds": seconds, "bytes": _status("VmHWM") - before}


def _seconds(read: Callable[[], Any]) -> float:
    began = time.perf_counter()
    read()
    return time.perf_counter() - began


def _status(name: str) -> int:
    """Bytes of a line of `/proc/self/status`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


ROLES = {role.__name__: role for role in (first_poll, idle_polls, changed_polls, full_sweep, official_client)}

if __name__ == "__main__":
    role, url, folder, *more = sys.argv[1:]
    print(json.dumps(ROLES[role](url, Path(folder), *more)))
