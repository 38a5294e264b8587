"""What `learnd doctor` asks of a replica before anything is trained for it."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from extractors.values import Value
from registry.serving.replica import Refusal, Replica, ReplicaRefused, ReplicaUnreachable

TRIAL = "learnd.doctor"
"""Name of the trial adapter, which is never served: its folder holds no weights."""


class Check(Value):
    """One thing that must hold, and what to do where it does not."""

    name: str
    ok: bool
    found: str
    what_to_do: str = ""


class RenderedChat(Value):
    """A chat, and the tokens that training makes of it (generation prompt included)."""

    messages: tuple[dict[str, Any], ...]
    tools: tuple[dict[str, Any], ...] = ()
    prompt_ids: tuple[int, ...]


def inspect(
    replica: Replica, *, adapters: Path, rank: int, max_loras: int, chats: Sequence[RenderedChat]
) -> list[Check]:
    """Ask everything that serving needs; nothing is loaded, and one token is generated.

    `adapters` is the folder in which versions are kept (one is made there for a moment, without
    weights), `rank` the largest LoRA rank of a plan, `max_loras` the versions live at once plus one.
    A replica that does not answer gets that one check.
    """
    looks: tuple[Callable[[], Check], ...] = (
        lambda: _base_model(replica),
        lambda: _chat_template(replica, chats),
        lambda: _lora(replica, adapters, rank),
        lambda: _room(replica, max_loras),
    )
    try:
        served = ", ".join(sorted(replica.models()))
        return [_check("vLLM reachable", True, f"{replica.url} serves {served}"), *(look() for look in looks)]
    except ReplicaUnreachable as error:
        return [_check("vLLM reachable", False, str(error), "start vLLM, or correct the replica's url")]
    except ReplicaRefused as error:
        return [_check("vLLM answers", False, str(error), error.why)]


def _check(name: str, ok: bool, found: str, what_to_do: str = "") -> Check:
    return Check(name=name, ok=ok, found=found, what_to_do="" if ok else what_to_do)


def _base_model(replica: Replica) -> Check:
    served = set(replica.models()) - set(replica.adapters())
    return _check(
        "base model",
        replica.base_name in served,
        f"served as {', '.join(sorted(served))}",
        f"restart vLLM with --served-model-name {replica.base_name}, or correct the name in the settings",
    )


def _chat_template(replica: Replica, chats: Sequence[RenderedChat]) -> Check:
    advice = "serve the base model that the target names, with its own chat template (no --chat-template)"
    for chat in chats:
        try:
            served = replica.tokenize(chat.messages, chat.tools)
        except ReplicaRefused as error:
            return _check("chat template", False, str(error), advice)
        if served != chat.prompt_ids:
            found = f"a chat of {len(chat.prompt_ids)} tokens in training is {len(served)} other tokens there"
            return _check("chat template", False, found, advice)
    return _check("chat template", True, f"{len(chats)} chats render to the tokens of training")


def _lora(replica: Replica, adapters: Path, rank: int) -> Check:
    """Offer a folder with a configuration and no weights.

    vLLM reads the configuration first, so that the way in which it refuses tells whether LoRA is
    on, adapters may be loaded at run time, the folder is visible and the rank fits.
    """
    name = "LoRA at run time"
    folder = adapters / f".{TRIAL}"
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": ["q_proj"]}
    folder.mkdir(parents=True, exist_ok=True)
    try:
        (folder / "adapter_config.json").write_text(json.dumps(config))
        replica.load(TRIAL, folder)
    except ReplicaRefused as error:
        if error.why is not Refusal.INCOMPLETE:
            return _check(name, False, str(error), error.why)
        return _check(name, True, f"on, rank {rank} fits, the folder of adapters is visible")
    finally:
        shutil.rmtree(folder)
    replica.unload(TRIAL)
    return _check(
        name, False, "an adapter without weights was accepted", "use a vLLM that learnd is tested with"
    )


def _room(replica: Replica, needed: int) -> Check:
    name = "room for adapters"
    advice = f"restart vLLM with --enable-lora --max-loras {needed} or more, and with its statistics on"
    # The setting is exported only once a request was answered.
    try:
        replica.answer(replica.base_name, [{"role": "user", "content": "Hello"}], max_tokens=1)
    except ReplicaRefused as error:
        return _check(name, False, str(error), error.why)
    most = replica.max_loras()
    if most is None:
        return _check(name, False, "--max-loras is not exported in /metrics", advice)
    return _check(name, most >= needed, f"--max-loras {most}, needed {needed}", advice)
