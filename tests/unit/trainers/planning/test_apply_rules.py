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
from trainers.planning.plan import Plan, Skip

BASE = BaseModelInfo(name="base", digest="digest", bytes=10**8)
NOTHING = OutcomeCounts(approved=0, corrected=0, rejected=0)
PREFERENCES = TrainingPreferences(max_lora_rank=16)
PROMPT = (Message(role="user", content="q"),)
ANSWER = Message(role="assistant", content="a")
SEEN: dict[str, Any] = {"started_at": NOON, "prompt_key": "k"}
VALID, INVALID = Readiness(asked=10, valid=9, settled=0), Readiness(asked=10, valid=1, settled=0)


def make_snapshot(
    sft: int = 0, pairs: int = 0, liked: int = 0, disliked: int = 0, held_out: int = 5, **more: int
) -> Snapshot:
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
    return Snapshot(manifest=manifest, train=train)


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
    return choose_method(data, settings, live=live, measure_live=measure_live)


def choose_plan(*args: Any, **changes: Any) -> Plan:
    found = choose(*args, **changes).plan
    assert isinstance(found, Plan)
    return found


@pytest.mark.parametrize(
    ("data", "readiness", "task", "method"),
    [
        (make_snapshot(sft=60), None, "classification", "sft"),
        (make_snapshot(sft=60, pairs=20), VALID, "generation", "dpo"),
        (make_snapshot(sft=60, pairs=20), INVALID, "classification", "sft+dpo"),
        (make_snapshot(sft=60, pairs=19), None, "extraction", "sft"),
        (make_snapshot(sft=60, liked=50, disliked=50), None, "classification", "kto"),
        (make_snapshot(sft=60, liked=50, disliked=49), None, "classification", "sft"),
        (make_snapshot(pairs=20, liked=50, disliked=50), INVALID, "classification", "kto"),
        (make_snapshot(sft=60, trajectories=20), None, "chat", "sft"),
        (make_snapshot(trajectories=19, pairs=20), VALID, "chat", "dpo"),
        (make_snapshot(triplets=100, sft=60), None, "embedding", "embedding"),
    ],
)
def test_the_first_rule_whose_needs_are_met_decides(
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
    found = choose_plan(make_snapshot(sft=60, pairs=20), VALID)
    assert "20 preference pairs (needs 20)" in found.reason
    assert "9 of 10 answers" in found.reason
    assert found.counts["sft"] == 60
    assert found.thresholds["votes"] == 50


def test_pairs_that_the_live_model_has_settled_do_not_call_for_dpo() -> None:
    settled = Readiness(asked=10, valid=10, settled=9)
    assert choose_plan(make_snapshot(sft=60, pairs=100), settled).method == "sft"


def test_preferences_go_on_from_the_live_version_in_its_shape_and_sft_begins_afresh() -> None:
    live = LiveVersion(version="acme.routing.v3", lora_rank=4, lora_alpha=12)
    dpo = choose_plan(make_snapshot(pairs=20), VALID, live=live)
    shape = dpo.stages[0].hyperparameters
    assert (dpo.start_version, shape.lora_rank, shape.lora_alpha) == ("acme.routing.v3", 4, 12)
    assert choose_plan(make_snapshot(sft=60), None, live=live).start_version is None


def test_a_later_stage_has_the_shape_of_the_first_and_its_own_rate() -> None:
    sft, dpo = choose_plan(
        make_snapshot(sft=60, pairs=20), max_lora_rank=8, overrides={"sft": {"lora_rank": 4}}
    ).stages
    assert sft.hyperparameters.lora_rank == dpo.hyperparameters.lora_rank == 4
    assert dpo.hyperparameters.learning_rate < sft.hyperparameters.learning_rate


def test_a_second_stage_is_left_out_where_the_first_taught_it_all_or_too_little() -> None:
    found = choose_plan(make_snapshot(sft=60, pairs=40))
    dpo = found.stages[1]
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
