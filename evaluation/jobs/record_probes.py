"""Recording what a trained adapter says to a few prompts, for serving to be checked against."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from evaluation.engine.probe_record import Probe, ProbeRecord
from evaluation.jobs.ask_sides import EvaluationPrompts
from evaluation.report import BASE, Side
from extractors.dataset.snapshot import Snapshot
from extractors.errors import LearndError
from extractors.examples.types import ReviewedItem, SFTExample
from trainers.models.chat_template import render

if TYPE_CHECKING:
    from evaluation.engine.generate import AnswerEngine

MOST_PROBES = 8
PROBE_TOKENS = 32


class NothingToAsk(LearndError):
    """There is no prompt at all that the model could be asked."""


def record_probes(
    engine: "AnswerEngine",
    candidate: str,
    trained_on: Snapshot,
    asked: EvaluationPrompts,
    sides: Sequence[Side],
) -> ProbeRecord:
    """What the candidate says to a few prompts, one at a time, as a server is asked."""
    base, trained = sides[0].answers, sides[-1].answers
    # Where training changed the answer, and to different answers, a probe tells most.
    order = sorted(range(len(asked.held_out)), key=lambda i: base[i].text == trained[i].text)
    first_of = {trained[i].text: i for i in reversed(order)}
    chosen = list(dict.fromkeys([*sorted(first_of.values(), key=order.index), *order]))[:MOST_PROBES]
    items: Sequence[ReviewedItem | SFTExample] = [asked.held_out[i] for i in chosen]
    probes = [_record_probe(engine, candidate, each) for each in items or trained_on.train.sft[:MOST_PROBES]]
    if not probes:
        raise NothingToAsk(f"snapshot {trained_on.id} has neither held-out nor training prompts")
    return ProbeRecord(probes=tuple(probes))


def _record_probe(engine: "AnswerEngine", candidate: str, asked: ReviewedItem | SFTExample) -> Probe:
    prompt = render(engine.tokenizer, asked.prompt, asked.tools).prompt_ids
    [said] = engine.generate(candidate, [prompt], max_new_tokens=PROBE_TOKENS, batch_size=1)
    return Probe(
        messages=tuple(message.to_chat() for message in asked.prompt),
        tools=asked.tools,
        prompt_ids=prompt,
        answer_ids=said.ids,
        answer=said.text,
        adapter_logprobs=engine.compute_answer_logprobs(candidate, prompt, said.ids),
        base_logprobs=engine.compute_answer_logprobs(BASE, prompt, said.ids),
    )
