"""A target's data: examples by kind and origin, against the thresholds, and why spans were dropped."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

from daemon.data.ingest import extract_target, snapshot_of
from daemon.runtime.context import TargetContext
from extractors.cleaning.quality import by_kind
from extractors.dataset.snapshot import Snapshot
from extractors.examples.types import Origin
from extractors.feedback.extract import Extraction
from extractors.file_formats.jsonl import NEEDS, AnyExample, Form, to_line
from extractors.phoenix.client import span_page
from extractors.values import Value
from trainers.planning.plan import Kind


class SpanLink(Value):
    """A span, and where people look at it."""

    span_id: str
    url: str
    """Phoenix's page of it."""


class Shown(Value):
    """A training example as people read it."""

    id: str
    origin: Origin
    split: str
    """`train` or `validation`."""
    example: dict[str, Any]
    """Its line (`extractors.file_formats.jsonl`): prompt, completion, …"""
    spans: tuple[SpanLink, ...]
    """What it was made from."""


@dataclass(frozen=True)
class TargetData:
    """What a cycle that began now would learn from."""

    context: TargetContext
    extraction: Extraction
    snapshot: Snapshot

    @classmethod
    def read(cls, context: TargetContext) -> "TargetData":
        """Reads the whole mirror: seconds, not less.

        Raises RedactorUnusable, RedactionFailed, ImportInvalid.
        """
        extraction = extract_target(context)
        return cls(context, extraction, snapshot_of(context, extraction))

    def summary(self) -> dict[str, Any]:
        """Counts, JSON-ready."""
        data, state = self.snapshot.manifest, self.context.store.target_state(self.context.target.key)
        return {
            "target": self.context.target.key,
            "reviewed": data.reviewed.model_dump(),
            "train": data.train,
            "validation": data.validation,
            "holdout": data.holdout,
            "origins": {
                kind: dict(Counter(example.origin for example in examples))
                for kind, examples in by_kind(self.snapshot.train)
            },
            "thresholds": self.context.target.thresholds.model_dump(),
            "dropped": dict(self.extraction.dropped),
            "left_out": data.left_out,
            "replaced": data.replaced,
            "warnings": list(data.statistics.warnings) if data.statistics else [],
            "languages": data.statistics.languages if data.statistics else {},
            "last_poll": state.last_poll_at,
            "last_poll_error": state.last_poll_error,
        }

    def dropped_spans(self, reason: str) -> tuple[SpanLink, ...]:
        """The newest spans that were dropped for `reason`, newest first."""
        return self._links(self.extraction.dropped_spans.get(reason, ())[::-1])

    def examples(
        self, kind: Kind, origin: Origin | None = None, *, offset: int = 0, limit: int = 50
    ) -> tuple[Shown, ...]:
        """Examples to train and to validate on, the newest first."""
        found = [each for each in self._newest_first(kind) if origin in (None, each[1].origin)]
        return tuple(
            Shown(
                id=example.id,
                origin=example.origin,
                split=split,
                example=_content(example),
                spans=self._links(example.source_span_ids),
            )
            for split, example in found[offset : offset + limit]
        )

    def count(self, kind: Kind) -> int:
        """Examples of the kind, to train and to validate on."""
        return len(getattr(self.snapshot.train, kind)) + len(getattr(self.snapshot.validation, kind))

    def _newest_first(self, kind: Kind) -> list[tuple[str, AnyExample]]:
        """Examples with the split they are in."""
        found: list[tuple[str, AnyExample]] = [
            (split, example)
            for split in ("train", "validation")
            for example in getattr(getattr(self.snapshot, split), kind)
        ]
        return sorted(found, key=lambda each: (each[1].started_at, each[1].id), reverse=True)

    def _links(self, span_ids: Sequence[str]) -> tuple[SpanLink, ...]:
        phoenix = self.context.settings.phoenix.seen_at
        return tuple(SpanLink(span_id=found, url=span_page(phoenix, found)) for found in span_ids)


KINDS: tuple[Kind, ...] = get_args(Kind)


def _content(example: AnyExample) -> dict[str, Any]:
    """The example's line without what says where it comes from."""
    line = to_line(example, Form.JSONL)
    return {name: line[name] for name in (*NEEDS[type(example), Form.JSONL], "tools") if name in line}
