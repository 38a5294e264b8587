"""The child that has a base model write one part of its replay (see `trainers.replay.examples`).

The model writes the questions itself, from an open user's turn of its own chat template, and then answers
them. A batch is written down when it is screened, so a killed child loses at most one.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from extractors.examples.types import Message
from extractors.values import Value
from trainers.job_folder import Progress, run_job, write_atomically
from trainers.models.base_model import (
    Device,
    Dtype,
    find_stop_tokens,
    load_model,
    load_tokenizer,
    use_threads,
)
from trainers.models.chat_template import TemplateUnusable, render
from trainers.quick_imports import quick_imports
from trainers.replay.examples import PART_SIZE, ReplayExample, ReplayPart, read_part
from trainers.replay.open_turn import OpenTurn, open_user_turn
from trainers.replay.screening import find_answer_flaw, find_question_flaw, normalise
from trainers.replay.tokens import render_replay

WRITTEN = "written.json"
"""File with the batches so far."""
BATCH = 32
"""Questions written at once."""
MOST_TRIED = 8 * PART_SIZE
"""Questions after which a part is what it is."""
ENOUGH_TRIED = BATCH
"""Questions after which a base that wrote hardly anything of use is given up."""
LEAST_USABLE = 0.05
"""Share of the questions that must be of use by then."""
QUESTION_TOKENS = 96
ANSWER_TOKENS = 128
"""Longest question, and longest part of an answer. A longer question is left out; of an answer the beginning
suffices, since most answers of an instruct model are longer."""
QUESTION_TEMPERATURE = 1.0
ANSWER_TEMPERATURE = 0.3
LIKELIEST = 50
"""Tokens among which the next one of a question or an answer is drawn."""
Tokens = Sequence[int]


class ReplayJob(Value):
    """The work of a child that writes replay."""

    base_model: str
    """Hub id or path."""
    folder: str
    """Folder of the base's replay, whose earlier parts are written."""
    part: int
    device: Device = "auto"
    dtype: Dtype = "auto"
    threads: int | None = None
    """CPU threads; None leaves torch's own choice."""


class _Written(Value):
    """The batches that are written."""

    part: ReplayPart = ReplayPart()
    batches: int = 0

    def add(self, batch: ReplayPart) -> "_Written":
        refused = Counter(self.part.refused) + Counter(batch.refused)
        examples = (*self.part.examples, *batch.examples)[:PART_SIZE]
        tried = self.part.tried + batch.tried
        part = ReplayPart(examples=examples, tried=tried, refused=dict(refused))
        return _Written(part=part, batches=self.batches + 1)

    @property
    def is_done(self) -> bool:
        """True if the part is full, or will never be."""
        found, tried = len(self.part.examples), self.part.tried
        is_hopeless = tried >= ENOUGH_TRIED and found < LEAST_USABLE * tried
        return found >= PART_SIZE or tried >= MOST_TRIED or is_hopeless


def run(folder: Path) -> None:
    """Do the ReplayJob in `folder`: `learnd work replay FOLDER`."""
    run_job(folder, ReplayJob, write_replay)


def write_replay(job: ReplayJob, folder: Path, progress: Progress) -> ReplayPart:
    """Have the base write a part of its replay, batch by batch.

    A base that cannot do so gives an empty part with the reason. Raises BaseModelUnusable, ReplayGone.
    """
    use_threads(job.threads)
    with quick_imports():
        tokenizer = load_tokenizer(job.base_model)
    try:
        turn = open_user_turn(tokenizer)
    except TemplateUnusable as refusal:
        return ReplayPart(why_not=str(refusal))
    kept = folder / WRITTEN
    written = _Written.model_validate_json(kept.read_text("utf-8")) if kept.exists() else _Written()
    progress.write("loading", f"base model {job.base_model}")
    model = load_model(job.base_model, device=job.device, dtype=job.dtype).eval()
    writer = _Writer(tokenizer, model, turn)
    earlier = [each for number in range(job.part) for each in read_part(Path(job.folder), number).examples]
    while not written.is_done:
        known = [each.question for each in (*earlier, *written.part.examples)]
        written = written.add(writer.write_batch(_find_seed(job.part, written.batches), known))
        write_atomically(kept, written.model_dump_json())
        progress.write(
            "writing",
            f"questions and answers of {job.base_model}",
            step=len(written.part.examples),
            total=PART_SIZE,
        )
    return written.part


def _find_seed(part: int, batch: int) -> int:
    return part * MOST_TRIED + batch


@dataclass(frozen=True)
class _Said:
    """A text that the model wrote."""

    text: str
    ended: bool

    @property
    def whole_words(self) -> str:
        """The text without a last word that may be cut; in a script without spaces, all of it."""
        return self.text if self.ended else self.text.rsplit(maxsplit=1)[0] if self.text else ""


@dataclass(frozen=True)
class _Writer:
    """A base model that writes questions and answers them."""

    tokenizer: Any
    model: Any
    turn: OpenTurn

    def write_batch(self, seed: int, known: Iterable[str]) -> ReplayPart:
        """Write and screen a batch; `known` are the questions that are there already."""
        import torch

        torch.manual_seed(seed)
        seen, refused = {normalise(question) for question in known}, Counter[str]()
        questions: list[str] = []
        for said in self._write_questions():
            if flaw := find_question_flaw(said.text, seen, ended=said.ended):
                refused[flaw] += 1
            else:
                seen.add(normalise(said.text))
                questions.append(said.text)
        examples = []
        for question, said in self._answer(questions):
            example = ReplayExample(question=question, answer=said.whole_words, is_whole=said.ended)
            flaw = find_answer_flaw(question, example.answer)
            if flaw or not self._can_render(example):
                refused[flaw or "the chat template cannot express an answer"] += 1
            else:
                examples.append(example)
        return ReplayPart(examples=tuple(examples), tried=BATCH, refused=dict(refused))

    def _write_questions(self) -> list[_Said]:
        ends = {self.turn.end_token} if self.turn.end_token is not None else set[int]()
        said = self._continue([self.turn.ids] * BATCH, QUESTION_TOKENS, QUESTION_TEMPERATURE, ends)
        if self.turn.end_token is not None:
            return said
        parted = [each.text.partition(self.turn.end_text) for each in said]
        return [_Said(text.strip(), bool(end)) for text, end, _ in parted]

    def _answer(self, questions: Sequence[str]) -> list[tuple[str, _Said]]:
        """Answer the questions that the chat template can express."""
        asked, prompts = [], []
        for question in questions:
            try:
                rendered = render(self.tokenizer, [Message(role="user", content=question)])
            except TemplateUnusable:
                continue
            asked.append(question)
            prompts.append(rendered.prompt_ids)
        if not asked:
            return []
        said = self._continue(prompts, ANSWER_TOKENS, ANSWER_TEMPERATURE, set())
        return list(zip(asked, said, strict=True))

    def _can_render(self, example: ReplayExample) -> bool:
        try:
            render_replay(self.tokenizer, example)
        except TemplateUnusable:
            return False
        return True

    def _continue(
        self, prompts: Sequence[Tokens], most: int, temperature: float, ends: set[int]
    ) -> list[_Said]:
        """Return what the model writes after each prompt, up to one of `ends` or the end of its turn."""
        import torch
        from transformers import GenerationConfig

        stops = find_stop_tokens(self.tokenizer, self.model) | ends
        longest, padding = max(map(len, prompts)), self.tokenizer.pad_token_id
        ids = torch.tensor([[padding] * (longest - len(each)) + list(each) for each in prompts])
        mask = torch.tensor([[0] * (longest - len(each)) + [1] * len(each) for each in prompts])
        config = GenerationConfig(
            do_sample=True,
            temperature=temperature,
            top_k=LIKELIEST,
            max_new_tokens=most,
            eos_token_id=sorted(stops),
            pad_token_id=padding,
        )
        with torch.inference_mode():
            out = self.model.generate(
                input_ids=ids.to(self.model.device),
                attention_mask=mask.to(self.model.device),
                generation_config=config,
            )
        return [self._read(row, stops) for row in out[:, longest:].tolist()]

    def _read(self, ids: list[int], stops: Collection[int]) -> _Said:
        end = next((place for place, token in enumerate(ids) if token in stops), None)
        text = self.tokenizer.decode(ids[:end], skip_special_tokens=True).strip()
        return _Said(text, end is not None)
