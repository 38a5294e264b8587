"""The method that the data calls for, and the plan's words about it."""

from typing import Any

import pytest

from extractors.dataset.holdout_split import HoldoutRules
from extractors.dataset.snapshot import Manifest, OutcomeCounts, Snapshot, count_examples
from extractors.examples.types import (
    Examples,
    Message,
    PreferencePair,
    SFTExample,
    Trajectory,
    Triplet,
    UnpairedPreference,
)
from tests.support.traffic import NOON
from trainers.planning.apply_rules import (
    BaseModelInfo,
    LiveVersion,
    MethodChoice,
    MethodSettings,
    TrainingPreferences,
    choose_method,
    find_reason_to_skip,
)
from trainers.planning.method_rules import Readiness, Thresholds
from trainers.planning.plan import Plan, Skip, TrainingStage

BASE = BaseModelInfo(name="base", digest="digest", bytes=10**8)
NOTHING = OutcomeCounts(approved=0, corrected=0, rejected=0)
PREFERENCES = TrainingPreferences(max_lora_rank=16)
PROMPT = (Message(role="user", content="q"),)
ANSWER = Message(role="assistant", content="a")
SEEN: dict[str, Any] = {"started_at": NOON, "prompt_key": "k"}
LIVE = LiveVersion(version="acme.routing.v3", lora_rank=4, lora_alpha=12, new_sessions=40)
VALID, INVALID = Readiness(asked=10, valid=9, settled=0), Readiness(asked=10, valid=1, settled=0)


def make_snapshot(
    sft: int = 0, pairs: int = 0, liked: int = 0, disliked: int = 0, held_out: int = 5, **more: int
) -> Snapshot:
    """Make a snapshot of so many examples; `validated` are answers to validate on, each of its session."""
    validation = Examples(
        sft=tuple(
            SFTExample(prompt=PROMPT, completion=ANSWER, session_id=str(number), **SEEN)
            for number in range(more.get("validated", 0))
        )
    )
    vote = UnpairedPreference(prompt=PROMPT, completion=ANSWER, desirable=True, **SEEN)
    train = Examples(
        sft=(SFTExample(prompt=PROMPT, completion=ANSWER, **SEEN),) * sft,
        pairs=(
            PreferencePair(prompt=PROMPT, chosen=ANSWER, rejected=ANSWER, preferred_by="correction", **SEEN),
        )
        * pairs,
        votes=(vote,) * liked + (vote.model_copy(update={"desirable": False}),) * disliked,
        triplets=(Triplet(query="q", positive={"text": "a"}, negative={"text": "b"}, **SEEN),)
        * more.get("triplets", 0),
        trajectories=(
            Trajectory(
                messages=(*PROMPT, ANSWER),
                learned=(1,),
                outcome="approved",
                prompt_keys=("k",),
                started_at=NOON,
            ),
        )
        * more.get("trajectories", 0),
    )
    manifest = Manifest(
        snapshot_id="snap",
        target="acme/routing",
        created_at=NOON,
        filters={},
        rules=HoldoutRules(),
        window=None,
        watermark=None,
        train=count_examples(train),
        validation={},
        holdout=held_out,
        reviewed=NOTHING,
        held_out=NOTHING.model_copy(update={"approved": held_out}),
        left_out={},
    )
    return Snapshot(manifest=manifest, train=train, validation=validation)


def choose(
    data: Snapshot,
    readiness: Readiness | None = INVALID,
    task: Any = "classification",
    live: LiveVersion | None = None,
    **changes: Any,
) -> MethodChoice:
    def measure_live() -> Readiness:
        assert readiness is not None, "measured the live model where that decides nothing"
        return readiness

    preferences = PREFERENCES.model_copy(update=changes)
    settings = MethodSettings(task=task, thresholds=Thresholds(), base=BASE, preferences=preferences)
    return choose_method(
        data, settings, live=live, measure_live=measure_live, sessions=len(data.validation.sft)
    )


def choose_plan(*args: Any, **changes: Any) -> Plan:
    found = choose(*args, **changes).plan
    assert isinstance(found, Plan)
    return found


@pytest.mark.parametrize(
    ("data", "readiness", "task", "method"),
    [
        (make_snapshot(sft=60), None, "classification", "sft"),
        (make_snapshot(sft=60, pairs=20), None, "generation", "sft"),
        (make_snapshot(sft=60, liked=50, disliked=50), None, "classification", "sft"),
        (make_snapshot(sft=49, pairs=20), VALID, "extraction", "dpo"),
        (make_snapshot(liked=50, disliked=50), None, "classification", "kto"),
        (make_snapshot(pairs=20, liked=50, disliked=50), INVALID, "classification", "kto"),
        (make_snapshot(sft=60, trajectories=20), None, "chat", "sft"),
        (make_snapshot(trajectories=19, pairs=20), VALID, "chat", "dpo"),
        (make_snapshot(triplets=100, sft=60), None, "embedding", "embedding"),
    ],
)
def test_the_simplest_way_that_has_enough_examples_is_the_default(
    data: Snapshot, readiness: Readiness | None, task: str, method: str
) -> None:
    assert choose_plan(data, readiness, task).method == method


def test_a_conversation_is_trained_on_as_a_whole() -> None:
    assert choose_plan(make_snapshot(sft=60, trajectories=20), None, "chat").stages[0].data == "trajectories"


@pytest.mark.parametrize(
    "data", [make_snapshot(sft=49), make_snapshot(pairs=30, sft=49), make_snapshot(triplets=500)]
)
def test_too_little_is_skipped_with_what_there_is_and_what_it_takes(data: Snapshot) -> None:
    skip = choose(data).plan
    assert isinstance(skip, Skip)
    assert f"{len(data.train.sft)} approved or corrected answers (needs 50)" in skip.reason


def test_nothing_is_trained_that_could_not_be_judged() -> None:
    skip = choose(make_snapshot(sft=500, held_out=0)).plan
    assert isinstance(skip, Skip)
    assert "nothing is held out" in skip.reason


def test_the_plan_says_why_with_counts_thresholds_and_what_was_measured() -> None:
    found = choose_plan(make_snapshot(pairs=20), VALID)
    assert "20 preference pairs (needs 20)" in found.reason
    assert "9 of 10 answers" in found.reason
    assert found.counts["pairs"] == 20
    assert found.thresholds["votes"] == 50


def test_pairs_that_the_live_model_has_settled_do_not_call_for_dpo() -> None:
    settled = Readiness(asked=10, valid=10, settled=9)
    assert isinstance(choose(make_snapshot(pairs=100), settled).plan, Skip)


def test_preferences_go_on_from_the_live_version_in_its_shape_and_sft_begins_afresh() -> None:
    dpo = choose_plan(make_snapshot(pairs=20), VALID, live=LIVE)
    shape = dpo.stages[0].hyperparameters
    assert (dpo.start_version, shape.lora_rank, shape.lora_alpha) == ("acme.routing.v3", 4, 12)
    assert choose_plan(make_snapshot(sft=60), None, live=LIVE).start_version is None


def test_what_goes_on_from_an_adapter_has_the_rate_of_its_rank() -> None:
    data = make_snapshot(sft=60, pairs=20, validated=40)
    small = choose_plan(data, VALID, live=LIVE)
    usual = choose_plan(data, VALID, live=LIVE.model_copy(update={"lora_rank": 16, "lora_alpha": 32}))
    for name in ("sft from live", "dpo (sigmoid+sft)"):
        rates = [find_last_stage(plan, name).hyperparameters.learning_rate for plan in (small, usual)]
        assert rates[0] == pytest.approx(2 * rates[1]), "a quarter of the rank, twice the rate"
    pinned = choose_plan(data, VALID, live=LIVE, overrides={"sft": {"learning_rate": 1e-3, "lora_rank": 8}})
    stage = find_last_stage(pinned, "sft from live").hyperparameters
    assert (stage.learning_rate, stage.lora_rank) == (1e-3, 4)


def find_last_stage(plan: Plan, name: str) -> TrainingStage:
    return next(each.stages[-1] for each in plan.challengers if each.name == name)


# ---- challengers


def list_challengers(*args: Any, **changes: Any) -> list[str]:
    return [each.name for each in choose_plan(*args, **changes).challengers]


def test_a_challenger_of_each_kind_that_has_enough_examples_may_beat_the_default() -> None:
    data = make_snapshot(sft=60, pairs=20, liked=50, disliked=50, validated=40)
    assert list_challengers(data, VALID, live=LIVE) == [
        "sft from live",
        "sft+dpo (sigmoid+sft)",
        "dpo (sigmoid+sft)",
        "kto",
    ]
    # Without a live version there is nothing to go on from; a base without sensible answers learns no DPO.
    assert list_challengers(data, INVALID) == ["sft+dpo (sigmoid+sft)"]
    assert list_challengers(make_snapshot(sft=60, validated=40), None) == []


@pytest.mark.parametrize(
    ("data", "on_top"),
    [
        (
            make_snapshot(sft=60, pairs=20, trajectories=20, validated=40),
            "sft on conversations+dpo (sigmoid+sft)",
        ),
        (make_snapshot(sft=60, pairs=20, trajectories=19, validated=40), "sft+dpo (sigmoid+sft)"),
    ],
)
def test_a_second_stage_challenges_only_the_default_that_it_goes_on_from(data: Snapshot, on_top: str) -> None:
    found = choose_plan(data, INVALID, "chat")
    staged = [each for each in found.challengers if len(each.stages) > 1]
    assert [each.name for each in staged] == [on_top]
    assert staged[0].stages[:-1] == found.stages


def test_a_thorough_race_tries_every_loss() -> None:
    data = make_snapshot(sft=60, pairs=20, validated=40)
    losses = [name for name in list_challengers(data, INVALID, race="thorough") if name.startswith("sft+dpo")]
    assert losses == [f"sft+dpo ({loss})" for loss in ("sigmoid+sft", "sigmoid", "sigmoid-norm", "apo-zero")]


def test_hyperparameters_of_the_settings_leave_only_the_losses_that_they_allow() -> None:
    data = make_snapshot(sft=60, pairs=20, validated=40)
    pinned = {"overrides": {"dpo": {"dpo_loss": "apo_zero"}}}
    assert list_challengers(data, INVALID, **pinned) == ["sft+dpo (apo-zero)"]


def test_of_the_losses_of_triplets_the_one_that_is_not_the_default_challenges() -> None:
    data = make_snapshot(validated=40)
    triplets = tuple(
        Triplet(
            query=f"q{n}",
            positive={"text": f"p{n}"},
            negative={"text": f"n{n}"},
            started_at=NOON,
            prompt_key=f"q{n}",
        )
        for n in range(120)
    )
    many = data.model_copy(update={"train": Examples(triplets=triplets)})
    assert list_challengers(many, None, "embedding") == ["embedding (triplets)"]
    # Too few different queries for a batch without a text twice: there is only one way.
    few = data.model_copy(update={"train": Examples(triplets=triplets[:4] * 30)})
    assert list_challengers(few, None, "embedding") == []


@pytest.mark.parametrize(
    ("validated", "changes", "reason"),
    [
        (39, {}, "39 sessions to validate on"),
        (40, {"race": "off"}, "`race` is off"),
    ],
)
def test_where_a_race_could_tell_nothing_the_default_trains_alone_and_the_plan_says_why(
    validated: int, changes: dict[str, Any], reason: str
) -> None:
    found = choose_plan(make_snapshot(sft=60, pairs=20, validated=validated), None, **changes)
    assert found.challengers == ()
    assert found.race_cost is None
    assert reason in found.no_race


@pytest.mark.parametrize(
    ("new_sessions", "reason"),
    [
        (39, "39 sessions to validate on that acme.routing.v3 was not trained on (needs 40)"),
        (None, "what acme.routing.v3 was trained on is unknown"),
    ],
)
def test_a_live_version_that_would_answer_from_memory_is_not_gone_on_from_and_the_others_race(
    new_sessions: int | None, reason: str
) -> None:
    data = make_snapshot(sft=60, pairs=20, liked=50, disliked=50, validated=60)
    found = choose(data, None, live=LIVE.model_copy(update={"new_sessions": new_sessions}))
    assert isinstance(found.plan, Plan)
    assert [each.name for each in found.plan.challengers] == ["sft+dpo (sigmoid+sft)"]
    refused = {each.method for each in found.considered if reason in each.needs and not each.met}
    assert refused == {"sft from live", "dpo (sigmoid+sft)", "kto"}


def test_a_default_that_goes_on_from_a_version_with_a_memory_of_the_validation_side_trains_alone() -> None:
    data = make_snapshot(pairs=20, liked=50, disliked=50, validated=60)
    remembering = LIVE.model_copy(update={"new_sessions": 39})
    found = choose_plan(data, VALID, live=remembering)
    assert (found.start_version, found.challengers) == ("acme.routing.v3", ())
    assert "39 sessions to validate on that acme.routing.v3 was not trained on" in found.no_race


def test_what_earlier_races_found_orders_the_challengers() -> None:
    data = make_snapshot(sft=60, pairs=20, validated=40)
    settings = MethodSettings(
        task="classification", thresholds=Thresholds(), base=BASE, preferences=PREFERENCES
    )
    found = choose_method(
        data,
        settings,
        live=LIVE,
        measure_live=lambda: VALID,
        sessions=40,
        found_before={"dpo (sigmoid+sft)": 0.1},
    ).plan
    assert isinstance(found, Plan)
    assert found.challengers[0].name == "dpo (sigmoid+sft)"


def test_a_chosen_contender_is_a_plan_of_its_own() -> None:
    data = make_snapshot(sft=60, pairs=20, validated=40)
    plan = choose_plan(data, INVALID)
    own = plan.choose(plan.challengers[0])
    assert (own.method, own.name, own.challengers) == ("sft+dpo", "sft+dpo (sigmoid+sft)", ())
    assert plan.choose(plan.default).stages == plan.stages


def test_a_later_stage_has_the_shape_of_the_first_and_its_own_rate() -> None:
    data = make_snapshot(sft=60, pairs=20, validated=40)
    plan = choose_plan(data, INVALID, max_lora_rank=8, overrides={"sft": {"lora_rank": 4}})
    sft, dpo = plan.challengers[0].stages
    assert sft.hyperparameters.lora_rank == dpo.hyperparameters.lora_rank == 4
    assert dpo.hyperparameters.learning_rate < sft.hyperparameters.learning_rate


def test_a_second_stage_is_left_out_where_the_first_taught_it_all_or_too_little() -> None:
    found = choose_plan(make_snapshot(sft=60, pairs=40, validated=40))
    dpo = found.challengers[0].stages[1]
    assert find_reason_to_skip(dpo, found, Thresholds(), VALID) is None
    settled = find_reason_to_skip(dpo, found, Thresholds(), Readiness(asked=10, valid=10, settled=9))
    assert settled is not None
    assert "about 4 pairs" in settled
    assert find_reason_to_skip(dpo, found, Thresholds(), INVALID) is not None


def test_the_same_settings_have_the_same_id_and_others_another() -> None:
    data = make_snapshot(sft=60)
    assert choose_plan(data).settings_id == choose_plan(data).settings_id
    others = [
        choose_plan(data, **other).settings_id
        for other in ({"overrides": {"epochs": 1}}, {"quantization": "nf4"})
    ]
    assert choose_plan(data).settings_id not in others
