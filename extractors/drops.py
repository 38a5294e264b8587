"""Why a call does not become an example. Every reason is counted and shown to the operator."""

from enum import StrEnum

from extractors.values import LearndError


class DropReason(StrEnum):
    INTERNAL = "learnd's own call: probe, synthesis, judging or experiment"
    OTHER_TARGET = "the gateway answered it for another tenant or agent"
    FAILED = "the call ended in an error"
    NO_PROMPT = "no prompt was recorded"
    NO_ANSWER = "no answer was recorded"
    SEVERAL_ANSWERS = "several answers were recorded, and nothing says which one was used"
    TRUNCATED = (
        "the tracer dropped messages: raise the agent's OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT (128 by default)"
    )
    MALFORMED = "an attribute has a type or shape that no convention writes"
    NOT_TEXT = "images, audio or files, which a text model cannot learn from"
    NOT_UNICODE = "text that is not valid Unicode (lone surrogates)"
    TOO_LARGE = "more text than a model could be trained on"
    NO_FEEDBACK = "no feedback that counts reached this call"
    DISAGREEMENT = "reviewers disagree about this response"
    CORRECTIONS_DIFFER = "reviewers gave different corrections"
    ANSWER_UNREADABLE = "a reviewer's correction or candidate is no answer that can be read and stored"
    OUTSIDE_OUTPUT_SPACE = "the approved or corrected answer is not in the output space"
    INCOMPLETE = "a call of the conversation cannot be read"
    SYSTEM_CHANGED = "the system prompt changed in the course of the conversation"
    REPEATED = "the same prompt, response and verdict again in one session"


class Unreadable(LearndError):
    """A span's attributes cannot be read; `reason` is what gets counted."""

    def __init__(self, reason: DropReason) -> None:
        super().__init__(reason.value)
        self.reason = reason
