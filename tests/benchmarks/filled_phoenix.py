"""A real Phoenix that holds 50,000 spans and 20,000 annotations: filled once, kept under `.bench/`.

10,000 traces of 5 spans over 60 days: a root CHAIN, an LLM call, a TOOL call, another LLM call, a closing
CHAIN, each of about 2.8 KB. In every second trace a reviewer judged both LLM calls, by two annotations each.
"""

import json
import random
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

from daemon.demo.phoenix import PhoenixServer, run_phoenix
from extractors.phoenix.client import PhoenixClient
from extractors.phoenix.spans import Annotation
from extractors.values import content_id
from tests.support.phoenix import SentSpan, count_spans, send_spans

KEPT = Path(".bench/phoenix-50000")
PROJECT = "support"
TRACES = 10_000
SPANS = 5 * TRACES
REVIEWED = TRACES  # both LLM calls of every second trace
ANNOTATIONS = 2 * REVIEWED
NAMES = ("approval", "rating")
END = datetime(2026, 3, 10, 12, tzinfo=UTC)
"""When the youngest trace begins."""
BETWEEN_TRACES = timedelta(days=60) / TRACES
SENT_AT_ONCE = 250
QUEUE = 5_000
"""Spans that Phoenix may still have to commit; it refuses more than 20,000."""
_VOCABULARY = (
    "parcel order invoice refund account password delivery address courier tracking number label return "
    "warehouse customer agent answer question policy item price discount payment card bank transfer urgent "
    "yesterday tomorrow morning website email phone ticket"
)
WORDS = _VOCABULARY.split()


@contextmanager
def filled_phoenix() -> Iterator[PhoenixServer]:
    """The filled Phoenix, until the block ends: a copy, so that nobody's changes outlive it."""
    kept = KEPT / _version()
    if not kept.exists():
        filling = kept.with_name(f"{kept.name}.filling")
        shutil.rmtree(filling, ignore_errors=True)
        with run_phoenix(filling) as phoenix:
            _fill(phoenix.url)
        filling.replace(kept)
    copy = kept.with_name(f"{kept.name}.running")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(kept, copy)
    try:
        with run_phoenix(copy) as phoenix:
            yield phoenix
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def reviews(verdict: str, span_ids: list[str]) -> list[Annotation]:
    """What one reviewer says of these spans: a verdict, and a rating with a remark."""
    said: dict[str, dict[str, Any]] = {
        "approval": {"label": verdict},
        "rating": {"score": 0.5, "explanation": f"The answer is {verdict}: it names the right destination."},
    }
    return [
        Annotation(
            level="span",
            subject_id=span_id,
            name=name,
            identifier="ann",
            annotator_kind="HUMAN",
            updated_at=END,
            **said[name],
        )
        for span_id in span_ids
        for name in NAMES
    ]


def reviewed_ids() -> list[str]:
    """Ids of the reviewed spans, oldest first."""
    return [span.span_id for n in range(0, TRACES, 2) for span in _trace(n) if span.kind == "LLM"]


def unreviewed_ids() -> list[str]:
    """Ids of the LLM calls that nobody reviewed, oldest first."""
    return [span.span_id for n in range(1, TRACES, 2) for span in _trace(n) if span.kind == "LLM"]


def _version() -> str:
    """Of the content: another one is filled anew."""
    samples = [asdict(span) for n in (0, TRACES - 1) for span in _trace(n)]
    spoken = [said.model_dump(mode="json") for said in reviews("approved", reviewed_ids())]
    return content_id([TRACES, json.dumps(samples, default=str), spoken])[:12]


def _fill(url: str) -> None:
    spans = (span for n in range(TRACES) for span in _trace(n))
    sent = 0
    while batch := list(islice(spans, SENT_AT_ONCE)):
        send_spans(url, PROJECT, batch)
        sent += len(batch)
        _wait_for(url, sent - QUEUE)
        if sent % 5_000 == 0:
            print(f"  {sent} of {SPANS} spans sent", flush=True)
    _wait_for(url, SPANS)
    with PhoenixClient(url) as client:
        client.annotations.write(reviews("approved", reviewed_ids()))


def _wait_for(url: str, spans: int) -> None:
    while count_spans(url, PROJECT) < spans:
        time.sleep(0.5)


def _trace(number: int) -> list[SentSpan]:
    """The same spans for the same number."""
    chance = random.Random(number)
    root = SentSpan(
        trace_id=f"{number + 1:032x}",
        span_id=f"{5 * number + 1:016x}",
        name="support agent",
        kind="CHAIN",
        started_at=END - BETWEEN_TRACES * (TRACES - 1 - number),
        seconds=9.0,
        attributes={
            "input.value": _text(chance, 1200),
            "output.value": _text(chance, 1200),
            "session.id": f"session-{number // 4}",
            "metadata": json.dumps({"tenant": f"t{number % 20}", "channel": "email"}),
        },
    )
    kinds = ("LLM", "TOOL", "LLM", "CHAIN")
    return [root, *(_child(chance, root, n, kind) for n, kind in enumerate(kinds, start=1))]


def _child(chance: random.Random, root: SentSpan, position: int, kind: str) -> SentSpan:
    attributes = _call(chance) if kind == "LLM" else _step(chance, kind)
    return root.child(
        span_id=f"{int(root.span_id, 16) + position:016x}",
        name={"LLM": "ChatCompletion", "TOOL": "look_up_order", "CHAIN": "send answer"}[kind],
        kind=kind,
        started_at=root.started_at + timedelta(seconds=position),
        attributes=attributes,
    )


def _call(chance: random.Random) -> dict[str, Any]:
    system, user, answer = _text(chance, 450), _text(chance, 350), _text(chance, 250)
    asked = {"messages": [{"role": "system", "content": system}, {"role": "user", "content": user}]}
    return {
        "input.value": json.dumps(asked),
        "input.mime_type": "application/json",
        "output.value": answer,
        "llm.model_name": "acme/routing",
        "llm.invocation_parameters": json.dumps({"temperature": 0.2, "max_tokens": 256}),
        "llm.input_messages.0.message.role": "system",
        "llm.input_messages.0.message.content": system,
        "llm.input_messages.1.message.role": "user",
        "llm.input_messages.1.message.content": user,
        "llm.output_messages.0.message.role": "assistant",
        "llm.output_messages.0.message.content": answer,
        "llm.token_count.prompt": 210,
        "llm.token_count.completion": 60,
        "llm.token_count.total": 270,
        "metadata": json.dumps({"agent": "router", "prompt_version": 7}),
    }


def _step(chance: random.Random, kind: str) -> dict[str, Any]:
    named = {"tool.name": "look_up_order", "tool.description": _text(chance, 120)} if kind == "TOOL" else {}
    return {"input.value": _text(chance, 1200), "output.value": _text(chance, 1200), **named}


def _text(chance: random.Random, length: int) -> str:
    """Words of about `length` characters together."""
    return " ".join(chance.choices(WORDS, k=length // 7))
