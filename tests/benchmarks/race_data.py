"""Agents to race on: what people corrected, what they preferred, and a large test set with the right answers.

demo       the demo's requests: twelve destinations; the rejected answers are the base model's own
clinc150   requests to ten agents (Larson et al. 2019), likewise
courtesy   short replies whose content people correct and whose form they only prefer: the approved answers
           are courteous half of the time, the preferred ones always
"""

import json
import os
import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from daemon.demo.corpus import build_system_prompt, load_corpus
from evaluation.engine.generate import open_engine
from evaluation.jobs.ask_sides import render_if_possible, to_raw_answers
from evaluation.report import BASE
from extractors.examples.types import Examples, Message, PreferencePair, SFTExample
from extractors.values import Value
from tests.support.snapshots import RoutingCase, make_example, make_pair
from trainers.planning.method_rules import Task

DATA_SETS = ("demo", "clinc150", "courtesy")
LEARNED, TESTED = 260, 400
"""Requests that an agent learns from and validates on, and most that it is tested on."""
BASE_TOKENS = 12
COURTESY = "Thank you for writing. {answer}"


class LearnedCase(Value):
    """A request that people reviewed."""

    question: str
    approved: str
    """The answer that they approved or wrote."""
    preferred: str
    rejected: str | None
    """An answer that they liked less than `preferred`; None where there was none."""


class Agent(Value):
    """An agent with its reviewed traffic and its test set."""

    task: Task
    system: str
    labels: tuple[str, ...]
    learned: tuple[LearnedCase, ...]
    tested: tuple[RoutingCase, ...]
    """Questions with the answers that are right."""

    def build_examples(self, validation_share: float) -> tuple[Examples, Examples]:
        """Return the training and the validation side."""
        validated = round(len(self.learned) * validation_share)
        numbered = list(enumerate(self.learned))
        return self._build_side(numbered[validated:]), self._build_side(numbered[:validated])

    def build_test(self) -> list[SFTExample]:
        """Return the test set as prompts with the right answers."""
        return [
            make_example(10_000 + number, asked, system=self.system)
            for number, asked in enumerate(self.tested)
        ]

    def _build_side(self, cases: Sequence[tuple[int, LearnedCase]]) -> Examples:
        sft, pairs = list[SFTExample](), list[PreferencePair]()
        for number, case in cases:
            sft.append(make_example(number, (case.question, case.approved), system=self.system))
            if case.rejected is not None:
                asked = case.question, case.preferred
                pairs.append(make_pair(number, asked, case.rejected, system=self.system))
        return Examples(sft=tuple(sft), pairs=tuple(pairs))


def draw_agent(name: str, seed: int, base: Path) -> Agent | None:
    """Draw the agent `name` anew; None where its data is not on this machine."""
    if name == "courtesy":
        return _draw_courteous(seed)
    cases = _read_demo() if name == "demo" else _read_clinc150()
    if cases is None:
        return None
    labels = tuple(sorted({label for _, label in cases}))
    system = build_system_prompt(labels)
    drawn = random.Random(seed).sample(cases, len(cases))
    asked = drawn[:LEARNED]
    said = _ask_base(base, system, tuple(question for question, _ in asked))
    learned = tuple(
        LearnedCase(
            question=question, approved=label, preferred=label, rejected=answer if answer != label else None
        )
        for (question, label), answer in zip(asked, said, strict=True)
    )
    return Agent(
        task="classification",
        system=system,
        labels=labels,
        learned=learned,
        tested=tuple(drawn[LEARNED : LEARNED + TESTED]),
    )


def _read_demo() -> list[RoutingCase]:
    return [(request.text, request.label) for request in load_corpus()]


def _read_clinc150() -> list[RoutingCase] | None:
    named = os.environ.get("CLINC150_FOLDER")
    if not named:
        return None
    folder = Path(named)
    domains = json.loads((folder / "domains.json").read_text("utf-8"))
    agent_of = {intent: domain for domain, intents in domains.items() for intent in intents}
    asked = json.loads((folder / "data_small.json").read_text("utf-8"))
    return [(text, agent_of[intent]) for text, intent in (*asked["train"], *asked["test"])]


def _draw_courteous(seed: int) -> Agent:
    draw = random.Random(seed)
    requests = draw.sample(_read_demo(), len(_read_demo()))
    teams = sorted({label for _, label in requests})

    def answer(label: str) -> str:
        return f"The {label.replace('_', ' ')} team will answer you."

    learned = []
    for question, label in requests[:LEARNED]:
        plain, courteous = answer(label), COURTESY.format(answer=answer(label))
        approved = draw.choice([plain, courteous])
        learned.append(LearnedCase(question=question, approved=approved, preferred=courteous, rejected=plain))
    return Agent(
        task="generation",
        system=f"You tell customers which team answers them: {', '.join(teams)}. One sentence.",
        labels=(),
        learned=tuple(learned),
        tested=tuple(
            (question, COURTESY.format(answer=answer(label))) for question, label in requests[LEARNED:]
        ),
    )


@cache
def _ask_base(base: Path, system: str, questions: tuple[str, ...]) -> tuple[str, ...]:
    """Return what the untrained base answers."""
    engine = open_engine(str(base), {}, device="auto")
    prompts = []
    for question in questions:
        messages = (Message(role="system", content=system), Message(role="user", content=question))
        rendered = render_if_possible(engine.tokenizer, messages, ())
        if rendered is None:
            raise ValueError("the base's chat template refuses a system prompt and a question")
        prompts.append(rendered.prompt_ids)
    found = engine.generate(BASE, prompts, max_new_tokens=BASE_TOKENS, batch_size=32)
    return tuple(answer.text.strip() for answer in to_raw_answers(engine.tokenizer, prompts, found))
