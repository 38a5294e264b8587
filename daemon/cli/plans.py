"""`learnd plan`: what a cycle would do now, and why."""

from threading import Event

from daemon.cli.output import (
    DEFAULT_CONFIG,
    AsJson,
    Config,
    TargetKey,
    opened,
    out,
    print_facts,
    print_json,
    print_table,
    progress_out,
    the_target,
)
from daemon.cli.progress import CycleProgress
from daemon.cycle import Loop
from daemon.extras import needs
from daemon.planning import Preview, preview
from daemon.service import utc_now
from trainers.plan import Skip


def plan(target: TargetKey = None, config: Config = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Show what a cycle would train now, and why, without doing it."""
    needs("train", "torch", "trl", "peft")
    with opened(config) as (settings, store), CycleProgress(progress_out) as progress:
        loop = Loop(settings, the_target(settings, target), store, utc_now, Event(), progress.show)
        found = preview(loop)
        polled = store.target_state(loop.target.key).last_poll_at
    if as_json:
        print_json(found)
    else:
        _describe(found)
        out.print(
            f"As of the last poll, {polled or 'which never was: run `learnd once` first'}.", highlight=False
        )


def _describe(found: Preview) -> None:
    data, chosen = found.data, found.choice.plan
    print_facts(
        {
            "target": data.target,
            "train": data.train,
            "validation": data.validation,
            "holdout": data.holdout,
            "left out": data.left_out,
        }
    )
    out.print()
    rows = [
        {"": "→" if rule.met else "", **rule.model_dump(include={"method", "needs"})}
        for rule in found.choice.considered
    ]
    print_table(rows, columns=("", "method", "needs"), empty="No rule was considered.")
    out.print()
    if isinstance(chosen, Skip):
        print_facts({"plan": "nothing is trained", "because": chosen.reason})
        return
    print_facts(
        {"plan": chosen.method, "because": chosen.reason, "from": chosen.start_version or "the base model"}
    )
    for stage in chosen.stages:
        out.print()
        print_facts({"stage": f"{stage.method} on {stage.data}", **stage.hyperparameters.model_dump()})
