"""The first poll of a large Phoenix against the same read through Phoenix's own client.

    ours    `poll_target` into an empty store: all annotations, and every annotated span whole
    client  `get_spans_dataframe` and `get_span_annotations_dataframe`: all spans, all annotations

Each reads in a process of its own (`readers.py`), from the same Phoenix, one after the other; ours comes
first, so that it is the client that finds Phoenix warm. While either reads, `/healthz` is asked every
100 ms; the gap is the longest time between two answers. Then: polls until 100 and 1,000 changed
annotations are in the store, and 1,000 edited ones on spans of all ages, which take turns; polls that find
nothing new; and the sweep that reads all feedback again. A poll that finds nothing new costs far more
between a restart of Phoenix and the first write after it, when Phoenix does not say whether it was written
to: that is measured too.
"""

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from extractors.phoenix.client import PhoenixClient
from extractors.phoenix.spans import Annotation
from tests.benchmarks.filled_phoenix import (
    ANNOTATIONS,
    REVIEWED,
    SPANS,
    filled_phoenix,
    reviewed_ids,
    reviews,
    unreviewed_ids,
)
from tests.support.phoenix import GATE_SECONDS

HEALTH_SECONDS = 0.1


def measure() -> dict[str, float]:
    """Ratios, seconds, megabytes and counts, as their names say."""
    with filled_phoenix() as phoenix, tempfile.TemporaryDirectory() as folder:
        with health_gaps(phoenix.url) as our_gaps:
            ours = _child("first_poll", phoenix.url, folder)
        restarted = _child("idle_polls", phoenix.url, folder, "3")
        with health_gaps(phoenix.url) as client_gaps:
            client = _child("official_client", phoenix.url, folder)
        changed = {n: _change(phoenix.url, folder, _reviewers_go_on(n)) for n in (100, 1000)}
        old = _change(phoenix.url, folder, _edits_of_all_ages(1000))
        idle = _child("idle_polls", phoenix.url, folder, "20")
        sweep = _child("full_sweep", phoenix.url, folder)
    assert (ours["annotations"], ours["whole_spans"]) == (ANNOTATIONS, REVIEWED)
    assert (client["annotations"], client["spans"]) == (ANNOTATIONS, SPANS)
    return {
        "speedup_first_poll": client["seconds"] / ours["seconds"],
        "memory_ratio": ours["bytes"] / client["bytes"],
        "longest_health_gap_s": max(our_gaps),
        "client_longest_health_gap_s": max(client_gaps),
        "idle_poll_ms": 1000 * idle["seconds"],
        "idle_poll_after_restart_ms": 1000 * restarted["seconds"],
        "changed_1000_s": changed[1000]["seconds"],
        "changed_100_s": changed[100]["seconds"],
        "changed_1000_old_s": old["seconds"],
        "changed_1000_old_polls": old["polls"],
        "full_sweep_s": sweep["seconds"],
        "ours_s": ours["seconds"],
        "client_s": client["seconds"],
        "ours_mb": ours["bytes"] / 1e6,
        "client_mb": client["bytes"] / 1e6,
        "spans": client["spans"],
        "annotations": ours["annotations"],
    }


@contextmanager
def health_gaps(url: str) -> Iterator[list[float]]:
    """Seconds between one answer of `/healthz` and the next, collected until the block ends."""
    gaps: list[float] = []
    stop = threading.Event()

    def ask() -> None:
        with httpx.Client(timeout=120) as client:
            answered = time.perf_counter()
            while not stop.wait(HEALTH_SECONDS):
                client.get(f"{url}/healthz").raise_for_status()
                gaps.append(time.perf_counter() - answered)
                answered += gaps[-1]

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield gaps
    finally:
        stop.set()
        thread.join()


def _reviewers_go_on(count: int) -> list[Annotation]:
    """`count` annotations: half are edits on the youngest spans, half are new on spans seen before."""
    edited = reviews(f"rejected {count}", reviewed_ids()[-count // 4 :])
    return edited + reviews("approved", unreviewed_ids()[count : 2 * count : 4])


def _edits_of_all_ages(count: int) -> list[Annotation]:
    """`count` edited verdicts, evenly over all reviewed spans."""
    ids = reviewed_ids()
    said = reviews("rejected", ids[:: len(ids) // count])
    return [annotation for annotation in said if annotation.label]


def _change(url: str, folder: str, annotations: list[Annotation]) -> dict[str, float]:
    """How our polls pick these up: `seconds`, and how many `polls` it took."""
    with PhoenixClient(url) as client:
        client.annotations.write(annotations)
    time.sleep(GATE_SECONDS)
    report = _child("changed_polls", url, folder, str(len(annotations)))
    assert report["changes"] == len(annotations), f"{len(annotations)} changed, and the polls found {report}"
    return report


def _child(role: str, *arguments: str) -> dict[str, float]:
    """What a process in `role` reports."""
    command = [sys.executable, "-m", "tests.benchmarks.readers", role, *arguments]
    finished = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    report: dict[str, float] = json.loads(finished.stdout)
    print(f"  {role}: {report}", flush=True)
    return report
