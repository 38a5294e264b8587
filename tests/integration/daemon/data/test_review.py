"""How operators review a batch of synthetic examples, in learnd and in another tool."""

import json
from pathlib import Path
from typing import Any

import pytest

from daemon.data.review import AlreadyDecided, BatchReview, EditInvalid, ReviewInvalid, Ruling
from daemon.settings.load import Settings
from extractors.dataset.build import ExtraData
from extractors.dataset.holdout_split import HoldoutRules
from extractors.dataset.snapshot import Provenance, build_snapshot, write_snapshot
from extractors.examples.prompt_keys import compute_prompt_key
from extractors.examples.types import Examples, SFTExample
from extractors.feedback.extract import Extraction
from registry.batches import Batch, BatchEnded, ItemChanged, ItemState, Proposal
from registry.cycles import CycleState
from registry.store.batches import UnknownBatch
from registry.store.store import Store
from tests.integration.registry.store.batch_support import PROVENANCE, TARGET, WEEK, a_batch, an_example
from tests.integration.registry.store.store_support import NOW, SOON

LABELS = ("billing", "shipping")


def open_review(tmp_path: Path, **target: Any) -> BatchReview:
    known = {"tenant": "acme", "agent": "routing", "project": "p", "task": "classification"}
    targets = [{**known, "base_model": "none", "output_space": LABELS, **target}]
    settings = Settings.model_validate({"data_dir": tmp_path, "targets": targets})
    return BatchReview(settings, Store.open(tmp_path, NOW), lambda: SOON)


@pytest.fixture
def review(tmp_path: Path) -> Any:
    made = open_review(tmp_path)
    yield made
    made.store.close()


@pytest.fixture
def batch(review: BatchReview) -> Batch:
    return a_batch(review.store, "one", "two", "three", "four")


def export_review(review: BatchReview, batch: Batch) -> list[dict[str, Any]]:
    return [json.loads(line) for line in review.export_lines(batch.id)]


def import_review(review: BatchReview, batch: Batch, lines: list[dict[str, Any]]) -> list[int]:
    """Import a review, and return the numbers of the items that it decided."""
    text = [json.dumps(line) + "\n" for line in lines]
    return [item.number for item in review.import_lines(batch.id, text, actor="bob")]


def list_approved(review: BatchReview) -> list[SFTExample]:
    return list(review.store.find_approved_examples(TARGET).sft)


def edit(number: int, revision: int = 0, **changes: Any) -> Ruling:
    return Ruling(number=number, revision=revision, state=ItemState.APPROVED, edited=changes)


def test_an_item_is_read_in_the_words_of_its_example(review: BatchReview, batch: Batch) -> None:
    page = review.read_page(batch.id, after=1, limit=1)
    (item,) = page.items
    assert (item.number, item.state, item.revision, item.edited) == (2, "PENDING", 0, False)
    assert item.example == {
        "prompt": [{"role": "system", "content": "Route it."}, {"role": "user", "content": "two"}],
        "completion": [{"role": "assistant", "content": "billing"}],
    }
    assert item.proposed == item.example


def test_items_are_shown_beside_the_approved_examples_they_were_made_from(review: BatchReview) -> None:
    shown = an_example("sft", "where is it?", "shipping").model_copy(update={"origin": "telemetry"})
    snapshot = build_snapshot(
        Extraction(),
        HoldoutRules(),
        window=None,
        now=NOW,
        provenance=Provenance(TARGET, {}),
        extra=ExtraData(imported=Examples(sft=(shown,))),
    )
    write_snapshot(snapshot, review.settings.data_dir / "snapshots" / "acme.routing")
    cycle = review.store.start_cycle(TARGET, "operator", NOW)
    review.store.advance_cycle(cycle.id, cycle.state, CycleState.SELECTING, NOW, snapshot_id=snapshot.id)
    review.store.advance_cycle(cycle.id, CycleState.SELECTING, CycleState.SKIPPED, NOW)
    proposal = Proposal(
        example=an_example("sft", "one").model_dump(mode="json"),
        diversity=0.4,
        demonstrations=(shown.id, "gone"),
    )
    made_from = PROVENANCE.model_copy(update={"demonstrations": (shown.id, "gone")})
    batch = review.store.add_batch(
        cycle.id, TARGET, "sft", "1", made_from, [proposal], now=NOW, expires_at=NOW + WEEK
    )
    page = review.read_page(batch.id)
    assert page.items[0].demonstrations == (shown.id, "gone")
    assert list(page.demonstrations) == [shown.id]
    assert page.demonstrations[shown.id]["completion"] == [{"role": "assistant", "content": "shipping"}]


def test_an_edit_is_what_trains_under_the_key_of_what_it_says_and_stays_synthetic(
    review: BatchReview, batch: Batch
) -> None:
    review.decide(batch.id, [edit(1, completion="SHIPPING", prompt="Where is it?")], actor="ann")
    review.close(batch.id, actor="ann")
    (example,) = list_approved(review)
    assert (example.completion.content, example.origin) == ("shipping", "synthetic")
    assert example.prompt_key == compute_prompt_key(example.prompt)
    assert example.prompt_key != an_example("sft", "one").prompt_key
    (item,) = review.read_page(batch.id, limit=1).items
    assert item.edited
    assert item.proposed["prompt"][1]["content"] == "one"


def test_an_edit_that_changes_nothing_is_no_edit(review: BatchReview, batch: Batch) -> None:
    (item,) = review.decide(batch.id, [edit(1, completion="billing")], actor="ann")
    assert (item.state, item.edited) == ("APPROVED", False)


def test_a_second_edit_goes_on_from_the_first_and_approving_again_keeps_it(
    review: BatchReview, batch: Batch
) -> None:
    review.decide(batch.id, [edit(1, prompt="first")], actor="ann")
    review.decide(batch.id, [edit(1, 1, completion="shipping")], actor="ann")
    (item,) = review.decide_numbers(batch.id, [1], ItemState.APPROVED, actor="ann", again=True)
    assert item.example["prompt"] == [{"role": "user", "content": "first"}]
    assert item.example["completion"][0]["content"] == "shipping"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"completion": "weather"}, r"none of the target's output_space \(billing, shipping\)"),
        ({"completion": 3}, "completion is no chat message"),
        ({"prompt": []}, "prompt is no list of messages"),
        ({"origin": "telemetry"}, "origin cannot be edited; prompt, completion can"),
        ({"prompt": [{"role": "user", "content": " "}]}, "could not be trained on"),
    ],
)
def test_an_edit_that_could_not_be_trained_on_is_refused(
    review: BatchReview, batch: Batch, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(EditInvalid, match=f"item 1 of batch {batch.id}: .*{words}"):
        review.decide(batch.id, [edit(1, **changes)], actor="ann")
    assert review.find_item(batch.id, 1).revision == 0


def test_pairs_and_triplets_are_edited_as_what_they_are(tmp_path: Path) -> None:
    review = open_review(tmp_path, task="generation", output_space=())
    pairs, triplets = (
        a_batch(review.store, "one", kind="pairs"),
        a_batch(review.store, "one", kind="triplets"),
    )
    with pytest.raises(EditInvalid, match="could not be trained on"):
        review.decide(pairs.id, [edit(1, chosen="shipping")], actor="ann")  # as the rejected one
    review.decide(pairs.id, [edit(1, chosen="returns")], actor="ann")
    review.decide(triplets.id, [edit(1, anchor="Another query")], actor="ann")
    found = review.store.find_approved_examples(TARGET)
    assert found.pairs[0].chosen.content == "returns"
    assert found.triplets[0].prompt_key != an_example("triplets", "one").prompt_key  # type: ignore[union-attr]
    review.store.close()


def test_many_are_decided_at_once_and_nobody_s_decision_by_accident(
    review: BatchReview, batch: Batch
) -> None:
    review.decide_numbers(batch.id, [1], ItemState.REJECTED, actor="ann", reason="off topic")
    with pytest.raises(AlreadyDecided, match="1 is REJECTED by ann"):
        review.decide_numbers(batch.id, [1, 2], ItemState.APPROVED, actor="bob")
    with pytest.raises(UnknownBatch, match="item 9"):
        review.decide_numbers(batch.id, [9], ItemState.APPROVED, actor="bob")
    decided = review.decide_numbers(batch.id, None, ItemState.APPROVED, actor="bob")
    assert [item.number for item in decided] == [2, 3, 4]
    assert review.store.batch(batch.id).state == "DECIDED"


def test_what_was_decided_can_be_undone_while_the_batch_waits(review: BatchReview, batch: Batch) -> None:
    review.decide_numbers(batch.id, [1, 2], ItemState.APPROVED, actor="ann")
    review.decide_numbers(batch.id, None, ItemState.PENDING, actor="ann")
    found = review.store.batch(batch.id)
    assert (found.state, found.pending) == ("WAITING", 4)
    review.decide_numbers(batch.id, None, ItemState.APPROVED, actor="ann")
    with pytest.raises(BatchEnded):
        review.decide_numbers(batch.id, [1], ItemState.PENDING, actor="ann")
    review.decide_numbers(
        batch.id, [1], ItemState.REJECTED, actor="ann", reason="wrong after all", again=True
    )
    assert len(list_approved(review)) == 3


def test_a_decision_on_what_somebody_else_decided_meanwhile_is_refused(
    review: BatchReview, batch: Batch
) -> None:
    review.decide(batch.id, [edit(1)], actor="ann")
    with pytest.raises(ItemChanged, match="APPROVED by ann"):
        review.decide(batch.id, [edit(1)], actor="bob")


def test_an_export_reviewed_elsewhere_comes_back_as_decisions(review: BatchReview, batch: Batch) -> None:
    lines = export_review(review, batch)
    lines[0] |= {"state": "APPROVED"}
    lines[1] |= {"state": "rejected", "reason": "off topic"}
    lines[2] |= {"state": "APPROVED", "completion": "shipping"}
    assert import_review(review, batch, lines) == [1, 2, 3]
    items = review.read_page(batch.id).items
    assert [item.state for item in items] == ["APPROVED", "REJECTED", "APPROVED", "PENDING"]
    assert [item.edited for item in items] == [False, False, True, False]
    assert {item.decided_by for item in items[:3]} == {"bob"}
    # As it is exported now, it says nothing new.
    assert import_review(review, batch, export_review(review, batch)) == []
    # A reviewer may take back, and put the text back as it was.
    again = export_review(review, batch)
    again[0] |= {"state": "PENDING"}
    again[2] |= {"completion": [{"role": "assistant", "content": "billing"}]}
    assert import_review(review, batch, again) == [1, 3]
    assert [item.edited for item in review.read_page(batch.id).items] == [False] * 4


def test_an_import_that_is_stale_or_malformed_names_each_line_and_changes_nothing(
    review: BatchReview, batch: Batch
) -> None:
    lines = export_review(review, batch)
    review.decide_numbers(batch.id, [1], ItemState.APPROVED, actor="ann")
    lines[0] |= {"state": "REJECTED", "reason": "no"}
    lines[1] |= {"state": "REJECTED"}
    lines[2] |= {"state": "APPROVED", "completion": "weather"}
    lines[3] |= {"completion": "shipping"}
    texts = [json.dumps(line) for line in lines]
    missing, other = {**lines[3]}, {**lines[3], "batch": "b-other"}
    del missing["completion"]
    texts += ["{", "[]", json.dumps(other), json.dumps({**lines[3], "item": 9}), json.dumps(missing)]
    texts.append(json.dumps({**lines[3], "state": "MAYBE"}))
    with pytest.raises(ReviewInvalid) as refused:
        review.import_lines(batch.id, texts, actor="bob")
    found = [problem.split(": ", 1) for problem in refused.value.problems]
    assert [where for where, _ in found] == [f"line {n}" for n in range(1, 11)]
    for (_, said), words in zip(
        found,
        (
            "item 1 is APPROVED by ann since this was exported",
            "a rejection needs a reason",
            "none of the target's output_space",
            "was changed while its state is PENDING",
            "not JSON",
            "no JSON object",
            f"its batch is not {batch.id}",
            "no number of an item",
            "no completion",
            "state: Input should be 'PENDING', 'APPROVED' or 'REJECTED'",
        ),
        strict=True,
    ):
        assert words in said
    assert [item.state for item in review.read_page(batch.id).items] == ["APPROVED", *["PENDING"] * 3]
    with pytest.raises(ReviewInvalid, match="no line"):
        review.import_lines(batch.id, ["\n"], actor="bob")


def test_the_same_item_twice_in_an_import_is_refused(review: BatchReview, batch: Batch) -> None:
    line = export_review(review, batch)[0] | {"state": "APPROVED"}
    with pytest.raises(ReviewInvalid, match="line 2: item 1 is on an earlier line already"):
        review.import_lines(batch.id, [json.dumps(line)] * 2, actor="bob")
