"""`learnd status`: each target at a glance."""

import typer

from daemon.cli.options import DEFAULT_CONFIG, AsJson, Config, open_store
from daemon.cli.output import print_json, print_line, print_table
from daemon.views.status import describe_wait, read_status
from registry.versions import VersionState

app = typer.Typer()
COLUMNS = (
    "target",
    "active_version",
    "cycle_state",
    "verdict",
    "new_feedback",
    "held",
    "last_poll_at",
    "last_poll_error",
)


@app.command("status")
def show_status(config: Config = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Show each target at a glance: version, cycle, verdict, feedback."""
    with open_store(config) as (settings, store):
        statuses = read_status(settings, store)
        versions = [version for status in statuses for version in store.versions(status.target)]
    if as_json:
        print_json(statuses)
        return
    rows = [
        dict(status) | {"new_feedback": f"{status.new_feedback} of {status.needs_new_feedback}"}
        for status in statuses
    ]
    print_table(rows, columns=COLUMNS, empty="No targets in the settings; add a [[targets]] section.")
    for status in statuses:
        if status.probation is not None:
            waits = describe_wait(status.probation)
            print_line(f"{status.probation.version} is on probation. It waits for {waits}.")
        if status.held:
            print_line(f"{status.target} is on hold: {status.held_reason or 'no reason was given'}.")
    for version in versions:
        if version.state is VersionState.READY:
            print_line(
                f"{version.id} is READY. It waits for an operator: learnd adapters promote {version.id}"
            )
