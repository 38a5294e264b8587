"""`learnd adapters`: versions, what is live, and changing it."""

from pathlib import Path
from typing import Annotated

import typer

from daemon.cli.options import (
    DEFAULT_CONFIG,
    AsJson,
    Config,
    TargetKey,
    choose_target,
    find_actor,
    open_store,
)
from daemon.cli.output import print_facts, print_json, print_line, print_table
from daemon.runtime.clock import utc_now
from daemon.settings.load import Settings
from extractors.errors import LearndError
from registry.store.store import Store

app = typer.Typer(no_args_is_help=True)
VersionId = Annotated[str, typer.Argument(help="The version's id, as `learnd adapters list` shows it.")]
Reason = Annotated[str, typer.Option("--reason", "-r", help="The reason, for the audit log.")]


@app.command("list")
def list_(target: TargetKey = None, config: Config = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """List the versions, newest first."""
    with open_store(config) as (settings, store):
        found = store.versions(settings.find_target(target).key if target else None)[::-1]
    if as_json:
        print_json(found)
        return
    rows = [version.model_dump() for version in found]
    columns = ("id", "state", "wanted", "parent_id", "cycle_id", "created_at", "activated_at")
    print_table(rows, columns=columns, empty="No versions yet; the first cycle that trains creates one.")


@app.command()
def show(version_id: VersionId, config: Config = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Show one version: its lineage, files, report and history."""
    with open_store(config) as (_, store):
        version = store.version(version_id)
        report = store.cycle(version.cycle_id).report
        acts = [entry for entry in store.audit(version.target) if entry.subject == version_id]
    if as_json:
        print_json({"version": version, "report": report, "audit": acts})
        return
    print_facts(
        version.model_dump() | ({"verdict": report.verdict, "because": report.reason} if report else {})
    )
    print_line()
    print_table([act.model_dump() for act in acts], columns=("at", "actor", "action", "detail"), empty="")


@app.command()
def promote(
    version_id: Annotated[
        str | None, typer.Argument(help="A version that is READY; by default the newest one.")
    ] = None,
    target: TargetKey = None,
    reason: Reason = "promoted by an operator",
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Activate a version that passed every check."""
    from daemon.serving.promotion import find_newest_ready

    with open_store(config) as (settings, store):
        chosen = version_id or find_newest_ready(store, choose_target(settings, target).key).id
        _activate(settings, store, chosen, reason, as_json, ready_only=True)


@app.command()
def activate(
    version_id: VersionId,
    reason: Reason = "activated by an operator",
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Activate any version, whatever its verdict; the audit log keeps who did it."""
    with open_store(config) as (settings, store):
        _activate(settings, store, version_id, reason, as_json)


@app.command()
def reject(
    version_id: VersionId,
    reason: Reason = "rejected by an operator",
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Reject a version that is READY or on PROBATION, so that it does not become active."""
    from daemon.serving.promotion import reject as reject_version

    with open_store(config) as (_, store):
        judged = reject_version(store, version_id, actor=find_actor(), reason=reason, now=utc_now())
    _print_outcome(f"{judged.id} is {judged.state}.", {"version": judged.id, "state": judged.state}, as_json)


@app.command()
def rollback(
    target: TargetKey = None,
    reason: Reason = "rolled back by an operator",
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Go back to the version that was active before.

    Nothing is promoted automatically until `learnd adapters release`.
    """
    from daemon.serving.promotion import Promoter

    with open_store(config) as (settings, store):
        key = choose_target(settings, target).key
        promoter = Promoter(settings, store, utc_now)
        live = promoter.roll_back(settings.find_target(key), actor=find_actor(), reason=reason)
    words = f"{key} serves {live.id if live else 'the base model'} and is on hold; "
    words += f"`learnd adapters release -t {key}` lets it promote again."
    _print_outcome(words, {"target": key, "active_version": live.id if live else None, "held": True}, as_json)


@app.command()
def hold(
    target: TargetKey = None,
    reason: Reason = "held by an operator",
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Put a target on hold: nothing is promoted automatically until `learnd adapters release`.

    The active version stays active.
    """
    with open_store(config) as (settings, store):
        key = choose_target(settings, target).key
        store.hold(key, find_actor(), reason, utc_now())
    words = f"{key} is on hold; `learnd adapters release -t {key}` lets it promote again."
    _print_outcome(words, {"target": key, "held": True}, as_json)


@app.command()
def release(target: TargetKey = None, config: Config = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """End a target's hold, so that versions are promoted automatically again."""
    with open_store(config) as (settings, store):
        key = choose_target(settings, target).key
        store.release(key, actor=find_actor(), now=utc_now())
    _print_outcome(f"{key} is not on hold any more.", {"target": key, "held": False}, as_json)


@app.command()
def pull(
    folder: Annotated[Path, typer.Argument(help="The folder for the adapter's files.")],
    target: Annotated[str, typer.Option("--target", "-t", metavar="TENANT/AGENT", help="The target.")],
    url: Annotated[str | None, typer.Option(envvar="LEARND_URL", help="The URL of the daemon's API.")] = None,
    as_json: AsJson = False,
) -> None:
    """Download the active adapter from a daemon, and check its digests.

    The agent's token is read from LEARND_TOKEN.
    """
    from learnd import ActiveAdapter, LearndClientError

    try:
        with ActiveAdapter(target, url=url) as adapter:
            fetched = str(adapter.fetch(folder))
    except LearndClientError as problem:
        raise LearndError(str(problem)) from problem
    _print_outcome(fetched, {"target": target, "folder": fetched}, as_json)


def _activate(
    settings: Settings, store: Store, version_id: str, reason: str, as_json: bool, *, ready_only: bool = False
) -> None:
    from daemon.serving.promotion import Promoter

    live = Promoter(settings, store, utc_now).activate(
        version_id, actor=find_actor(), reason=reason, ready_only=ready_only
    )
    _print_outcome(
        f"{live.target} serves {live.id}.", {"target": live.target, "active_version": live.id}, as_json
    )


def _print_outcome(words: str, facts: dict[str, object], as_json: bool) -> None:
    if as_json:
        print_json(facts)
    else:
        print_line(words)
