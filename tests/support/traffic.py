"""Hand-made spans, annotations and reviewed items for tests of what is made of them."""

from datetime import UTC, datetime, timedelta
from typing import Any

from extractors.examples.prompt_keys import compute_prompt_key
from extractors.examples.types import Message, ReviewedItem
from extractors.phoenix.spans import Annotation, Span

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def openinference(*messages: tuple[str, str], answer: str = "billing", **roots: Any) -> dict[str, Any]:
    """Attributes of an LLM span as Phoenix nests them."""
    return {
        "llm": {
            "input_messages": [{"message": {"role": role, "content": content}} for role, content in messages],
            "output_messages": [{"message": {"role": "assistant", "content": answer}}],
        },
        **roots,
    }


def span(span_id: str = "s1", minute: float = 0, **changes: Any) -> Span:
    """A selected LLM span in a trace of its own, `minute` minutes after noon."""
    given: dict[str, Any] = {
        "span_id": span_id,
        "trace_id": f"trace-{span_id}",
        "name": "ChatCompletion",
        "kind": "LLM",
        "started_at": NOON + timedelta(minutes=minute),
        "selected": True,
        "attributes": openinference(("user", f"What about {span_id}?")),
    }
    return Span(**{**given, **changes})


def annotation(subject_id: str = "s1", label: str | None = "approved", **changes: Any) -> Annotation:
    """A person's approval of a span."""
    given: dict[str, Any] = {
        "level": "span",
        "subject_id": subject_id,
        "name": "approval",
        "identifier": "ann",
        "annotator_kind": "HUMAN",
        "label": label,
        "updated_at": NOON,
    }
    return Annotation(**{**given, **changes})


def correction(subject_id: str = "s1", text: str = "shipping", **changes: Any) -> Annotation:
    return annotation(subject_id, None, name="correction", explanation=text, **changes)


def item(number: int, minute: float | None = None, **changes: Any) -> ReviewedItem:
    """An approved item with a prompt and a session of its own."""
    prompt = (Message(role="user", content=changes.pop("text", f"question {number}")),)
    response = Message(role="assistant", content=changes.pop("answer", f"answer {number}"))
    given: dict[str, Any] = {
        "prompt": prompt,
        "response": response,
        "outcome": "approved",
        "gold": response,
        "source_span_ids": (f"span-{number}",),
        "trace_id": f"trace-{number}",
        "session_id": f"session-{number}",
        "prompt_key": compute_prompt_key(prompt),
        "started_at": NOON + timedelta(minutes=number if minute is None else minute),
    }
    return ReviewedItem(**{**given, **changes})


def rejected_item(number: int, **changes: Any) -> ReviewedItem:
    """A rejected item without gold, with a prompt and a session of its own."""
    return item(number, outcome="rejected", gold=None, **changes)
