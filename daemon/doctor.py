"""`learnd doctor`: does everything that the settings name answer, and does it fit together?"""

import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path

from daemon.access.accounts import Operators, check_tokens_are_apart
from daemon.data.imports import golden_cases
from daemon.data.ingest import open_phoenix
from daemon.data.synthesis import endpoint_of, key_of
from daemon.monitoring.notifications import signing_key
from daemon.runtime.optional_deps import ExtraMissing, needs
from daemon.serving.promotion import open_replicas
from daemon.settings.load import Settings, environment_names
from daemon.settings.servers import NotifySettings
from daemon.settings.target import JudgeSettings, TargetSettings
from evaluation.verdict.error_rates import in_words
from extractors.errors import LearndError
from extractors.examples.types import Message
from extractors.llm.endpoint import Call, Endpoint, Unusable
from extractors.phoenix.client import PhoenixClient, ProjectNotFound
from extractors.phoenix.http import PhoenixError
from extractors.synthesis.recipes import MESSAGE
from registry.serving.inspection import Check, RenderedChat, inspect
from trainers.estimate.memory_and_time import fits
from trainers.jobs.first_attempt import estimate_least_memory
from trainers.memory import measure_free_memory
from trainers.models.base_model import (
    BaseModelUnusable,
    compute_base_digest,
    describe_device,
    load_tokenizer,
    resolve_device,
)
from trainers.models.chat_template import render
from trainers.models.quantization import find_quantization_obstacle

GIB = 2**30
SAMPLE = (
    Message(role="system", content="Answer in one word."),
    Message(role="user", content="Is this a check?"),
)
LEAST_DISK_GIB = 5.0


def examine(settings: Settings) -> Iterator[Check]:
    """Every check in turn, as soon as it is known; each failure says what to do."""
    yield _check("environment", True, ", ".join(environment_names()) or "no LEARND_ variables")
    yield _disk(settings.data_dir)
    yield _operators(settings)
    for receiver in settings.notify:
        yield _receiver(receiver)
    with open_phoenix(settings) as phoenix:
        reachable = _phoenix(phoenix, settings)
        yield reachable
        for target in settings.targets:
            if reachable.ok:
                yield _project(phoenix, target)
    if not settings.targets:
        yield _check("targets", False, "none", "add a [[targets]] section; `learnd init` writes an example")
    for target in settings.targets:
        yield _rule(target)
        if target.golden:
            yield _golden(target)
        yield from _target(settings, target)
        if target.synthesis.enabled:
            yield from _synthesis(settings, target)
        if target.judge:
            yield _judge(target.key, target.judge)


def _check(name: str, ok: bool, found: str, what_to_do: str = "") -> Check:
    return Check(name=name, ok=ok, found=found, what_to_do="" if ok else what_to_do)


def _disk(data_dir: Path) -> Check:
    existing = next(folder for folder in (data_dir, *data_dir.parents) if folder.exists())
    free = shutil.disk_usage(existing).free / GIB
    return _check(
        "disk",
        free >= LEAST_DISK_GIB,
        f"{free:.0f} GiB free at {data_dir}",
        f"free some space or move data_dir: checkpoints and adapters want {LEAST_DISK_GIB:.0f} GiB",
    )


def _operators(settings: Settings) -> Check:
    try:
        people = settings.operators.people()
        check_tokens_are_apart(settings.agents.by_token(), settings.operators.by_token())
        Operators(settings.operators, lambda: datetime.now(UTC))
    except LearndError as problem:
        return _check("operators", False, str(problem), "correct it, or the daemon will not start")
    roles = Counter(account.role for account in people.values())
    found = ", ".join(f"{count} {role}{'s' if count > 1 else ''}" for role, count in sorted(roles.items()))
    return _check("operators", True, found or "none: the console and the operators' API let nobody in")


def _receiver(receiver: NotifySettings) -> Check:
    name = f"notify {receiver.name}"
    try:
        signing_key(receiver.key())
    except LearndError as problem:
        return _check(name, False, str(problem), "correct it, or the daemon will not start")
    if receiver.command and shutil.which(receiver.command[0]) is None:
        return _check(name, False, f"there is no program {receiver.command[0]}", "correct its `command`")
    return _check(name, True, receiver.command[0] if receiver.command else "a webhook; not called now")


def _rule(target: TargetSettings) -> Check:
    """How often the promotion rule errs, for a holdout as small as the settings allow."""
    n = target.holdout.least
    return _check(f"{target.key}: verdict", True, in_words(target.gate, n))


def _golden(target: TargetSettings) -> Check:
    name = f"{target.key}: golden cases"
    try:
        cases = golden_cases(target)
    except LearndError as problem:
        what = (
            f"correct the target's `golden` ({target.golden}): on each line a JSON object with `prompt` and "
            "`completion`"
        )
        return _check(name, False, str(problem), what)
    return _check(name, True, f"{len(cases)} in {target.golden}")


def _phoenix(phoenix: PhoenixClient, settings: Settings) -> Check:
    url = settings.phoenix.url
    try:
        version = phoenix.version()
    except PhoenixError as problem:
        return _check(
            "phoenix", False, str(problem), f"start Phoenix, or correct phoenix.url ({url}) or its API key"
        )
    return _check("phoenix", True, f"{url} answers, version {version}")


def _project(phoenix: PhoenixClient, target: TargetSettings) -> Check:
    name = f"{target.key}: project"
    try:
        phoenix.project(target.project)
    except ProjectNotFound:
        what = "trace the agent into it (the gateway does), or correct the target's `project`"
        return _check(name, False, f"Phoenix has no project {target.project!r}", what)
    except PhoenixError as problem:
        return _check(name, False, str(problem), "see the problem with Phoenix above")
    return _check(name, True, f"{target.project} exists")


def _target(settings: Settings, target: TargetSettings) -> Iterator[Check]:
    try:
        needs("train", "torch", "transformers", "trl", "peft")
    except ExtraMissing as missing:
        yield _check("training", False, "its libraries are not installed", str(missing))
        return
    if target.task == "embedding":
        yield from _embedding_model(settings, target)
        return
    try:
        yield _check("device", True, describe_device(settings.training.device))
        digest = compute_base_digest(target.base_model)
        tokenizer = load_tokenizer(target.base_model)
        expected = render(tokenizer, SAMPLE).prompt_ids
    except (LearndError, OSError) as problem:
        what = "correct training.device, or the target's base_model: a folder or hub id with a chat template"
        yield _check(f"{target.key}: base model", False, str(problem), what)
        return
    yield _check(f"{target.key}: base model", True, f"{target.base_model} ({digest[:12]})")
    if settings.training.quantization == "always":
        yield _quantization(settings)
    yield _memory(settings, target)
    with ExitStack() as stack:
        replicas = open_replicas(settings, target, stack)
        if not replicas:
            yield _check(
                f"{target.key}: replicas",
                False,
                "none",
                "add a [[replicas]] section for the vLLM that serves it",
            )
        for replica in replicas:
            others = sum(replica.name in {r.name for r in settings.replicas_of(t)} for t in settings.targets)
            for check in inspect(
                replica,
                adapters=settings.data_dir / "adapters",
                rank=settings.training.max_lora_rank,
                max_loras=others + 1,
                chats=[RenderedChat(messages=tuple(m.to_chat() for m in SAMPLE), prompt_ids=tuple(expected))],
            ):
                yield check.model_copy(update={"name": f"{target.key}: {replica.name}: {check.name}"})


def _embedding_model(settings: Settings, target: TargetSettings) -> Iterator[Check]:
    """Agents load these themselves, so there is no replica to look at."""
    from trainers.models.encoder import load_encoder

    name = f"{target.key}: base model"
    try:
        yield _check("device", True, describe_device(settings.training.device))
        digest = compute_base_digest(target.base_model)
        load_encoder(target.base_model, device="cpu")
    except (LearndError, OSError) as problem:
        what = (
            "correct training.device, or the target's base_model: a sentence-transformer's folder or hub id"
        )
        yield _check(name, False, str(problem), what)
        return
    yield _check(name, True, f"{target.base_model} ({digest[:12]}), a sentence-transformer")
    yield _memory(settings, target)


def _synthesis(settings: Settings, target: TargetSettings) -> Iterator[Check]:
    """The language model answers, and the encoder that tells what means the same is there."""
    name = f"{target.key}: language model"
    try:
        needs("synthetic", "dspy")
        endpoint = endpoint_of(settings, target)
        _ask(endpoint, key_of(settings, target))
    except LearndError as problem:
        what = "correct the target's `synthesis.url`, `.model` or API key; cycles go on without proposals"
        yield _check(name, False, str(problem), what)
        return
    yield _check(name, True, f"{endpoint.model} at {endpoint.url} answers")
    from trainers.models.encoder import load_encoder

    encoder = target.synthesis.encoder
    try:
        load_encoder(encoder, device="cpu")
    except (LearndError, OSError) as problem:
        what = "correct the target's `synthesis.encoder`: a sentence-transformer's folder or hub id"
        yield _check(f"{target.key}: encoder", False, str(problem), what)
        return
    yield _check(f"{target.key}: encoder", True, f"{encoder}, a sentence-transformer")


def _judge(key: str, judge: JudgeSettings) -> Check:
    """The judge answers."""
    try:
        needs("synthetic", "dspy")
        _ask(judge.endpoint, judge.key())
    except LearndError as problem:
        what = "correct the target's `judge.url`, `.model` or API key, or its evaluations fail"
        return _check(f"{key}: judge", False, str(problem), what)
    return _check(f"{key}: judge", True, f"{judge.model} at {judge.url} answers")


def _ask(endpoint: Endpoint, key: str | None) -> None:
    """Have the model write a few words. Raises EndpointUnreachable, EndpointRefused."""
    from extractors.llm.dspy_client import LanguageModel

    asked = Call(shown=[], inputs={"number": "1"}, temperature=0, seed=0, most_tokens=8)
    with LanguageModel(endpoint, key) as model, suppress(Unusable):
        model.write(MESSAGE, asked)


def _quantization(settings: Settings) -> Check:
    reason = find_quantization_obstacle(resolve_device(settings.training.device))
    return _check("4 bits", reason is None, reason or "bitsandbytes supports this device", reason or "")


def _memory(settings: Settings, target: TargetSettings) -> Check:
    """Whether there is as much as a training takes at the least."""
    training, name = settings.training, f"{target.key}: memory"
    device = resolve_device(training.device)
    may_quantize = (
        target.task != "embedding"
        and training.quantization != "never"
        and not find_quantization_obstacle(device)
    )
    try:
        least = estimate_least_memory(
            target.base_model,
            training.max_lora_rank,
            dtype=training.dtype,
            device=device,
            quantized=may_quantize,
        )
    except BaseModelUnusable as unknown:
        return _check(name, True, str(unknown))
    free = measure_free_memory(device)
    return _check(
        name,
        fits(least, free),
        f"{free / GIB:.1f} GiB free, a training takes at least {least.needed / GIB:.1f}",
        "end what uses the memory, or train on a machine with more",
    )
