"""Which method a snapshot calls for: a table of rules, read from the top, and the plan that follows."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from pydantic import Field

from extractors.dataset.snapshot import Snapshot
from extractors.examples.types import Examples
from extractors.values import Value, content_id
from trainers.planning.hyperparameters import Method, Preset, choose_hyperparameters
from trainers.planning.limits import Limits
from trainers.planning.plan import ExampleKind, Plan, Quantization, Skip, TrainingStage

Task = Literal["classification", "generation", "extraction", "chat", "embedding"]
LANGUAGE_TASKS = frozenset[Task]({"classification", "generation", "extraction", "chat"})
"""Tasks of a language model."""


class Thresholds(Value):
    """How many training examples each method needs."""

    pairs: int = Field(20, ge=1)
    """Preference pairs, for DPO."""
    votes: int = Field(50, ge=1)
    """Answers that people liked, and as many that they did not, for KTO."""
    sft_examples: int = Field(50, ge=1)
    """Approved or corrected answers, for SFT."""
    trajectories: int = Field(20, ge=1)
    """Approved conversations, for the task `chat`."""
    triplets: int = Field(100, ge=1)
    """Query, relevant and irrelevant document, for embeddings."""
    valid_share: float = Field(0.5, ge=0, le=1)
    """Share of valid answers from which on the live model can learn from preferences alone."""


class Readiness(Value):
    """How a model answers the prompts of preference pairs."""

    asked: int
    """Prompts, a sample of the pairs'."""
    valid: int
    """Valid answers among them."""
    settled: int
    """Answers among them that are the chosen ones already."""

    @property
    def valid_share(self) -> float:
        return self.valid / self.asked if self.asked else 0.0

    def unsettled(self, pairs: int) -> int:
        """About how many of so many pairs still have something to teach."""
        return round(pairs * (1 - self.settled / self.asked)) if self.asked else 0

    def __str__(self) -> str:
        return f"{self.valid} of {self.asked} answers to their prompts are valid"


class MethodRule(Value):
    """One row of the table: what it needs, and what is trained then."""

    tasks: frozenset[Task]
    needs: Mapping[str, str]
    """What is counted (see `count_examples`), to the threshold it must reach."""
    live_valid: bool | None = None
    """Whether the live model must (not) give mostly valid answers to the pairs' prompts. Where it must, pairs
    whose chosen answer it gives already do not count."""
    from_live: bool = False
    """Go on from the live version's adapter, where there is one."""
    stages: tuple[tuple[Method, ExampleKind], ...]
    because: str


RULES = (
    MethodRule(
        tasks=frozenset({"embedding"}),
        needs={"triplets": "triplets"},
        stages=(("embedding", "triplets"),),
        because="triplets are what an embedding model learns from",
    ),
    MethodRule(
        tasks=frozenset({"chat"}),
        needs={"trajectories": "trajectories"},
        stages=(("sft", "trajectories"),),
        because="whole conversations teach every turn in its place",
    ),
    MethodRule(
        tasks=LANGUAGE_TASKS,
        needs={"pairs": "pairs"},
        live_valid=True,
        from_live=True,
        stages=(("dpo", "pairs"),),
        because="preferences say the most where the live model has sensible answers to choose between",
    ),
    MethodRule(
        tasks=LANGUAGE_TASKS,
        needs={"pairs": "pairs", "sft": "sft_examples"},
        live_valid=False,
        stages=(("sft", "sft"), ("dpo", "pairs")),
        because="the live model has to learn valid answers before it can choose between them",
    ),
    MethodRule(
        tasks=LANGUAGE_TASKS,
        needs={"liked": "votes", "disliked": "votes"},
        from_live=True,
        stages=(("kto", "votes"),),
        because="votes teach where no two answers to one prompt can be compared",
    ),
    MethodRule(
        tasks=LANGUAGE_TASKS,
        needs={"sft": "sft_examples"},
        stages=(("sft", "sft"),),
        because="approved and corrected answers can be imitated",
    ),
)
"""The first rule whose needs are met decides."""

KIND_NAMES = {
    "sft": "approved or corrected answers",
    "pairs": "preference pairs",
    "liked": "answers that people liked",
    "disliked": "answers that people did not like",
    "trajectories": "approved conversations",
    "triplets": "triplets",
}
METHOD_NAMES = {"sft": "SFT", "dpo": "DPO", "kto": "KTO", "embedding": "embedding training"}


class ConsideredRule(Value):
    """One rule held against the data."""

    method: str
    needs: str
    """In words, with what there is."""
    met: bool


class MethodChoice(Value):
    """What the table says for a snapshot."""

    plan: Plan | Skip
    considered: tuple[ConsideredRule, ...]
    """The rules for the task, in order, up to the one that decided."""


class TrainingPreferences(Value):
    """How people want trainings to be."""

    preset: Preset = "efficient"
    overrides: dict[str, Any] = {}
    """Hyperparameters by name, for all methods, or under a method's name for that one."""
    max_lora_rank: int
    quantization: Quantization | None = None
    """Of the base, whatever its size."""
    prefix_shared: bool = True
    """Whether examples that begin alike share a sequence where that is exact."""
    limits: Limits = Limits()
    """What trainings may take: with another limit, one that was cut short may be worth another try."""


class BaseModelInfo(Value):
    """The base model that would be trained."""

    name: str
    """Hub id or path."""
    digest: str
    bytes: int
    """Size of its weights."""


class LiveVersion(Value):
    """The version that is live, with an adapter on this base."""

    version: str
    lora_rank: int
    lora_alpha: int


def choose_method(
    snapshot: Snapshot,
    task: Task,
    thresholds: Thresholds,
    base: BaseModelInfo,
    wanted: TrainingPreferences,
    *,
    live: LiveVersion | None,
    live_answers: Callable[[], Readiness],
) -> MethodChoice:
    """How to train on `snapshot`, and why.

    `live_answers` measures how the live model answers the pairs' prompts; it is asked only where
    that decides. Raises OverridesInvalid.
    """
    counts, held_out = count_examples(snapshot.train), snapshot.manifest.held_out
    if not held_out.approved + held_out.corrected:
        reason = "nothing is held out to judge by; approve or correct more of the traffic"
        return MethodChoice(plan=Skip(reason=reason), considered=())
    rule, considered = _find_rule(task, counts, thresholds, live_answers)
    if rule is None:
        return MethodChoice(plan=Skip(reason=_explain_shortage(snapshot, considered)), considered=considered)
    start = live if rule.from_live else None
    chosen = considered[-1]
    plan = Plan(
        stages=_build_stages(rule, counts, base, start, wanted),
        reason=f"{chosen.method}: {chosen.needs}; {rule.because}",
        counts=counts,
        thresholds=_dump_thresholds(thresholds),
        snapshot_id=snapshot.id,
        base_model=base.name,
        base_digest=base.digest,
        start_version=start.version if start else None,
        # An encoder is small, and its trainer holds it as it is.
        quantization=None if task == "embedding" else wanted.quantization,
        prefix_shared=wanted.prefix_shared,
        settings_id=settings_id(task, thresholds, base, wanted),
    )
    return MethodChoice(plan=plan, considered=considered)


class Shortage(Value):
    """What keeps the rules from choosing a method."""

    kind: Literal["sft", "pairs", "triplets"]
    have: int
    threshold: int

    @property
    def missing(self) -> int:
        return self.threshold - self.have

    @property
    def words(self) -> str:
        return KIND_NAMES[self.kind]


def find_shortage(counts: Mapping[str, int], task: Task, thresholds: Thresholds) -> Shortage | None:
    """The kind of examples of which fewest are lacking, and some are there; None where there is none.

    Only kinds that can be synthesised; in doubt answers, which teach the most beginners.
    """
    needs = (
        {"triplets": thresholds.triplets}
        if task == "embedding"
        else {
            "sft": thresholds.sft_examples,
            "pairs": thresholds.pairs,
        }
    )
    lacks = [Shortage(kind=kind, have=counts[kind], threshold=least) for kind, least in needs.items()]
    open_ones = [lack for lack in lacks if lack.have and lack.missing > 0]
    return min(open_ones, key=lambda lack: lack.missing, default=None)


def settings_id(task: Task, thresholds: Thresholds, base: BaseModelInfo, wanted: TrainingPreferences) -> str:
    """Digest of everything but the data that a choice depends on and people can set."""
    said = [task, _dump_thresholds(thresholds), thresholds.valid_share, base.digest]
    return content_id([*said, wanted.model_dump(mode="json")])


def _find_rule(
    task: Task, counts: Mapping[str, int], thresholds: Thresholds, live_answers: Callable[[], Readiness]
) -> tuple[MethodRule | None, tuple[ConsideredRule, ...]]:
    """The first rule for the task whose needs are met, and all that were held against the data."""
    considered: list[ConsideredRule] = []
    answered: Readiness | None = None
    for rule in RULES:
        if task not in rule.tasks:
            continue
        met = all(counts[name] >= getattr(thresholds, least) for name, least in rule.needs.items())
        if met and rule.live_valid is not None:
            answered = answered or live_answers()
            met = _is_ready(rule, counts, thresholds, answered)
        needs = _describe_needs(rule, counts, thresholds, answered)
        considered.append(ConsideredRule(method=_name_method(rule), needs=needs, met=met))
        if met:
            return rule, tuple(considered)
    return None, tuple(considered)


def _is_ready(
    rule: MethodRule, counts: Mapping[str, int], thresholds: Thresholds, answered: Readiness
) -> bool:
    mostly_valid = answered.valid_share >= thresholds.valid_share
    if not rule.live_valid:
        return not mostly_valid
    return mostly_valid and answered.unsettled(counts["pairs"]) >= thresholds.pairs


def count_examples(examples: Examples) -> dict[str, int]:
    """Training examples as the rules count them."""
    liked = sum(vote.desirable for vote in examples.votes)
    return {
        "sft": len(examples.sft),
        "pairs": len(examples.pairs),
        "liked": liked,
        "disliked": len(examples.votes) - liked,
        "trajectories": len(examples.trajectories),
        "triplets": len(examples.triplets),
    }


def find_reason_to_skip(
    stage: TrainingStage, plan: Plan, thresholds: Thresholds, answered: Readiness
) -> str | None:
    """Why `stage`, which goes on from another one's adapter, is not worth training now; None if it is.

    `answered` is how that adapter answers the pairs' prompts.
    """
    left = answered.unsettled(plan.counts["pairs"])
    if answered.valid_share < thresholds.valid_share:
        return f"{METHOD_NAMES[stage.method]} left out: after the stage before it only {answered}"
    if left < thresholds.pairs:
        return (
            f"{METHOD_NAMES[stage.method]} left out: {answered.settled} of {answered.asked} answers to the pairs' "
            f"prompts are the chosen ones already, so about {left} pairs have something left to teach, "
            f"and it takes {thresholds.pairs}"
        )
    return None


def _build_stages(
    rule: MethodRule,
    counts: Mapping[str, int],
    base: BaseModelInfo,
    start: LiveVersion | None,
    wanted: TrainingPreferences,
) -> tuple[TrainingStage, ...]:
    stages: list[TrainingStage] = []
    for method, kind in rule.stages:
        examples = counts["liked"] + counts["disliked"] if kind == "votes" else counts[kind]
        chosen = choose_hyperparameters(
            method,
            examples,
            base.bytes,
            preset=wanted.preset,
            overrides=select_overrides(method, wanted.overrides),
            max_lora_rank=None if method == "embedding" else wanted.max_lora_rank,
        )
        if first := stages[0].hyperparameters if stages else start:
            # It goes on training an adapter that has its shape already.
            shape = {"lora_rank": first.lora_rank, "lora_alpha": first.lora_alpha}
            chosen = chosen.model_copy(update=shape)
        stages.append(TrainingStage(method=method, data=kind, hyperparameters=chosen))
    return tuple(stages)


def select_overrides(method: Method, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The settings' hyperparameters for `method`: those for all, under those for it alone."""
    for_all = {name: value for name, value in overrides.items() if name not in METHOD_NAMES}
    return for_all | dict(overrides.get(method, {}))


def _name_method(rule: MethodRule) -> str:
    return ", then ".join(METHOD_NAMES[method] for method, _ in rule.stages)


def _dump_thresholds(thresholds: Thresholds) -> dict[str, int]:
    return {name: getattr(thresholds, name) for name in Thresholds.model_fields if name != "valid_share"}


def _describe_needs(
    rule: MethodRule, counts: Mapping[str, int], thresholds: Thresholds, answered: Readiness | None
) -> str:
    needs = [
        f"{counts[name]} {KIND_NAMES[name]} (needs {getattr(thresholds, least)})"
        for name, least in rule.needs.items()
    ]
    if rule.live_valid is not None:
        wanted = "at least" if rule.live_valid else "less than"
        measured = f"{answered}" if answered else "the live model's answers not measured"
        needs.append(f"{measured} (needs {wanted} {thresholds.valid_share:.0%})")
        if answered and rule.live_valid:
            left = answered.unsettled(counts["pairs"])
            needs.append(
                f"about {left} pairs whose chosen answer it does not give yet (needs {thresholds.pairs})"
            )
    return ", ".join(needs)


def _explain_shortage(snapshot: Snapshot, considered: Iterable[ConsideredRule]) -> str:
    lacking = "; ".join(f"{each.method} has {each.needs}" for each in considered)
    return (
        f"too little to learn from: {lacking} (beside {sum(snapshot.manifest.validation.values())} examples "
        f"for validation and {snapshot.manifest.holdout} held out); approve, reject or correct more "
        "of the traffic"
    )
