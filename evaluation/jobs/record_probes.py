"""Record a trained adapter's answers to a few prompts, against which serving is checked."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from evaluation.engine.probe_record import Probe, ProbeRecord
from evaluation.jobs.ask_sides import EvaluationPrompts, render_if_possible
from evaluation.report import BASE, Side
from extractors.dataset.snapshot import Snapshot
from extractors.errors import LearndError
from extractors.examples.types import ReviewedItem, SFTExample

if TYPE_CHECKING:
    from evaluation.engine.generate import AnswerEngine

MOST_PROBES = 8
PROBE_TOKENS = 32


class NothingToAsk(LearndError):
    """There is no prompt that the model could be asked."""


def record_probes(
    engine: "AnswerEngine",
    candidate: str,
    trained_on: Snapshot,
    prompts: EvaluationPrompts,
    sides: Sequence[Side],
) -> ProbeRecord:
    """Record the candidate's answers to a few prompts, held-out ones if there are any, one prompt at a time.

    Raises NothingToAsk where there is no prompt that the chat template can express.
    """
    base, trained = sides[0].answers, sides[-1].answers
    # A probe tells most where training changed the answer, and where the answers differ from each other.
    order = sorted(range(len(prompts.held_out)), key=lambda i: base[i].text == trained[i].text)
    first_of = {trained[i].text: i for i in reversed(order)}
    chosen = list(dict.fromkeys([*sorted(first_of.values(), key=order.index), *order]))[:MOST_PROBES]
    items: Sequence[ReviewedItem | SFTExample] = [prompts.held_out[i] for i in chosen]
    recorded = _record(engine, candidate, items or trained_on.train.sft)
    probes = list(islice(recorded, MOST_PROBES))
    if not probes:
        raise NothingToAsk(
            f"snapshot {trained_on.id} has neither held-out nor training prompts that the chat template "
            "can express"
        )
    return ProbeRecord(probes=tuple(probes))


def _record(
    engine: "AnswerEngine", candidate: str, items: Sequence[ReviewedItem | SFTExample]
) -> Iterator[Probe]:
    for item in items:
        rendered = render_if_possible(engine.tokenizer, item.prompt, item.tools)
        if rendered is not None:
            yield _record_probe(engine, candidate, item, rendered.prompt_ids)


def _record_probe(
    engine: "AnswerEngine", candidate: str, item: ReviewedItem | SFTExample, prompt: tuple[int, ...]
) -> Probe:
    [answer] = engine.generate(candidate, [prompt], max_new_tokens=PROBE_TOKENS, batch_size=1)
    return Probe(
        messages=tuple(message.to_chat() for message in item.prompt),
        tools=item.tools,
        prompt_ids=prompt,
        answer_ids=answer.ids,
        answer=answer.text,
        adapter_logprobs=engine.compute_answer_logprobs(candidate, prompt, answer.ids),
        base_logprobs=engine.compute_answer_logprobs(BASE, prompt, answer.ids),
    )
