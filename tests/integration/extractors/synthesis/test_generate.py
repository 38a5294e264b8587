"""Proposals by DSPy, over HTTP, from an endpoint that a test can make as weak or as broken as it likes."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from daemon.demo.servers import find_free_port
from extractors.cleaning.quality import find_flaw
from extractors.examples.prompt_keys import compute_prompt_key, compute_query_key
from extractors.examples.types import Document, Message, PreferencePair, SFTExample, ToolCall, Triplet
from extractors.llm.endpoint import INTERNAL_HEADER, Endpoint, EndpointRefused, EndpointUnreachable
from extractors.synthesis.generate import Synthesis, SynthesisRequest, propose
from extractors.synthesis.recipes import NothingToShow
from extractors.synthesis.rules import SynthesisRules
from tests.support.writing_stand_in import ChatBody, StandInReply, Write, WritingStandIn, writing

NOW = datetime(2026, 3, 9, tzinfo=UTC)
BEGAN = datetime(2026, 3, 1, tzinfo=UTC)
SYSTEM = "Name the department that takes care of the message."
SPACE = ("billing", "shipping", "returns")
ASKED = {
    "billing": ("I was charged twice for my order", "my invoice has a wrong address"),
    "shipping": ("where is my parcel?", "the tracking page shows nothing"),
    "returns": ("how do I send the shoes back?", "I want my money back for the broken lamp"),
}
WORDS = ("kettle", "lamp", "jacket", "bicycle", "book", "phone", "sofa", "tent", "camera", "mirror")


def build_prompt(message: str, system: str = SYSTEM) -> tuple[Message, ...]:
    return (Message(role="system", content=system), Message(role="user", content=message))


def build_answer(text: str) -> Message:
    return Message(role="assistant", content=text)


def build_example(message: str, answer: Message | str, minute: int = 0, **changes: Any) -> SFTExample:
    prompt = changes.pop("prompt", build_prompt(message))
    answer = build_answer(answer) if isinstance(answer, str) else answer
    return SFTExample(
        prompt=prompt,
        completion=answer,
        prompt_key=compute_prompt_key(prompt),
        started_at=BEGAN + timedelta(minutes=minute),
        **changes,
    )


ROUTED = tuple(build_example(message, label) for label, messages in ASKED.items() for message in messages)


def build_pair(example: SFTExample, worse: str) -> PreferencePair:
    return PreferencePair(
        prompt=example.prompt,
        chosen=example.completion,
        rejected=build_answer(worse),
        prompt_key=example.prompt_key,
        started_at=example.started_at,
        preferred_by="correction",
    )


def build_triplet(query: str, positive: str, negative: str) -> Triplet:
    return Triplet(
        query=query,
        positive=Document(id="p", text=positive),
        negative=Document(id="n", text=negative),
        prompt_key=compute_query_key(query),
        started_at=BEGAN,
    )


def build_request(
    demonstrations: Iterable[SFTExample | PreferencePair | Triplet] = ROUTED, **changes: Any
) -> SynthesisRequest:
    known = {"kind": "sft", "wanted": 6, "output_space": SPACE, "seed": 7, "now": NOW}
    return SynthesisRequest(demonstrations=tuple(demonstrations), **(known | changes))


def read_last_message(sent: ChatBody) -> str:
    """The user's last message, as a request holds it."""
    return str(sent["messages"][-1]["content"])


def write_new_message(sent: ChatBody, number: int) -> str:
    return f"the {WORDS[number % len(WORDS)]} of order {number} is about {read_last_message(sent)}"


def run(write: Write, asked: SynthesisRequest, **changes: Any) -> tuple[Synthesis, WritingStandIn]:
    stand_in = WritingStandIn(write)
    with writing(stand_in) as url:
        endpoint = Endpoint(model="tiny", url=url, **changes)
        return propose(asked, endpoint), stand_in


# ---- what is proposed


def test_each_label_is_asked_for_equally_often_and_is_right_by_construction() -> None:
    made, _ = run(write_new_message, build_request(wanted=8))
    examples = [each.example for each in made.proposed]
    assert all(isinstance(example, SFTExample) for example in examples)
    counts = Counter(example.completion.content for example in examples)
    assert sorted(counts.values()) == [2, 3, 3]
    for example in examples:
        assert f"is about {example.completion.content}" in example.prompt[-1].content
        assert find_flaw(example) is None


def test_what_is_left_over_goes_to_the_labels_with_the_fewest_approved_examples() -> None:
    made, _ = run(write_new_message, build_request(ROUTED[:3], wanted=2))
    assert {each.example.completion.content for each in made.proposed} == {"returns", "shipping"}


def test_a_proposal_has_the_shape_of_the_demonstrations() -> None:
    tools = ({"type": "function", "function": {"name": "transfer", "parameters": {}}},)
    known = [
        build_example(message, label, tools=tools)
        for label, messages in ASKED.items()
        for message in messages
    ]
    made, _ = run(write_new_message, build_request(known))
    for each in made.proposed:
        example = each.example
        assert example.prompt[:-1] == known[0].prompt[:-1]
        assert [message.role for message in example.prompt] == ["system", "user"]
        assert example.tools == tools
        assert (example.origin, example.started_at, example.source_span_ids) == ("synthetic", NOW, ())
        assert example.prompt_key == compute_prompt_key(example.prompt)


def test_a_pair_is_a_new_message_with_its_label_and_another_one() -> None:
    confused = [build_pair(ROUTED[0], "returns"), build_pair(ROUTED[1], "returns")]
    rest = [build_pair(example, "billing") for example in ROUTED[2:]]
    made, _ = run(write_new_message, build_request([*confused, *rest], kind="pairs", wanted=30))
    pairs = [each.example for each in made.proposed]
    assert len(pairs) == 30
    assert all(pair.chosen.content in SPACE and pair.rejected.content in SPACE for pair in pairs)
    assert all(pair.chosen != pair.rejected for pair in pairs)
    wrong = Counter(pair.rejected.content for pair in pairs if pair.chosen.content == "billing")
    assert wrong["returns"] > wrong["shipping"], "what was really confused is the likelier mistake"


def test_without_labels_a_message_is_written_and_answered_under_the_agents_own_instructions() -> None:
    def write(sent: ChatBody, number: int) -> str:
        if read_last_message(sent).startswith("Message "):
            return f"does the {WORDS[number % 10]} number {number} come in blue?"
        assert sent["messages"][0] == {"role": "system", "content": SYSTEM}
        return f"Yes: {read_last_message(sent)}"

    known = [
        build_example(f"is the {word} in stock now?", f"Yes, the {word} is in stock.", n)
        for n, word in enumerate(WORDS)
    ]
    made, _ = run(write, build_request(known, output_space=()))
    assert len(made.proposed) == 6
    for each in made.proposed:
        assert each.example.completion.content == f"Yes: {each.example.prompt[-1].content}"


def test_a_free_pair_has_a_worse_reply_to_the_same_message() -> None:
    def write(sent: ChatBody, number: int) -> str:
        if read_last_message(sent).startswith("Message "):
            return f"is lamp number {number} in stock?"
        return "No idea." if "Reply:\n" in read_last_message(sent) else "Yes, two of them are."

    known = [
        build_pair(build_example(f"is the {word} in stock?", "Yes, three are."), "Dunno.") for word in WORDS
    ]
    made, _ = run(write, build_request(known, kind="pairs", output_space=()))
    assert {(each.example.chosen.content, each.example.rejected.content) for each in made.proposed} == {
        ("Yes, two of them are.", "No idea.")
    }


def test_a_reply_can_be_a_tool_call() -> None:
    tools = ({"type": "function", "function": {"name": "stock", "parameters": {}}},)

    def calling(item: str) -> Message:
        call = ToolCall(id="call_1", name="stock", arguments=json.dumps({"item": item}))
        return Message(role="assistant", tool_calls=(call,))

    def write(sent: ChatBody, number: int) -> str:
        if read_last_message(sent).startswith("Message "):
            return f"is chair number {number} in stock?"
        assert '{"name": "stock", "arguments": {"item": ' in sent["messages"][2]["content"]
        return '{"name": "stock", "arguments": {"item": "chair"}}'

    known = [build_example(f"is the {word} in stock?", calling(word), tools=tools) for word in WORDS]
    made, _ = run(write, build_request(known, output_space=()))
    calls = [call for each in made.proposed for call in each.example.completion.tool_calls]
    assert len(calls) == 6
    assert {(call.name, call.arguments) for call in calls} == {("stock", '{"item": "chair"}')}
    assert len({call.id for call in calls}) == 6


def test_queries_are_written_for_documents_known_to_be_relevant_with_a_negative_of_their_list() -> None:
    known = [
        build_triplet("refund time", "Refunds take five days.", "Parcels take two days."),
        build_triplet(
            "how long until my money is back", "Refunds take five days.", "We are open on Mondays."
        ),
        build_triplet("opening hours", "We are open on Mondays.", "Refunds take five days."),
    ]
    made, _ = run(
        lambda sent, number: f"query {number} for {read_last_message(sent)}",
        build_request(known, kind="triplets", output_space=()),
    )
    lists = {(each.positive.text, each.negative.text) for each in known}
    assert {(each.example.positive.text, each.example.negative.text) for each in made.proposed} <= lists
    counts = Counter(each.example.positive.text for each in made.proposed)
    assert counts == {"Refunds take five days.": 3, "We are open on Mondays.": 3}
    for each in made.proposed:
        assert each.example.query.endswith(each.example.positive.text)


def test_a_proposal_names_the_examples_that_were_shown_for_it() -> None:
    made, stand_in = run(write_new_message, build_request(rules=SynthesisRules(demonstrations=3)))
    known = {example.id: example.prompt[-1].content for example in ROUTED}
    shown = [
        {turn["content"] for turn in sent["messages"] if turn["role"] == "assistant"}
        for sent in stand_in.seen
    ]
    for each in made.proposed:
        assert len(each.demonstrations) == 3
        assert {known[id_] for id_ in each.demonstrations} in shown


def test_demonstrations_of_another_shape_are_not_shown() -> None:
    history = (*build_prompt("hello"), build_answer("hi"), Message(role="user", content="SECOND TURN"))
    others = [
        build_example("x", "billing", prompt=history),
        build_example("OLD PROMPT", "billing", prompt=build_prompt("OLD PROMPT", "Another system prompt.")),
    ]
    _, stand_in = run(write_new_message, build_request([*ROUTED, *others]))
    sent = json.dumps(stand_in.seen)
    assert "SECOND TURN" not in sent
    assert "OLD PROMPT" not in sent


def test_with_nothing_to_show_it_says_so() -> None:
    endpoint = Endpoint(model="tiny", url="http://127.0.0.1:9/v1")
    history = (*build_prompt("hello"), build_answer("hi"), Message(role="user", content="and?"))
    with pytest.raises(NothingToShow, match="single message"):
        propose(build_request([build_example("x", "billing", prompt=history)]), endpoint)
    with pytest.raises(NothingToShow, match="output space"):
        propose(build_request([build_example("x", "something else")]), endpoint)
    with pytest.raises(NothingToShow, match="wrong answer"):
        propose(
            build_request([build_pair(ROUTED[0], "x")], kind="pairs", output_space=("billing",)),
            endpoint,
        )


# ---- how it is asked


def test_every_request_says_that_it_is_learnds_own() -> None:
    _, stand_in = run(write_new_message, build_request())
    assert {headers[INTERNAL_HEADER] for headers in stand_in.headers} == {"true"}
    assert set(stand_in.paths) == {"/v1/chat/completions"}


@pytest.mark.parametrize(
    "name", ["base", "Qwen/Qwen3-0.6B", "qwen2.5:0.5b", "openai/gpt-oss-20b", "acme/a:b/c"]
)
def test_the_model_is_asked_for_as_the_endpoint_names_it(name: str) -> None:
    stand_in = WritingStandIn(write_new_message)
    with writing(stand_in) as url:
        made = propose(build_request(wanted=1), Endpoint(model=name, url=f"{url}/"))
    assert [sent["model"] for sent in stand_in.seen] == [name]
    assert made.model == name
    assert stand_in.paths == ["/v1/chat/completions"]


def test_calls_differ_in_demonstrations_temperature_and_seed() -> None:
    _, stand_in = run(write_new_message, build_request(wanted=12))
    assert len({sent["seed"] for sent in stand_in.seen}) == 12
    temperatures = [sent["temperature"] for sent in stand_in.seen]
    assert 0.7 <= min(temperatures) < max(temperatures) <= 1.1
    assert len({json.dumps(sent["messages"]) for sent in stand_in.seen}) > 6


def test_nothing_is_cached_yet_the_same_seed_asks_the_same() -> None:
    def ask_with_seed(seed: int) -> list[str]:
        _, stand_in = run(write_new_message, build_request(seed=seed), concurrency=1)
        return [json.dumps(each, sort_keys=True) for each in stand_in.seen]

    first, second, other = ask_with_seed(7), ask_with_seed(7), ask_with_seed(8)
    assert first == second, "the endpoint was asked again"
    assert not set(first) & set(other)


def test_calls_are_made_at_once_but_never_more_than_allowed() -> None:
    stand_in = WritingStandIn(write_new_message, seconds=0.05)
    with writing(stand_in) as url:
        propose(build_request(wanted=24), Endpoint(model="tiny", url=url, concurrency=4))
    assert stand_in.most_at_once == 4


def test_fifty_proposals_take_fifty_calls_and_seconds() -> None:
    stand_in = WritingStandIn(write_new_message, seconds=0.1)
    with writing(stand_in) as url:
        began = time.monotonic()
        made = propose(build_request(wanted=50), Endpoint(model="tiny", url=url))
        seconds = time.monotonic() - began
    assert (len(made.proposed), made.calls, made.incomplete) == (50, 50, "")
    print(f"50 proposals: {made.calls} calls, {seconds:.2f} s at 0.1 s a call, 8 at once")
    assert seconds < 10


def test_the_key_is_sent_and_kept_nowhere(tmp_path: Path) -> None:
    stand_in = WritingStandIn(write_new_message, key="sk-secret")
    with writing(stand_in) as url:
        endpoint = Endpoint(model="tiny", url=url)
        asked = build_request()
        made = propose(asked, endpoint, api_key="sk-secret")
        with pytest.raises(EndpointRefused) as refused:
            propose(asked, endpoint, api_key="sk-wrong")
    assert len(made.proposed) == 6
    written = tmp_path / "job.json"
    written.write_text("".join(value.model_dump_json() for value in (asked, endpoint, made)))
    assert "sk-secret" not in written.read_text()
    assert "sk-wrong" not in str(refused.value), "the endpoint's own words repeat the key"


def test_a_child_that_asks_loads_no_litellm_and_leaves_no_cache_behind(tmp_path: Path) -> None:
    code = (
        "import sys; from extractors.synthesis.generate import *; "
        "from extractors.llm.endpoint import Endpoint; "
        "made = propose(SynthesisRequest.model_validate_json(sys.stdin.read()), "
        "Endpoint(model='tiny', url=sys.argv[1])); "
        "print(len(made.proposed), 'litellm' in sys.modules, 'torch' in sys.modules)"
    )
    with writing(WritingStandIn(write_new_message)) as url:
        child = subprocess.run(
            [sys.executable, "-W", "error", "-c", code, url],
            input=build_request().model_dump_json(),
            env={**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(Path.cwd())},
            capture_output=True,
            text=True,
            check=False,
        )
    assert (child.stdout.split(), child.stderr) == (["6", "False", "False"], "")
    assert list(tmp_path.iterdir()) == []


# ---- weak models


WEAK: list[Callable[[str], str]] = [
    lambda text: f'"{text}"',
    lambda text: f"```\n{text}\n```",
    lambda text: f"Message: {text}",
    lambda text: f"Sure! Here is one more message:\n\n{text}",
    lambda text: f"{text}\nAssistant: billing\nUser: what about my parcel?",
    lambda text: f"[[ ## message ## ]]\n{text}\n\n[[ ## completed ## ]]",
    lambda text: json.dumps({"message": text}),
    lambda text: "```json\n" + json.dumps({"message": text, "label": "billing"}) + "\n```",
    lambda text: f"<think>The user wants a message.\nSo…</think>\n\n{text}",
    lambda text: f"\n\n  {text}  \n",
]


@pytest.mark.parametrize("dress", WEAK)
def test_what_small_models_put_around_a_text_is_taken_off(dress: Callable[[str], str]) -> None:
    made, _ = run(
        lambda sent, number: dress(f"my {WORDS[number]} {number} never came, {read_last_message(sent)}"),
        build_request(wanted=3),
    )
    assert [each.example.prompt[-1].content.startswith("my ") for each in made.proposed] == [True] * 3
    for each in made.proposed:
        assert each.example.prompt[-1].content.endswith(f"came, {each.example.completion.content}")


GARBAGE: dict[str, StandInReply] = {
    "the model wrote nothing": StandInReply(text=" \n"),
    "JSON that cannot be read, where a text was wanted": StandInReply(text='{"message": "I was char'),
    "JSON of another form, where a text was wanted": StandInReply(text='["a", "b"]'),
    "far longer than what it was shown": StandInReply(text="and so on " * 200),
    "the model's answer was cut off at the limit of its length": StandInReply(
        text="my parcel and the", finish_reason="length"
    ),
    "characters that cannot be stored": StandInReply(text="where is my \ud800 parcel now?"),
    "a label, where a message was wanted": StandInReply(text="Billing"),
    "said already, by a demonstration or another proposal": StandInReply(text="Where is my  parcel?"),
}


@pytest.mark.parametrize("reason", GARBAGE)
def test_garbage_is_counted_and_asked_for_again_a_bounded_number_of_times(reason: str) -> None:
    made, stand_in = run(lambda *_: GARBAGE[reason], build_request(rules=SynthesisRules(attempts=3)))
    assert made.proposed == ()
    assert made.unusable == {reason: 18}
    assert made.calls == len(stand_in.seen) == 18, "6 wanted, 3 attempts each, 1 call an attempt"
    assert made.incomplete.startswith("0 of 6 proposals")


def test_an_answer_that_goes_on_too_long_is_used_up_to_where_it_was_whole() -> None:
    def write(sent: ChatBody, number: int) -> StandInReply:
        text = f"{write_new_message(sent, number)}\nand then\nand th"
        return StandInReply(text=text, finish_reason="length")

    made, _ = run(write, build_request())
    assert len(made.proposed) == 6
    assert not any("and th" in each.example.prompt[-1].content for each in made.proposed)


def test_some_garbage_costs_calls_and_leaves_the_labels_balanced() -> None:
    made, _ = run(
        lambda sent, number: "" if number % 3 == 0 else write_new_message(sent, number),
        build_request(wanted=30),
    )
    counts = Counter(each.example.completion.content for each in made.proposed)
    assert counts == dict.fromkeys(SPACE, 10)
    assert 30 < made.calls <= 60


def test_a_label_that_the_model_cannot_write_for_is_not_made_up_for_by_others() -> None:
    made, _ = run(
        lambda sent, number: "" if read_last_message(sent) == "returns" else write_new_message(sent, number),
        build_request(wanted=9),
    )
    counts = Counter(each.example.completion.content for each in made.proposed)
    assert counts == {"billing": 3, "shipping": 3}
    assert made.calls == 6 + 3 * 4
    assert made.incomplete.startswith("6 of 9 proposals")


def test_json_answers_stay_json() -> None:
    def write(sent: ChatBody, number: int) -> str:
        asks = read_last_message(sent).startswith("Message ")
        return f"two lamps, order {number}" if asks else '{"reply": "lamp"}'

    known = [build_example(f"one {word}, please", json.dumps({"reply": word})) for word in WORDS]
    made, _ = run(write, build_request(known, output_space=()))
    assert {each.example.completion.content for each in made.proposed} == {'{"reply": "lamp"}'}


# ---- broken endpoints


def test_an_endpoint_that_is_down_is_named_with_what_to_do() -> None:
    url = f"http://127.0.0.1:{find_free_port()}/v1"
    began = time.monotonic()
    with pytest.raises(EndpointUnreachable, match="start it, or correct its URL") as down:
        propose(build_request(wanted=50), Endpoint(model="tiny", url=url))
    assert url in str(down.value)
    assert "refused" in str(down.value)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("wanted", [1, 50])
def test_an_endpoint_that_never_answers_is_given_up(wanted: int) -> None:
    began = time.monotonic()
    with pytest.raises(EndpointUnreachable, match="does not answer"):
        run(
            lambda *_: StandInReply(text="late", seconds=2.0),
            build_request(wanted=wanted, rules=SynthesisRules(attempts=1)),
            timeout_seconds=0.2,
        )
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    "broken", [StandInReply(status=500), StandInReply(status=429), StandInReply(raw=b"<html>")]
)
def test_an_endpoint_that_only_fails_is_given_up_after_a_few_calls(broken: StandInReply) -> None:
    stand_in = WritingStandIn(lambda *_: broken)
    with writing(stand_in) as url, pytest.raises(EndpointUnreachable) as failed:
        propose(build_request(wanted=200), Endpoint(model="tiny", url=url, concurrency=2))
    assert url in str(failed.value)
    assert len(stand_in.seen) <= 2 * (8 + 2)


def test_a_wrong_key_ends_it_at_once() -> None:
    stand_in = WritingStandIn(write_new_message, key="right")
    with writing(stand_in) as url, pytest.raises(EndpointRefused, match="key") as refused:
        propose(build_request(wanted=200), Endpoint(model="tiny", url=url, concurrency=2), api_key="wrong")
    assert url in str(refused.value)
    assert len(stand_in.seen) <= 2


def test_an_unknown_model_and_a_wrong_path_say_what_to_correct() -> None:
    unknown = StandInReply(status=404, error="The model `tiny` does not exist.")
    with pytest.raises(EndpointRefused, match="the model's name in the settings"):
        run(lambda *_: unknown, build_request())
    with pytest.raises(EndpointRefused, match="with its /v1"):
        run(lambda *_: StandInReply(status=404, error="Not Found"), build_request())


def test_a_prompt_too_long_for_the_model_says_what_to_lower() -> None:
    too_long = StandInReply(status=400, error="This model's maximum context length is 2048 tokens.")
    with pytest.raises(EndpointRefused, match=r"2048 tokens.*fewer demonstrations"):
        run(lambda *_: too_long, build_request())


def test_a_busy_moment_passes() -> None:
    made, _ = run(
        lambda sent, number: StandInReply(status=503) if number < 2 else write_new_message(sent, number),
        build_request(),
        concurrency=2,
    )
    assert len(made.proposed) == 6
    assert made.unusable == {}
    assert made.calls == 8


def test_what_was_proposed_before_an_endpoint_failed_is_kept() -> None:
    made, _ = run(
        lambda sent, number: write_new_message(sent, number) if number < 4 else StandInReply(status=401),
        build_request(wanted=12),
        concurrency=1,
    )
    assert len(made.proposed) == 4
    assert made.incomplete.startswith("4 of 12 proposals")
    assert "key" in made.incomplete


def test_progress_is_told() -> None:
    told: list[tuple[int, int]] = []
    stand_in = WritingStandIn(write_new_message)
    with writing(stand_in) as url:
        propose(
            build_request(),
            Endpoint(model="tiny", url=url),
            on_progress=lambda done, wanted: told.append((done, wanted)),
        )
    assert told == [(done, 6) for done in range(1, 7)]
