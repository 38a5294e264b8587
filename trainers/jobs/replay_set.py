"""The replay that a training mixes in, as tokens."""

from pathlib import Path
from typing import Any

from trainers.batching.tokenise import IGNORE_INDEX, TrainingSet
from trainers.jobs.job import TrainingJob
from trainers.replay.examples import ReplayGone, read_replay
from trainers.replay.tokens import render_replay


def tokenise_replay(tokenizer: Any, job: TrainingJob) -> TrainingSet:
    """Return the examples that the base wrote itself and that the job's stage mixes in, if any.

    Raises ReplayGone.
    """
    stage = job.current_stage
    if stage.replay is None:
        return TrainingSet(features=(), too_long=0, refusals=())
    if job.replay is None:
        raise ReplayGone("the plan mixes in what the base wrote, and the job names no folder of it")
    found = read_replay(Path(job.replay), stage.replay.examples, stage.replay.digest)
    rendered = [render_replay(tokenizer, each) for each in found]
    features = [
        {
            "input_ids": [*each.prompt_ids, *each.completion_ids],
            "labels": [IGNORE_INDEX] * len(each.prompt_ids) + list(each.completion_ids),
        }
        for each in rendered
    ]
    fitting = [each for each in features if len(each["input_ids"]) <= stage.hyperparameters.max_length]
    return TrainingSet(features=tuple(fitting), too_long=len(features) - len(fitting), refusals=())
