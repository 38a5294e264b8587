"""Publishes a target's finished cycles to Phoenix: two spans for each run, its holdout, its answers.

No cycle waits for Phoenix. A run is sent until Phoenix shows it, and only then marked in the store: at least
once. Everything has the run's id in Phoenix, so a run that is sent twice is there once.

    EXPERIMENT span      a cycle that trained, or that looked at a version again
    └─ EVALUATION span   its verdict: candidate and base
    dataset              the target's holdout, of which each window is a version
    └─ experiments       the active version, the candidate and every other side, answer by answer
"""

import structlog

from daemon.publishing.holdout_dataset import build_measured_run
from daemon.publishing.run import FinishedRun, read_run
from daemon.publishing.spans import build_evaluation_span, build_experiment_span
from daemon.publishing.write_experiments import publish_experiments
from daemon.publishing.write_spans import publish_spans
from daemon.runtime.child_process import Interrupted
from daemon.runtime.context import TargetContext
from extractors.errors import LearndError
from extractors.phoenix.client import PhoenixClient
from extractors.phoenix.http import PhoenixAnswer, PhoenixError
from registry.store.database import StoreUnavailable

log = structlog.get_logger()


class NotPublished(LearndError):
    """Phoenix answers, but does not have a run."""


def publish_target(context: TargetContext, client: PhoenixClient) -> int:
    """Publish every run of the target that Phoenix does not have, oldest first; return how many.

    Raises PhoenixError where Phoenix does not answer: the next call publishes everything. Raises NotPublished
    where it answers and one run fails: the others are published, and the run is given up after
    `MOST_PUBLISH_TRIES` calls. Raises Interrupted when the daemon is to stop.
    """
    published, problems = 0, []
    for cycle in context.store.find_unpublished_cycles(context.target.key):
        try:
            compare_path = _publish(context, client, read_run(context, cycle.id))
        except (Interrupted, StoreUnavailable):
            raise
        except (LearndError, LookupError, OSError, ValueError) as problem:
            # A run whose files are gone or damaged is no reason to keep the others waiting.
            if isinstance(problem, PhoenixError):
                client.check_access()
            expected = isinstance(problem, LearndError)
            log.warning("run not published", cycle=cycle.id, exc_info=not expected)
            words = str(problem) if expected else f"{type(problem).__name__}: {problem}"
            context.store.record_publish_failure(cycle.id, words)
            problems.append(f"Phoenix has not got {cycle.id}: {words}")
        else:
            context.store.mark_published(cycle.id, context.clock(), compare_path)
            published += 1
    if problems:
        raise NotPublished("; ".join(problems))
    return published


def _publish(context: TargetContext, client: PhoenixClient, run: FinishedRun) -> str | None:
    """Publish one run; return the path of Phoenix's page that compares the sides, None without answers."""
    project = context.settings.phoenix.experiments_project
    if not publish_spans(client.spans, project, build_experiment_span(run), build_evaluation_span(run)):
        raise PhoenixAnswer(
            f"Phoenix has taken the spans of {run.cycle.id} and does not show them; they are sent again"
        )
    measured = build_measured_run(run)
    if measured is None:
        return None

    def raise_if_stopped() -> None:
        if context.stop.is_set():
            raise Interrupted(f"stopped while {run.cycle.id} was published; the next start goes on with it")

    return publish_experiments(client.datasets, measured, on_write=raise_if_stopped).compare_path
