"""Does a replica really serve the trained adapter under its name?

The classic silent failure is a load that answers 200 while the output stays the base model's. So the
evaluation records the trained adapter's answers to a few prompts. The replica must give them the same
log-probabilities, and return them through the chat route. Two engines never agree to the last digit, but
right, wrong and missing adapters are far apart (0.08 nats a token against 2.7).
"""

from collections.abc import Sequence

from evaluation.engine.probe_record import Probe, ProbeRecord
from extractors.errors import LearndError
from extractors.examples.thoughts import split_thoughts
from extractors.values import Value
from registry.serving.replica import GreedyAnswer, Replica

ENGINE_NOISE = 0.1
"""Nats a token by which two engines may differ on the same weights (bfloat16)."""
TOLERATED_SHARE = 0.1
"""Share of the distance between adapter and base by which two engines may differ in addition."""
LEAST_DISTANCE = 0.02
"""Least nats a token by which training must have changed the model for a probe to tell it from its base."""
SCORED_TOKENS = 8
"""Tokens of each answer that are scored; every token is a request."""
CHAT_TOKENS = 16
"""Most tokens over which two greedy answers are compared: later, rounding makes them differ."""
LEAST_SAME_ANSWERS = 0.5


class ProbeFailed(LearndError):
    """A replica does not serve the trained adapter."""


class ProbeResult(Value):
    """The served adapter compared with the trained one: means over all answer tokens, in nats."""

    tokens: int
    from_trained: float
    """Mean |served - trained|: small when the right adapter is served."""
    from_base: float
    """Mean |served - base|: small when no adapter is."""
    distance: float
    """Mean |trained - base|, as recorded: the change by training."""
    same_answers: float
    """Share of probes answered alike through the chat route, 0 to 1."""


def probe(replica: Replica, version_id: str, record: ProbeRecord) -> ProbeResult:
    """Compare the model served as `version_id` with the record of its adapter.

    The first request through an adapter may take long, and happens here. Raises ProbeFailed with
    the figures, ReplicaRefused or ReplicaUnreachable.
    """
    check_chat_template(replica, record)
    result = measure(replica, version_id, record)
    fault = _find_fault(result)
    if fault:
        raise ProbeFailed(f"{version_id} on replica {replica.name}: {fault} ({_format_figures(result)})")
    return result


def measure(replica: Replica, model: str, record: ProbeRecord) -> ProbeResult:
    """Measure whatever is served as `model`, without judging it."""
    served = [
        replica.compute_logprobs(model, each.prompt_ids, each.answer_ids[:SCORED_TOKENS])
        for each in record.probes
    ]
    trained = [each.adapter_logprobs[:SCORED_TOKENS] for each in record.probes]
    base = [each.base_logprobs[:SCORED_TOKENS] for each in record.probes]
    same = [_is_same_answer(replica, model, each) for each in record.probes]
    return ProbeResult(
        tokens=sum(map(len, served)),
        from_trained=_compute_mean_difference(served, trained),
        from_base=_compute_mean_difference(served, base),
        distance=_compute_mean_difference(trained, base),
        same_answers=sum(same) / len(same),
    )


def check_chat_template(replica: Replica, record: ProbeRecord) -> None:
    """Check that the replica renders the recorded chats to the tokens of training. Raises ProbeFailed."""
    for each in record.probes:
        served = replica.tokenize(each.messages, each.tools)
        if served != each.prompt_ids:
            raise ProbeFailed(
                f"replica {replica.name} renders a prompt to {len(served)} tokens, training to "
                f"{len(each.prompt_ids)}, and they differ; start vLLM with the base model's own chat template"
            )


def _is_same_answer(replica: Replica, model: str, recorded: Probe) -> bool:
    """Return True if the chat route gives the recorded answer, or the beginning of a long one."""
    limit = min(len(recorded.answer_ids), CHAT_TOKENS)
    reply = replica.answer(model, recorded.messages, tools=recorded.tools, max_tokens=limit)
    if reply.prompt_tokens != len(recorded.prompt_ids):
        raise ProbeFailed(
            f"the chat route of replica {replica.name} made {reply.prompt_tokens} tokens of a prompt of "
            f"{len(recorded.prompt_ids)}; no middleware or default system prompt may change what agents send"
        )
    return is_recorded_answer(reply, recorded.answer, cut=len(recorded.answer_ids) > limit)


def is_recorded_answer(reply: GreedyAnswer, recorded: str, *, cut: bool) -> bool:
    """Return True if the reply is the recorded text, or its beginning where it was `cut` at a limit.

    Thoughts are compared too: the check is of who answers, not of what is right.
    """
    # A cut may fall inside a character.
    text = _join_thoughts(reply.reasoning, reply.text).rstrip("\ufffd").strip()
    expected = _join_thoughts("", recorded)
    if cut:
        return bool(text) and expected.startswith(text)
    return text == expected.rstrip("\ufffd")


def _join_thoughts(reasoning: str, text: str) -> str:
    """Return all that the model wrote, whether or not the server took its thoughts out of the text."""
    thoughts, answer = (reasoning, text) if reasoning else split_thoughts(text)
    return "\n".join(part.strip() for part in (thoughts, answer) if part and part.strip())


def _compute_mean_difference(left: Sequence[Sequence[float]], right: Sequence[Sequence[float]]) -> float:
    """Return the mean absolute difference over all tokens of all probes."""
    differences = [
        abs(a - b) for one, other in zip(left, right, strict=True) for a, b in zip(one, other, strict=True)
    ]
    return sum(differences) / len(differences)


def _find_fault(result: ProbeResult) -> str | None:
    tolerated = ENGINE_NOISE + TOLERATED_SHARE * result.distance
    if result.distance < LEAST_DISTANCE:
        return "on the recorded prompts the trained adapter is the base model; nothing would change"
    if result.from_base <= min(result.from_trained, tolerated):
        return "the base model answers, not the adapter; is the folder on the server complete?"
    if result.from_trained > tolerated:
        return "another adapter or another base model answers; compare the files and the base digest"
    if result.same_answers < LEAST_SAME_ANSWERS:
        return "the chat route answers otherwise than the adapter did; look at the server's sampling defaults"
    return None


def _format_figures(result: ProbeResult) -> str:
    return (
        f"from trained {result.from_trained:.2f}, from base {result.from_base:.2f}, trained from base "
        f"{result.distance:.2f} nats a token; {result.same_answers:.0%} of answers alike"
    )
