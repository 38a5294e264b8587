"""Checks of a replica by `learnd doctor`, before anything is trained for it."""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from extractors.values import Value
from registry.adapter_files import copy_permissions
from registry.serving.replica import RefusalReason, Replica, ReplicaRefused, ReplicaUnreachable

TRIAL = "learnd.doctor"
"""Name of the trial adapter, whose folder has no weights, so that it is never served."""


class Check(Value):
    """One requirement, whether it holds, and what to do where it does not."""

    name: str
    ok: bool
    found: str
    what_to_do: str = ""


class RenderedChat(Value):
    """A chat and its tokens as training renders it, generation prompt included."""

    messages: tuple[dict[str, Any], ...]
    tools: tuple[dict[str, Any], ...] = ()
    prompt_ids: tuple[int, ...]


def inspect(
    replica: Replica, *, adapters: Path, rank: int, max_loras: int, chats: Sequence[RenderedChat]
) -> Iterator[Check]:
    """Check everything that serving needs, and yield each check as it ends.

    Nothing is loaded, and one token is generated. `adapters` is the folder of the versions, in which a trial
    adapter without weights is made for a moment; `rank` is the largest LoRA rank of a plan, `max_loras` the
    number of versions live at once plus one. Without `chats` the rendering of chats is not compared. A
    replica that does not answer yields that one check.
    """
    looks: tuple[Callable[[], Check], ...] = (
        lambda: _check_base_model(replica),
        *([lambda: _check_chat_template(replica, chats)] if chats else []),
        lambda: _check_lora(replica, adapters, rank),
        lambda: _check_room(replica, max_loras),
    )
    try:
        served = ", ".join(sorted(replica.list_models()))
        yield _build_check("vLLM reachable", True, f"{replica.url} serves {served}")
        for look in looks:
            yield look()
    except ReplicaUnreachable as error:
        yield _build_check("vLLM reachable", False, str(error), "start vLLM, or correct the replica's url")
    except ReplicaRefused as error:
        yield _build_check("vLLM answers", False, str(error), error.why)


def _build_check(name: str, ok: bool, found: str, what_to_do: str = "") -> Check:
    return Check(name=name, ok=ok, found=found, what_to_do="" if ok else what_to_do)


def _check_base_model(replica: Replica) -> Check:
    served = set(replica.list_models()) - set(replica.list_adapters())
    return _build_check(
        "base model",
        replica.base_name in served,
        f"served as {', '.join(sorted(served))}",
        f"restart vLLM with --served-model-name {replica.base_name}, or correct the name in the settings",
    )


def _check_chat_template(replica: Replica, chats: Sequence[RenderedChat]) -> Check:
    advice = "serve the base model that the target names, with its own chat template (no --chat-template)"
    for chat in chats:
        try:
            served = replica.tokenize(chat.messages, chat.tools)
        except ReplicaRefused as error:
            return _build_check("chat template", False, str(error), advice)
        if served != chat.prompt_ids:
            found = f"a chat of {len(chat.prompt_ids)} tokens in training is {len(served)} other tokens there"
            return _build_check("chat template", False, found, advice)
    return _build_check("chat template", True, f"{len(chats)} chats render to the tokens of training")


def _check_lora(replica: Replica, adapters: Path, rank: int) -> Check:
    """Check LoRA by offering an adapter folder with a configuration and no weights.

    vLLM reads the configuration first. Its refusal therefore tells whether LoRA is on, whether adapters may
    be loaded at run time, whether the server sees the folder, and whether the rank fits.
    """
    name = "LoRA at run time"
    folder = adapters / f".{TRIAL}"
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": ["q_proj"]}
    folder.mkdir(parents=True, exist_ok=True)
    try:
        (folder / "adapter_config.json").write_text(json.dumps(config))
        for path in (folder, folder / "adapter_config.json"):
            copy_permissions(adapters, path)
        replica.load(TRIAL, folder)
    except ReplicaRefused as error:
        if error.why is not RefusalReason.INCOMPLETE:
            return _build_check(name, False, str(error), error.why)
        return _build_check(name, True, f"on, rank {rank} fits, the folder of adapters is visible")
    finally:
        shutil.rmtree(folder)
    replica.unload(TRIAL)
    return _build_check(
        name, False, "an adapter without weights was accepted", "use a vLLM that learnd is tested with"
    )


def _check_room(replica: Replica, needed: int) -> Check:
    name = "room for adapters"
    advice = f"restart vLLM with --enable-lora --max-loras {needed} or more, and with its statistics on"
    # The setting is exported only once a request was answered.
    try:
        replica.answer(replica.base_name, [{"role": "user", "content": "Hello"}], max_tokens=1)
    except ReplicaRefused as error:
        return _build_check(name, False, str(error), error.why)
    most = replica.read_max_loras()
    if most is None:
        return _build_check(name, False, "--max-loras is not exported in /metrics", advice)
    return _build_check(name, most >= needed, f"--max-loras {most}, needed {needed}", advice)
