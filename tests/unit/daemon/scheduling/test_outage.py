"""Who asks a Phoenix that does not answer, and when."""

from dataclasses import dataclass

import pytest

from daemon.scheduling.outage import FIRST_PAUSE, LONGEST_PAUSE, Outage, PhoenixAway
from extractors.phoenix.http import PhoenixAnswer, PhoenixUnreachable


@dataclass
class Phoenix:
    """A server that is asked whether it answers, and a monotonic clock."""

    answers: bool = True
    asked: int = 0
    seconds: float = 0.0

    def ask(self) -> None:
        self.asked += 1
        if not self.answers:
            raise PhoenixUnreachable("connection refused")


def fail(outage: Outage) -> None:
    with pytest.raises(PhoenixUnreachable), outage.attempt():
        raise PhoenixUnreachable("no answer")


def test_while_phoenix_answers_nobody_asks() -> None:
    phoenix = Phoenix()
    outage = Outage(phoenix.ask, lambda: phoenix.seconds)
    with outage.attempt():
        pass
    with pytest.raises(PhoenixAnswer), outage.attempt():
        raise PhoenixAnswer("no project")
    assert (phoenix.asked, outage.problem) == (0, None)


def test_one_project_that_is_too_slow_keeps_no_other_waiting() -> None:
    phoenix = Phoenix()
    outage = Outage(phoenix.ask, lambda: phoenix.seconds)
    fail(outage)
    with outage.attempt():
        pass
    assert (phoenix.asked, outage.problem) == (1, None)


def test_a_phoenix_that_answers_nobody_is_left_alone_for_longer_and_longer() -> None:
    phoenix = Phoenix(answers=False)
    outage = Outage(phoenix.ask, lambda: phoenix.seconds)
    fail(outage)
    for pause in (FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE):
        asked = phoenix.asked
        with pytest.raises(PhoenixAway, match="connection refused") as away, outage.attempt():
            pytest.fail("it is known not to answer")
        assert (away.value.seconds, phoenix.asked) == (pause, asked)
        phoenix.seconds += pause
        fail(outage)
        assert phoenix.asked == asked + 1
    for _ in range(9):
        phoenix.seconds += LONGEST_PAUSE
        fail(outage)
    phoenix.answers = True
    phoenix.seconds += LONGEST_PAUSE
    with outage.attempt():
        pass
    assert outage.problem is None


def test_while_one_asks_the_others_do_not() -> None:
    phoenix = Phoenix(answers=False)
    others: list[str] = []

    def ask() -> None:
        if outage.problem is not None:
            try:
                with outage.attempt():
                    others.append("sent")
            except PhoenixAway:
                others.append("waited")
        phoenix.ask()

    outage = Outage(ask, lambda: phoenix.seconds)
    fail(outage)
    phoenix.seconds += FIRST_PAUSE
    fail(outage)
    assert others == ["waited"]
