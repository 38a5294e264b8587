"""The track of embedding models: contenders search the documents of the validation side."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from evaluation.engine.encode import Encoder
from evaluation.metrics.retrieval import Library, build_library, search_side
from evaluation.race.job import RaceJob
from evaluation.race.scores import ItemScores
from evaluation.score_side import score_searches
from evaluation.validation_side import hold_out_validation
from extractors.dataset.snapshot import Snapshot
from trainers.job_folder import Progress
from trainers.jobs.embedding import train_embedding_leg
from trainers.jobs.job import TrainingJob
from trainers.jobs.legs import Leg, LegResult
from trainers.models.encoder import load_encoder, load_encoder_adapter
from trainers.models.shared_base import borrow_base
from trainers.planning.method_rules import Readiness

SIDE, SLOT = "contender", "side0"


@dataclass(frozen=True)
class EncoderTrack:
    """An embedding model with the validation side; see `evaluation.race.track.Track`."""

    encoder: Any
    library: Library
    """The validation queries, and all documents of their triplets."""
    metric: str

    @cached_property
    def item_ids(self) -> Sequence[str]:
        return [query.item_id for query in self.library.queries]

    @cached_property
    def sessions(self) -> Sequence[str]:
        return [query.session for query in self.library.queries]

    def train_leg(self, job: TrainingJob, leg: Leg, folder: Path, progress: Progress) -> LegResult:
        return train_embedding_leg(job, leg, folder, progress, self.encoder)

    def score(self, weights: Path, seconds: float) -> ItemScores:  # noqa: ARG002
        # All contenders encode the same texts, and each of them once: far less than a training does.
        began = time.monotonic()
        with borrow_base(self.encoder.transformers_model):
            load_encoder_adapter(self.encoder, weights, SLOT)
            found = search_side(Encoder(self.encoder.eval(), {SIDE: SLOT}), SIDE, self.library)
        scored = score_searches(found).answers
        return ItemScores(
            values=tuple(answer.get_score(self.metric) or 0.0 for answer in scored),
            seconds=time.monotonic() - began,
        )

    def measure_readiness(self, scores: ItemScores) -> Readiness:  # noqa: ARG002
        # No stage goes on from another one here.
        return Readiness(asked=0, valid=0, settled=0)


def open_encoder_track(job: RaceJob, snapshot: Snapshot) -> EncoderTrack:
    """Load the base and collect the validation side's searches. Raises BaseModelUnusable, NothingToSearch."""
    return EncoderTrack(
        encoder=load_encoder(job.plan.base_model, device=job.device, dtype=job.dtype),
        library=build_library(hold_out_validation(snapshot, job.left_out).retrievals),
        metric=job.metric,
    )
