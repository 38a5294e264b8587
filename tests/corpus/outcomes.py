"""The outcome of each recorded situation: read, read without some part, or refused.

`python -m tests.corpus.outcomes` writes them into `expected.toml`. Only what is right can be written: a
reading that differs from what was said raises.
"""

import tomli_w

from extractors.span_parsing.calls import read_call
from extractors.span_parsing.drop_reasons import DropReason
from tests.corpus.compare import find_gaps, find_untruths
from tests.corpus.recorded import EXPECTED, NOT_TRACED, READ, TRACERS, read_truth
from tests.corpus.replay import Traced, replay


class Untrue(Exception):
    """A call was read as something that was not said."""


def find_outcomes(tracer: str) -> dict[str, str]:
    """Return the outcome of each situation, in the script's order.

    That is `read`, `read without tools` and its like, the name of a DropReason, or `not traced` where the
    tracer exported no span. Raises Untrue.
    """
    outcomes = {call.situation: NOT_TRACED for call in read_truth(tracer)}
    for traced in replay(tracer):
        outcomes[traced.call.situation] = _read(tracer, traced)
    return outcomes


def _read(tracer: str, traced: Traced) -> str:
    reading = read_call(traced.span)
    if isinstance(reading, DropReason):
        return reading.name
    if untruths := find_untruths(reading, traced.call):
        raise Untrue(f"{tracer}, {traced.call.situation}: {'; '.join(untruths)}")
    gaps = find_gaps(reading, traced.call)
    return f"{READ} without {' and '.join(gaps)}" if gaps else READ


def main() -> None:
    """Write the outcomes as they are now."""
    EXPECTED.write_text(tomli_w.dumps({tracer: find_outcomes(tracer) for tracer in TRACERS}), "utf-8")


if __name__ == "__main__":
    main()
