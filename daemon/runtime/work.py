"""The kinds of work that child processes do. It imports nothing: a child begins here."""

from enum import StrEnum


class Work(StrEnum):
    """What a child does: `learnd work NAME FOLDER`."""

    TRAIN = "train"
    MEASURE = "measure"
    SEEDS = "seeds"
    EVALUATE = "evaluate"
    RATES = "rates"
    ESTIMATE = "estimate"
    SYNTHESISE = "synthesise"
