"""The judge, over HTTP, in front of a stand-in that can be fair, partial or broken."""

import re
import time

import pytest

from daemon.demo.servers import find_free_port
from evaluation.metrics.llm_judge import AnswerPair, Preferences, compare_answers, read_preference
from extractors.examples.types import Message, ToolCall
from extractors.llm.endpoint import (
    INTERNAL_HEADER,
    Endpoint,
    EndpointRefused,
    EndpointUnreachable,
    UnusableReply,
)
from tests.support.writing_stand_in import ChatBody, StandInReply, Write, WritingStandIn, writing

PROMPT = (
    Message(role="system", content="Answer briefly."),
    Message(role="user", content="When do you open?"),
)
GOLD = Message(role="assistant", content="At nine.")


def pair(candidate: str, other: str, gold: Message | None = GOLD) -> AnswerPair:
    return AnswerPair(prompt=PROMPT, gold=gold, candidate=candidate, other=other)


def read_shown_answers(request: ChatBody) -> tuple[str, str]:
    """The first and the second answer that the judge is shown."""
    found = re.search(
        r"First answer:\n(.*)\n\nSecond answer:\n(.*)", request["messages"][-1]["content"], re.DOTALL
    )
    assert found is not None
    return found[1], found[2]


def prefers(*best_first: str) -> Write:
    """A fair judge: answers that hold the earlier word are better, wherever they stand."""

    def reply(request: ChatBody, _number: int) -> str:
        places = [
            next((i for i, word in enumerate(best_first) if word in a), 99)
            for a in read_shown_answers(request)
        ]
        return "tie" if places[0] == places[1] else ("first" if places[0] < places[1] else "Second.")

    return reply


def let_judge(write: Write, *pairs: AnswerPair, seconds: float = 0) -> tuple[Preferences, WritingStandIn]:
    stand_in = WritingStandIn(write, seconds=seconds)
    with writing(stand_in) as url:
        return compare_answers(pairs, Endpoint(url=url, model="judge")), stand_in


def test_a_preference_is_the_candidates_or_the_other_sides_in_the_order_of_the_pairs() -> None:
    found, _ = let_judge(
        prefers("nine", "morning"),
        pair("we open at nine", "in the morning"),
        pair("no idea", "in the morning"),
        pair("who knows", "no idea"),
        pair("at nine", "at  nine\n"),
        pair("at nine sharp", "never"),
    )
    assert found.of_pairs == (1, -1, 0, 0, 1)
    assert (found.asked, found.contradicted, found.unread, found.calls) == (4, 0, 0, 8)
    assert found.model == "judge"


def test_every_pair_is_asked_about_in_both_orders_at_temperature_0_without_names() -> None:
    _, seen = let_judge(prefers("nine"), pair("nine", "ten"))
    assert sorted(map(read_shown_answers, seen.seen)) == [("nine", "ten"), ("ten", "nine")]
    assert {request["temperature"] for request in seen.seen} == {0}
    assert all(headers[INTERNAL_HEADER] == "true" for headers in seen.headers)
    shown = " ".join(message["content"] for request in seen.seen for message in request["messages"])
    assert not re.search(r"candidate|base|adapter|active", shown)


def test_a_judge_that_always_likes_the_first_answer_contradicts_itself_and_decides_nothing() -> None:
    found, _ = let_judge(lambda *_: "first", pair("nine", "ten"), pair("eight", "nine"))
    assert found.of_pairs == (0, 0)
    assert (found.contradicted, found.unread) == (1, 0)


def test_a_preference_in_one_order_and_a_tie_in_the_other_is_a_contradiction_too() -> None:
    found, _ = let_judge(
        lambda r, _: "first" if read_shown_answers(r)[0] == "nine" else "tie",
        pair("nine", "ten"),
        pair("a", "b"),
    )
    assert found.of_pairs == (0, 0)
    assert found.contradicted == 0.5


def test_answers_that_are_alike_are_never_asked_about() -> None:
    found, seen = let_judge(prefers("nine"), pair("at nine", " at\nnine "))
    assert (found.of_pairs, found.asked, found.contradicted, found.calls) == ((0,), 0, 0, 0)
    assert not seen.seen


def test_the_judge_is_shown_the_conversation_and_the_gold_answer_where_there_is_one() -> None:
    call = ToolCall(name="hours", arguments='{"day": "Monday"}')
    gold = Message(role="assistant", tool_calls=(call,))
    _, seen = let_judge(prefers("nine"), pair("nine", "ten", gold), pair("nine", "ten", None))
    told = [request["messages"][-1]["content"] for request in seen.seen]
    assert all("[user]\nWhen do you open?" in text for text in told)
    assert sorted('{"name": "hours", "arguments": {"day": "Monday"}}' in text for text in told) == [
        False,
        False,
        True,
        True,
    ]
    assert sum("reference" in request["messages"][0]["content"] for request in seen.seen) == 2


def test_a_reply_that_names_no_preference_makes_the_pair_an_unread_tie() -> None:
    found, _ = let_judge(
        lambda r, _: "first" if read_shown_answers(r)[0] == "nine" else "", pair("nine", "ten")
    )
    assert (found.of_pairs, found.unread, found.contradicted) == ((0,), 1, 0)


def test_a_reply_that_was_cut_off_is_not_read() -> None:
    found, _ = let_judge(lambda *_: StandInReply("The first", finish_reason="length"), pair("nine", "ten"))
    assert (found.of_pairs, found.unread) == ((0,), 1)


@pytest.mark.parametrize(
    ("text", "preference"),
    [
        ("first", 1),
        ("**Second**.", -1),
        ("It's a Tie!", 0),
        ('{"better": "second"}', -1),
        ("<think>\nThe first is short, the second wrong.\n</think>\n\nfirst", 1),
        ("[[ ## better ## ]]\nsecond\n\n[[ ## completed ## ]]", -1),
    ],
)
def test_the_last_line_with_a_preference_counts(text: str, preference: int) -> None:
    assert read_preference(text) == preference


@pytest.mark.parametrize("text", ["", "Both are fine.", "The second is worse than the first.", "untied"])
def test_a_text_without_one_preference_is_none(text: str) -> None:
    with pytest.raises(UnusableReply, match="named no preference"):
        read_preference(text)


def test_pairs_are_judged_at_once() -> None:
    pairs = [pair(f"nine {number}", "ten") for number in range(12)]
    started = time.monotonic()
    found, stand_in = let_judge(prefers("nine"), *pairs, seconds=0.25)
    assert found.of_pairs == (1,) * 12
    assert 1 < stand_in.most_at_once <= 8
    assert time.monotonic() - started < 12 * 2 * 0.25


def test_progress_counts_the_pairs_that_are_asked_about() -> None:
    told: list[tuple[int, int]] = []
    with writing(WritingStandIn(prefers("nine"))) as url:
        compare_answers(
            [pair("nine", "ten"), pair("ten", "ten"), pair("nine", "eleven")],
            Endpoint(url=url, model="judge"),
            on_progress=lambda *counts: told.append(counts),
        )
    assert told == [(1, 2), (2, 2)]


def test_a_dead_server_is_an_error_that_says_what_to_do() -> None:
    endpoint = Endpoint(url=f"http://127.0.0.1:{find_free_port()}/v1", model="judge")
    with pytest.raises(EndpointUnreachable, match="start it, or correct its URL"):
        compare_answers([pair(f"nine {number}", "ten") for number in range(50)], endpoint)


def test_a_server_that_keeps_failing_is_asked_again_once_and_then_given_up() -> None:
    stand_in = WritingStandIn(lambda *_: StandInReply(status=503))
    with writing(stand_in) as url, pytest.raises(EndpointUnreachable):
        compare_answers(
            [pair(f"nine {n}", "ten") for n in range(50)], Endpoint(url=url, model="judge", concurrency=2)
        )
    assert len(stand_in.seen) <= 8


def test_a_call_that_fails_once_is_repeated() -> None:
    fair = prefers("nine")
    found, _ = let_judge(lambda r, n: StandInReply(status=503) if n == 0 else fair(r, n), pair("nine", "ten"))
    assert (found.of_pairs, found.calls) == ((1,), 3)


def test_a_wrong_key_is_refused_without_being_told() -> None:
    stand_in = WritingStandIn(prefers("nine"), key="sk-right")
    with writing(stand_in) as url:
        endpoint, pairs = Endpoint(url=url, model="judge", concurrency=1), [pair("nine", "ten")] * 20
        with pytest.raises(EndpointRefused, match="key") as refused:
            compare_answers(pairs, endpoint, api_key="sk-wrong")
        assert "sk-wrong" not in str(refused.value)
        assert len(stand_in.seen) < 10, "the others are not even asked about"
        assert compare_answers(pairs, endpoint, api_key="sk-right").of_pairs == (1,) * 20


def test_one_prompt_that_is_too_long_does_not_end_the_others() -> None:
    fair, too_long = prefers("nine"), StandInReply(status=400, error="maximum context length is 2048 tokens")
    found, _ = let_judge(
        lambda r, n: too_long if "very long" in read_shown_answers(r) else fair(r, n),
        pair("nine", "very long"),
        pair("nine", "ten"),
    )
    assert (found.of_pairs, found.unread) == ((0, 1), 1)
    with pytest.raises(EndpointRefused, match="2048 tokens"):
        let_judge(lambda *_: too_long, pair("nine", "very long"), pair("nine", "ten"))
