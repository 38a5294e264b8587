"""What a target's cycles did, told to Phoenix: two spans for each run, its holdout and answers to compare.

No cycle waits for Phoenix. What it has not got yet is told again until it shows it, and only then marked in
the store: at least once. Everything has the run's id in Phoenix, so what is told twice is there once.

    EXPERIMENT span      a cycle that trained, or that looked at a version again
    └─ EVALUATION span   its verdict: candidate and base
    dataset              the target's holdout, of which each window is a version
    └─ experiments       what is live, the candidate and every other side, answer by answer
"""

import structlog

from daemon.publishing.holdout_dataset import experiments_of
from daemon.publishing.run import Run
from daemon.publishing.spans import evaluation_span, experiment_span
from daemon.runtime.child_process import Interrupted
from daemon.runtime.context import TargetContext
from extractors.errors import LearndError
from extractors.phoenix.client import PhoenixClient
from extractors.phoenix.http import PhoenixAnswer, PhoenixError
from extractors.phoenix.write_experiments import (
    publish_experiments,
)
from extractors.phoenix.write_spans import (
    publish_spans,
)
from registry.store.database import StoreUnavailable

log = structlog.get_logger()


class NotPublished(LearndError):
    """Phoenix is there, and has not got a run."""


def publish_target(context: TargetContext, client: PhoenixClient) -> int:
    """Have Phoenix keep every run of the target that it has not got, oldest first; returns how many.

    Raises PhoenixError where Phoenix is not there: all is told at the next call. Raises NotPublished where
    it is, and one run does not get there: that keeps no later one waiting, and is given up after
    `MOST_TRIES`. Raises Interrupted when the daemon is to stop.
    """
    published, problems = 0, []
    for cycle in context.store.unpublished_cycles(context.target.key):
        try:
            compare_path = _publish(context, client, Run.read(context, cycle.id))
        except (Interrupted, StoreUnavailable):
            raise
        except (LearndError, LookupError, OSError, ValueError) as problem:
            # A run whose files are gone or damaged is no reason to keep the others waiting.
            if isinstance(problem, PhoenixError):
                _must_be_there(client)
            log.warning("run not published", cycle=cycle.id, exc_info=not isinstance(problem, LearndError))
            words = (
                str(problem) if isinstance(problem, LearndError) else f"{type(problem).__name__}: {problem}"
            )
            context.store.not_published(cycle.id, words)
            problems.append(f"Phoenix has not got {cycle.id}: {words}")
        else:
            context.store.published(cycle.id, context.clock(), compare_path)
            published += 1
    if problems:
        raise NotPublished("; ".join(problems))
    return published


def _must_be_there(client: PhoenixClient) -> None:
    """Raises PhoenixError where Phoenix does not answer at all, or not to this key."""
    client.http.json("GET", "/v1/projects", params={"limit": "1"})


def _publish(context: TargetContext, client: PhoenixClient, run: Run) -> str | None:
    """Path of Phoenix's page that compares the sides; None where there is nothing to compare."""
    project = context.settings.phoenix.experiments_project
    if not publish_spans(client, project, experiment_span(run), evaluation_span(run)):
        raise PhoenixAnswer(
            f"Phoenix has taken the spans of {run.cycle.id} and does not show them; they are sent again"
        )
    experiments = experiments_of(run)
    if experiments is None:
        return None

    def unless_stopped() -> None:
        if context.stop.is_set():
            raise Interrupted(f"stopped while {run.cycle.id} was published; the next start goes on with it")

    return publish_experiments(client, experiments, on_write=unless_stopped).compare_path


# ---- the spans


# ---- the dataset and its experiments
