"""The calls of one session, put together into one exchange by the histories that the agent sends.

call 1   system  user 1                      ─> answer 1
call 2   system  user 1  answer 1  user 2    ─> answer 2      the agent sends the history again, or
call 2   system  user 2                      ─> answer 2      it does not

Where the agent sends a history, it decides: each answer in it must be the one that a call of the session
gave to what stands before. The last call's history is then what was exchanged; answers that were asked for
again and messages that the user took back are no part of it.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise, takewhile
from typing import NamedTuple

from extractors.examples.prompt_keys import to_comparable
from extractors.examples.types import Message
from extractors.span_parsing.calls import ModelCall
from extractors.span_parsing.drop_reasons import DropReason


class Exchange(NamedTuple):
    """Messages in the order in which they were exchanged."""

    messages: tuple[Message, ...] = ()
    said: tuple[str, ...] = ()
    """What each message says, to compare it."""
    answered: Mapping[int, ModelCall] = {}
    """The calls that gave the answers, by index in `messages`."""
    beginning: int = 0
    """How often somebody began to speak without a history before this."""
    start: int = 0
    """Index of the message with which that beginning starts."""


class _Turn(NamedTuple):
    """One call, without the messages with which every call of the session begins."""

    call: ModelCall
    prompt: tuple[Message, ...]
    said: tuple[str, ...]

    @property
    def history(self) -> tuple[str, ...]:
        """The prompt up to its last answer; empty where it holds none."""
        answers = [at for at, message in enumerate(self.prompt) if message.role == "assistant"]
        return self.said[: answers[-1] + 1] if answers else ()


def join_calls(calls: Sequence[ModelCall]) -> Exchange | DropReason:
    """Return what was exchanged in the `calls` of a session, given in order of time.

    Returns a DropReason where the calls do not make one conversation for certain.
    """
    turns = [_read_turn(call) for call in calls]
    found = _join(turns)
    if isinstance(found, DropReason):
        bare = _join([_drop_system(turn) for turn in turns])
        return found if isinstance(bare, DropReason) else DropReason.SYSTEM_CHANGED
    if _has_system_change(found.answered.values()):
        return DropReason.SYSTEM_CHANGED
    system = _select_system(next(iter(found.answered.values())))
    return _prepend(system, found)


def _read_turn(call: ModelCall) -> _Turn:
    prompt = call.prompt[len(_select_system(call)) :]
    return _Turn(call, prompt, _list_said(prompt))


def _drop_system(turn: _Turn) -> _Turn:
    prompt = tuple(message for message in turn.prompt if message.role != "system")
    return _Turn(turn.call, prompt, _list_said(prompt))


def _select_system(call: ModelCall) -> tuple[Message, ...]:
    """Return the system prompt. A system message further on has its place among what was said."""
    return tuple(takewhile(lambda message: message.role == "system", call.prompt))


def _has_system_change(answered: Collection[ModelCall]) -> bool:
    """Return whether answers were given under different system prompts.

    A system prompt that is not sent again still holds.
    """
    first, *others = (_list_said(_select_system(call)) for call in answered)
    return any(other and other != first for other in others)


def _list_said(messages: Iterable[Message]) -> tuple[str, ...]:
    return tuple(repr(to_comparable(message)) for message in messages)


def _prepend(messages: Sequence[Message], exchange: Exchange) -> Exchange:
    return Exchange(
        (*messages, *exchange.messages),
        (*_list_said(messages), *exchange.said),
        {at + len(messages): call for at, call in exchange.answered.items()},
    )


def _join(turns: Sequence[_Turn]) -> Exchange | DropReason:
    examples = turns[0].history
    if any(turn.said[: len(examples)] != examples for turn in turns):
        examples = ()
    # What every call begins with was said before the session, or is an example of how to answer.
    shared = turns[0].prompt[: len(examples)]
    turns = [_Turn(turn.call, turn.prompt[len(shared) :], turn.said[len(shared) :]) for turn in turns]
    found = _follow(turns)
    if isinstance(found, DropReason):
        return found
    if _lacks_results(found.messages):
        return DropReason.NOT_WHOLE
    return _prepend(shared, found)


def _follow(turns: Sequence[_Turn]) -> Exchange | DropReason:
    """Return the exchange that ends with the last turn's answer."""
    with_history = _sends_history(turns)
    now, *_ = exchanges = [Exchange()]
    ended: dict[tuple[str, ...], Exchange] = {}
    was_lost = False
    for number, turn in enumerate(turns):
        before = ended.get(turn.history)
        if before is not None and _is_interleaved(before, now):
            return DropReason.INTERLEAVED
        if before is not None and not _may_go_on(before, now, turn):
            before = None
        elif before is None:
            before = _find_before(turn, now, turns[number - 1] if number else None, with_history)
        if before is None:
            # Perhaps another agent: whether the first one goes on is seen later.
            was_lost = was_lost or number > 0
            before = Exchange(beginning=len(exchanges))
        now = _go_on(before, turn)
        exchanges.append(now)
        ended[(*turn.said, now.said[-1])] = now
    return DropReason.COMPACTED if was_lost else now


def _find_before(turn: _Turn, now: Exchange, last: _Turn | None, with_history: bool) -> Exchange | None:
    """Return the exchange to which a turn adds its prompt's new messages; None where nothing shows one.

    None of the calls saw the turn's own history as a whole: it has none, or only the last part.
    """
    history = turn.history
    if last is None:
        return None
    if history:
        if now.said[-len(history) :] == history:
            return now
        return (
            _cut(now, len(now.said) - 1 - len(turn.said[len(history) :])) if turn.said == last.said else None
        )
    # Without a history it is the user who says the same again, unless a tool was to answer.
    asked_again = now.said[now.start : now.start + len(turn.said)] == turn.said
    if asked_again and (with_history or now.messages[-1].tool_calls):
        return _cut(now, now.start)
    if with_history:
        return None
    return now._replace(beginning=now.beginning + 1, start=len(now.messages))


def _cut(exchange: Exchange, length: int) -> Exchange:
    """Return the first `length` messages."""
    return exchange._replace(
        messages=exchange.messages[:length],
        said=exchange.said[:length],
        answered={at: call for at, call in exchange.answered.items() if at < length},
    )


def _go_on(before: Exchange, turn: _Turn) -> Exchange:
    """Return the exchange with the turn's new messages and its answer."""
    known = len(turn.history) if before.messages[before.start :] else 0
    messages = (*before.messages, *turn.prompt[known:])
    return before._replace(
        messages=(*messages, turn.call.response),
        said=(*before.said, *turn.said[known:], *_list_said([turn.call.response])),
        answered={**before.answered, len(messages): turn.call},
    )


def _is_interleaved(before: Exchange, now: Exchange) -> bool:
    """Return whether a turn that goes on from `before` leaves what another one had gone on with.

    It may go back, and may pick one of several answers to one prompt.
    """
    if before.beginning != now.beginning:
        return True
    same = takewhile(lambda pair: pair[0] == pair[1], zip(before.said, now.said, strict=False))
    parted = sum(1 for _ in same)
    return parted < len(before.said) and sum(at >= parted for at in now.answered) > 1


def _may_go_on(before: Exchange, now: Exchange, turn: _Turn) -> bool:
    """Return whether a turn may go back to `before`: it asks again, or the user wrote one message anew.

    Several new messages, or another result of a tool, are rather a summary of what was said since.
    """
    since, new = now.said[len(before.said) :], turn.said[len(turn.history) :]
    if not since or now.said[: len(before.said)] != before.said:
        return True
    return since[: len(new)] == new or (len(new) == 1 and turn.prompt[-1].role == "user")


def _sends_history(turns: Sequence[_Turn]) -> bool:
    """Return whether the agent sends earlier messages along: the user goes on after an earlier answer.

    True also where all prompts are one: that is a question asked again and again, no conversation.
    """
    if all(turn.said == turns[0].said for turn in turns):
        return True
    answers = [answer for turn in turns for answer in _list_said([turn.call.response])]
    return any(_goes_on(turn, answers[:number]) for number, turn in enumerate(turns))


def _goes_on(turn: _Turn, answers: Collection[str]) -> bool:
    """Return whether the user speaks after one of the answers."""
    last = max((at for at, message in enumerate(turn.prompt) if message.role == "user"), default=0)
    return not set(answers).isdisjoint(turn.said[:last])


def _lacks_results(messages: Sequence[Message]) -> bool:
    """Return whether somebody spoke where the result of a tool was due."""
    return any(message.tool_calls and following.role != "tool" for message, following in pairwise(messages))
