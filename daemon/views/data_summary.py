"""A target's data: examples by kind and origin, against the thresholds, and why spans were dropped."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, get_args

from daemon.data.ingest import assemble_snapshot, extract_target
from daemon.runtime.context import TargetContext
from daemon.settings.target import TargetThresholds
from extractors.cleaning.quality import iterate_kinds
from extractors.dataset.snapshot import OutcomeCounts, Snapshot
from extractors.examples.types import AnyExample, Origin
from extractors.feedback.extract import Extraction
from extractors.feedback.unknown_labels import UnknownLabel
from extractors.file_formats.jsonl import REQUIRED_FIELDS, FileForm, to_line
from extractors.phoenix.span_client import build_span_url
from extractors.values import Value
from trainers.planning.plan import ExampleKind


class SpanLink(Value):
    """A span with a link to it."""

    span_id: str
    url: str
    """Phoenix's page of the span."""


class ShownExample(Value):
    """A training example as people read it."""

    id: str
    origin: Origin
    split: str
    """`train` or `validation`."""
    example: dict[str, Any]
    """Its line (`extractors.file_formats.jsonl`): prompt, completion, …"""
    spans: tuple[SpanLink, ...]
    """The spans that it was made from."""


class DataSummary(Value):
    """Counts of a target's data."""

    target: str
    """`tenant/agent`."""
    reviewed: OutcomeCounts
    train: dict[str, int]
    """Examples by kind."""
    validation: dict[str, int]
    holdout: int
    """Reviewed items that are held out to judge by."""
    origins: dict[str, dict[Origin, int]]
    """Training examples by kind and origin."""
    thresholds: TargetThresholds
    dropped: dict[str, int]
    """Spans that were dropped, by reason."""
    unknown_labels: tuple[UnknownLabel, ...]
    """Labels under the names of the feedback rules that no rule names, with a count of annotations."""
    left_out: dict[str, int]
    """Items that neither train nor judge, by reason."""
    replaced: dict[str, int]
    """Replaced pieces of personal data, by type."""
    warnings: tuple[str, ...]
    languages: dict[str, float]
    """Share of the texts by language."""
    last_poll: datetime | None
    last_poll_error: str | None


@dataclass(frozen=True)
class TargetData:
    """The data that a cycle would learn from if it began now."""

    context: TargetContext
    extraction: Extraction
    snapshot: Snapshot

    @classmethod
    def read(cls, context: TargetContext) -> "TargetData":
        """Extract the data from the whole mirror, which takes seconds.

        Raises RedactorUnusable, RedactionFailed, ImportInvalid.
        """
        extraction = extract_target(context.store, context.target)
        return cls(context, extraction, assemble_snapshot(context, extraction))

    def summarise(self) -> DataSummary:
        """Count examples, reviewed items, and what was dropped or left out."""
        data, target = self.snapshot.manifest, self.context.target
        state = self.context.store.target_state(target.key)
        return DataSummary(
            target=target.key,
            reviewed=data.reviewed,
            train=data.train,
            validation=data.validation,
            holdout=data.holdout,
            origins={
                kind: Counter(example.origin for example in examples)
                for kind, examples in iterate_kinds(self.snapshot.train)
            },
            thresholds=target.thresholds,
            dropped=self.extraction.dropped,
            unknown_labels=self.extraction.unknown_labels,
            left_out=data.left_out,
            replaced=data.replaced,
            warnings=data.statistics.warnings if data.statistics else (),
            languages=data.statistics.languages if data.statistics else {},
            last_poll=state.last_poll_at,
            last_poll_error=state.last_poll_error,
        )

    def list_dropped_spans(self, reason: str) -> tuple[SpanLink, ...]:
        """Return the newest spans that were dropped for `reason`, newest first."""
        return self._links(self.extraction.dropped_spans.get(reason, ())[::-1])

    def list_examples(
        self, kind: ExampleKind, origin: Origin | None = None, *, offset: int = 0, limit: int = 50
    ) -> tuple[ShownExample, ...]:
        """Return the examples to train and to validate on, newest first."""
        found = [each for each in self._newest_first(kind) if origin in (None, each[1].origin)]
        return tuple(
            ShownExample(
                id=example.id,
                origin=example.origin,
                split=split,
                example=build_content_line(example),
                spans=self._links(example.source_span_ids),
            )
            for split, example in found[offset : offset + limit]
        )

    def count_examples(self, kind: ExampleKind) -> int:
        """Return how many examples of the kind there are to train and to validate on."""
        return len(getattr(self.snapshot.train, kind)) + len(getattr(self.snapshot.validation, kind))

    def _newest_first(self, kind: ExampleKind) -> list[tuple[str, AnyExample]]:
        """Return examples with the split they are in."""
        found: list[tuple[str, AnyExample]] = [
            (split, example)
            for split in ("train", "validation")
            for example in getattr(getattr(self.snapshot, split), kind)
        ]
        return sorted(found, key=lambda each: (each[1].started_at, each[1].id), reverse=True)

    def _links(self, span_ids: Sequence[str]) -> tuple[SpanLink, ...]:
        phoenix = self.context.settings.phoenix.public_url
        return tuple(SpanLink(span_id=found, url=build_span_url(phoenix, found)) for found in span_ids)


KINDS: tuple[ExampleKind, ...] = get_args(ExampleKind)


def build_content_line(example: AnyExample) -> dict[str, Any]:
    """Return the example's line without its origin, ids and times."""
    line = to_line(example, FileForm.JSONL)
    return {
        name: line[name]
        for name in (*REQUIRED_FIELDS[type(example), FileForm.JSONL], "tools")
        if name in line
    }
