"""One item of a streamed response, put together from its events."""

from typing import Any

from daemon.gateway.apis.api import Json, read_type, to_list

_PARTS_BY_EVENT = {
    "response.output_text.delta": ("content", "output_text"),
    "response.refusal.delta": ("content", "refusal"),
    "response.reasoning_text.delta": ("content", "reasoning_text"),
    "response.reasoning_summary_text.delta": ("summary", "summary_text"),
}
"""Events with a fragment of a part: the list that the part is in, and its type."""
_FIELDS_BY_EVENT = {
    "response.function_call_arguments.delta": "arguments",
    "response.custom_tool_call_input.delta": "input",
}
"""Events with a fragment of a field of the item itself."""
_TEXT_KEYS = {"output_text": "text", "reasoning_text": "text", "summary_text": "text", "refusal": "refusal"}

Place = tuple[str, int]
"""A list of parts, or a field of the item, and an index in it."""


class ItemBuilder:
    """Collects the events of one item."""

    def __init__(self) -> None:
        self._item: Json = {}
        self.is_done = False
        """True once an event has told the whole item."""
        self._kinds: dict[Place, str] = {}
        # Joined once, in the end: a text that grows by each delta is copied as often.
        self._pieces: dict[Place, list[str]] = {}

    def add(self, event: Json) -> None:
        """Add what an event says of the item."""
        kind, delta = read_type(event), event.get("delta")
        if kind in ("response.output_item.added", "response.output_item.done"):
            item = event.get("item")
            self._item = item if isinstance(item, dict) else {}
            self.is_done = kind.endswith(".done")
        elif not isinstance(delta, str):
            return
        elif kind in _PARTS_BY_EVENT:
            name, part = _PARTS_BY_EVENT[kind]
            index = event.get("summary_index" if name == "summary" else "content_index")
            place = (name, index if type(index) is int else 0)
            self._kinds[place] = part
            self._pieces.setdefault(place, []).append(delta)
        elif kind in _FIELDS_BY_EVENT:
            self._pieces.setdefault((_FIELDS_BY_EVENT[kind], 0), []).append(delta)

    def build(self) -> Json:
        """Return the item as its last event has it; without that event, as far as it came."""
        if self.is_done or not self._pieces:
            return self._item
        built = {**self._item}
        parts: dict[str, list[Json]] = {}
        for place, text in sorted(self.join_pieces().items()):
            name, kind = place[0], self._kinds.get(place)
            if kind is None:
                built[name] = text
            else:
                parts.setdefault(name, []).append({"type": kind, _TEXT_KEYS[kind]: text})
        return {**built, **parts}

    def join_pieces(self) -> dict[Place, str]:
        """Return what the deltas say, by its place in the item."""
        return {place: "".join(pieces) for place, pieces in self._pieces.items()}


def list_texts(item: Any) -> dict[Place, str]:
    """Return what an item in one piece says, by its place in it."""
    said: dict[Place, str] = {}
    item = item if isinstance(item, dict) else {}
    for name in ("content", "summary"):
        for index, part in enumerate(to_list(item.get(name))):
            key = _TEXT_KEYS.get(read_type(part))
            if key is not None and isinstance(part.get(key), str):
                said[name, index] = part[key]
    for name in _FIELDS_BY_EVENT.values():
        if isinstance(item.get(name), str):
            said[name, 0] = item[name]
    return said
