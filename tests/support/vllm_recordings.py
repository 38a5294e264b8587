"""What a real vLLM 0.32 answered over each API; `tests.e2e.record_vllm` records it anew."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from extractors.values import Value

FILE = Path(__file__).with_name("recordings") / "vllm.json"


class Recording(Value):
    """One request to vLLM, and its answer."""

    name: str
    """The conversation, such as `tides`."""
    api: str
    """`chat`, `responses` or `messages`."""
    stream: bool
    path: str
    request: dict[str, Any]
    status: int
    content_type: str
    body: str


@cache
def read_recordings() -> tuple[Recording, ...]:
    return tuple(Recording.model_validate(each) for each in json.loads(FILE.read_text("utf-8")))


def find_recording(name: str, api: str, *, stream: bool = False) -> Recording:
    """Return the recording of that name."""
    return next(
        each for each in read_recordings() if (each.name, each.api, each.stream) == (name, api, stream)
    )
