"""Examples that a language model proposes, from approved ones, where there is too little feedback.

    approved examples ─> goals, served equally ─> many small calls, at once ─> proposals

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
from extractors.synthesis.rules import SynthesisRules
from extractors.values import Value

if TYPE_CHECKING:
    from extractors.llm.dspy_client import LanguageModel

PROGRAM = "learnd.synthetic 1"
"""The program that wrote a batch, as its provenance; it changes whenever the prompts do."""
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
"""Called with the number of proposals so far, and of those wanted."""


class SynthesisRequest(Value):
    """The examples that are lacking, and those to go by. Holds no secret: a job's folder may keep it."""

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
    def _check_one_kind(self) -> Self:
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
    """The proposals of a model."""

    proposed: tuple[ProposedExample, ...]
    model: str
    program: str
    seed: int
    calls: int
    """Requests that were sent."""
    unusable: dict[str, int]
    """Failed attempts, by reason in words."""
    incomplete: str = ""
    """Why there are fewer than were wanted, in words; empty where there are not."""


def propose(
    request: SynthesisRequest,
    endpoint: Endpoint,
    *,
    api_key: str | None = None,
    on_progress: OnProgress | None = None,
) -> Synthesis:
    """Let the model behind `endpoint` propose examples: as many as are wanted, or fewer.

    Never more calls than wanted x attempts x 6 (three texts, each asked for twice at most). Raises
    NothingToShow without a demonstration that can be used and, if there is no proposal at all,
    EndpointUnreachable and EndpointRefused. Needs DSPy (`learnd[synthetic]`).
    """
    from extractors.llm.dspy_client import LanguageModel

    rules = request.rules
    recipe = build_recipe(
        request.kind,
        request.demonstrations,
        request.output_space,
        show=rules.demonstrations,
        most_shown=rules.most_shown_characters,
        now=request.now,
    )
    with LanguageModel(endpoint, api_key) as model:
        generation = _Generation(request, recipe, model)
        with ThreadPoolExecutor(endpoint.concurrency, "synthesis") as pool:
            generation.run(pool, on_progress or (lambda *_: None))
        return generation.build_result(endpoint.model, model.calls)


def divide_equally(goals: Sequence[str], wanted: int) -> dict[str, int]:
    """Return how many proposals each goal gets: equally many; the first goals get the remainder."""
    each, left_over = divmod(wanted, len(goals))
    counts = {goal: each + (position < left_over) for position, goal in enumerate(goals)}
    return {goal: count for goal, count in counts.items() if count}


class _Generation:
    """Attempts at examples, until every goal has its share or has used up its attempts."""

    def __init__(self, request: SynthesisRequest, recipe: Recipe, model: "LanguageModel") -> None:
        self._request = request
        self._recipe = recipe
        self._model = model
        self._shares = divide_equally(recipe.goals, request.wanted)
        self._lacking = Counter(self._shares)
        self._attempted: Counter[str] = Counter()
        self._seen = {_build_key(each) for each in request.demonstrations}
        self._unusable: Counter[str] = Counter()
        self._breaker = _CircuitBreaker()
        self.proposed: list[ProposedExample] = []

    def run(self, pool: ThreadPoolExecutor, on_progress: OnProgress) -> None:
        """Ask, round after round, for everything that is lacking at once."""
        while (attempts := list(self._plan_round())) and self._breaker.opened_by is None:
            # In the order of the attempts: which proposal comes first does not depend on the threads.
            for (goal, _), outcome in zip(attempts, pool.map(self._attempt, attempts), strict=True):
                self._record(goal, outcome)
                on_progress(len(self.proposed), self._request.wanted)

    def _plan_round(self) -> Iterator[tuple[str, int]]:
        for goal, lacking in self._lacking.items():
            most = self._shares[goal] * self._request.rules.attempts
            for _ in range(min(lacking, most - self._attempted[goal])):
                self._attempted[goal] += 1
                yield goal, self._attempted[goal]

    def _attempt(self, attempt: tuple[str, int]) -> ProposedExample | UnusableReply | None:
        """Return one example; None where the endpoint failed, or has been given up."""
        if self._breaker.opened_by is not None:
            return None
        goal, number = attempt
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
            self._breaker.record_failure(failure)
            return None
        return ProposedExample(example=example, demonstrations=tuple(used))

    def _ask(self, step: Step, shown: Sequence[Demonstration], inputs: Mapping[str, str], rng: Random) -> str:
        rules = self._request.rules
        samples = [fields[step.output] for _, fields in shown]
        names = (*step.inputs, step.output)
        request = StepRequest(
            shown=[{name: fields[name] for name in names} for _, fields in shown],
            inputs=inputs,
            temperature=rng.uniform(rules.coolest, rules.warmest) if step.inventive else STEADY,
            seed=rng.getrandbits(31),
            # A token is a byte at least: room for texts far longer than those shown, in any script.
            most_tokens=max(FEWEST_TOKENS, *(len(text.encode("utf-8", "replace")) for text in samples)),
        )
        reply = self._model.write(step, request)
        self._breaker.record_success()
        return read_text(reply, step.output, samples)

    def _record(self, goal: str, outcome: ProposedExample | UnusableReply | None) -> None:
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

    def build_result(self, model: str, calls: int) -> Synthesis:
        """Return the proposals. Raises the endpoint's failure where there is none."""
        given_up = self._breaker.opened_by
        if not self.proposed and (failure := given_up or self._breaker.only_failure):
            raise failure
        incomplete = ""
        if len(self.proposed) < self._request.wanted:
            why = str(given_up) if given_up else "the model's other answers could not be used"
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
    """Gives an endpoint up: at once where it will refuse every request, else after failures in a row."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._failures = 0
        self.opened_by: EndpointUnreachable | EndpointRefused | None = None
        """The failure because of which the endpoint was given up; None while it is in use."""
        self.only_failure: EndpointUnreachable | EndpointRefused | None = None
        """The last failure, where the endpoint has never answered."""
        self._answered = False

    def record_success(self) -> None:
        with self._lock:
            self._failures = 0
            self._answered, self.only_failure = True, None

    def record_failure(self, failure: EndpointUnreachable | EndpointRefused) -> None:
        with self._lock:
            self._failures += 1
            self.only_failure = None if self._answered else failure
            lasting = isinstance(failure, EndpointRefused) and failure.lasting
            if lasting or self._failures >= MOST_FAILURES:
                self.opened_by = failure


def _build_key(example: Synthetic) -> str:
    """Return the key that examples with the same question share."""
    return (
        compute_query_key(example.query)
        if isinstance(example, Triplet)
        else compute_prompt_key(example.prompt)
    )
