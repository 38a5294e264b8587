"""Reviewed support traffic for the audit of a target's data: some calls are odd, most are not."""

import json
from typing import Any

from extractors.phoenix.mirror import MirrorChange, MirrorState
from extractors.phoenix.spans import Span
from tests.support.traffic import annotation, openinference, span

ANSWER = "Your parcel left our warehouse this morning and should be with you by tomorrow evening."
ODD = {
    "ok": ("Where is the parcel that I ordered for my aunt?", "Ok."),
    "template": ("When will you send my receipt?", f"Dear {{{{customer_name}}}}, {ANSWER}"),
    "json": ('{"question": "Where is the blue lamp?"}', ANSWER),
    "echo": (
        "Please tell me how to return a broken lamp.",
        f"Please tell me how to return a broken lamp. {ANSWER}",
    ),
}
"""Question and answer of the odd calls, by the name of their span."""


def build_reviewed_traffic(calm: int = 40) -> MirrorChange:
    """Return what a poll finds: the odd calls and `calm` others, all of which a person approved."""
    questions = [f"Where is parcel {word}?" for word in _name_parcels(calm)]
    spans = [
        _build_call(f"calm{n:02}", n, asked, f"{ANSWER} It has stop {n}.")
        for n, asked in enumerate(questions)
    ]
    spans += [_build_call(name, -100 + n, *said) for n, (name, said) in enumerate(ODD.items())]
    spans.append(_build_thinking_call())
    said = [annotation(each.span_id) for each in spans]
    return MirrorChange(state=MirrorState(), spans=tuple(spans), annotations=tuple(said))


def _name_parcels(count: int) -> list[str]:
    colours = ["amber", "beige", "coral", "denim", "ebony", "fawn", "green", "hazel"]
    things = ["kettle", "ladder", "mirror", "needle", "organ", "pillow", "quilt", "radio"]
    return [f"with the {colours[n % 8]} {things[n // 8 % 8]}" for n in range(count)]


def _build_call(span_id: str, minute: int, asked: str, answer: str, **roots: Any) -> Span:
    attributes = openinference(("system", "Help the customer."), ("user", asked), answer=answer, **roots)
    return span(span_id, minute, attributes=attributes)


def _build_thinking_call() -> Span:
    """A call of a reasoning model, with a tool that was called before."""
    call = {"id": "c1", "function": {"name": "find_parcel", "arguments": json.dumps({"name": "Lee"})}}
    thoughts = "The tool says that it is at the depot, so I say that."
    parts = [
        {"type": "reasoning", "text": thoughts},
        {"type": "text", "text": f"{ANSWER} It is at the depot."},
    ]
    return span(
        "thinking",
        minute=-1,
        attributes={
            "llm": {
                "input_messages": [
                    {"message": {"role": "user", "content": "Is the parcel of Mister Lee at your depot?"}},
                    {"message": {"role": "assistant", "tool_calls": [{"tool_call": call}]}},
                    {"message": {"role": "tool", "tool_call_id": "c1", "content": "at the depot"}},
                ],
                "output_messages": [
                    {
                        "message": {
                            "role": "assistant",
                            "contents": [{"message_content": part} for part in parts],
                        }
                    }
                ],
            }
        },
    )
