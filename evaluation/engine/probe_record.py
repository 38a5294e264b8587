"""The trained adapter's answers to a few prompts, against which serving is checked."""

from typing import Any

from extractors.values import Value


class Probe(Value):
    """One recorded prompt with its greedy answer, as the evaluation's engine gave it."""

    messages: tuple[dict[str, Any], ...]
    """The prompt as chat messages, for the chat route."""
    tools: tuple[dict[str, Any], ...] = ()
    prompt_ids: tuple[int, ...]
    """The prompt's tokens, generation prompt included, as training rendered it."""
    answer_ids: tuple[int, ...]
    """The adapter's greedy answer, at least one token."""
    answer: str
    adapter_logprobs: tuple[float, ...]
    """Log-probability (nats) of each answer token under the adapter."""
    base_logprobs: tuple[float, ...]
    """Log-probability (nats) of the same tokens under the base model."""


class ProbeRecord(Value):
    """The probes of one version; `probes.json` beside its weights."""

    probes: tuple[Probe, ...]
