"""Samples of what a target would be trained on, beside what the mirrored spans say that they were made of.

Examples that look odd (`extractors.cleaning.oddities`) come first. Everything is read from the mirror:
Phoenix is not asked.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any, NamedTuple

from daemon.views.data_summary import KINDS, SpanLink, TargetData, build_content_line
from extractors.cleaning.oddities import Oddity, find_oddities
from extractors.cleaning.redaction import Redaction, load_redactor
from extractors.dataset.snapshot import Snapshot
from extractors.examples.types import (
    AnyExample,
    Origin,
    PreferencePair,
    SFTExample,
    Trajectory,
    UnpairedPreference,
)
from extractors.phoenix.span_client import build_span_url
from extractors.phoenix.spans import Span
from extractors.span_parsing.nested_attributes import get_path
from extractors.values import Value, content_id
from trainers.planning.plan import ExampleKind

RECORDED = (
    "input.value",
    "output.value",
    "llm.input_messages",
    "llm.output_messages",
    "llm.finish_reason",
    "gen_ai.system_instructions",
    "gen_ai.input",
    "gen_ai.prompt",
    "gen_ai.output",
    "gen_ai.completion",
    "gen_ai.response.finish_reasons",
    "ai.prompt.messages",
    "ai.response",
    "events",
    "retrieval.documents",
)
"""Attributes that hold the conversation, or a search's documents, in the conventions of tracers."""
MOST_FIELDS = 40
"""Attributes of one span that are shown: the first few and the last, where the answer stands."""
FIRST_FIELDS = 8
LONGEST = 400
"""Characters of a value that are shown: its beginning and its end, where a cut would be seen."""


class RecordedField(Value):
    """One attribute of a span."""

    root: str
    """The attribute above it that holds the conversation, one of `RECORDED`."""
    path: str
    """Its dotted path below `root`; empty where it is `root` itself."""
    value: str
    """A long value has a gap."""


class RecordedSpan(Value):
    """The part of a span that an example was made of, as the tracer wrote it."""

    span_id: str
    url: str
    """Phoenix's page of the span."""
    name: str
    fields: tuple[RecordedField, ...]
    omitted: int
    """Attributes that are left out of `fields`."""


class AuditSample(Value):
    """An example as it would be trained on, and as its spans were recorded."""

    id: str
    kinds: tuple[ExampleKind, ...]
    """The kinds of examples that teach this prompt with this answer."""
    split: str
    """`train` or `validation`."""
    origin: Origin
    verdict: str
    """What people's feedback made of it, in words."""
    oddities: tuple[Oddity, ...]
    example: dict[str, Any]
    """Its line (`extractors.file_formats.jsonl`): prompt, completion, …"""
    recorded: tuple[RecordedSpan, ...]
    missing: tuple[SpanLink, ...]
    """Spans that the mirror does not hold."""


class DataAudit(Value):
    """How many examples are odd, and samples to read."""

    target: str
    """`tenant/agent`."""
    examined: dict[str, int]
    """Examples that were looked at, by kind."""
    odd: int
    """Prompts with an answer (or a pair, a conversation, a triplet) that have an oddity."""
    distinct: int
    """All prompts with an answer."""
    oddities: dict[str, int]
    """How many of them have each oddity."""
    samples: tuple[AuditSample, ...]
    """The odd ones first, then the others."""


class _Audited(NamedTuple):
    """What is learned of one prompt: the same answer may be an SFT example and a vote."""

    example: AnyExample
    split: str
    kinds: tuple[ExampleKind, ...]
    oddities: tuple[Oddity, ...]


def audit_data(data: TargetData, *, most: int = 20, kind: ExampleKind | None = None) -> DataAudit:
    """Look at all examples (of one kind) to train and to validate on, and return at most `most` samples.

    Up to half of the samples are examples that look odd (more, where there are no others), so that each
    oddity is seen; the others are drawn at random, always the same while the data stays. Raises
    RedactorUnusable, RedactionFailed.
    """
    audited = [each for each in _collect(data.snapshot) if kind is None or kind in each.kinds]
    odd = _take_turns([each for each in audited if each.oddities])
    plain = sorted((each for each in audited if not each.oddities), key=_draw_lot)
    shown = odd[: max(most - len(plain), (most + 1) // 2)]
    shown += plain[: most - len(shown)]
    return DataAudit(
        target=data.context.target.key,
        examined={name: data.count_examples(name) for name in KINDS if kind in (None, name)},
        odd=len(odd),
        distinct=len(audited),
        oddities=dict(Counter(oddity.value for each in audited for oddity in each.oddities).most_common()),
        samples=_build_samples(shown, data),
    )


def _collect(snapshot: Snapshot) -> list[_Audited]:
    """Return what is learned, each once, with the kinds that teach it and what is odd about it in any."""
    examples = snapshot.train.join(snapshot.validation)
    oddities = find_oddities(examples)
    found: dict[str, _Audited] = {}
    for kind in KINDS:
        trained = len(getattr(snapshot.train, kind))
        for at, example in enumerate(getattr(examples, kind)):
            key = _compute_key(example)
            known = found.get(key, _Audited(example, "train" if at < trained else "validation", (), ()))
            joined = dict.fromkeys((*known.oddities, *oddities[kind][at]))
            kinds = dict.fromkeys((*known.kinds, kind))
            found[key] = known._replace(kinds=tuple(kinds), oddities=tuple(joined))
    return list(found.values())


def _compute_key(example: AnyExample) -> str:
    if isinstance(example, SFTExample | UnpairedPreference):
        prompt = [message.model_dump() for message in example.prompt]
        return content_id([prompt, list(example.tools), example.completion.model_dump()])
    return example.id


def _draw_lot(audited: _Audited) -> str:
    return sha256(f"audit {audited.example.id}".encode()).hexdigest()


def _take_turns(odd: Sequence[_Audited]) -> list[_Audited]:
    """Return the odd ones in an order in which every oddity comes soon, the rarest first."""
    counts = Counter(oddity for each in odd for oddity in each.oddities)
    rarest_first = sorted(counts, key=lambda oddity: (counts[oddity], oddity))
    waiting = {
        oddity: iter(sorted((each for each in odd if oddity in each.oddities), key=_draw_lot))
        for oddity in rarest_first
    }
    taken: dict[str, _Audited] = {}
    while len(taken) < len(odd):
        for queue in waiting.values():
            following = next((each for each in queue if each.example.id not in taken), None)
            if following:
                taken[following.example.id] = following
    return list(taken.values())


# ---- the samples


def _build_samples(shown: Sequence[_Audited], data: TargetData) -> tuple[AuditSample, ...]:
    context = data.context
    wanted = {span_id for each in shown for span_id in each.example.source_span_ids}
    spans = {span.span_id: span for span in context.store.read_mirrored_spans(context.target.key, wanted)}
    redaction = Redaction(load_redactor(context.target.redaction), context.target.output_space)
    outcomes = {item.source_span_ids: item.outcome for item in data.extraction.items}
    phoenix = context.settings.phoenix.public_url
    return tuple(
        AuditSample(
            id=each.example.id,
            kinds=each.kinds,
            split=each.split,
            origin=each.example.origin,
            verdict=_describe_verdict(each.example, outcomes),
            oddities=each.oddities,
            example=build_content_line(each.example),
            recorded=tuple(
                _build_recorded(spans[span_id], phoenix, redaction)
                for span_id in each.example.source_span_ids
                if span_id in spans
            ),
            missing=tuple(
                SpanLink(span_id=span_id, url=build_span_url(phoenix, span_id))
                for span_id in each.example.source_span_ids
                if span_id not in spans
            ),
        )
        for each in shown
    )


def _describe_verdict(example: AnyExample, outcomes: Mapping[tuple[str, ...], str]) -> str:
    match example:
        case PreferencePair():
            return f"preferred by {example.preferred_by}"
        case Trajectory():
            return example.outcome
        case UnpairedPreference() if example.source_span_ids not in outcomes:
            return "liked" if example.desirable else "not liked"
    if example.source_span_ids in outcomes:
        return outcomes[example.source_span_ids]
    return "written by a model, approved" if example.origin == "synthetic" else "imported"


def _build_recorded(span: Span, phoenix: str, redaction: Redaction) -> RecordedSpan:
    fields = [
        RecordedField(root=root, path=path, value=_shorten(redaction.apply_to_text(value)))
        for root in RECORDED
        for path, value in _flatten(get_path(span.attributes, root))
    ]
    last = MOST_FIELDS - FIRST_FIELDS
    shown = fields if len(fields) <= MOST_FIELDS else [*fields[:FIRST_FIELDS], *fields[-last:]]
    return RecordedSpan(
        span_id=span.span_id,
        url=build_span_url(phoenix, span.span_id),
        name=span.name,
        fields=tuple(shown),
        omitted=len(fields) - len(shown),
    )


def _flatten(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield each text, number and flag under `value` with its dotted path, in order."""
    if isinstance(value, dict | list):
        entries = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in entries:
            yield from _flatten(inner, f"{path}.{key}" if path else str(key))
    elif value is not None:
        yield path, str(value)


def _shorten(text: str) -> str:
    if len(text) <= LONGEST:
        return text
    half = LONGEST // 2
    return f"{text[:half]} … ({len(text) - 2 * half} characters) … {text[-half:]}"
