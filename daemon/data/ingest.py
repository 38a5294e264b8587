"""A target's traffic as training data: polled from Phoenix, extracted, and assembled into a snapshot."""

import threading
from collections import Counter
from datetime import timedelta
from functools import partial

from daemon.data.imports import read_golden_cases, read_imported_examples
from daemon.runtime.context import TargetContext
from daemon.settings.load import Settings
from daemon.settings.target import TargetSettings
from evaluation.rules import JUDGE
from evaluation.validation_side import count_sessions
from extractors.cleaning.redaction import Redaction, load_redactor
from extractors.dataset.build import ExtraData
from extractors.dataset.snapshot import Provenance, Snapshot, build_snapshot
from extractors.feedback.extract import Extraction, extract
from extractors.feedback.searches import extract_searches
from extractors.phoenix.client import PhoenixClient
from extractors.phoenix.http import PhoenixError
from extractors.phoenix.mirror import MirrorSource, PollRules
from extractors.phoenix.poll import poll
from registry.store.store import Store
from trainers.planning.apply_rules import MIN_RACE_SESSIONS, may_race
from trainers.planning.method_rules import count_for_rules


def open_phoenix(
    settings: Settings,
    *,
    timeout: float = 60.0,
    patience: float = 20.0,
    stop: threading.Event | None = None,
) -> PhoenixClient:
    """Return a client for the Phoenix of the settings; close it after use.

    `timeout` is for one request, `patience` for all tries of it together, in seconds; once `stop` is set,
    nothing is tried again.
    """
    key = settings.phoenix.read_key()
    return PhoenixClient(settings.phoenix.url, api_key=key, timeout=timeout, patience=patience, stop=stop)


def poll_target(context: TargetContext, client: PhoenixClient) -> int:
    """Bring the target's mirror up to date and return how many annotations changed.

    Raises PhoenixError, which the store also keeps as the target's last poll error.
    """
    changes, complete = 0, False
    while not complete and not context.stop.is_set():
        changed, complete = poll_once(context, client)
        changes += changed
    return changes


def poll_once(context: TargetContext, client: PhoenixClient) -> tuple[int, bool]:
    """Bring the mirror one piece nearer; return how many annotations changed, and whether it is up to date.

    Raises PhoenixError, as `poll_target` does. The change itself is not returned, so that its memory is free
    before the next one is read.
    """
    store, target, now = context.store, context.target, context.clock()
    source = MirrorSource(
        project=target.project,
        spans=target.spans,
        annotation_names=list_feedback_names(target),
        used_keys=frozenset(target.retrieval.used_metadata_keys if target.task == "embedding" else ()),
    )
    try:
        change = poll(
            client,
            store.mirror(target.key),
            source,
            now=now,
            rules=PollRules(full_sweep_after=timedelta(minutes=context.settings.phoenix.full_sweep_minutes)),
        )
    except PhoenixError as problem:
        store.record_poll(target.key, now, str(problem))
        raise
    store.apply_mirror(target.key, change, now)
    return len(change.annotations) + len(change.removed_annotations), change.complete


def list_feedback_names(target: TargetSettings) -> frozenset[str]:
    """Return the names of the annotations that the target's feedback rules read."""
    rules = target.feedback
    return frozenset(rule.name for rule in rules.annotations) | frozenset(rules.correction_names)


def extract_target(store: Store, target: TargetSettings) -> Extraction:
    """Extract examples and reviewed items from the target's mirror by its feedback rules.

    Personal data is replaced where the target has a redactor. Raises RedactorUnusable, RedactionFailed.
    """
    spans, annotations = store.read_mirror(target.key)
    if target.task == "embedding":
        extraction = extract_searches(
            spans, annotations, target.feedback, target.retrieval, target=target.key
        )
    else:
        extraction = extract(spans, annotations, target.feedback, target.output_space, target=target.key)
    redaction = Redaction(load_redactor(target.redaction), target.output_space)
    without = {
        "items": redaction.apply(extraction.items),
        "judged": redaction.apply(extraction.judged),
        "conversations": redaction.apply(extraction.conversations),
        "retrievals": redaction.apply(extraction.retrievals),
    }
    return extraction.model_copy(update={**without, "replaced": dict(redaction.counts)})


def assemble_snapshot(context: TargetContext, extraction: Extraction) -> Snapshot:
    """Build the snapshot of `extraction`, imports and approved examples, with the target's current holdout.

    Where several ways to train are possible, and a race between them can tell something, more is set apart to
    compare them on. Nothing is written.
    Raises RedactorUnusable, RedactionFailed, ImportInvalid.
    """
    target = context.target
    redaction = Redaction(load_redactor(target.redaction), target.output_space)
    imported = redaction.apply_to_examples(read_imported_examples(context.data_dir, target))
    synthetic = redaction.apply_to_examples(context.store.find_approved_examples(target.key))
    replaced = Counter(extraction.replaced) + redaction.counts
    filters = target.model_dump(mode="json", include={"project", "spans", "feedback", "output_space"})
    build = partial(
        build_snapshot,
        extraction.model_copy(update={"replaced": dict(replaced)}),
        window=context.store.target_state(target.key).window,
        now=context.clock(),
        provenance=Provenance(target.key, filters),
        extra=ExtraData(
            imported=imported,
            synthetic=synthetic,
            synthetic_share=target.synthesis.share,
            golden=read_golden_cases(target),
            quality=target.quality,
            output_space=target.output_space,
        ),
    )
    snapshot = build(target.holdout)
    if explain_missing_scores(target) or not _may_race(context, snapshot):
        return snapshot
    share = max(target.holdout.validation_share, target.holdout.race_validation_share)
    wider = build(target.holdout.model_copy(update={"validation_share": share}))
    # What is set apart is missing from the training: the same ways must be possible without it.
    can_tell = _may_race(context, wider) and count_sessions(wider) >= MIN_RACE_SESSIONS
    return wider if can_tell else snapshot


def explain_missing_scores(target: TargetSettings) -> str | None:
    """Return why answers to the validation side cannot be scored, in words; None if they can."""
    if target.gate.gating_metrics(target.task)[0] == JUDGE:
        return "answers can be compared by a judge only (gate.metrics)"
    return None


def _may_race(context: TargetContext, snapshot: Snapshot) -> bool:
    """Return whether a race is possible on the examples of `snapshot`, and the settings allow validation."""
    target = context.target
    return target.holdout.validation_share > 0 and may_race(
        count_for_rules(snapshot.train),
        target.task,
        target.thresholds,
        target.race,
        has_live=context.store.find_active_version(target.key) is not None,
    )
