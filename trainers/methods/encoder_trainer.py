"""sentence-transformers' trainer with adapters as checkpoints, and with recall beside the loss."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.base.evaluation import BaseEvaluator
from sentence_transformers.base.sampler import BatchSamplers
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MultipleNegativesRankingLoss,
    TripletDistanceMetric,
    TripletLoss,
)
from sentence_transformers.util import cos_sim, dot_score
from transformers import PrinterCallback, TrainerCallback

from extractors.examples.prompt_keys import normalise
from extractors.examples.types import Triplet
from trainers.methods.arguments import build_arguments
from trainers.models.adapter_files import TRAINED_ADAPTER
from trainers.models.encoder import fill_encoder_adapter, find_column_prompts
from trainers.planning.hyperparameters import Hyperparameters
from trainers.planning.triplet_batches import TripletBatching, TripletData
from trainers.recovery.fallbacks import Attempt

MARGIN = 0.2
"""Cosine by which a query must be nearer to its relevant document than to the irrelevant one."""
RECALL_AT = (1, 10)


class EncoderTrainer(SentenceTransformerTrainer):
    """sentence-transformers' trainer whose checkpoints hold only the adapter; no second model reads them."""

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Add no model card: it would describe the texts."""

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:  # noqa: ARG002
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        cast("Any", self.model).transformers_model.save_pretrained(folder)

    def _load_from_checkpoint(self, checkpoint_path: str) -> None:
        fill_encoder_adapter(self.model, Path(checkpoint_path), TRAINED_ADAPTER)

    def _load_best_model(self) -> None:
        # The library's method would continue with the last weights if the best cannot be read.
        self._load_from_checkpoint(self.state.best_model_checkpoint)


class RecallEvaluator(BaseEvaluator):
    """Mean recall over the queries of `triplets`, among all documents of `triplets`."""

    def __init__(self, triplets: Sequence[Triplet], batch_size: int) -> None:
        super().__init__()
        texts: dict[str, str] = {}
        relevant: defaultdict[str, set[str]] = defaultdict(set)
        for triplet in triplets:
            for document in (triplet.positive, triplet.negative):
                texts.setdefault(normalise(document.text), document.text)
            relevant[triplet.query].add(normalise(triplet.positive.text))
        numbers = {key: number for number, key in enumerate(sorted(texts))}
        self._documents = [texts[key] for key in numbers]
        self._queries = sorted(relevant)
        self._relevant = [{numbers[key] for key in relevant[query]} for query in self._queries]
        self._batch_size = batch_size

    def __call__(self, model: Any, *_: Any, **__: Any) -> dict[str, float]:
        how = {"batch_size": self._batch_size, "convert_to_tensor": True, "show_progress_bar": False}
        scores = model.similarity(
            model.encode_query(self._queries, **how), model.encode_document(self._documents, **how)
        )
        ranking = scores.topk(min(max(RECALL_AT), len(self._documents))).indices.tolist()
        return {
            f"recall@{k}": sum(
                len(relevant & set(ranked[:k])) / len(relevant)
                for relevant, ranked in zip(self._relevant, ranking, strict=True)
            )
            / len(self._queries)
            for k in RECALL_AT
        }


def read_recalls(logs: Mapping[str, float]) -> dict[str, float]:
    """Read the recalls from a validation's log entry, by `recall@k`."""
    return {f"recall@{k}": logs[f"eval_recall@{k}"] for k in RECALL_AT if f"eval_recall@{k}" in logs}


def build_encoder_trainer(
    encoder: Any,
    data: TripletData,
    attempt: Attempt,
    hyperparameters: Hyperparameters,
    checkpoints: Path,
    callbacks: Sequence[TrainerCallback],
    schedule: Callable[[dict[str, Any], int], dict[str, Any]],
) -> EncoderTrainer:
    """Build a trainer for the adapter of `encoder`; only the attempt's micro-batch is in memory at once.

    `schedule` changes the arguments for a training of so many planned steps.
    """
    validation = data.validation
    trainer = EncoderTrainer(
        model=encoder,
        args=_build_arguments(encoder, data, attempt, hyperparameters, checkpoints, schedule),
        train_dataset=_to_dataset(data.train),
        eval_dataset=_to_dataset(validation) if validation else None,
        loss=_build_loss(encoder, data.batching, attempt),
        evaluator=RecallEvaluator(validation, attempt.micro_batch) if validation else None,
        callbacks=list(callbacks),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _to_dataset(triplets: Sequence[Triplet]) -> Dataset:
    return Dataset.from_dict(
        {
            "anchor": [triplet.query for triplet in triplets],
            "positive": [triplet.positive.text for triplet in triplets],
            "negative": [triplet.negative.text for triplet in triplets],
        }
    )


def _build_loss(encoder: Any, batching: TripletBatching, attempt: Attempt) -> torch.nn.Module:
    if batching.loss == "triplets":
        return TripletLoss(encoder, TripletDistanceMetric.COSINE, triplet_margin=MARGIN)
    # The similarity by which the model is searched; 20 is 1 / 0.05, the usual temperature for cosines.
    similarity, scale = (dot_score, 1.0) if encoder.similarity_fn_name == "dot" else (cos_sim, 20.0)
    if attempt.micro_batch < batching.size:
        # The same loss, with the activations of one part in memory (GradCache, Gao et al. 2021).
        return CachedMultipleNegativesRankingLoss(
            encoder, similarity_fct=similarity, scale=scale, mini_batch_size=attempt.micro_batch
        )
    return MultipleNegativesRankingLoss(encoder, similarity_fct=similarity, scale=scale)


def _build_arguments(
    encoder: Any,
    data: TripletData,
    attempt: Attempt,
    hyperparameters: Hyperparameters,
    checkpoints: Path,
    schedule: Callable[[dict[str, Any], int], dict[str, Any]],
) -> SentenceTransformerTrainingArguments:
    tried, whole = choose_trainer_batches(data, attempt, hyperparameters), _has_whole_batches(data)
    arguments = build_arguments(
        encoder,
        tried,
        checkpoints,
        examples=len(data.train),
        validates=bool(data.validation),
        checkpointing=attempt.checkpointing,
    )
    return SentenceTransformerTrainingArguments(
        **schedule(arguments, tried.count_steps(len(data.train))),
        activation_checkpointing_kwargs={"use_reentrant": False},
        batch_sampler=BatchSamplers.NO_DUPLICATES if whole else BatchSamplers.BATCH_SAMPLER,
        prompts=find_column_prompts(encoder) or None,
    )


def choose_trainer_batches(
    data: TripletData, attempt: Attempt, hyperparameters: Hyperparameters
) -> Hyperparameters:
    """Return the hyperparameters with the batches that the trainer sees in this attempt."""
    tried = attempt.apply_to(hyperparameters)
    if not _has_whole_batches(data):
        return tried
    accumulation = hyperparameters.gradient_accumulation
    return tried.model_copy(update={"batch_size": data.batching.size, "gradient_accumulation": accumulation})


def _has_whole_batches(data: TripletData) -> bool:
    """Return True if the trainer sees a whole batch, with in-batch negatives, and the loss splits it."""
    return data.batching.loss == "in-batch negatives"
