"""Reasons why a call or a search does not become an example. Each is counted and shown to the operator."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from typing import TypeVar

from extractors.errors import LearndError
from extractors.values import Reasons

Source = TypeVar("Source")
Found = TypeVar("Found")

MOST_SPANS = 50
"""Spans that are remembered for each reason."""


class DropReason(StrEnum):
    INTERNAL = "learnd's own call: probe, synthesis, judging or experiment"
    OTHER_TARGET = "the gateway answered it for another tenant or agent"
    FAILED = "the call ended in an error"
    NO_PROMPT = "no prompt was recorded, or its text is hidden (OPENINFERENCE_HIDE_INPUTS and its like)"
    NO_ANSWER = "no answer was recorded, or its text is hidden (OPENINFERENCE_HIDE_OUTPUTS and its like)"
    CONTENT_ELSEWHERE = (
        "the span names a model but holds no messages: its tracer writes them elsewhere (logs), or was told "
        "not to (OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=span_only records them)"
    )
    SEVERAL_ANSWERS = "several answers were recorded, and nothing says which one was used"
    CUT_OFF = "the answer was cut off at the limit of tokens: raise that limit"
    ANSWER_NOT_WHOLE = (
        "the recorded answer is too short for its number of tokens: the tracer kept only part of it (of a "
        "stream, the last piece), or not the thoughts"
    )
    ABNORMAL_END = "the answer did not end by itself: a filter, a refusal or an error ended it"
    TRUNCATED = (
        "the tracer dropped attributes: raise the agent's OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT (128 by default)"
    )
    VALUE_CUT = "the tracer cut texts at a length: unset the agent's OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT"
    NOT_WHOLE = (
        "the history is not whole: an empty message, a tool call without its result, or a result without its "
        "call; upgrade or change the agent's tracer"
    )
    HISTORY_ELSEWHERE = (
        "the request refers to a history, prompt or item that the provider keeps (previous_response_id and "
        "its like); send the whole history, or trace through learnd's gateway"
    )
    HISTORY_DIFFERS = "two records of the call disagree about its messages, their roles or their order"
    TEXTS_DIFFER = "two records of the call disagree about the text of a message"
    TOOL_CALLS_DIFFER = "two records of the call disagree about the tools that were offered or called"
    ANSWERS_DIFFER = "two records of the call disagree about how many answers there were"
    REDACTED = "part of the messages is hidden by a placeholder such as __REDACTED__"
    SERIALISED = "a message holds parts or an object written as text (JSON or Python), not what was said"
    UNKNOWN_TOOL = "the answer calls a tool that the request does not offer"
    BROKEN_ARGUMENTS = "a tool is called with arguments that are no JSON object, or that break off"
    SERVER_TOOL = "the provider ran a tool of its own (web search, code), and what it found is not traced"
    PREFILLED = (
        "the request ends in the assistant's words, or asks for an echo: the answer may be their continuation"
    )
    RENDERED_OTHERWISE = (
        "the request has its messages rendered as training does not render them (documents, chat_template, "
        "truncate_prompt_tokens, truncation, suffix), or its agent has rendered them itself"
    )
    MALFORMED = "an attribute has a type or shape that no convention writes"
    NOT_TEXT = "images, audio, files or other parts that are no text, which a text model cannot learn from"
    NOT_UNICODE = "text that is not valid Unicode (lone surrogates)"
    TOO_LARGE = "more text than a model could be trained on"
    NO_FEEDBACK = "no feedback that counts reached this call"
    DISAGREEMENT = "reviewers disagree about this response"
    CORRECTIONS_DIFFER = "reviewers gave different corrections"
    ANSWER_UNREADABLE = "a reviewer's correction or candidate is no answer that can be read and stored"
    OUTSIDE_OUTPUT_SPACE = "the approved or corrected answer is not in the output space"
    INCOMPLETE = "a call of the conversation cannot be read"
    SYSTEM_CHANGED = "the system prompt changed in the course of the conversation"
    COMPACTED = (
        "a call of the conversation does not go on from what was said before: its history was summarised, "
        "shortened in the middle or rewritten, or it is another agent's"
    )
    INTERLEAVED = (
        "calls of several agents or conversations alternate in one session: give each a session of its own"
    )
    REPEATED = "the same prompt, response and verdict again in one session"


class SearchDropReason(StrEnum):
    NO_QUERY = "the search recorded no query that can be read"
    NO_DOCUMENTS = "the search recorded no documents"
    NO_TEXT = "a document of a search has no text, and an id is not trained on"
    NO_JUDGEMENT = "nobody said which documents of this search are relevant"
    DOCUMENT_DISPUTED = "reviewers disagree about a document of a search"
    UNKNOWN_CLICK = "a clicked or used document is not in the search's result list"
    AMBIGUOUS_CLICK = "a further document with an id that was clicked or used: nothing says which one it was"
    CLICKS_UNREADABLE = "what was clicked or used is too long a text to be a list of ids"
    REPEATED_SEARCH = "the same search with the same judgements again in one session"


DECISIVE = frozenset(
    {
        DropReason.NOT_TEXT,
        DropReason.SERVER_TOOL,
        DropReason.HISTORY_ELSEWHERE,
        DropReason.ANSWER_NOT_WHOLE,
        DropReason.BROKEN_ARGUMENTS,
        DropReason.RENDERED_OTHERWISE,
        DropReason.TOO_LARGE,
        DropReason.NOT_UNICODE,
    }
)
"""Reasons that one record is enough for."""


class Unreadable(LearndError):
    """A span's attributes cannot be read; `reason` is what gets counted."""

    def __init__(self, reason: DropReason) -> None:
        super().__init__(reason.value)
        self.reason = reason

    @property
    def is_decisive(self) -> bool:
        """True where one record is enough to refuse the call, however well the others read."""
        return self.reason in DECISIVE


def raise_gravest(complaints: Sequence[Unreadable]) -> None:
    """Raise the complaint that decides about the whole call where there is one, else the first."""
    for complaint in complaints:
        if complaint.is_decisive:
            raise complaint
    if complaints:
        raise complaints[0]


def read_each(written: Iterable[Source], read: Callable[[Source], Iterable[Found]]) -> list[Found]:
    """Return all that `read` finds in what is `written`, in order.

    Raises the gravest Unreadable that `read` raises on any of it.
    """
    found: list[Found] = []
    complaints: list[Unreadable] = []
    for each in written:
        try:
            found.extend(read(each))
        except Unreadable as complaint:
            complaints.append(complaint)
    raise_gravest(complaints)
    return found


class Drops:
    """Things that were dropped: how many for each reason, and spans to look at."""

    def __init__(self) -> None:
        self._counted = Counter[StrEnum]()
        self._spans: dict[StrEnum, dict[str, None]] = {}

    def add(self, reason: StrEnum, spans: Iterable[str] = (), count: int = 1) -> None:
        """Count something that was dropped; `spans` are the ids of the spans that it was read from."""
        if not count:
            return
        self._counted[reason] += count
        known = self._spans.setdefault(reason, {})
        for span_id in spans:
            # Those that come later are newer: they are what an operator can still do something about.
            known.pop(span_id, None)
            known[span_id] = None
        while len(known) > MOST_SPANS:
            known.pop(next(iter(known)))

    def add_counts(self, reasons: Reasons, spans: Iterable[str]) -> None:
        """Count each of the `reasons` as often as it says, all read from the same spans."""
        span_ids = tuple(spans)
        for reason, count in reasons.items():
            self.add(reason, span_ids, count)

    @classmethod
    def join(cls, parts: Iterable["Drops"]) -> "Drops":
        """Return the sum of several counts; spans of later parts pass for newer."""
        joined = cls()
        for part in parts:
            for reason, count in part._counted.items():
                joined.add(reason, part._spans[reason], count)
        return joined

    @property
    def counts(self) -> dict[str, int]:
        """By reason in words."""
        return {str(reason.value): count for reason, count in sorted(self._counted.items())}

    @property
    def spans(self) -> dict[str, tuple[str, ...]]:
        """At most MOST_SPANS ids by reason in words, the newest last."""
        return {str(reason.value): tuple(known) for reason, known in sorted(self._spans.items()) if known}
