"""`learnd doctor`: does everything that the settings name answer, and does it fit together?

Each check is reported as it ends. What asks a server, or loads a model, is given up after `MOST_SECONDS`.
"""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread
from typing import TypeVar

from daemon.access.accounts import Operators, check_tokens_are_apart
from daemon.access.tokens import check_gateway_token, check_tokens
from daemon.data.imports import read_golden_cases
from daemon.data.ingest import open_phoenix
from daemon.data.synthesis import find_endpoint, read_key
from daemon.monitoring.notifications import decode_secret
from daemon.runtime.optional_deps import ExtraMissing, require_extra
from daemon.serving.promotion import open_replicas
from daemon.settings.environment import list_variables
from daemon.settings.load import Settings
from daemon.settings.servers import NotifySettings
from daemon.settings.target import JudgeSettings, TargetSettings
from evaluation.verdict.error_rates import describe_error_rates
from extractors.errors import LearndError
from extractors.examples.types import Message
from extractors.llm.endpoint import Endpoint, StepRequest, UnusableReply
from extractors.phoenix.client import PhoenixClient
from extractors.phoenix.http import PhoenixError
from extractors.phoenix.project import ProjectNotFound
from extractors.synthesis.recipes import MESSAGE
from registry.serving.inspection import Check, RenderedChat, inspect
from registry.serving.replica import Replica
from trainers.estimate.memory_and_time import fits
from trainers.jobs.first_attempt import estimate_least_memory
from trainers.memory import measure_free_memory
from trainers.models.base_model import (
    BaseModelUnusable,
    describe_device,
    load_tokenizer,
    measure_weight_bytes,
    resolve_device,
)
from trainers.models.chat_template import render
from trainers.models.quantization import find_quantization_obstacle

T = TypeVar("T")
OnStart = Callable[[str], None]
GIB = 2**30
SAMPLE = (
    Message(role="system", content="Answer in one word."),
    Message(role="user", content="Is this a check?"),
)
LEAST_DISK_GIB = 5.0
MOST_SECONDS = 4.5
"""For each check that waits for something; the rest of 5 s is for the check itself."""


class NotFinished(LearndError):
    """A check has not ended within its time."""


def examine(settings: Settings, on_start: OnStart = lambda _name: None) -> Iterator[Check]:
    """Yield every check as soon as it has ended; each failure says what to do.

    `on_start` is called with the name of a check that may take a moment before it begins.
    """
    yield _build_check("environment", True, ", ".join(list_variables()) or "no LEARND_ variables")
    yield _check_disk(settings.data_dir)
    yield _check_operators(settings)
    yield _check_gateway(settings)
    for receiver in settings.notify:
        yield _check_receiver(receiver)
    yield from _check_phoenix_projects(settings, on_start)
    if not settings.targets:
        yield _build_check(
            "targets", False, "none", "add a [[targets]] section; `learnd init` writes an example"
        )
    for target in settings.targets:
        on_start(f"{target.key}: verdict")
        yield _describe_rule(target)
        if target.golden:
            yield _check_golden_cases(target)
        yield from _check_target(settings, target, on_start)
        if target.synthesis.enabled:
            yield from _check_synthesis(settings, target, on_start)
        if target.judge:
            yield _check_judge(target.key, target.judge, on_start)


def _build_check(name: str, ok: bool, found: str, what_to_do: str = "") -> Check:
    return Check(name=name, ok=ok, found=found, what_to_do="" if ok else what_to_do)


def _finish_in_time(action: Callable[[], T]) -> T:
    """Return what `action` returns. Raises what it raises, and NotFinished after `MOST_SECONDS`.

    What has not finished goes on in a thread that ends with the process.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(action())
        except BaseException as error:  # noqa: BLE001 - `future.result` raises it again
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    if not wait([future], MOST_SECONDS).done:
        raise NotFinished(f"there is no result after {MOST_SECONDS:g} s")
    return future.result()


def _check_disk(data_dir: Path) -> Check:
    existing = next(folder for folder in (data_dir, *data_dir.parents) if folder.exists())
    free = shutil.disk_usage(existing).free / GIB
    return _build_check(
        "disk",
        free >= LEAST_DISK_GIB,
        f"{free:.0f} GiB free at {data_dir}",
        f"free some space or move data_dir: checkpoints and adapters need {LEAST_DISK_GIB:.0f} GiB",
    )


def _check_operators(settings: Settings) -> Check:
    try:
        people = settings.operators.read_accounts()
        agents = settings.agents.read_tokens()
        check_tokens_are_apart(agents, settings.operators.read_tokens(), settings.gateway.read_daemon_token())
        for host in (settings.daemon.host, settings.gateway.host):
            check_tokens(host, agents)
        Operators(settings.operators, lambda: datetime.now(UTC))
    except LearndError as problem:
        return _build_check("operators", False, str(problem), "correct it, or the daemon will not start")
    roles = Counter(account.role for account in people.values())
    found = ", ".join(f"{count} {role}{'s' if count > 1 else ''}" for role, count in sorted(roles.items()))
    return _build_check("operators", True, found or "none: the console and the operators' API let nobody in")


def _check_gateway(settings: Settings) -> Check:
    """Report whether the daemon will tell a gateway with these settings which versions are active."""
    try:
        token = settings.gateway.read_daemon_token()
        check_gateway_token(settings.agents.read_tokens(), token)
    except LearndError as problem:
        return _build_check(
            "gateway",
            False,
            str(problem),
            "correct it, or no gateway can serve; if you run none, ignore this",
        )
    how = "with its token" if token else "without a token"
    return _build_check("gateway", True, f"asks the daemon at {settings.daemon_url}, {how}")


def _check_receiver(receiver: NotifySettings) -> Check:
    name = f"notify {receiver.name}"
    try:
        decode_secret(receiver.read_key())
    except LearndError as problem:
        return _build_check(name, False, str(problem), "correct it, or the daemon will not start")
    if receiver.command and shutil.which(receiver.command[0]) is None:
        return _build_check(
            name, False, f"there is no program {receiver.command[0]}", "correct its `command`"
        )
    return _build_check(name, True, receiver.command[0] if receiver.command else "a webhook; not called now")


def _describe_rule(target: TargetSettings) -> Check:
    """Report how often the promotion rule errs, for a holdout as small as the settings allow."""
    n = target.holdout.least
    return _build_check(f"{target.key}: verdict", True, describe_error_rates(target.gate, n))


def _check_golden_cases(target: TargetSettings) -> Check:
    name = f"{target.key}: golden cases"
    try:
        cases = read_golden_cases(target)
    except LearndError as problem:
        what = (
            f"correct the target's `golden` ({target.golden}): on each line a JSON object with `prompt` and "
            "`completion`"
        )
        return _build_check(name, False, str(problem), what)
    return _build_check(name, True, f"{len(cases)} in {target.golden}")


def _check_phoenix_projects(settings: Settings, on_start: OnStart) -> Iterator[Check]:
    """Yield whether Phoenix answers, and then whether it has each target's project."""
    # Trying again, which is right for the daemon, would only hide that Phoenix is down.
    with open_phoenix(settings, timeout=MOST_SECONDS, patience=0) as phoenix:
        on_start("phoenix")
        reachable = _check_phoenix(phoenix, settings.phoenix.url)
        yield reachable
        for target in settings.targets if reachable.ok else ():
            on_start(f"{target.key}: project")
            yield _check_project(phoenix, target)


def _check_phoenix(phoenix: PhoenixClient, url: str) -> Check:
    try:
        version = _finish_in_time(phoenix.version)
    except (PhoenixError, NotFinished) as problem:
        return _build_check(
            "phoenix", False, str(problem), f"start Phoenix, or correct phoenix.url ({url}) or its API key"
        )
    return _build_check("phoenix", True, f"{url} answers, version {version}")


def _check_project(phoenix: PhoenixClient, target: TargetSettings) -> Check:
    name = f"{target.key}: project"
    try:
        _finish_in_time(lambda: phoenix.project(target.project))
    except ProjectNotFound:
        what = "trace the agent into it (the gateway does), or correct the target's `project`"
        return _build_check(name, False, f"Phoenix has no project {target.project!r}", what)
    except (PhoenixError, NotFinished) as problem:
        return _build_check(name, False, str(problem), "see the problem with Phoenix above")
    return _build_check(name, True, f"{target.project} exists")


def _check_target(settings: Settings, target: TargetSettings, on_start: OnStart) -> Iterator[Check]:
    """Yield what a training of the target needs, and what serving it needs."""
    try:
        require_extra("train", "torch", "transformers", "trl", "peft")
    except ExtraMissing as missing:
        yield _build_check("training", False, "its libraries are not installed", str(missing))
        return
    on_start("device (loading PyTorch)")
    try:
        yield _build_check("device", True, describe_device(settings.training.device))
    except LearndError as problem:
        yield _build_check("device", False, str(problem), "correct training.device")
        return
    if target.task == "embedding":
        yield from _check_embedding_model(settings, target, on_start)
    else:
        yield from _check_language_model(settings, target, on_start)


def _check_language_model(settings: Settings, target: TargetSettings, on_start: OnStart) -> Iterator[Check]:
    name = f"{target.key}: base model"
    on_start(name)
    try:
        size, prompt_ids = _read_base_model(target.base_model)
    except (LearndError, OSError) as problem:
        what = "correct the target's base_model: a folder or hub id of a model with a chat template"
        yield _build_model_failure(name, target.base_model, problem, what)
        yield from _check_replicas(settings, target, None, on_start)
        return
    yield _build_check(name, True, f"{target.base_model}, {size / GIB:.2f} GiB of weights")
    if settings.training.quantization == "always":
        yield _check_quantization(settings)
    yield _check_memory(settings, target, on_start)
    yield from _check_replicas(settings, target, prompt_ids, on_start)


def _read_base_model(base_model: str) -> tuple[int, Sequence[int]]:
    """Return the bytes of the weights, and the tokens of the sample chat. Raises NotFinished, LearndError."""
    return _read_model(
        base_model,
        lambda: (
            measure_weight_bytes(base_model),
            render(load_tokenizer(base_model), SAMPLE).prompt_ids,
        ),
    )


def _read_model(model: str, read: Callable[[], T]) -> T:
    """Return what `read` returns. Raises NotFinished where the hub does not answer in time.

    A local folder is read to the end, however busy the machine is.
    """
    return read() if Path(model).is_dir() else _finish_in_time(read)


def _build_model_failure(name: str, model: str, problem: Exception, what_to_do: str) -> Check:
    if not isinstance(problem, NotFinished):
        return _build_check(name, False, str(problem), what_to_do)
    advice = f"if it is being downloaded, do that first: `hf download {model}`; then run this again"
    return _build_check(name, False, f"{model}: {problem}", advice)


def _check_replicas(
    settings: Settings, target: TargetSettings, prompt_ids: Sequence[int] | None, on_start: OnStart
) -> Iterator[Check]:
    """Yield what serving needs of each replica.

    `prompt_ids` are the tokens of the sample chat; without them its rendering is not compared.
    """
    sample = tuple(m.to_chat() for m in SAMPLE)
    chats = [RenderedChat(messages=sample, prompt_ids=tuple(prompt_ids))] if prompt_ids else []
    with ExitStack() as stack:
        replicas = open_replicas(settings, target, stack)
        if not replicas:
            what = "add a [[replicas]] section for the vLLM that serves it"
            yield _build_check(f"{target.key}: replicas", False, "none", what)
        for replica in replicas:
            name = f"{target.key}: {replica.name}"
            for check in _inspect_replica(settings, replica, chats, name, on_start):
                yield check.model_copy(update={"name": f"{name}: {check.name}"})


def _inspect_replica(
    settings: Settings, replica: Replica, chats: Sequence[RenderedChat], name: str, on_start: OnStart
) -> Iterator[Check]:
    targets = sum(replica.name in {r.name for r in settings.find_replicas(t)} for t in settings.targets)
    checks = inspect(
        replica,
        adapters=settings.data_dir / "adapters",
        rank=settings.training.max_lora_rank,
        max_loras=targets + 1,
        chats=chats,
    )
    while True:
        on_start(name)
        try:
            check = _finish_in_time(lambda: next(checks, None))
        except NotFinished as problem:
            what = f"look at vLLM's log: is {replica.url} busy, or still starting?"
            yield _build_check("vLLM answers", False, str(problem), what)
            return
        if check is None:
            return
        yield check


def _check_embedding_model(settings: Settings, target: TargetSettings, on_start: OnStart) -> Iterator[Check]:
    """Yield whether the base model loads. Agents load embeddings themselves, so there is no replica."""
    what = "correct the target's base_model: a sentence-transformer's folder or hub id"
    found = _check_encoder(f"{target.key}: base model", target.base_model, what, on_start)
    yield found
    if found.ok:
        yield _check_memory(settings, target, on_start)


def _check_encoder(name: str, model: str, what_to_do: str, on_start: OnStart) -> Check:
    on_start(f"{name} (loading sentence-transformers)")
    import sentence_transformers  # noqa: F401 - its import is no part of the time

    from trainers.models.encoder import load_encoder

    on_start(name)
    try:
        _read_model(model, lambda: load_encoder(model, device="cpu"))
    except (LearndError, OSError) as problem:
        return _build_model_failure(name, model, problem, what_to_do)
    return _build_check(name, True, f"{model}, a sentence-transformer")


def _check_synthesis(settings: Settings, target: TargetSettings, on_start: OnStart) -> Iterator[Check]:
    """Yield whether the language model answers, and whether the encoder that finds duplicates loads."""
    name = f"{target.key}: language model"
    try:
        require_extra("synthetic", "dspy")
        endpoint = find_endpoint(settings, target)
        _ask(name, endpoint, read_key(settings, target), on_start)
    except LearndError as problem:
        what = "correct the target's `synthesis.url`, `.model` or API key; cycles go on without proposals"
        yield _build_check(name, False, str(problem), what)
        return
    yield _build_check(name, True, f"{endpoint.model} at {endpoint.url} answers")
    what = "correct the target's `synthesis.encoder`: a sentence-transformer's folder or hub id"
    yield _check_encoder(f"{target.key}: encoder", target.synthesis.encoder, what, on_start)


def _check_judge(key: str, judge: JudgeSettings, on_start: OnStart) -> Check:
    name = f"{key}: judge"
    try:
        require_extra("synthetic", "dspy")
        _ask(name, judge.endpoint, judge.read_key(), on_start)
    except LearndError as problem:
        what = "correct the target's `judge.url`, `.model` or API key, or its evaluations fail"
        return _build_check(name, False, str(problem), what)
    return _build_check(name, True, f"{judge.model} at {judge.url} answers")


def _ask(name: str, endpoint: Endpoint, key: str | None, on_start: OnStart) -> None:
    """Ask the model for a few words. Raises EndpointUnreachable, EndpointRefused, NotFinished."""
    on_start(f"{name} (loading DSPy)")
    from extractors.llm.dspy_client import LanguageModel

    def ask() -> None:
        with LanguageModel(endpoint, key) as model, suppress(UnusableReply):
            model.write(MESSAGE, call)

    call = StepRequest(shown=[], inputs={"number": "1"}, temperature=0, seed=0, most_tokens=8)
    on_start(name)
    try:
        _finish_in_time(ask)
    except NotFinished as problem:
        raise NotFinished(f"{endpoint.model} at {endpoint.url}: {problem}") from None


def _check_quantization(settings: Settings) -> Check:
    reason = find_quantization_obstacle(resolve_device(settings.training.device))
    return _build_check("4 bits", reason is None, reason or "bitsandbytes supports this device", reason or "")


def _check_memory(settings: Settings, target: TargetSettings, on_start: OnStart) -> Check:
    """Report whether there is as much memory as the smallest training needs."""
    training, name = settings.training, f"{target.key}: memory"
    on_start(name)
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
        return _build_check(name, True, str(unknown))
    free = measure_free_memory(device)
    return _build_check(
        name,
        fits(least, free),
        f"{free / GIB:.1f} GiB free, a training takes at least {least.needed / GIB:.1f}",
        "end what uses the memory, or train on a machine with more",
    )
