"""What a target's traffic teaches now: polled from Phoenix, extracted, and made a dataset."""

from collections import Counter
from datetime import timedelta

from daemon.data.imports import golden_cases, imported_examples
from daemon.runtime.context import TargetContext
from daemon.settings.load import Settings
from daemon.settings.target import TargetSettings
from extractors.cleaning.redaction import Redaction, load_redactor
from extractors.dataset.build import ExtraData
from extractors.dataset.snapshot import Snapshot, build_snapshot
from extractors.feedback.extract import Extraction, extract
from extractors.feedback.searches import reviewed_retrievals
from extractors.phoenix.client import PhoenixClient
from extractors.phoenix.http import PhoenixError
from extractors.phoenix.poll import poll


def open_phoenix(settings: Settings) -> PhoenixClient:
    """A client for the settings' Phoenix; close it after use."""
    return PhoenixClient(settings.phoenix.url, api_key=settings.phoenix.key())


def poll_target(context: TargetContext, client: PhoenixClient) -> int:
    """Bring the target's mirror up to date; returns how many annotations changed.

    What went wrong is kept as the target's last poll error, and raised: PhoenixError.
    """
    changes, complete = 0, False
    while not complete and not context.stop.is_set():
        changed, complete = _poll_once(context, client)
        changes += changed
    return changes


def _poll_once(context: TargetContext, client: PhoenixClient) -> tuple[int, bool]:
    """How many annotations changed, and whether that is all; the change itself is let go of."""
    store, target, now = context.store, context.target, context.clock()
    used_keys = target.retrieval.used_metadata_keys if target.task == "embedding" else ()
    try:
        change = poll(
            client,
            store.mirror(target.key),
            project=target.project,
            spans=target.spans,
            annotation_names=feedback_names(target),
            used_keys=used_keys,
            now=now,
            full_sweep_after=timedelta(minutes=context.settings.phoenix.full_sweep_minutes),
        )
    except PhoenixError as problem:
        store.record_poll(target.key, now, str(problem))
        raise
    store.apply_mirror(target.key, change, now)
    return len(change.annotations) + len(change.removed_annotations), change.complete


def feedback_names(target: TargetSettings) -> frozenset[str]:
    """Names of the annotations that the target's rules read."""
    rules = target.feedback
    return frozenset(rule.name for rule in rules.annotations) | frozenset(rules.correction_names)


def extract_target(context: TargetContext) -> Extraction:
    """What the mirror teaches by the target's feedback rules, without personal data where that is asked for.

    Raises RedactorUnusable, RedactionFailed.
    """
    target = context.target
    spans, annotations = context.store.mirrored(target.key)
    if target.task == "embedding":
        found = reviewed_retrievals(spans, annotations, target.feedback, target.retrieval, target=target.key)
        extraction = Extraction(
            retrievals=found.retrievals, dropped=found.dropped, dropped_spans=found.dropped_spans
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


def snapshot_of(context: TargetContext, extraction: Extraction) -> Snapshot:
    """The dataset that `extraction` makes with the target's holdout as it stands; nothing is written.

    Raises RedactorUnusable, RedactionFailed, ImportInvalid.
    """
    target = context.target
    redaction = Redaction(load_redactor(target.redaction), target.output_space)
    imported = redaction.apply_to_all(imported_examples(context.data_dir, target))
    synthetic = redaction.apply_to_all(context.store.approved_examples(target.key))
    replaced = Counter(extraction.replaced) + redaction.counts
    return build_snapshot(
        extraction.model_copy(update={"replaced": dict(replaced)}),
        target.holdout,
        window=context.store.target_state(target.key).window,
        now=context.clock(),
        target=target.key,
        filters=target.model_dump(mode="json", include={"project", "spans", "feedback", "output_space"}),
        beside=ExtraData(
            imported=imported,
            synthetic=synthetic,
            synthetic_share=target.synthesis.share,
            golden=golden_cases(target),
            quality=target.quality,
            output_space=target.output_space,
        ),
    )
