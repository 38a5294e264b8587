"""The console in a real Chromium, over a daemon with a past: what operators see, and what they can do."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from registry.batches import Batch, BatchState, ItemDecision, ItemState
from registry.cycles import Cycle
from registry.versions import VersionState
from tests.support.browser import (
    PHONE,
    chromium,
    find_barriers,
    open_page,
    read_item,
    sign_in,
    take_picture,
    visit,
    wait_until_settled,
)
from tests.support.console import (
    INVOICES,
    PASSWORD,
    ROUTING,
    SEARCH,
    SUPPORT,
    TOKEN,
    RunningDaemon,
    add_waiting_batch,
    run_daemon_with_a_past,
)
from tests.support.console_reports import EVIL
from tests.support.phoenix import wait_until
from tests.support.runs import FROM_LIVE, FROM_PAIRS, ON_TOP

LAST = {
    "": "text=/Phoenix at .* (cannot be read|answered)/",
    "approvals": ".card, .nothing",
    "experiments": "tbody tr",
    "adapters": ".version",
    "data": "table.plain",
    "data/": ".audited, .nothing",
    "audit": "table.plain",
    "approvals/": "h2:text-matches('^Item ')",
    "experiments/": "text=/of 100 promotions are no better|thresholds were not kept/",
}
"""What a page shows last, by its path; a page of a batch or a cycle is listed with a slash."""
AUDIT = f"data/audit?target={SUPPORT}"
PAGES = ("", "approvals", "experiments", "adapters", "data", AUDIT, "audit")
QUESTIONS = (
    "where is my kettle",
    "I was charged twice",
    "the courier lost it",
    f"refund {EVIL}",
    "late again",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    with run_daemon_with_a_past(tmp_path_factory.mktemp("past")) as running:
        yield running


@pytest.fixture
def batch(daemon: RunningDaemon) -> Iterator[Batch]:
    made = add_waiting_batch(daemon.store, *QUESTIONS)
    yield made
    if daemon.store.batch(made.id).state is BatchState.WAITING:
        daemon.store.withdraw_batch(made.id, actor="ann", now=made.created_at, reason="the test is over")


@pytest.fixture
def page(browser: Browser, daemon: RunningDaemon) -> Iterator[Page]:
    """Ann's page."""
    with open_page(browser, daemon.url) as opened:
        sign_in(opened, "ann", PASSWORD)
        yield opened


def states(daemon: RunningDaemon, batch: Batch) -> list[ItemState]:
    return [item.state for item in daemon.store.batch_items(batch.id)]


def open_review(page: Page, batch: Batch) -> None:
    page.goto(f"/console/approvals/{batch.id}")
    read_item(page, 1)


def open_whole(page: Page, path: str) -> None:
    """Open a page of the console, and wait until everything that it reads is shown."""
    visit(page, f"/console/{path}")
    expect(page.locator(LAST[path[: path.find("/") + 1] or path]).first).to_be_visible(timeout=60_000)
    wait_until_settled(page)


def name_picture(path: str) -> str:
    """Return the name of a page's picture: a batch is another one each time."""
    if path.startswith("approvals/"):
        return "approvals-review"
    return path.partition("?")[0].replace("/", "-") or "overview"


# ---- who is let in


def test_nobody_sees_a_page_without_signing_in_and_comes_back_to_what_they_asked_for(
    browser: Browser, daemon: RunningDaemon
) -> None:
    with open_page(browser, daemon.url) as page:
        for path in PAGES:
            page.goto(f"/console/{path}")
            assert page.url.startswith(f"{daemon.url}/console/sign-in")
        page.goto("/console/adapters")
        page.get_by_label("Name").fill("ann")
        page.get_by_label("Password").fill("not it")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_contain_text("do not belong together")
        page.get_by_label("Name").fill("ann")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url("**/console/adapters")
        cookie = page.context.cookies()[0]
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Lax")


def test_a_link_with_an_operators_token_signs_in_and_a_link_that_does_not_says_so(
    browser: Browser, daemon: RunningDaemon
) -> None:
    with open_page(browser, daemon.url) as page:
        page.goto("/console/sign-in#token=not-it")
        expect(page.get_by_role("alert")).to_contain_text("does not sign in any more")
        assert "#" not in page.url
        page.goto(f"/console/sign-in?to=/console/adapters#token={TOKEN}")
        page.wait_for_url("**/console/adapters")
        expect(page.get_by_role("button", name="Signed in as ann, operator")).to_be_visible()
        assert TOKEN not in page.url
        # Nor does the link leave its token in the address of somebody who is signed in already.
        page.goto(f"/console/sign-in?to=/console/data#token={TOKEN}")
        page.wait_for_url("**/console/data**")
        assert TOKEN not in page.url


def test_a_form_of_another_site_is_not_read_and_nobody_is_sent_to_one(daemon: RunningDaemon) -> None:
    known = {"name": "ann", "password": PASSWORD}
    with httpx.Client(base_url=daemon.url) as client:
        for foreign in ({"sec-fetch-site": "cross-site"}, {"origin": "https://evil.example.com"}):
            refused = client.post("/console/sign-in", data=known, headers=foreign)
            assert (refused.status_code, "another site" in refused.text) == (403, True)
            assert "set-cookie" not in refused.headers
        for elsewhere in (
            "https://evil.example.com/console/",
            "//evil.example.com",
            "/\\evil",
            "javascript:1",
        ):
            inside = client.post("/console/sign-in", data={**known, "to": elsewhere})
            assert inside.headers["location"] == "/console/"
        page = client.get("/console/")
        assert page.headers["x-frame-options"] == "DENY"
        assert "no-store" in page.headers["cache-control"]
        # Signing out is a change, too: another site's form cannot know the token.
        client.post("/console/sign-out", data={"csrf_token": "wrong"})
        assert client.get("/console/").status_code == 200


def test_whoever_signed_out_in_one_window_can_do_nothing_in_another(
    page: Page, daemon: RunningDaemon, batch: Batch
) -> None:
    open_review(page, batch)
    other = page.context.new_page()
    other.goto("/console/")
    other.get_by_role("button", name="Signed in as ann, operator").click()
    other.get_by_role("button", name="Sign out").click()
    other.wait_for_url("**/console/sign-in")
    page.keyboard.press("a")
    page.wait_for_url("**/console/sign-in**")
    assert set(states(daemon, batch)) == {ItemState.PENDING}


def test_a_viewer_reads_and_is_offered_nothing_that_changes_something(
    browser: Browser, daemon: RunningDaemon, batch: Batch
) -> None:
    with open_page(browser, daemon.url) as page:
        sign_in(page, "vic", PASSWORD)
        open_review(page, batch)
        for words in ("Approve (a)", "Reject (r)", "Edit (e)", "Withdraw", "Close"):
            expect(page.get_by_role("button", name=words)).to_be_hidden()
        page.keyboard.press("a")
        # Keys are handled in turn, so the one before has been once this one has.
        page.keyboard.press("j")
        read_item(page, 2)
        page.goto("/console/adapters")
        expect(page.get_by_role("heading", name=ROUTING)).to_be_visible()
        expect(page.get_by_role("button", name="Roll back")).to_have_count(0)
        expect(page.get_by_role("button", name="Promote")).to_have_count(0)
    assert set(states(daemon, batch)) == {ItemState.PENDING}


# ---- reading a batch


def test_a_batch_is_read_by_keyboard_edited_and_undone(
    page: Page, daemon: RunningDaemon, batch: Batch
) -> None:
    open_review(page, batch)
    expect(page.get_by_text("where is parcel 0 with the kettle")).to_be_visible()  # a demonstration
    page.keyboard.press("j")
    read_item(page, 2)
    page.keyboard.press("k")
    read_item(page, 1)
    page.keyboard.press("a")
    read_item(page, 2)
    page.keyboard.press("r")
    expect(page.get_by_text("Why is it rejected?")).to_be_visible()
    page.keyboard.press("2")
    read_item(page, 3)
    page.keyboard.press("e")
    page.get_by_label("Answer").fill("Shipping")
    page.keyboard.press("Control+Enter")
    read_item(page, 4)
    expect(page.get_by_text("3 of 5 decided: 2 approved, 1 rejected")).to_be_visible()

    one, two, three, *_ = daemon.store.batch_items(batch.id)
    assert (one.state, one.decided_by) == (ItemState.APPROVED, "ann")
    assert (two.state, two.reason) == (ItemState.REJECTED, "Nobody would write this")
    assert three.edited is not None
    assert three.edited["completion"]["content"] == "shipping"  # in the spelling of the output space
    assert three.example["completion"]["content"] == "billing"

    page.keyboard.press("u")
    read_item(page, 3)
    expect(page.get_by_text("2 of 5 decided")).to_be_visible()
    assert states(daemon, batch)[2] is ItemState.PENDING
    page.keyboard.press("u")
    read_item(page, 2)
    assert states(daemon, batch)[1] is ItemState.PENDING


def test_a_double_click_or_a_key_held_down_approves_what_was_read_and_nothing_more(
    page: Page, daemon: RunningDaemon, batch: Batch
) -> None:
    open_review(page, batch)
    page.get_by_role("button", name="Approve (a)").dblclick()
    read_item(page, 2)
    assert states(daemon, batch) == [ItemState.APPROVED, *[ItemState.PENDING] * 4]
    page.keyboard.down("a")
    for _ in range(5):
        page.keyboard.down("a")  # as it repeats while it is held
    page.keyboard.up("a")
    read_item(page, 3)
    page.keyboard.press("?")
    expect(page.get_by_role("heading", name="Keys")).to_be_visible()
    page.keyboard.press("a")
    page.get_by_role("button", name="Close", exact=True).last.click()
    assert states(daemon, batch) == [*[ItemState.APPROVED] * 2, *[ItemState.PENDING] * 3]


def test_undo_takes_back_only_what_nobody_has_decided_since(
    page: Page, daemon: RunningDaemon, batch: Batch
) -> None:
    open_review(page, batch)
    page.keyboard.press("a")
    read_item(page, 2)
    (approved,) = daemon.store.batch_items(batch.id, limit=1)
    other = ItemDecision(number=1, revision=approved.revision, state=ItemState.REJECTED, reason="no")
    daemon.store.decide(batch.id, [other], actor="bob", now=datetime.now(UTC))
    page.keyboard.press("u")
    expect(page.get_by_text("is REJECTED by bob")).to_be_visible()
    assert states(daemon, batch)[0] is ItemState.REJECTED


def test_a_conflict_while_editing_loses_nothing_that_was_written(
    page: Page, daemon: RunningDaemon, batch: Batch
) -> None:
    open_review(page, batch)
    page.keyboard.press("e")
    page.get_by_label("Answer").fill("shipping")
    other = ItemDecision(number=1, revision=0, state=ItemState.REJECTED, reason="no")
    daemon.store.decide(batch.id, [other], actor="bob", now=datetime.now(UTC))
    page.keyboard.press("Control+Enter")
    expect(page.get_by_text("is REJECTED by bob")).to_be_visible()
    expect(page.get_by_label("Answer")).to_have_value("shipping")
    page.get_by_role("button", name="Approve as edited").click()
    read_item(page, 2)
    assert states(daemon, batch)[0] is ItemState.APPROVED


def test_a_review_made_in_another_tool_is_exported_and_imported(
    page: Page, daemon: RunningDaemon, batch: Batch, tmp_path: Path
) -> None:
    open_review(page, batch)
    with page.expect_download() as download:
        page.get_by_role("link", name="Export").click()
    lines = [json.loads(line) for line in download.value.path().read_text("utf-8").splitlines()]
    lines[0]["state"] = "APPROVED"
    lines[1] |= {"state": "REJECTED", "reason": "off topic"}
    reviewed = tmp_path / "reviewed.jsonl"
    reviewed.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    page.locator("input[type=file]").set_input_files(reviewed)
    expect(page.get_by_text("2 items decided")).to_be_visible()
    assert states(daemon, batch)[:3] == [ItemState.APPROVED, ItemState.REJECTED, ItemState.PENDING]


def test_the_address_of_a_page_s_socket_names_neither_page_nor_socket(page: Page) -> None:
    page.goto("/console/")
    with page.expect_websocket() as opened:
        page.reload()
    assert opened.value.url.partition("?")[2] == "EIO=4&transport=websocket"


def test_an_edit_that_cannot_be_trained_on_is_refused_and_not_lost(
    page: Page, daemon: RunningDaemon, batch: Batch
) -> None:
    open_review(page, batch)
    page.get_by_role("button", name="Edit (e)").click()
    page.get_by_label("Answer").fill("marketing")
    page.get_by_role("button", name="Approve as edited").click()
    expect(page.get_by_text("none of the target's output_space")).to_be_visible()
    expect(page.get_by_label("Answer")).to_have_value("marketing")
    assert states(daemon, batch)[0] is ItemState.PENDING


def test_two_operators_never_overwrite_each_other_silently(
    browser: Browser, page: Page, daemon: RunningDaemon, batch: Batch
) -> None:
    open_review(page, batch)
    with open_page(browser, daemon.url) as bobs:
        sign_in(bobs, "bob", PASSWORD)
        open_review(bobs, batch)
        page.keyboard.press("a")
        read_item(page, 2)
        bobs.keyboard.press("r")
        bobs.keyboard.press("1")
        expect(bobs.get_by_text("item 1 of batch")).to_contain_text("is APPROVED by ann")
        expect(bobs.get_by_text(re.compile(r"approved by ann \d+ s ago"))).to_be_visible()
    assert states(daemon, batch)[0] is ItemState.APPROVED


def test_what_others_decide_meanwhile_is_shown(page: Page, daemon: RunningDaemon, batch: Batch) -> None:
    open_review(page, batch)
    with httpx.Client(base_url=daemon.url) as bob:
        session = bob.post("/api/v1/session", json={"name": "bob", "password": PASSWORD}).json()
        decision = [{"number": 1, "revision": 0, "state": "REJECTED", "reason": "off topic"}]
        path = f"/api/v1/batches/{batch.id}/decisions"
        said = bob.post(path, json=decision, headers={"X-CSRF-Token": session["csrf_token"]})
        assert said.status_code == 200
    expect(page.get_by_role("status").get_by_text("bob has just decided this one")).to_be_visible()
    expect(page.get_by_text("1 of 5 decided")).to_be_visible()


def test_many_are_decided_at_once_in_the_table_and_the_last_one_ends_the_batch(
    page: Page, daemon: RunningDaemon, batch: Batch
) -> None:
    open_review(page, batch)
    page.get_by_label("Find").fill("kettle")
    page.get_by_role("button", name="Table").click()
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(1)
    page.get_by_label("Find").fill("")
    expect(rows).to_have_count(5)
    take_picture(page, "approvals-table")
    for number in (0, 1, 2, 3):
        rows.nth(number).get_by_role("checkbox").click()
    page.get_by_role("button", name="Approve the chosen ones").click()
    page.get_by_role("button", name="Approve them").click()
    expect(page.get_by_text("4 of 5 decided: 4 approved")).to_be_visible()
    page.keyboard.press("t")
    page.get_by_label("Show").click()
    page.get_by_role("option", name="waiting").click()
    read_item(page, 5)
    page.get_by_role("button", name="Approve (a)").click()
    expect(page.get_by_text("The batch ends with that: 5 of 5 are approved")).to_be_visible()
    page.get_by_role("button", name="Decide it").click()
    expect(page.get_by_text("DECIDED by ann")).to_be_visible()
    assert daemon.store.batch(batch.id).state is BatchState.DECIDED


def test_a_batch_is_withdrawn_with_a_reason(page: Page, daemon: RunningDaemon, batch: Batch) -> None:
    open_review(page, batch)
    page.get_by_role("button", name="Withdraw").click()
    page.get_by_role("button", name="Withdraw it").click()
    expect(page.get_by_text("Say why")).to_be_visible()
    page.get_by_label("Why").fill("made from the wrong examples")
    page.get_by_role("button", name="Withdraw it").click()
    expect(page.get_by_text("WITHDRAWN by ann: made from the wrong examples")).to_be_visible()
    expect(page.get_by_role("button", name="Approve (a)")).to_be_hidden()
    assert daemon.store.batch(batch.id).state is BatchState.WITHDRAWN


# ---- looking at what was learned


def open_cycle(page: Page, cycle: Cycle) -> None:
    """Open the cycle's page, and wait until everything is shown: how often the rule is wrong comes last."""
    page.goto(f"/console/experiments/{cycle.id}")
    last = page.get_by_text(re.compile("of 100 promotions are no better|thresholds were not kept"))
    expect(last).to_be_visible(timeout=60_000)


def expect_row(page: Page, region: str, *cells: str) -> None:
    """Expect one row of a table to have these cells, among others."""
    found = page.get_by_role("region", name=region).get_by_role("row")
    for cell in cells:
        found = found.filter(has=page.get_by_text(cell, exact=True))
    expect(found).to_have_count(1)


def test_a_cycle_shows_why_how_and_what_came_of_it(page: Page, daemon: RunningDaemon) -> None:
    cycle = daemon.store.cycles(ROUTING)[-1]
    page.goto("/console/experiments")
    page.get_by_role("link", name=cycle.id).click()
    page.wait_for_url(f"**/console/experiments/{cycle.id}")
    expect(page.get_by_text("Better than what was live, and nothing got worse.")).to_be_visible()
    expect(page.get_by_text("tell as much as 59 independent ones; compared with base")).to_be_visible()
    expect(page.get_by_text("approved and corrected answers can be imitated")).to_be_visible()
    expect(page.get_by_text("Last losses: training")).to_be_visible()
    expect_row(page, "The candidate against the others", "base (live)", "+78.9%", "71", "59")
    expect_row(page, "The candidate against the others", "base (live), on older traffic", "30")
    expect_row(page, "What each side measured", "answered right", "5.6%", "84.5%", "+78.9%")
    expect(page.get_by_text("Two looks: live at once takes p ≤ 0.005")).to_be_visible()
    expect(page.get_by_text("Two looks: with 59 held-out items about 1")).to_be_visible()
    expect(page.get_by_text("my parcel 5 never came")).to_be_visible()
    expect(page.get_by_text("In Phoenix: not yet")).to_be_visible()
    expect(page.get_by_role("cell", name="adapter_model.safetensors")).to_be_visible()
    assert find_barriers(page) == []
    take_picture(page, "experiment")


def test_a_candidate_that_breaks_a_golden_case_shows_it_and_what_it_confuses(
    browser: Browser, daemon: RunningDaemon
) -> None:
    cycle = daemon.store.cycles(ROUTING)[-2]
    with open_page(browser, daemon.url, color_scheme="dark") as page:
        sign_in(page, "vic", PASSWORD)
        open_cycle(page, cycle)
        guard = page.get_by_role("listitem").filter(has_text="golden cases")
        expect(guard.get_by_text("broken", exact=True)).to_be_visible()
        expect(page.get_by_role("listitem").filter(has_text="latency").get_by_text("kept")).to_be_visible()
        broken = page.get_by_role("article").filter(has_text="Case 3")
        expect(broken.get_by_text("broken")).to_be_visible()
        expect(broken.get_by_text("shipping")).to_be_visible()
        expect_row(page, "Each label", "account", "17", "0.824", "0.971", "+0.148")
        expect_row(page, "Confusion matrix of acme.routing.v1 (live)", "billing", "15", "3")
        expect_row(page, "Most frequent mistakes", "account", "(outside the output space)", "3", "0")
        page.get_by_text("The numbers").click()
        expect_row(page, "How sure and how right", "acme.routing.v2 (candidate)", "90% to 100%", "100.0%")
        expect(page.get_by_text(re.compile(r"Reviewers picked what to review \(p = 0\.00"))).to_be_visible()
        expect(page.get_by_text("Items count for the traffic that they stand for")).to_be_visible()
        expect_row(
            page, "The candidate against the others", "acme.routing.v1 (live)", "+15.9%", "92.7%", "76.8%"
        )
        expect_row(page, "What each side measured", "answered right, weighted", "92.7%", "76.8%", "+15.9%")
        assert find_barriers(page) == []
        take_picture(page, "experiment-broken-dark")


def test_a_second_look_and_the_first_lead_to_each_other(page: Page, daemon: RunningDaemon) -> None:
    waiting, second, first = daemon.store.cycles(SUPPORT)
    open_cycle(page, first)
    expect(page.get_by_text("Promising, and not proven yet.")).to_be_visible()
    page.get_by_role("link", name=f"PROMOTE in cycle {second.id}").click()
    page.wait_for_url(f"**/{second.id}")
    expect(page.get_by_text("second, on traffic newer than its training")).to_be_visible()
    expect(page.get_by_role("link", name=f"PROBATION in cycle {first.id}")).to_be_visible()
    expect(page.get_by_text(f"{second.version_id} is ACTIVE")).to_be_visible()
    open_cycle(page, waiting)
    expect(page.get_by_text("160 reviewed calls newer than its training")).to_be_visible()
    expect_row(
        page, "The candidate against the others", "words in common (token F1)", "acme.support.v1 (live)"
    )
    expect_row(page, "The candidate against the others", "preferred by the judge")
    expect(page.get_by_text("judge-7b prefers the candidate's answer")).to_be_visible()
    expect(page.get_by_text("the candidate is the median one")).to_be_visible()
    expect(page.get_by_text("100% of the candidate's answers are the same")).to_be_visible()
    assert find_barriers(page) == []
    take_picture(page, "experiment-probation")


def test_a_race_shows_every_contender_with_its_curves_and_why_it_left(
    page: Page, daemon: RunningDaemon
) -> None:
    waiting, _, first = daemon.store.cycles(SUPPORT)
    open_cycle(page, waiting)
    expect(page.get_by_text(f"{ON_TOP} won. 3 challenged sft")).to_be_visible()
    expect(page.get_by_text("1.75 times the 80 s that the default alone takes")).to_be_visible()
    expect_row(page, "Contenders", ON_TOP, "0.750", "0.875", "+0.125", "0.031", "it won")
    expect_row(
        page,
        "Contenders",
        FROM_LIVE,
        "0.438",
        f"behind {ON_TOP} at the first rung: token_f1 0.438 against 0.750",
    )
    expect_row(
        page,
        "Contenders",
        FROM_PAIRS,
        "did not enter: there is no time left for it (race_cost = 1.85, no limit)",
    )
    expect(page.get_by_role("img", name="Scores of each contender by step (token_f1)")).to_be_visible()
    for contender in ("sft", FROM_LIVE, ON_TOP):
        chart = page.get_by_role("img", name=f"Losses of {contender} by step", exact=True)
        expect(chart).to_be_visible()
    expect(page.get_by_role("img", name="Losses of training and validation by step")).to_have_count(0)
    assert find_barriers(page) == []
    take_picture(page, "experiment-race")
    # One that failed has curves and no winner; a plan that can have no race says why.
    page.goto(f"/console/experiments/{daemon.store.cycles(ROUTING)[-3].id}")
    expect(page.get_by_text("It did not come to its end.")).to_be_visible()
    expect(page.get_by_role("img", name=f"Losses of {ON_TOP} by step", exact=True)).to_be_visible()
    expect(page.get_by_text("The race above has no winner.")).to_be_visible()
    open_cycle(page, first)
    expect(page.get_by_text("a race can tell nothing below 40")).to_be_visible()
    page.goto(f"/console/compare?ids={waiting.id},{first.id}")
    expect_row(page, "Plan side by side", "race won by", ON_TOP)
    expect(page.get_by_role("img", name="Validation losses by step")).to_be_visible()


def test_searches_fields_and_reports_of_before_show_what_they_have(page: Page, daemon: RunningDaemon) -> None:
    newer, of_before = daemon.store.cycles(SEARCH)[-2:]
    open_cycle(page, newer)
    compare = page.get_by_role("link", name="Compare all answers in Phoenix")
    expect(compare).to_have_attribute("href", "https://phoenix.example.com/datasets/1/compare?experimentId=2")
    expect_row(page, "What each side measured", "nDCG@10: how well they are ordered")
    expect(page.get_by_text("no relevant document among the first 10").first).to_be_visible()
    expect(page.get_by_text("page 0 on kettle 4", exact=True)).to_be_visible()
    open_cycle(page, of_before)
    expect_row(page, "What each side measured", "answered right", "+26.2%")
    expect(page.get_by_role("heading", name="What must not get worse")).to_have_count(0)
    open_cycle(page, daemon.store.cycles(INVOICES)[-1])
    expect(page.get_by_text("Too few held-out items to tell.")).to_be_visible()
    expect_row(page, "What each side measured", "answered fields that are right")
    expect(page.get_by_role("listitem").filter(has_text="valid answers").get_by_text("open")).to_be_visible()
    assert find_barriers(page) == []


def test_cycles_are_filtered_and_compared(page: Page) -> None:
    page.goto("/console/experiments?target=acme/routing")
    rows = page.locator("tbody tr")
    expect(rows.filter(has_text=SEARCH)).to_have_count(0)
    page.get_by_label("Verdict").click()
    page.get_by_role("option", name="REJECT").click()
    expect(rows).to_have_count(1)
    expect(page).to_have_url(re.compile("verdict=REJECT"))
    page.goto("/console/experiments?method=sft")
    expect(rows).to_have_count(8)
    expect(rows.filter(has_text="golden cases broken")).to_have_count(1)
    expect(rows.filter(has_text="71 items, worth 59")).to_have_count(1)
    page.goto("/console/experiments?target=acme/support")
    expect(rows.filter(has_text="second look")).to_have_count(1)
    for number in (0, 1):
        rows.nth(number).get_by_role("checkbox").click()
    page.get_by_role("button", name="Compare 2").click()
    expect_row(page, "The verdicts side by side", "Look", "first", "second")
    expect_row(page, "Measures side by side", "words in common (token F1)")
    expect(page.get_by_text("judged on different held-out traffic")).to_be_visible()
    expect(page.get_by_role("heading", name="Validation losses")).to_be_visible()
    assert find_barriers(page) == []
    take_picture(page, "compare")


def test_an_operator_promotes_rolls_back_and_releases_and_is_told_what_that_means(
    page: Page, daemon: RunningDaemon
) -> None:
    old, new = (version.id for version in daemon.store.versions(SEARCH))
    page.goto("/console/adapters")
    page.get_by_role("article", name=new).get_by_role("button", name="Promote").click()
    expect(page.get_by_text(f"instead of {old}")).to_be_visible()
    take_picture(page, "adapters-promote")
    page.get_by_role("button", name=f"Promote {new}").click()
    expect(page.get_by_text("Say why")).to_be_visible()
    page.get_by_label("Why").fill("it finds the kettle")
    page.get_by_role("button", name=f"Promote {new}").click()
    expect(page.get_by_text(f"Serves {new}")).to_be_visible()
    assert daemon.store.version(new).state is VersionState.ACTIVE

    shown = page.get_by_role("region", name=SEARCH)
    shown.get_by_role("button", name="Roll back").click()
    expect(page.get_by_text(f"goes back from {new} to {old}")).to_be_visible()
    page.get_by_label("Why").fill("it forgets the lamp")
    page.get_by_role("button", name=f"Roll back {SEARCH}").click()
    expect(shown.get_by_text("ann put it on hold")).to_be_visible()
    shown.get_by_role("button", name="Release the hold").click()
    page.get_by_role("button", name=f"Release {SEARCH}").click()
    expect(shown.get_by_text("on hold")).to_have_count(0)
    shown.get_by_role("button", name="Hold").click()
    page.get_by_label("Why").fill("until the fair is over")
    page.get_by_role("button", name=f"Hold {SEARCH}").click()
    expect(shown.get_by_text("until the fair is over")).to_be_visible()
    page.goto("/console/audit")
    for words in ("it finds the kettle", "it forgets the lamp", "release"):
        expect(page.get_by_text(words).first).to_be_visible()


def test_an_operator_rejects_what_is_on_probation(page: Page, daemon: RunningDaemon) -> None:
    waiting = daemon.store.versions(SUPPORT)[-1].id
    page.goto("/console/")
    shown = page.get_by_role("article", name=SUPPORT)
    expect(shown.get_by_text(f"{waiting} is on probation. It waits for 160 reviewed calls")).to_be_visible()
    page.goto("/console/adapters")
    version = page.get_by_role("article", name=waiting)
    expect(version.get_by_text("Promising, and not proven. It waits for 160")).to_be_visible()
    take_picture(page, "adapters-probation")
    version.get_by_role("button", name="Reject").click()
    expect(page.get_by_text("is not promoted automatically any more")).to_be_visible()
    page.get_by_label("Why").fill("it is rude")
    page.get_by_role("button", name=f"Reject {waiting}").click()
    expect(version.get_by_text("REJECTED")).to_be_visible()
    expect(version.get_by_role("button", name="Reject")).to_have_count(0)
    (entry, *_) = [act for act in daemon.store.audit(SUPPORT) if act.subject == waiting]
    assert (entry.actor, entry.detail) == ("ann", "PROBATION -> REJECTED: it is rude")


def test_an_operator_has_a_cycle_started(page: Page, daemon: RunningDaemon) -> None:
    before = {cycle.id for cycle in daemon.store.cycles(SEARCH)}
    visit(page, "/console/")
    page.get_by_role("article", name=SEARCH).get_by_role("button", name="Start a cycle").click()
    expect(page.get_by_text("begins within seconds")).to_be_visible()
    wait_until(lambda: daemon.store.cycles(SEARCH)[0].id not in before, 30, "the cycle that was asked for")
    assert daemon.store.cycles(SEARCH)[0].trigger == "operator"


def test_data_shows_examples_and_why_spans_were_dropped_with_links_into_phoenix(page: Page) -> None:
    page.goto("/console/data")
    expect(page.get_by_role("cell", name="approved or corrected answers")).to_be_visible()
    expect(
        page.get_by_text("1 annotation has the label 'thumbs_sideways', which no rule names")
    ).to_be_visible()
    dropped = page.get_by_text("8 × no feedback that counts reached this call")
    dropped.click()
    link = page.get_by_role("link", name="Span 00000000 in Phoenix").last
    assert link.get_attribute("href") == "https://phoenix.example.com/redirects/spans/000000000000000c"
    assert find_barriers(page) == []


def test_the_audit_shows_odd_examples_first_each_beside_its_span_and_thoughts_apart(page: Page) -> None:
    visit(page, f"/console/data?target={SUPPORT}")
    page.get_by_role("link", name="the odd ones first").click()
    samples = page.get_by_role("article")
    expect(page.get_by_text("4 of 44 examples look odd.")).to_be_visible()
    expect(samples).to_have_count(20)
    expect(samples.nth(3).locator(".chip.warn")).to_have_count(1)
    expect(samples.nth(4).locator(".chip.warn")).to_have_count(0)
    link = samples.filter(has_text="Ok.").get_by_role("link", name="Span ok in Phoenix")
    assert link.get_attribute("href") == "https://phoenix.example.com/redirects/spans/ok"
    expect(samples.first.get_by_text("llm.output_messages")).to_be_visible()
    thinking = samples.filter(has_text="Mister Lee")
    trained = thinking.locator(".beside > *").first
    thoughts = trained.get_by_text("so I say that.")
    expect(thoughts).to_be_hidden()
    trained.get_by_text("Thoughts", exact=True).click()
    expect(thoughts).to_be_visible()
    assert find_barriers(page) == []


def test_the_api_says_what_the_pages_show(daemon: RunningDaemon) -> None:
    judged = daemon.store.cycles(ROUTING)[-1]
    with httpx.Client(base_url=f"{daemon.url}/api/v1") as client:
        client.post("/session", json={"name": "vic", "password": PASSWORD})
        every = client.get(f"/cycles/{judged.id}/answers", params={"limit": 1000}).json()
        changed = client.get(f"/cycles/{judged.id}/answers", params={"limit": 1000, "changed": True}).json()
        assert (len(every), len(changed)) == (71, 56)
        assert changed[0]["prompt"][-1]["content"] == "invoice 1 was charged twice"
        assert {name: answer["correct"] for name, answer in changed[0]["answers"].items()} == {
            "base": False,
            f"{ROUTING.replace('/', '.')}.v1": True,
        }
        assert list(client.get(f"/cycles/{judged.id}/progress").json()) == ["train-0"]
        reason = "no feedback that counts reached this call"
        spans = client.get(f"/targets/{ROUTING}/dropped", params={"reason": reason}).json()
        assert [span["span_id"][-2:] for span in spans] == ["13", "12", "11", "10", "0f", "0e", "0d", "0c"]
        assert client.get(f"/targets/{ROUTING}/examples", params={"kind": "sft"}).json() == []
        assert client.get(f"/targets/{ROUTING}/examples", params={"kind": "songs"}).status_code == 422


# ---- for everybody, and against those who mean harm


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_can_be_used_by_keyboard_and_screen_reader(
    browser: Browser, daemon: RunningDaemon, batch: Batch, scheme: str
) -> None:
    with open_page(browser, daemon.url, color_scheme=scheme) as page:
        page.goto("/console/sign-in")
        assert find_barriers(page) == []
        take_picture(page, f"sign-in-{scheme}")
        sign_in(page, "ann", PASSWORD)
        for path in (*PAGES, f"approvals/{batch.id}"):
            open_whole(page, path)
            assert find_barriers(page) == [], path
            take_picture(page, f"{name_picture(path)}-{scheme}")


def test_no_page_is_wider_than_a_phone(browser: Browser, daemon: RunningDaemon, batch: Batch) -> None:
    judged = (daemon.store.cycles(target)[-1] for target in (ROUTING, SEARCH, SUPPORT))
    cycles = [f"experiments/{cycle.id}" for cycle in judged]
    with open_page(browser, daemon.url, viewport=PHONE, is_mobile=True, has_touch=True) as page:
        sign_in(page, "ann", PASSWORD)
        for path in (*PAGES, f"approvals/{batch.id}", *cycles):
            open_whole(page, path)
            assert page.evaluate("document.scrollingElement.scrollWidth") <= PHONE["width"], path
            name = f"experiment-{cycles.index(path)}" if path in cycles else name_picture(path)
            take_picture(page, f"{name}-phone")
        page.goto("/console/")
        page.get_by_role("button", name="Menu").click()
        page.get_by_role("link", name="Adapters").click()
        page.wait_for_url("**/console/adapters")


def test_text_from_telemetry_is_never_markup(page: Page, daemon: RunningDaemon, batch: Batch) -> None:
    failed = next(cycle for cycle in daemon.store.cycles(ROUTING) if EVIL in cycle.reason)
    judged = daemon.store.cycles(ROUTING)[-1]
    told = page.get_by_text("window.hacked = 1")
    shown = 0
    for path in ("", "experiments", f"experiments/{judged.id}", "data"):
        open_whole(page, path)
        shown += told.count()
        expect_no_markup(page)
    visit(page, f"/console/experiments/{failed.id}")
    expect(told.first).to_be_visible()
    shown += told.count()
    expect_no_markup(page)
    open_review(page, batch)
    page.get_by_label("Find").fill("refund")
    read_item(page, 4)
    shown += told.count()
    expect_no_markup(page)
    page.get_by_label("Find").press("Enter")
    page.keyboard.press("t")
    expect(page.get_by_role("cell").filter(has_text="window.hacked")).to_be_visible()
    expect_no_markup(page)
    assert shown >= 5


def expect_no_markup(page: Page) -> None:
    wait_until_settled(page)
    assert page.evaluate("window.hacked") is None, page.url
    assert page.locator("img[src=x]").count() == 0, page.url


def test_an_unknown_address_is_a_page_of_ours_with_a_way_back_and_json_for_programs(
    page: Page, daemon: RunningDaemon
) -> None:
    for path in ("/console/nowhere", "/console/experiments/some/thing", "/nowhere"):
        answer = page.goto(path)
        assert answer is not None
        assert answer.status == 404
        assert answer.headers["x-frame-options"] == "DENY"
        expect(page.get_by_role("heading", name="There is no page at this address")).to_be_visible()
        assert find_barriers(page) == []
    page.get_by_role("link", name="Go to the overview").click()
    page.wait_for_url("**/console/")
    accept = {"accept": "text/html"}
    known = {"authorization": f"Bearer {TOKEN}"}
    for path, headers in (("/api/v1/nowhere", accept | known), ("/v1/nowhere", accept), ("/nowhere", {})):
        unknown = httpx.get(f"{daemon.url}{path}", headers=headers)
        assert (unknown.status_code, unknown.json()) == (404, {"detail": "Not Found"})


def test_strangers_learn_nothing_from_unknown_addresses(daemon: RunningDaemon) -> None:
    with httpx.Client(base_url=daemon.url, headers={"accept": "text/html"}) as client:
        for inside in (
            "/console/nowhere",
            "/console/experiments/nowhere",
            "/console//",
            "/console/sign-in-no",
        ):
            answer = client.get(inside)
            assert (answer.status_code, answer.headers["location"][:21]) == (303, "/console/sign-in?to=%"), (
                inside
            )
        for part in ("/console/_nicegui", "/console/_nicegui/no"):
            assert client.get(part).status_code == 403
        unknown = client.get("/nowhere")
        assert unknown.status_code == 404
        assert ROUTING not in unknown.text
        assert unknown.headers["cache-control"] == "no-store"


SILENT = """const send = WebSocket.prototype.send;
WebSocket.prototype.send = function (words) {
  if (!String(words).includes("javascript_response")) send.call(this, words);
};"""
"""A browser that never answers what the server asks it."""


def test_a_browser_that_answers_too_late_is_shown_no_error(page: Page, daemon: RunningDaemon) -> None:
    log = daemon.settings.data_dir.parent / "daemon.log"
    late = "a browser answered too late"
    before = log.read_text("utf-8").count(late)
    page.add_init_script(SILENT)
    visit(page, "/console/audit")
    wait_until(lambda: log.read_text("utf-8").count(late) > before, 20, "the server to give up")
    wait_until_settled(page)
    expect(page.get_by_role("alert")).to_have_count(0)


def test_light_or_dark_is_kept(page: Page, daemon: RunningDaemon) -> None:
    visit(page, "/console/")
    expect(page.locator("body.body--light")).to_have_count(1)
    page.get_by_role("button", name="Light or dark").click()
    expect(page.locator("body.body--dark")).to_have_count(1)
    daemon.store.hold(INVOICES, "ann", "until the fair is over", datetime.now(UTC))
    held = page.get_by_role("article", name=INVOICES).get_by_text("until the fair is over")
    expect(held).to_be_visible()
    daemon.store.release(INVOICES, actor="ann", now=datetime.now(UTC))
    expect(held).to_have_count(0)
    # Nor do refreshes of the page undo the choice.
    expect(page.locator("body.body--dark")).to_have_count(1)
    page.goto("/console/adapters")
    expect(page.locator("body.body--dark")).to_have_count(1)
