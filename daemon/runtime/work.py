"""The kinds of work that child processes do. It imports nothing of ours, so that a child starts fast."""

from enum import StrEnum


class Work(StrEnum):
    """The work of a child process: `learnd work NAME FOLDER`."""

    REPLAY = "replay"
    TRAIN = "train"
    RACE = "race"
    MEASURE = "measure"
    SEEDS = "seeds"
    EVALUATE = "evaluate"
    RATES = "rates"
    ESTIMATE = "estimate"
    SYNTHESISE = "synthesise"
