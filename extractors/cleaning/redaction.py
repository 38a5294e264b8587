"""Personal data is replaced before training: `ann@example.com` becomes `<EMAIL_ADDRESS>`.

It is replaced in everything that is made of the traffic: snapshots, exports, trainings; imported examples
and golden cases too. The mirror of Phoenix in the local database, and files that were imported, keep the
original texts.

The redactor can be exchanged: "presidio" (extra `redact`) is built in and uses patterns and checksums alone,
without a model; any other is named by its import path. Replacements are counted by type. Personal data is
never logged and stands in no error; presidio's own log, which would contain it, is silenced.
"""

import json
import logging
import re
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from importlib import import_module
from itertools import chain
from typing import Any, NamedTuple, Protocol, Self, cast

from pydantic import Field, model_validator

from extractors.errors import LearndError
from extractors.examples.prompt_keys import compute_prompt_keys, normalise
from extractors.examples.types import Document, Examples, Message
from extractors.values import Record, Value

PRESIDIO = "presidio"
IMPORT_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
RECOGNIZERS = {
    "EMAIL_ADDRESS": "EmailRecognizer",
    "PHONE_NUMBER": "PhoneRecognizer",
    "CREDIT_CARD": "CreditCardRecognizer",
    "IBAN_CODE": "IbanRecognizer",
    "IP_ADDRESS": "IpRecognizer",
    "US_SSN": "UsSsnRecognizer",
    "CRYPTO": "CryptoRecognizer",
    "URL": "UrlRecognizer",
    "MAC_ADDRESS": "MacAddressRecognizer",
    "DATE_TIME": "DateRecognizer",
}
"""Entity types that presidio finds by patterns, with their recognizers."""
CONFIDENT = 0.4
"""Presidio's least score of a finding that is replaced: a validated or unmistakable pattern, or a weak one
(nine digits) beside a word that tells what it is ("my ssn is")."""

WINDOW, OVERLAP = 3_000, 300
"""Characters of a long text that are analysed together, and those analysed twice, so that nothing shorter is
cut in two."""


class RedactorUnusable(LearndError):
    """The redactor that the settings name cannot be used."""


class RedactionFailed(LearndError):
    """A redactor failed on a text. The text is in no part of this error."""


class Redactor(Protocol):
    """Finds personal data and replaces it."""

    def redact(self, text: str) -> tuple[str, Mapping[str, int]]:
        """Return `text` without personal data, and how often each type of it was replaced."""


class RedactionRules(Value):
    """The redactor of a target, and the types of personal data that it replaces."""

    redactor: str | None = None
    """None (nothing is replaced), "presidio", or the import path `module:attribute` of a redactor or of a
    callable that makes one from these rules."""
    entities: tuple[str, ...] = Field(
        ("EMAIL_ADDRESS", "PHONE_NUMBER", "CREDIT_CARD", "IBAN_CODE", "IP_ADDRESS", "US_SSN", "CRYPTO"),
        min_length=1,
    )
    """Types of personal data. Presidio's patterns also find URL, MAC_ADDRESS and DATE_TIME; names and
    places need a model, and so a redactor of your own."""
    language: str = "en"
    """Language of the texts (ISO 639), whose words around a number tell what it is."""

    @model_validator(mode="after")
    def _check_redactor(self) -> Self:
        if self.redactor is None:
            return self
        if self.redactor != PRESIDIO and not IMPORT_PATH.fullmatch(self.redactor):
            raise ValueError(
                f"redactor is {PRESIDIO!r} or an import path 'module:attribute', not {self.redactor!r}"
            )
        unknown = sorted(set(self.entities) - RECOGNIZERS.keys())
        if self.redactor == PRESIDIO and unknown:
            raise ValueError(f"entities {unknown} are none of {', '.join(RECOGNIZERS)}")
        return self


def load_redactor(rules: RedactionRules) -> Redactor | None:
    """Load the redactor that the rules name, None where they name none. Raises RedactorUnusable."""
    if rules.redactor is None:
        return None
    if rules.redactor == PRESIDIO:
        return _make_presidio(rules)
    module, _, attribute = rules.redactor.partition(":")
    try:
        named: Any = import_module(module)
        for name in attribute.split("."):
            named = getattr(named, name)
    except (ImportError, AttributeError) as missing:
        raise RedactorUnusable(
            f"the redactor {rules.redactor!r} cannot be imported ({missing}); install its package where "
            "learnd runs, or correct the path"
        ) from missing
    if isinstance(named, type) or not hasattr(named, "redact"):
        named = named(rules) if callable(named) else named
    if not callable(getattr(named, "redact", None)):
        raise RedactorUnusable(
            f"{rules.redactor!r} is no redactor: it takes a method redact(text) -> (text, counts)"
        )
    return cast(Redactor, named)


class Redaction:
    """One pass over many records that counts all replacements. Without a redactor, nothing is replaced.

    Roles, names, tool definitions, labels of the output space and ids of spans, sessions and documents
    stay as they are; normalised prompts are those of the new texts.
    """

    def __init__(self, redactor: Redactor | None, output_space: Iterable[str] = ()) -> None:
        self.counts: Counter[str] = Counter()
        """How often each type of personal data was replaced."""
        self._redactor = redactor
        self._labels = {normalise(label) for label in output_space}
        # The same system prompt stands in every example.
        self._done: dict[str, tuple[str, Counter[str]]] = {}

    def apply(self, records: Sequence[Record]) -> tuple[Record, ...]:
        """Return examples or reviewed traffic of any kind without personal data. Raises RedactionFailed."""
        return tuple(self._redact_record(record) for record in records) if self._redactor else tuple(records)

    def apply_to_examples(self, examples: Examples) -> Examples:
        """Return examples of all kinds without personal data. Raises RedactionFailed."""
        return Examples.model_validate(
            {kind: self.apply(getattr(examples, kind)) for kind in Examples.model_fields}
        )

    def apply_to_text(self, text: str) -> str:
        """Return `text` without personal data. Raises RedactionFailed."""
        return self._redact_text(text) if self._redactor else text

    def _redact_record(self, record: Record) -> Record:
        fields = {name: getattr(record, name) for name in type(record).model_fields}
        changed = {
            name: new
            for name, value in fields.items()
            if (new := self._redact_text(value) if name == "query" else self._redact_value(value)) != value
        }
        if not changed:
            return record
        keys = {
            name: key for name, key in compute_prompt_keys({**fields, **changed}).items() if name in fields
        }
        # A copy would keep the id of what was said before.
        return type(record)(**{**fields, **changed, **keys})

    def _redact_value(self, value: Any) -> Any:
        """Return messages and documents, alone or several, without personal data; anything else as it is."""
        if isinstance(value, tuple):
            return tuple(self._redact_value(each) for each in value)
        if isinstance(value, Document):
            return value.model_copy(update={"text": self._redact_text(value.text)})
        return self._redact_message(value) if isinstance(value, Message) else value

    def _redact_message(self, message: Message) -> Message:
        is_label = message.role == "assistant" and normalise(message.content) in self._labels
        content = message.content if is_label else self._redact_text(message.content)
        calls = tuple(
            call.model_copy(update={"arguments": self._redact_arguments(call.arguments)})
            for call in message.tool_calls
        )
        thoughts = message.reasoning and self._redact_text(message.reasoning)
        return message.model_copy(update={"content": content, "tool_calls": calls, "reasoning": thoughts})

    def _redact_arguments(self, arguments: str) -> str:
        """Return JSON without personal data in its values, still JSON; unchanged where it holds none."""
        try:
            parsed = json.loads(arguments)
        except (ValueError, RecursionError):
            return self._redact_text(arguments)
        without = self._redact_json(parsed)
        return arguments if without == parsed else json.dumps(without, ensure_ascii=False)

    def _redact_json(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._redact_json(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self._redact_json(inner) for inner in value]
        if isinstance(value, str):
            return self._redact_text(value)
        if isinstance(value, int) and not isinstance(value, bool):
            # A telephone number that the model wrote without quotes.
            without = self._redact_text(str(value))
            return value if without == str(value) else without
        return value

    def _redact_text(self, text: str) -> str:
        if text not in self._done:
            self._done[text] = _redact(cast(Redactor, self._redactor), text)
        without, counts = self._done[text]
        self.counts += counts
        return without


def _redact(redactor: Redactor, text: str) -> tuple[str, Counter[str]]:
    if not text.strip():
        return text, Counter()
    try:
        without, counts = redactor.redact(text)
        return str(without), Counter({str(kind): int(count) for kind, count in counts.items()})
    except Exception as error:  # noqa: BLE001 - whatever it says may quote the text
        failed = (
            f"{type(redactor).__name__} raised {type(error).__name__} on a text of {len(text)} characters"
        )
    # Outside of the handler: else the redactor's own error, which may quote the text, hangs on this one.
    raise RedactionFailed(f"{failed}; nothing was stored. Try the redactor on the texts of this target alone")


# ---- presidio


class _LogSilencer(logging.Filter):
    """A filter that drops presidio's log, and remembers whether presidio gave up on this thread's text."""

    def __init__(self) -> None:
        super().__init__()
        self.gave_up = threading.local()

    def filter(self, record: logging.LogRecord) -> bool:
        if "timed out" in str(record.msg):
            self.gave_up.told = True
        return False


_SILENCE = _LogSilencer()


class _Finding(NamedTuple):
    start: int
    end: int
    entity_type: str
    score: float


class PresidioRedactor:
    """Patterns and checksums of presidio-analyzer on a blank spaCy pipeline: no model, no network."""

    def __init__(self, entities: Sequence[str], language: str) -> None:
        logging.getLogger("presidio-analyzer").addFilter(_SILENCE)
        self._entities = list(entities)
        self._language = language
        self._analyzer = _make_analyzer(entities, language)

    def redact(self, text: str) -> tuple[str, Counter[str]]:
        """Return `text` with `<ENTITY_TYPE>` in place of each finding.

        Overlapping findings are replaced as a whole, by the type of which presidio is surest. Raises
        TimeoutError where a pattern gave up on the text.
        """
        kept, end, counts = [], 0, Counter[str]()
        for found in _merge_overlaps(chain.from_iterable(map(self._find, _split_windows(text)))):
            kept += [text[end : found.start], f"<{found.entity_type}>"]
            end = found.end
            counts[found.entity_type] += 1
        return "".join([*kept, text[end:]]), counts

    def _find(self, window: tuple[int, str]) -> list[_Finding]:
        begin, text = window
        _SILENCE.gave_up.told = False
        # Else spaCy keeps every word it ever saw.
        with self._analyzer.nlp_engine.get_nlp(self._language).memory_zone():
            results = self._analyzer.analyze(
                text, language=self._language, entities=self._entities, score_threshold=CONFIDENT
            )
        if _SILENCE.gave_up.told:
            # It then goes on with the next pattern, as if this one had found nothing.
            raise TimeoutError("a pattern gave up on the text")
        return [_Finding(begin + r.start, begin + r.end, r.entity_type, r.score) for r in results]


@lru_cache(maxsize=4)
def _make_presidio(rules: RedactionRules) -> PresidioRedactor:
    try:
        return PresidioRedactor(rules.entities, rules.language)
    except ImportError as missing:
        if "spacy.lang" in str(missing) or "E048" in str(missing):
            reason = f"spaCy has no language {rules.language!r}; 'xx' is any language"
        else:
            reason = (
                f"presidio-analyzer cannot be imported ({missing}); install it: pip install 'learnd[redact]'"
            )
        raise RedactorUnusable(reason) from missing


def _make_analyzer(entities: Iterable[str], language: str) -> Any:
    """Make presidio's engine with the recognizers of `entities`. Raises ImportError."""
    import spacy
    from presidio_analyzer import AnalyzerEngine, RecognizerRegistry, predefined_recognizers
    from presidio_analyzer.nlp_engine import SpacyNlpEngine

    class Email(predefined_recognizers.EmailRecognizer):
        def validate_result(self, pattern_text: str) -> None:
            """Accept every domain, internal ones too; presidio's own check downloads a list of domains."""

    engine: Any = SpacyNlpEngine(models=[{"lang_code": language, "model_name": "blank"}])
    engine.nlp = {language: _make_pipeline(spacy, language)}
    classes = {"EmailRecognizer": Email}
    recognizers = [
        (classes.get(RECOGNIZERS[entity]) or getattr(predefined_recognizers, RECOGNIZERS[entity]))(
            supported_language=language
        )
        for entity in entities
    ]
    registry = RecognizerRegistry(recognizers=recognizers, supported_languages=[language])
    return AnalyzerEngine(registry=registry, nlp_engine=engine, supported_languages=[language])


def _make_pipeline(spacy: Any, language: str) -> Any:
    """Make a pipeline for texts of any length that gives presidio lower-case words around a number."""
    spacy.Language.component("learnd_lower_case", func=_lower_lemmas)
    pipeline = spacy.blank(language)
    pipeline.add_pipe("learnd_lower_case")
    pipeline.max_length = sys.maxsize
    return pipeline


def _lower_lemmas(doc: Any) -> Any:
    for token in doc:
        token.lemma_ = token.lower_
    return doc


def _split_windows(text: str) -> Iterator[tuple[int, str]]:
    """Yield the start and the text of each part of a long text.

    Presidio's time grows with length times findings.
    """
    for begin in range(0, max(1, len(text) - OVERLAP), WINDOW - OVERLAP):
        yield begin, text[begin : begin + WINDOW]


def _merge_overlaps(findings: Iterable[_Finding]) -> list[_Finding]:
    """Return findings in order of place, overlapping ones as one, of the surest, then longest type."""
    merged: list[_Finding] = []
    for found in sorted(findings):
        if not merged or found.start >= merged[-1].end:
            merged.append(found)
            continue
        before = merged.pop()
        surest = max(before, found, key=lambda finding: (finding.score, finding.end - finding.start))
        merged.append(surest._replace(start=before.start, end=max(before.end, found.end)))
    return merged
