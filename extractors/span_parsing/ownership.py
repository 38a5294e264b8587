"""The owner of a span: learnd itself or an agent, the target that it was answered for, and its session."""

from typing import Any

from extractors.phoenix.spans import Span
from extractors.span_parsing.drop_reasons import Unreadable
from extractors.span_parsing.nested_attributes import get_path, parse_json

OWN_KINDS = frozenset({"EVALUATOR", "EXPERIMENT"})
"""Kinds of spans whose calls of a model judge or compare answers, and are no traffic."""
SESSION_KEYS = ("session_id", "thread_id", "conversation_id")
"""Keys of metadata that name a session."""


def is_internal(span: Span) -> bool:
    """Return whether learnd itself made this call: such calls never become examples."""
    marks = (
        get_path(span.attributes, "learnd.internal"),
        read_metadata(span.attributes).get("learnd_internal"),
    )
    return span.kind in OWN_KINDS or any(mark in (True, "true") for mark in marks)


def belongs_to_another(span: Span, target: str | None) -> bool:
    """Return whether the gateway answered this for another target than `target` (`tenant/agent`).

    A span joins its caller's trace, and so may lie in another target's project. Without a target nothing
    belongs to another.
    """
    tenant, agent = get_path(span.attributes, "learnd.tenant"), get_path(span.attributes, "learnd.agent")
    return target is not None and tenant is not None and f"{tenant}/{agent}" != target


def find_session(span: Span) -> str | None:
    """Return the session that `span` names, in an attribute of any convention or in its metadata."""
    metadata = read_metadata(span.attributes)
    candidates = (
        get_path(span.attributes, "session.id"),
        get_path(span.attributes, "gen_ai.conversation.id"),
        *(metadata.get(key) for key in SESSION_KEYS),
    )
    return span.session_id or next((found for each in candidates if (found := to_identifier(each))), None)


def read_metadata(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return `metadata` as a mapping: Phoenix decodes JSON text, but not when other keys stand under it."""
    try:
        metadata = parse_json(attributes.get("metadata"))
    except Unreadable:
        return {}
    return metadata if isinstance(metadata, dict) else {}


def to_identifier(value: Any) -> str | None:
    """Return a usable id: text that can be stored, or a whole number written out; None for anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and value.isprintable() and value else None
