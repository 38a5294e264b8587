"""The model card in an adapter's folder: its data, its training, its measures and its limits.

It is a README.md as on the Hugging Face hub: YAML for programs, and below it text for people. It quotes
nothing of the traffic; it quotes golden cases, which the operator wrote, and the answers to them.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from daemon.runtime.context import TargetContext
from daemon.runtime.paths import adapter_folder
from daemon.runtime.units import format_duration, format_gigabytes
from daemon.settings.target import TargetSettings
from daemon.views.cycle_list import list_methods
from daemon.views.plan_text import describe_replay
from daemon.views.report_text import Section, build_sections, format_number
from evaluation.report import Report
from extractors.cleaning.quality import iterate_kinds
from extractors.dataset.snapshot import Manifest, Snapshot
from registry.cycles import Cycle, StageResult
from registry.versions import Version
from trainers.job_folder import write_atomically
from trainers.planning.method_rules import REPLAY_TASKS
from trainers.planning.plan import TrainingStage

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

CARD = "README.md"
MOST_LABELS = 50
"""How many labels of an output space are listed."""
LONGEST_CELL = 200
ADDRESS = r"\b(?:[a-z][a-z0-9+.-]*://|www\.)[^\s|`]+|[\w.+-]+@[\w-]+\.[^\s|`]+"
MARKUP = r"[\\|\[*`~]|<(?=[a-z/!?])|&(?=#?\w+;)|(?<![^\W_])_|_(?![^\W_])"
SPECIAL = re.compile(f"(?P<address>{ADDRESS})|{MARKUP}", re.IGNORECASE)
"""Text that Markdown would read as a link, with or without brackets, as a table, HTML or emphasis;
`p < 0.05` and `token_f1` are none of these."""
SPOKEN_FROM = 0.1
"""The smallest share of the texts from which a language is listed in the card's head."""
TASKS = {
    "classification": "Answers with one label of a fixed set.",
    "extraction": "Answers with JSON.",
    "generation": "Answers a prompt with a text.",
    "chat": "Answers in conversations of several turns.",
    "embedding": "Finds documents by a query.",
}


def write_card(context: TargetContext, version: Version, report: Report) -> None:
    """Write the card beside the adapter, in place of an earlier one; `report` is of the newest look at it.

    The card is none of the version's files, so digests and served files do not change. Raises
    SnapshotDamaged.
    """
    trained = context.store.cycle(version.cycle_id)
    first = (trained.report,) if trained.report and report.look == "second" else ()
    text = build_card(
        context.target, version, trained, context.snapshot(version.snapshot_id), (*first, report)
    )
    write_atomically(adapter_folder(context.data_dir, version) / CARD, text)


def build_card(
    target: TargetSettings, version: Version, trained: Cycle, snapshot: Snapshot, reports: Sequence[Report]
) -> str:
    """Return the card's text.

    `trained` is the cycle that trained the version on `snapshot`; `reports` are those of all looks at it,
    at least one, newest last.
    """
    from huggingface_hub import ModelCardData

    results = list(_build_eval_results(target, reports[-1]))
    head = ModelCardData(
        model_name=version.id,
        base_model=version.base_model,
        library_name="peft",
        pipeline_tag=_find_pipeline(target),
        language=_find_languages(snapshot.manifest) or None,
        tags=["learnd", "lora", target.task, *list_methods(trained)],
        metrics=[result.metric_type for result in results],
        eval_results=results,
    )
    parts = (
        f"# {version.id}",
        _format_section(_build_purpose(target, version, reports[-1])),
        *(_format_section(each) for each in _build_data(target, trained, snapshot)),
        *(_format_section(each) for each in _build_training(trained)),
        *_format_measurements(reports),
        _format_section(
            Section(title="Limits", words=tuple(f"- {each}" for each in _list_limits(target, reports[-1])))
        ),
        _format_section(_build_digests(version)),
    )
    return f"---\n{head.to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n"


def _build_eval_results(target: TargetSettings, report: Report) -> Iterator["EvalResult"]:
    """Yield the candidate's measures."""
    from huggingface_hub import EvalResult

    candidate = report.candidate
    known = {"accuracy": candidate.accuracy} if report.gold_size else {}
    for metric, value in (known | candidate.measures).items():
        yield EvalResult(
            task_type=_find_pipeline(target),
            task_name=target.task,
            dataset_type="learnd-holdout",
            dataset_name=f"{target.key}, held-out reviewed traffic",
            dataset_revision=report.snapshot_id,
            metric_type=metric,
            metric_value=round(value, 6),
        )


def _find_pipeline(target: TargetSettings) -> str:
    return "sentence-similarity" if target.task == "embedding" else "text-generation"


def _find_languages(manifest: Manifest) -> list[str]:
    found = manifest.statistics.languages if manifest.statistics else {}
    return [code for code, share in found.items() if share >= SPOKEN_FROM and code != "und"]


# ---- the sections


def _build_purpose(target: TargetSettings, version: Version, report: Report) -> Section:
    space = ", ".join(target.output_space[:MOST_LABELS])
    more = len(target.output_space) - MOST_LABELS
    labels = f" The labels are: {space}{f' and {more} more' if more > 0 else ''}." if space else ""
    return Section(
        title="What it is for",
        words=(
            f"A LoRA adapter of {version.base_model} for the agent {target.agent} of {target.tenant}. "
            f"{TASKS[target.task]}{labels} It was trained on feedback on this agent's traffic, is for this "
            "agent alone, and belongs to exactly the base model whose digest is given below.",
            _describe_verdict(report),
        ),
    )


def _describe_verdict(report: Report) -> str:
    return f"Verdict {report.verdict}: {report.reason.rstrip('.')}."


def _build_data(target: TargetSettings, trained: Cycle, snapshot: Snapshot) -> Iterator[Section]:
    manifest = snapshot.manifest
    yield Section(
        title="Data",
        words=(
            _describe_reviewed(target, manifest),
            _describe_holdout(manifest),
            _describe_redaction(target, manifest),
        ),
        columns=("kind", "to train on", "synthetic among them", "to validate on"),
        rows=tuple(_build_kind_rows(snapshot)),
    )
    statistics = manifest.statistics
    if statistics and statistics.warnings:
        yield Section(
            title="Warnings about the data", words=tuple(f"- {each}" for each in statistics.warnings)
        )
    left = {**manifest.left_out, **trained.counts.dropped}
    if left:
        yield Section(title="Left out", columns=("why", "how many"), rows=_build_count_rows(left))


def _describe_reviewed(target: TargetSettings, manifest: Manifest) -> str:
    reviewed, newest = manifest.reviewed, manifest.watermark
    until = f", up to {newest:%Y-%m-%d %H:%M} UTC" if newest else ""
    return (
        f"From the Phoenix project {target.project}{until}: {reviewed.approved} answers or searches that "
        f"people approved, {reviewed.corrected} corrected, {reviewed.rejected} rejected without a correction."
    )


def _describe_holdout(manifest: Manifest) -> str:
    since = f", those since {manifest.window.start:%Y-%m-%d %H:%M} UTC," if manifest.window else ""
    kept = (
        f" {manifest.retention} older ones are reserved, to tell what is forgotten."
        if manifest.retention
        else ""
    )
    return (
        f"{manifest.holdout} of these{since} are held out to judge by: what was trained on is older, and "
        f"shares neither session nor prompt with them.{kept}"
    )


def _build_kind_rows(snapshot: Snapshot) -> Iterator[tuple[str, ...]]:
    validation = dict(iterate_kinds(snapshot.validation))
    for kind, examples in iterate_kinds(snapshot.train):
        if examples or validation[kind]:
            synthetic = Counter(example.origin for example in examples)["synthetic"]
            share = f" ({synthetic / len(examples):.0%})" if synthetic else ""
            yield kind, str(len(examples)), f"{synthetic}{share}", str(len(validation[kind]))


def _describe_redaction(target: TargetSettings, manifest: Manifest) -> str:
    if target.redaction.redactor is None:
        return "Personal data was not looked for (the target has no redactor)."
    found = ", ".join(f"{count} {kind}" for kind, count in sorted(manifest.replaced.items()))
    return f"Personal data was replaced by {target.redaction.redactor}: {found or 'none was found'}."


HYPERPARAMETERS = (
    "epochs",
    "learning_rate",
    "batch_size",
    "lora_rank",
    "lora_alpha",
    "beta",
    "max_length",
    "seed",
)


def _build_training(trained: Cycle) -> Iterator[Section]:
    plan = trained.plan
    if plan is None:
        return
    goes_on = f" It goes on from {plan.start_version}." if plan.start_version else ""
    yield Section(
        title="How it was trained",
        words=(f"{plan.reason.rstrip('.')}.{goes_on}", *describe_replay(plan)),
        columns=("method", "data", *(name.replace("_", " ") for name in HYPERPARAMETERS)),
        rows=tuple(_build_stage_row(stage) for stage in plan.stages),
    )
    if trained.training:
        yield Section(
            title="How the training went",
            columns=("method", "examples", "steps", "loss", "took", "memory", "notes"),
            rows=tuple(_build_result_row(stage) for stage in trained.training),
        )


def _build_stage_row(stage: TrainingStage) -> tuple[str, ...]:
    chosen = stage.hyperparameters.model_dump(include=set(HYPERPARAMETERS))
    return stage.method, stage.data, *(f"{chosen[name]:g}" for name in HYPERPARAMETERS)


def _build_result_row(stage: StageResult) -> tuple[str, ...]:
    took = stage.figures
    notes = [f"run {stage.run}" if stage.run else "", stage.left_out, *took.recoveries]
    if took.replay:
        notes.append(f"{took.replay} examples more that the base model wrote")
    if took.quantization:
        notes.append("the base in 4 bits")
    return (
        stage.method,
        _format_figure(took.examples, str),
        _format_figure(took.steps, str),
        _format_figure(took.train_loss, format_number),
        _format_figure(took.seconds, format_duration),
        _format_figure(took.peak_memory_bytes, format_gigabytes),
        "; ".join(filter(None, notes)),
    )


def _format_measurements(reports: Sequence[Report]) -> Iterator[str]:
    """Yield the sections of every look, newest first."""
    for report in reversed(reports):
        look = "" if len(reports) == 1 else ", second look" if report.look == "second" else ", first look"
        yield f"## What was measured{look}"
        if look:
            yield _escape_markdown(_describe_verdict(report))
        for section in build_sections(report, quoting=False):
            yield _format_section(section, level=3)


def _list_limits(target: TargetSettings, report: Report) -> Iterator[str]:
    compared = report.find_comparison(report.live)
    yield (
        f"Judged on {compared.n} items that are worth {compared.effective_n:.0f} independent ones: a true "
        f"gain in {compared.metric} below {compared.smallest_effect:.3f} would often go unseen."
    )
    if report.gate.rule == "one-look":
        yield (
            "One look decided: of candidates that are no better, up to one in "
            f"{1 / report.gate.alpha:.0f} passes by chance."
        )
    if report.weighting is None:
        yield "The measures are of reviewed traffic; whether all traffic resembles it was not checked."
    if report.golden is None:
        yield "There are no golden cases, so nothing was checked that must always be right."
    if report.retention is None:
        yield "No older traffic is reserved yet: what it may have forgotten was not measured."
    if report.general is None and target.task in REPLAY_TASKS:
        yield "What the base model could do beside this task, and it may have forgotten, was not measured."
    if not report.overheads:
        yield "Its latency was not compared."
    if target.task in {"generation", "chat"} and report.preferences is None:
        yield "Texts were compared with one approved answer: another good answer counts as wrong."
    if target.task == "embedding":
        yield "Documents without feedback count as irrelevant, so the measures are lower bounds."
    yield "Traffic changes: the measures are of the time from which the held-out items come."


def _build_digests(version: Version) -> Section:
    known = {
        "base model": version.base_digest,
        "snapshot": version.snapshot_id,
        "plan": version.plan_id,
        "cycle": version.cycle_id,
        "live when it was trained": version.parent_id,
        "learnd": version.code_version,
        "trained": f"{version.created_at:%Y-%m-%d %H:%M} UTC",
    }
    return Section(
        title="Digests",
        words=("SHA-256 of the files, and what names the rest; report.json is the whole report.",),
        columns=("of", "digest or name"),
        rows=(*((name, value) for name, value in known.items() if value), *sorted(version.files.items())),
    )


# ---- as Markdown


def _format_section(section: Section, level: int = 2) -> str:
    parts = [f"{'#' * level} {_escape_markdown(section.title)}"]
    # A list is one paragraph.
    listed = all(words.startswith("- ") for words in section.words)
    parts.append(("\n" if listed else "\n\n").join(map(_escape_markdown, section.words)))
    if section.rows:
        parts.append(
            "\n".join(map(_format_row, (section.columns, ["---"] * len(section.columns), *section.rows)))
        )
    return "\n\n".join(filter(None, parts))


def _format_row(cells: Sequence[str]) -> str:
    cut = (cell if len(cell) <= LONGEST_CELL else f"{cell[:LONGEST_CELL]}…" for cell in cells)
    return f"| {' | '.join(map(_escape_markdown, cut))} |"


def _escape_markdown(text: str) -> str:
    """Return one line of Markdown that shows the text as it is, without table, image, link, HTML or emphasis.

    An address becomes code, since nothing else keeps it from becoming a link.
    """
    return SPECIAL.sub(
        lambda found: f"`{found[0]}`" if found["address"] else f"\\{found[0]}", " ".join(text.split())
    )


def _build_count_rows(counts: Mapping[str, int]) -> tuple[tuple[str, str], ...]:
    return tuple(
        (why, str(count)) for why, count in sorted(counts.items(), key=lambda each: -each[1]) if count
    )


def _format_figure(figure: float | None, words: Callable[[Any], str]) -> str:
    return "–" if figure is None else words(figure)
