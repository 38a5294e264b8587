"""Recipes for synthetic examples: the texts that are asked for, their order, and the example they become.

    with labels (sft, pairs)    label ─> message                      the label is right by construction
    without (sft, pairs)        message ─> reply [─> worse reply]
    triplets                    relevant document ─> query            negative: of the same result list

Every proposal has a goal (a label, a document), so that all goals can be served equally.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from random import Random
from typing import Any, Literal, Protocol

from extractors.errors import LearndError
from extractors.examples.output_space import OutputSpace
from extractors.examples.prompt_keys import compute_prompt_key, compute_query_key, normalise, to_comparable
from extractors.examples.types import Document, Message, PreferencePair, SFTExample, ToolCall, Triplet
from extractors.llm.endpoint import Step, UnusableReply
from extractors.values import content_id

SyntheticKind = Literal["sft", "pairs", "triplets"]
Prompted = SFTExample | PreferencePair
Synthetic = Prompted | Triplet
Demonstration = tuple[str, Mapping[str, str]]
"""Id of an approved example, and the texts of it that are shown: inputs and output by name."""
Ask = Callable[[Step, Sequence[Demonstration], Mapping[str, str]], str]
"""Lets the model write one text. Raises UnusableReply, EndpointUnreachable, EndpointRefused."""
MOST_OF_A_DOCUMENT = 1500
"""Characters of a document that are shown."""
CONFUSED = 3
"""Weight that a wrong label gains, beside 1, for each time that it was rejected for the right one."""

MESSAGE_FOR_LABEL = Step(
    inputs=("answer",),
    output="message",
    instructions=(
        "You write test messages for an assistant. You are given an answer of the assistant. Write a "
        "message of a user that gets exactly this answer: another case than those shown, in their "
        "language, length and style. Write nothing but the message."
    ),
    inventive=True,
)
MESSAGE = Step(
    inputs=("number",),
    output="message",
    instructions=(
        "You write test messages for an assistant. Write one more message of a user: another case than "
        "those shown, in their language, length and style. Write nothing but the message."
    ),
    inventive=True,
)
REPLY = Step(
    inputs=("message",),
    output="reply",
    instructions="Answer the user's message in the way in which those before it were answered.",
    inventive=False,
)
WORSE_REPLY = Step(
    inputs=("message", "reply"),
    output="worse_reply",
    instructions=(
        "You are given a user's message and an assistant's good reply. Write a worse reply to the same "
        "message, of the kind that the assistant might give by mistake: plausible, in the same form, but "
        "wrong or less helpful. Write nothing but the worse reply."
    ),
    inventive=True,
)
QUERY = Step(
    inputs=("document",),
    output="query",
    instructions=(
        "You are given a document. Write a search query of a user whom this document answers: in the "
        "language, length and style of the queries shown, in other words than the document's. Write "
        "nothing but the query."
    ),
    inventive=True,
)


class NothingToShow(LearndError):
    """No approved example can serve as a demonstration."""


class Recipe(Protocol):
    """Writes examples of one kind for one target."""

    @property
    def goals(self) -> Sequence[str]:
        """The goals of proposals; first those that the demonstrations have least of."""

    def write(self, goal: str, rng: Random, ask: Ask) -> Synthetic:
        """Write one example; `rng` makes all random choices. Raises what `ask` raises."""


def build_recipe(
    kind: SyntheticKind,
    demonstrations: Sequence[Synthetic],
    output_space: Sequence[str],
    *,
    show: int,
    most_shown: int,
    now: datetime,
) -> Recipe:
    """Build the recipe for a target.

    A call shows `show` demonstrations, of at most `most_shown` characters together; `now` is when the
    examples begin. Raises NothingToShow.
    """
    selector = DemonstrationSelector(show, most_shown)
    if kind == "triplets":
        found = [each for each in demonstrations if isinstance(each, Triplet)]
        return _QueryRecipe(found, selector, now)
    frame, prompted = find_common_frame([each for each in demonstrations if not isinstance(each, Triplet)])
    if output_space:
        return _LabelRecipe(kind, frame, prompted, output_space, selector, now)
    return _ReplyRecipe(kind, frame, prompted, selector, now)


# ---- the frame of a prompt


class PromptFrame:
    """The part that all prompts of a target share: system prompt and tools, before one user's message."""

    def __init__(self, example: Prompted) -> None:
        self.system = example.prompt[:-1]
        self.tools = example.tools
        self.key = content_id([[to_comparable(message) for message in self.system], list(self.tools)])

    @property
    def instructions(self) -> str:
        """The system prompt and the tools, in words; empty where there is neither."""
        parts = [message.content for message in self.system]
        if self.tools:
            offered = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in self.tools)
            form = '{"name": …, "arguments": {…}}'
            parts.append(f"These tools can be called, by replying {form}, one call a line:\n{offered}")
        return "\n\n".join(parts).strip()


def find_frame(example: Prompted) -> PromptFrame | None:
    """Return the frame of the prompt; None where it is not one user's message after a system prompt."""
    *before, last = example.prompt or (Message(role=""),)
    if last.role != "user" or any(message.role not in ("system", "developer") for message in before):
        return None
    return PromptFrame(example)


def find_common_frame(examples: Iterable[Prompted]) -> tuple[PromptFrame, list[Prompted]]:
    """Return the frame that most examples have (of several, the newest one's), and the examples with it.

    Raises NothingToShow.
    """
    framed = [(frame, each) for each in examples if (frame := find_frame(each)) is not None]
    if not framed:
        raise NothingToShow(
            "no approved example is a single message of a user: synthetic ones are made from such alone"
        )
    counts = Counter(frame.key for frame, _ in framed)
    best, _ = max(framed, key=lambda pair: (counts[pair[0].key], pair[1].started_at, pair[1].id))
    return best, [each for frame, each in framed if frame.key == best.key]


def choose_better_answer(example: Prompted) -> Message:
    """Return the answer to learn."""
    return example.chosen if isinstance(example, PreferencePair) else example.completion


def format_message(message: Message) -> str:
    """Return the message as text; tool calls as JSON, one a line."""
    calls = [
        json.dumps({"name": call.name, "arguments": _parse_arguments(call)}, ensure_ascii=False)
        for call in message.tool_calls
    ]
    return "\n".join(filter(None, (message.content, *calls)))


def _parse_arguments(call: ToolCall) -> Any:
    try:
        return json.loads(call.arguments)
    except ValueError:
        return call.arguments


def parse_message(text: str, tools: Sequence[Mapping[str, Any]], rng: Random) -> Message:
    """Return the assistant's message that `format_message` would give as `text`."""
    names = list_functions(tools).keys()
    calls = []
    for line in text.splitlines() if names else ():
        try:
            found = json.loads(line)
        except ValueError:
            found = None
        if not isinstance(found, dict) or found.get("name") not in names:
            return Message(role="assistant", content=text)
        arguments = json.dumps(found.get("arguments") or {}, ensure_ascii=False)
        calls.append(ToolCall(id=f"call_{rng.getrandbits(64):016x}", name=found["name"], arguments=arguments))
    return Message(role="assistant", content="" if calls else text, tool_calls=tuple(calls))


def list_functions(tools: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return the parameters of each tool that is a function, as a JSON schema, by its name."""
    offered = [tool.get("function") for tool in tools]
    return {
        function["name"]: parameters if isinstance(parameters := function.get("parameters"), dict) else {}
        for function in offered
        if isinstance(function, dict) and isinstance(function.get("name"), str)
    }


class DemonstrationSelector:
    """Chooses the demonstrations that a call shows: as many as are wanted and fit, at least one."""

    def __init__(self, show: int, most_characters: int) -> None:
        self._show = show
        self._most_characters = most_characters

    def choose(self, rng: Random, *groups: Sequence[Demonstration]) -> list[Demonstration]:
        """Draw at random from each group in turn; the draws of the first group come last in the list."""
        orders = [rng.sample(group, len(group)) for group in groups]
        turns = [
            order[turn] for turn in range(max(map(len, orders))) for order in orders if turn < len(order)
        ]
        taken: list[Demonstration] = []
        characters = 0
        for shown in turns:
            characters += sum(map(len, shown[1].values()))
            if len(taken) == self._show or (taken and characters > self._most_characters):
                break
            taken.append(shown)
        return taken[::-1]


# ---- recipes


class _ExampleBuilder:
    """Builds steps and examples that begin with a user's message."""

    def __init__(self, kind: SyntheticKind, frame: PromptFrame, now: datetime) -> None:
        self.kind = kind
        self.frame = frame
        self._now = now

    def build_step(self, step: Step) -> Step:
        """Return the step with the target's own instructions: for a reply those alone, else quoted."""
        own = self.frame.instructions
        if step is REPLY:
            return Step(step.inputs, step.output, own or step.instructions, step.inventive)
        quoted = f"{step.instructions}\n\nThe assistant works by these instructions:\n{own}"
        return Step(step.inputs, step.output, quoted if own else step.instructions, step.inventive)

    def build_example(self, message: str, answer: Message, worse: Message | None) -> Prompted:
        prompt = (*self.frame.system, Message(role="user", content=message))
        known: dict[str, Any] = {
            "origin": "synthetic",
            "started_at": self._now,
            "prompt": prompt,
            "tools": self.frame.tools,
            "prompt_key": compute_prompt_key(prompt),
        }
        if worse is None:
            return SFTExample(completion=answer, **known)
        return PreferencePair(chosen=answer, rejected=worse, preferred_by="candidate", **known)


class _LabelRecipe:
    """A message for each label; the wrong answer is another label, most likely one that was once rejected."""

    def __init__(
        self,
        kind: SyntheticKind,
        frame: PromptFrame,
        demonstrations: Sequence[Prompted],
        output_space: Sequence[str],
        selector: DemonstrationSelector,
        now: datetime,
    ) -> None:
        self._builder = _ExampleBuilder(kind, frame, now)
        self._selector = selector
        self._labels = tuple(dict.fromkeys(output_space))
        space = OutputSpace(self._labels)
        self._shown: dict[str, list[Demonstration]] = {label: [] for label in self._labels}
        self._mistaken: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for each in demonstrations:
            label = space.to_label(choose_better_answer(each))
            if label is None or choose_better_answer(each).tool_calls:
                continue
            fields = {"answer": label.content, "message": each.prompt[-1].content}
            self._shown[label.content].append((each.id, fields))
            if isinstance(each, PreferencePair) and (wrong := space.to_label(each.rejected)):
                self._mistaken[label.content][wrong.content] += 1
        if not any(self._shown.values()):
            raise NothingToShow("no approved answer is in the target's output space")
        if kind == "pairs" and len(self._labels) < 2:
            raise NothingToShow("with one label in the output space there is no wrong answer")

    @property
    def goals(self) -> Sequence[str]:
        return sorted(self._labels, key=lambda label: len(self._shown[label]))

    def write(self, goal: str, rng: Random, ask: Ask) -> Prompted:
        others = [shown for label, group in self._shown.items() if label != goal for shown in group]
        shown = self._selector.choose(rng, self._shown[goal], others)
        message = ask(self._builder.build_step(MESSAGE_FOR_LABEL), shown, {"answer": goal})
        if normalise(message) in map(normalise, self._labels):
            raise UnusableReply("a label, where a message was wanted")
        worse = self._choose_wrong(goal, rng) if self._builder.kind == "pairs" else None
        return self._builder.build_example(message, Message(role="assistant", content=goal), worse)

    def _choose_wrong(self, label: str, rng: Random) -> Message:
        others = [other for other in self._labels if other != label]
        weights = [1 + CONFUSED * self._mistaken[label][other] for other in others]
        return Message(role="assistant", content=rng.choices(others, weights)[0])


class _ReplyRecipe:
    """A message, the reply to it and, for a pair, a worse one."""

    goals = ("",)

    def __init__(
        self,
        kind: SyntheticKind,
        frame: PromptFrame,
        demonstrations: Sequence[Prompted],
        selector: DemonstrationSelector,
        now: datetime,
    ) -> None:
        self._builder = _ExampleBuilder(kind, frame, now)
        self._selector = selector
        self._demonstrations = [(each.id, _to_fields(each)) for each in demonstrations]

    def write(self, goal: str, rng: Random, ask: Ask) -> Prompted:  # noqa: ARG002
        shown = self._selector.choose(rng, self._demonstrations)
        numbered = [
            (id_, {"number": f"Message {number}", "message": fields["message"]})
            for number, (id_, fields) in enumerate(shown, start=1)
        ]
        message = ask(self._builder.build_step(MESSAGE), numbered, {"number": f"Message {len(shown) + 1}"})
        reply = ask(self._builder.build_step(REPLY), shown, {"message": message})
        worse = None
        if self._builder.kind == "pairs":
            given = {"message": message, "reply": reply}
            text = ask(self._builder.build_step(WORSE_REPLY), shown, given)
            worse = parse_message(text, self._builder.frame.tools, rng)
        return self._builder.build_example(
            message, parse_message(reply, self._builder.frame.tools, rng), worse
        )


class _QueryRecipe:
    """New queries for documents that are relevant to known ones."""

    def __init__(
        self, demonstrations: Sequence[Triplet], selector: DemonstrationSelector, now: datetime
    ) -> None:
        if not demonstrations:
            raise NothingToShow("no approved triplet: queries are written for documents of such")
        self._selector = selector
        self._now = now
        self._known: defaultdict[str, list[Triplet]] = defaultdict(list)
        for each in demonstrations:
            self._known[normalise(each.positive.text)].append(each)

    @property
    def goals(self) -> Sequence[str]:
        queries = {key: len({normalise(t.query) for t in known}) for key, known in self._known.items()}
        return sorted(self._known, key=lambda key: queries[key])

    def write(self, goal: str, rng: Random, ask: Ask) -> Triplet:
        positive = self._known[goal][0].positive
        # A small model repeats the query that it is shown for the same document.
        others = [each for key, known in self._known.items() if key != goal for each in known]
        shown = self._selector.choose(rng, [_to_shown(each) for each in others or self._known[goal]])
        query = ask(QUERY, shown, {"document": positive.text[:MOST_OF_A_DOCUMENT]})
        negatives: Sequence[Document] = [each.negative for each in self._known[goal]]
        return Triplet(
            origin="synthetic",
            started_at=self._now,
            query=query,
            positive=positive,
            negative=rng.choice(negatives),
            prompt_key=compute_query_key(query),
        )


def _to_fields(example: Prompted) -> Mapping[str, str]:
    fields = {
        "message": example.prompt[-1].content,
        "reply": format_message(choose_better_answer(example)),
    }
    worse = {"worse_reply": format_message(example.rejected)} if isinstance(example, PreferencePair) else {}
    return fields | worse


def _to_shown(triplet: Triplet) -> Demonstration:
    return triplet.id, {"document": triplet.positive.text[:MOST_OF_A_DOCUMENT], "query": triplet.query}
