"""The conversations that each SDK has, as chat messages: what is asked, and what the model answers."""

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

SYSTEM = "You answer for the harbour office."
FERRY = "When does the ferry leave?"
FERRY_ANSWER = "The ferry leaves at seven."
SUNDAY = "And on Sundays?"
SUNDAY_ANSWER = "On Sundays it leaves at nine."
TIDES = "How high are the tides at Husum and at Emden?"
TIDES_ANSWER = "Husum has 2.1 m and Emden 3.0 m."
BERTH = "Which berth is free?"
BERTH_ANSWER = '{"berth": 4, "side": "north"}'
COMPLAINT = "I was charged twice"
COMPLAINT_ANSWER = "billing"
"""What the guide's snippets ask, without a system prompt."""
ENDLESS = "Tell me all about boats."
ENDLESS_ANSWER = "Boats" + 40 * " and boats"
"""How the answer to `ENDLESS` begins, which goes on until somebody stops it."""

MAX_TOKENS = 1500
"""What SDKs ask for that must name a number: more than any answer has, and less than the model's window."""

TIDE = {"Husum": "2.1 m", "Emden": "3.0 m"}
"""What the tool answers for each place."""
TOOL_NAME = "read_tide"
TOOL_DESCRIPTION = "Height of the tide at a place."
TOOL_PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {"place": {"type": "string"}},
    "required": ["place"],
    "additionalProperties": False,
}


class Berth(BaseModel):
    """The form of the answer to `BERTH`."""

    model_config = ConfigDict(extra="forbid")

    berth: int
    side: Literal["north", "south"]


BERTH_SCHEMA = Berth.model_json_schema()

Chat = list[dict[str, Any]]


def read_tide(place: str) -> str:
    """Height of the tide at a place."""
    return TIDE[place]


def list_lessons() -> list[tuple[Chat, str]]:
    """Return each prompt with the text that the model has to say to it."""
    system = {"role": "system", "content": SYSTEM}
    ferry: Chat = [system, {"role": "user", "content": FERRY}]
    sunday = [
        *ferry,
        {"role": "assistant", "content": FERRY_ANSWER},
        {"role": "user", "content": SUNDAY},
    ]
    tides: Chat = [system, {"role": "user", "content": TIDES}]
    calls = [{"name": TOOL_NAME, "arguments": {"place": place}} for place in TIDE]
    results = [
        *tides,
        {"role": "assistant", "content": "", "tool_calls": [{"function": call} for call in calls]},
        *({"role": "tool", "content": height} for height in TIDE.values()),
    ]
    return [
        (ferry, FERRY_ANSWER),
        (sunday, SUNDAY_ANSWER),
        (tides, "\n".join(f"<tool_call>{json.dumps(call)}</tool_call>" for call in calls)),
        (results, TIDES_ANSWER),
        ([system, {"role": "user", "content": BERTH}], BERTH_ANSWER),
        ([{"role": "user", "content": COMPLAINT}], COMPLAINT_ANSWER),
        ([system, {"role": "user", "content": ENDLESS}], ENDLESS_ANSWER),
    ]
