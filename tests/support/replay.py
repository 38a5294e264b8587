"""Replay that is written by hand, for models that write rubbish."""

from pathlib import Path

from trainers.job_folder import RESULT
from trainers.replay.examples import HELD_OUT, PART_SIZE, ReplayExample, ReplayPart, find_part

THINGS = ("a lamp", "the moon", "an old map", "bread", "a canal", "iron", "a waltz", "rain")


def write_parts(folder: Path, parts: int = 2, size: int = PART_SIZE) -> tuple[ReplayExample, ...]:
    """Write the held-out part and the ones after it into `folder`; return what trainings learn."""
    written = [_make_part(number, size) for number in range(parts)]
    for number, part in enumerate(written):
        find_part(folder, number).mkdir(parents=True)
        (find_part(folder, number) / RESULT).write_text(part.model_dump_json(), "utf-8")
    return tuple(each for part in written[HELD_OUT + 1 :] for each in part.examples)


def _make_part(part: int, size: int) -> ReplayPart:
    numbers = range(part * size, (part + 1) * size)
    return ReplayPart(
        examples=tuple(
            ReplayExample(
                question=f"What is number {number} on your list about {THINGS[number % len(THINGS)]}?",
                answer=f"It says that {THINGS[(number + 3) % len(THINGS)]} comes after {number}.",
            )
            for number in numbers
        ),
        tried=size,
    )
