"""Replay: questions and answers that a base model wrote itself, as files beside each other.

    <folder>/0/           held out: no training learns it, and evaluations ask it
    <folder>/1/, 2/, …    parts that trainings learn, in this order

Each part is the folder of the job that wrote it (`trainers.replay.job`).
"""

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from extractors.errors import LearndError
from extractors.values import Value, content_id
from trainers.job_folder import RESULT

PART_SIZE = 64
"""Examples of a part."""
HELD_OUT = 0
"""Number of the part that is never learned."""
MOST_MIXED = 512
"""Most replay examples of a training. A hundred kept nearly all of what fine-tuning made a model forget
(openreview AmQVxvyRJC)."""


class ReplayGone(LearndError):
    """The replay that a plan or an evaluation names is not there any more, or is another one."""


class ReplayExample(Value):
    """A question that the base model wrote as if it were the user, and its answer."""

    question: str
    answer: str
    is_whole: bool = True
    """False for the beginning of a long answer: nothing says that it ends there."""


class ReplayPart(Value):
    """What the base model wrote for one part."""

    examples: tuple[ReplayExample, ...] = ()
    tried: int = 0
    """Questions that it wrote, with those that were of no use."""
    refused: dict[str, int] = {}
    """Number of the others, by the reason."""
    why_not: str = ""
    """Why the base cannot write replay at all, in words."""


def find_part(folder: Path, number: int) -> Path:
    """Return the folder of one part of the replay in `folder`."""
    return folder / str(number)


def read_part(folder: Path, number: int) -> ReplayPart:
    """Read a part that was written. Raises ReplayGone."""
    file = find_part(folder, number) / RESULT
    try:
        return ReplayPart.model_validate_json(file.read_text("utf-8"))
    except (OSError, ValidationError) as broken:
        raise ReplayGone(f"{file} cannot be read ({broken}); start the cycle again") from broken


def count_parts(examples: int) -> int:
    """Return the number of parts that a training on so many replay examples needs, the held-out one aside."""
    return -(-examples // PART_SIZE)


def read_replay(folder: Path, examples: int, digest: str) -> tuple[ReplayExample, ...]:
    """Return the first `examples` that trainings learn. Raises ReplayGone where their digest is another."""
    found: list[ReplayExample] = []
    for number in range(1, 1 + count_parts(MOST_MIXED)):
        if len(found) >= examples:
            break
        found += read_part(folder, number).examples
    chosen = tuple(found[:examples])
    if compute_digest(chosen) != digest:
        raise ReplayGone(
            f"the replay in {folder} is not the one that the plan was made with; start the cycle again"
        )
    return chosen


def compute_digest(examples: Sequence[ReplayExample]) -> str:
    """Return the content id of examples in their order."""
    return content_id([each.model_dump() for each in examples])
