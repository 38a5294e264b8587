"""What a plan asks for beside its stages, as people read it: the race, and what is mixed in."""

from daemon.views.report_text import Section
from trainers.planning.plan import Plan


def build_planned_race(plan: Plan) -> Section | None:
    """Build the section about the race before it is run, or say why there is none.

    None for a plan whose race is over: the report has it.
    """
    title = "Race between ways to train"
    if plan.no_race:
        return Section(title=title, words=(f"None: {plan.no_race}.",))
    if not plan.challengers:
        return None
    return Section(
        title=title,
        words=(
            f"{_count_challengers(plan)} to beat {plan.name}, which is taken unless one of them is better. "
            f"All together take at most {plan.race_cost:g} times the time of {plan.name} alone.",
        ),
        columns=("", "challenger", "goes on from", "because"),
        rows=tuple(
            (
                str(place),
                each.name,
                each.start_version or "the base model",
                each.reason.removeprefix(f"{each.name}: "),
            )
            for place, each in enumerate(plan.challengers, start=1)
        ),
    )


def describe_replay(plan: Plan) -> tuple[str, ...]:
    """Say what is mixed into SFT that the base model wrote itself, or why nothing is.

    Returns no sentence where that is not wanted.
    """
    if plan.no_replay:
        return (f"Nothing is mixed in against forgetting: {plan.no_replay}.",)
    mixed = next((stage.replay for stage in plan.stages if stage.replay), None)
    if mixed is None:
        return ()
    return (
        f"Mixed into SFT against forgetting: {mixed.examples} examples that the base model wrote itself.",
    )


def _count_challengers(plan: Plan) -> str:
    count = len(plan.challengers)
    return "1 other way to train has" if count == 1 else f"{count} other ways to train have"
