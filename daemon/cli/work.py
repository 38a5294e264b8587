"""`learnd work`: the inside of a child process (see daemon/runtime/child_process.py). Not for people."""

from collections.abc import Callable
from pathlib import Path

import typer

from daemon.runtime.work import Work
from trainers.quick_imports import quick_imports

app = typer.Typer()


@app.command()
def work(what: Work, folder: Path) -> None:
    """Do the job of a child process.

    Works in FOLDER, and renames the result into place there last.
    """
    do = _import_job(what)
    do(folder)


def _import_job(what: Work) -> Callable[[Path], None]:
    with quick_imports():
        match what:
            case Work.REPLAY:
                from trainers.replay.job import run
            case Work.TRAIN:
                from trainers.jobs.train import run
            case Work.RACE:
                from evaluation.race.run import run
            case Work.MEASURE:
                from evaluation.jobs.readiness import run
            case Work.SEEDS:
                from evaluation.jobs.seeds import run
            case Work.EVALUATE:
                from evaluation.jobs.evaluate import run
            case Work.RATES:
                from trainers.trials.rate_range_test import run
            case Work.SYNTHESISE:
                from daemon.data.synthesis import run
            case Work.ESTIMATE:
                from trainers.trials.estimate_job import run
    return run
