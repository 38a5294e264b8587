"""Examples that a language model proposes, from approved ones, where people's feedback teaches too little.

    approved examples ─> goals, served alike ─> many small calls, at once ─> proposals

Nothing here approves anything: proposals are screened (`extractors.synthesis.filters`), and then a
person reads them. The model sees only training examples, never held-out ones.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from importlib.metadata import version
from random import Random
from threading import Lock
from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator

from extractors.examples.prompt_keys import compute_prompt_key, compute_query_key
from extractors.examples.types import PreferencePair, SFTExample, Triplet
from extractors.llm.clean_reply import read_text
from extractors.llm.endpoint import (
    Endpoint,
    EndpointRefused,
    EndpointUnreachable,
    Step,
    StepRequest,
    UnusableReply,
)
from extractors.synthesis.recipes import Demonstration, Recipe, Synthetic, SyntheticKind, build_recipe
from extractors.values import Value

if TYPE_CHECKING:
    from extractors.llm.dspy_client import LanguageModel

PROGRAM = "learnd.synthetic 1"
"""Changes with what is asked of the model; the provenance of a batch."""
KINDS: dict[SyntheticKind, type[Synthetic]] = {
    "sft": SFTExample,
    "pairs": PreferencePair,
    "triplets": Triplet,
}
STEADY = 0.2
"""Temperature of answers that should be right."""
FEWEST_TOKENS = 32
MOST_FAILURES = 8
"""Failures in a row after which an endpoint is given up."""

OnProgress = Callable[[int, int], None]
"""Told how many proposals there are, and how many are wanted."""


class SynthesisRules(Value):
    """How proposals are asked for."""

    demonstrations: int = Field(5, ge=1)
    """Approved examples that one call shows."""
    most_shown_characters: int = Field(6000, ge=1)
    """Of the demonstrations of one call: what a small model's context holds beside the system prompt."""
    attempts: int = Field(4, ge=1)
    """Most attempts for each proposal that is wanted; one takes one to three calls."""
    coolest: float = Field(0.7, ge=0, le=2)
    """Lowest temperature by which messages and queries are written."""
    warmest: float = Field(1.1, ge=0, le=2)
    """Highest temperature; each is drawn between the two."""

    @model_validator(mode="after")
    def _a_range(self) -> Self:
        if self.coolest > self.warmest:
            raise ValueError("coolest must not be above warmest")
        return self


class SynthesisRequest(Value):
    """What is lacking, and what there is to go by. Holds no secret: it may be written to a job's folder."""

    kind: SyntheticKind
    wanted: int = Field(ge=1)
    """Proposals."""
    demonstrations: tuple[SFTExample | PreferencePair | Triplet, ...]
    """Approved examples of the kind, of the training split alone, with personal data replaced."""
    output_space: tuple[str, ...] = ()
    """The labels of a classification; empty where answers are free."""
    seed: int
    now: datetime
    """When the examples begin, aware UTC."""
    rules: SynthesisRules = SynthesisRules()

    @model_validator(mode="after")
    def _of_one_kind(self) -> Self:
        if not all(isinstance(each, KINDS[self.kind]) for each in self.demonstrations):
            raise ValueError(
                f"demonstrations of {self.kind} must be of the class {KINDS[self.kind].__name__}"
            )
        return self


class ProposedExample(Value):
    """An example that nobody has read, with the ids of the approved ones that it was made from."""

    example: SFTExample | PreferencePair | Triplet
    demonstrations: tuple[str, ...]


class Synthesis(Value):
    """What a model proposed."""

    proposed: tuple[ProposedExample, ...]
    model: str
    program: str
    seed: int
    calls: int
    """Requests that were sent."""
    unusable: dict[str, int]
    """Attempts that came to nothing, by reason in words."""
    incomplete: str = ""
    """Why there are fewer than were wanted, in words."""


def propose(
    request: SynthesisRequest,
    endpoint: Endpoint,
    *,
    api_key: str | None = None,
    on_progress: OnProgress | None = None,
) -> Synthesis:
    """Have the model behind `endpoint` propose examples, as many as are wanted or fewer.

    Never more calls than wanted x attempts x 6 (three texts, each asked for twice at most). Raises
    NothingToShow without a demonstration that can be used and, if there is no proposal at all,
    EndpointUnreachable and EndpointRefused. Needs DSPy (`learnd[synthetic]`).
    """
    from extractors.llm.dspy_client import LanguageModel

    rules = request.rules
    made = build_recipe(
        request.kind,
        request.demonstrations,
        request.output_space,
        show=rules.demonstrations,
        most_shown=rules.most_shown_characters,
        now=request.now,
    )
    with LanguageModel(endpoint, api_key) as model:
        run = _Generation(request, made, model)
        with ThreadPoolExecutor(endpoint.concurrency, "synthesis") as pool:
            run.until_done(pool, on_progress or (lambda *_: None))
        return run.result(endpoint.model, model.calls)


def divide_equally(goals: Sequence[str], wanted: int) -> dict[str, int]:
    """How many proposals each goal gets: equally many, and what is left over goes to the first ones."""
    each, left_over = divmod(wanted, len(goals))
    counts = {goal: each + (position < left_over) for position, goal in enumerate(goals)}
    return {goal: count for goal, count in counts.items() if count}


class _Generation:
    """Attempts until every goal has its share, or has used up its attempts."""

    def __init__(self, request: SynthesisRequest, made: Recipe, model: "LanguageModel") -> None:
        self._request = request
        self._recipe = made
        self._model = model
        self._shares = divide_equally(made.goals, request.wanted)
        self._lacking = Counter(self._shares)
        self._attempted: Counter[str] = Counter()
        self._seen = {_build_key(each) for each in request.demonstrations}
        self._unusable: Counter[str] = Counter()
        self._patience = _CircuitBreaker()
        self.proposed: list[ProposedExample] = []

    def until_done(self, pool: ThreadPoolExecutor, on_progress: OnProgress) -> None:
        """Round after round, what is lacking is asked for at once."""
        while (asked := list(self._next_round())) and self._patience.trouble is None:
            # In the order in which they were asked: who comes first does not depend on the threads.
            for (goal, _), outcome in zip(asked, pool.map(self._attempt, asked), strict=True):
                self._take(goal, outcome)
                on_progress(len(self.proposed), self._request.wanted)

    def _next_round(self) -> Iterator[tuple[str, int]]:
        for goal, lacking in self._lacking.items():
            most = self._shares[goal] * self._request.rules.attempts
            for _ in range(min(lacking, most - self._attempted[goal])):
                self._attempted[goal] += 1
                yield goal, self._attempted[goal]

    def _attempt(self, asked: tuple[str, int]) -> ProposedExample | UnusableReply | None:
        """One example; None where the endpoint failed, or has been given up."""
        if self._patience.trouble is not None:
            return None
        goal, number = asked
        rng = Random(f"{self._request.seed}/{goal}/{number}")  # noqa: S311
        used: dict[str, None] = {}

        def ask(step: Step, shown: Sequence[Demonstration], inputs: Mapping[str, str]) -> str:
            used.update((id_, None) for id_, _ in shown)
            return self._ask(step, shown, inputs, rng)

        try:
            example = self._recipe.write(goal, rng, ask)
        except UnusableReply as reason:
            return reason
        except (EndpointUnreachable, EndpointRefused) as failure:
            self._patience.failed(failure)
            return None
        return ProposedExample(example=example, demonstrations=tuple(used))

    def _ask(self, step: Step, shown: Sequence[Demonstration], inputs: Mapping[str, str], rng: Random) -> str:
        rules = self._request.rules
        like = [told[step.output] for _, told in shown]
        fields = (*step.inputs, step.output)
        call = StepRequest(
            shown=[{name: told[name] for name in fields} for _, told in shown],
            inputs=inputs,
            temperature=rng.uniform(rules.coolest, rules.warmest) if step.inventive else STEADY,
            seed=rng.getrandbits(31),
            # A token is a byte at least: room for texts far longer than those shown, in any script.
            most_tokens=max(FEWEST_TOKENS, *(len(text.encode("utf-8", "replace")) for text in like)),
        )
        written = self._model.write(step, call)
        self._patience.answered()
        return read_text(written, step.output, like)

    def _take(self, goal: str, outcome: ProposedExample | UnusableReply | None) -> None:
        if outcome is None:
            self._unusable["the endpoint failed"] += 1
        elif isinstance(outcome, UnusableReply):
            self._unusable[str(outcome)] += 1
        elif (key := _build_key(outcome.example)) in self._seen:
            self._unusable["said already, by a demonstration or another proposal"] += 1
        else:
            self._seen.add(key)
            self._lacking[goal] -= 1
            self.proposed.append(outcome)

    def result(self, model: str, calls: int) -> Synthesis:
        """Raises what the endpoint failed with where there is nothing."""
        trouble = self._patience.trouble
        if not self.proposed and (failure := trouble or self._patience.only_failure):
            raise failure
        incomplete = ""
        if len(self.proposed) < self._request.wanted:
            why = str(trouble) if trouble else "the model's other answers could not be used"
            incomplete = f"{len(self.proposed)} of {self._request.wanted} proposals: {why}"
        return Synthesis(
            proposed=tuple(self.proposed),
            model=model,
            program=f"{PROGRAM} (DSPy {version('dspy')})",
            seed=self._request.seed,
            calls=calls,
            unusable=dict(self._unusable),
            incomplete=incomplete,
        )


class _CircuitBreaker:
    """When an endpoint is given up: at once where all will be refused, else after failures in a row."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._failures = 0
        self.trouble: EndpointUnreachable | EndpointRefused | None = None
        self.only_failure: EndpointUnreachable | EndpointRefused | None = None
        """The last failure, where the endpoint has never answered."""
        self._answered = False

    def answered(self) -> None:
        with self._lock:
            self._failures = 0
            self._answered, self.only_failure = True, None

    def failed(self, failure: EndpointUnreachable | EndpointRefused) -> None:
        with self._lock:
            self._failures += 1
            self.only_failure = None if self._answered else failure
            lasting = isinstance(failure, EndpointRefused) and failure.lasting
            if lasting or self._failures >= MOST_FAILURES:
                self.trouble = failure


def _build_key(example: Synthetic) -> str:
    """What two examples have in common that ask the same."""
    return (
        compute_query_key(example.query)
        if isinstance(example, Triplet)
        else compute_prompt_key(example.prompt)
    )
