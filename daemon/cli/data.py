"""`learnd data`: what the traffic teaches so far."""

from pathlib import Path
from typing import Annotated

import typer

from daemon.cli.output import (
    DEFAULT_CONFIG,
    AsJson,
    Config,
    TargetKey,
    opened,
    out,
    print_facts,
    print_json,
    the_target,
)
from daemon.cycle import Loop, extract_target
from daemon.service import utc_now
from extractors.examples import SFTExample
from extractors.exchange import write_records
from extractors.lines import Form

app = typer.Typer(help="Reviewed traffic, and what was dropped.", no_args_is_help=True)


@app.command()
def summary(target: TargetKey = None, config: Config = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Counts of reviewed items against the threshold, and why spans were dropped."""
    with opened(config) as (settings, store):
        found = the_target(settings, target)
        extraction = extract_target(Loop(settings, found, store, utc_now))
        state = store.target_state(found.key)
    facts = {
        "target": found.key,
        "reviewed": len(extraction.items),
        "approved": extraction.approved,
        "corrected": extraction.corrected,
        "rejected": extraction.rejected,
        "needed_to_train": found.thresholds.sft_examples,
        "dropped": dict(extraction.dropped),
        "last_poll": state.last_poll_at,
        "last_poll_error": state.last_poll_error,
    }
    if as_json:
        print_json(facts)
    else:
        print_facts(facts)


@app.command()
def export(
    path: Annotated[Path, typer.Argument(help="File to write.")],
    form: Annotated[Form | None, typer.Option("--format", help="By the file's ending, if left out.")] = None,
    target: TargetKey = None,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Write the approved and corrected examples of the mirror to a file."""
    with opened(config) as (settings, store):
        extraction = extract_target(Loop(settings, the_target(settings, target), store, utc_now))
    examples = [item.to_example() for item in extraction.items if item.gold is not None]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_records(examples, SFTExample, path, form)
    if as_json:
        print_json({"path": str(path), "examples": len(examples)})
    else:
        out.print(f"Wrote {len(examples)} examples to {path}.", highlight=False)
