"""The top of a report: does parity hold, and what is to be known before a file is deployed."""

from __future__ import annotations

from collections.abc import Sequence

from s2mlp_deploy.artifact import EVIDENCE, Hazard, Manifest
from s2mlp_deploy.evidence.parity import OutputParity, ParityReport
from s2mlp_deploy.evidence.standing import Comparison, Standing, comparable, comparisons, file_of, standings
from s2mlp_deploy.evidence.store import Evidence
from s2mlp_deploy.report import format as fmt
from s2mlp_deploy.report.figures import data_in_words, runtimes_in_words, worst_of
from s2mlp_deploy.report.verdict import Verdict, parity_command
from s2mlp_deploy.text import join_names


def parity_verdict(manifest: Manifest, evidence: Evidence, directory: str) -> Verdict:
    """Whether parity holds for an artifact.

    Args:
        manifest: Of the artifact.
        evidence: Of the artifact.
        directory: How commands name the artifact.
    """
    found = comparisons(manifest, evidence)
    files, several = standings(manifest, found), on_several_engines(found)
    missing = [item.file for item in files if item.state == "missing"]
    command = (parity_command(manifest, directory, missing),) if missing else ()
    unreadable = sum(item.record is ParityReport for item in evidence.unreadable)
    older = [item.file for item in files if item.superseded]
    gap = (f"Measured before the file changed, which counts no more: {join_names(older)}.",) if older else ()
    never = [name for name in missing if name not in older]
    told = (*gap, f"Not measured: {join_names(never)}.") if never else gap
    if failing := [item for item in files if item.state == "fails"]:
        where = join_names(dict.fromkeys(name for item in failing for name in item.engines))
        elsewhere = {item.file: holding_elsewhere(item) for item in failing}
        names = join_names(
            f"{item.file} on {join_names(item.engines)}" if elsewhere[item.file] else item.file for item in failing
        )
        return Verdict(
            "bad",
            f"Parity FAILS on {where}" if any(elsewhere.values()) else "Parity FAILS",
            (
                f"Do not deploy {names}: the outputs differ from the reference by more than allowed.",
                *(f"Parity of {name} holds on {join_names(other)}." for name, other in elsewhere.items() if other),
                *told,
            ),
            tuple(line for item in failing for line in _failures(item.basis, several=several)),
            command,
        )
    unclear = [item.name for file in files if file.state == "unclear" for item in file.basis]
    if unclear or unreadable:
        lines = [f"{EVIDENCE}/{name} names no failure, and its figures are not all within limits." for name in unclear]
        if unreadable:
            lines.append(f"{fmt.count(unreadable, 'saved comparison')} cannot be read.")
        lines.append("The command below measures again.")
        return Verdict(
            "warn",
            "Parity is unclear",
            (*told, *lines),
            (),
            (parity_command(manifest, directory, comparable(manifest)),),
        )
    holding = [item for item in files if item.state == "holds"]
    if not holding:
        what = "this file computes" if len(manifest.files) == 1 else "these files compute"
        sentence = f"Nothing here shows that {what} what the source computes: the command below measures it"
        name, source = manifest.source.checkpoint, manifest.source.reference
        known = not name or source.endswith((".pt2", ".onnx"))
        sentence += "." if known else f", with --checkpoint PATH where {name} does not lie beside the artifact."
        return Verdict("warn", "Parity was not measured yet", (*gap, sentence), (), command)
    sentences = _held(holding, len(comparable(manifest)))
    excused = [item for item in holding if item.excused]
    failures = tuple(line for item in excused for line in _failures(item.excused, several=several))
    if excused:
        sentences.append(
            f"On noise, whose values lie outside the ranges that were calibrated, parity FAILS for "
            f"{join_names(item.file for item in excused)}: expect that on any input unlike the calibration data."
        )
    if missing:
        return Verdict("warn", "Parity holds where it was measured", (*sentences, *told), failures, command)
    if excused:
        return Verdict("warn", "Parity holds on images and FAILS on noise", tuple(sentences), failures)
    return Verdict("good", "Parity holds", tuple(sentences))


def on_several_engines(found: Sequence[Comparison]) -> bool:
    """Whether the comparisons that count are of more engines than one, so that a figure must say of which it is."""
    return len({item.engine for item in found if item.counts}) > 1


def holding_elsewhere(standing: Standing) -> tuple[str, ...]:
    """The engines on which parity of a file holds that fails on another one.

    Args:
        standing: Of the file.
    """
    ran = dict.fromkeys(item.engine for item in standing.judged)
    return tuple(name for name in ran if standing.state == "fails" and standing.on(name).state == "holds")


def _failures(found: Sequence[Comparison], *, several: bool) -> list[str]:
    return [
        f"{file_of(item.report)} on {f'{item.engine}, ' * several}{data_in_words(item.report)}: {failure}"
        for item in found
        for failure in item.report.failures
    ]


def _held(files: Sequence[Standing], every: int) -> list[str]:
    """Files that were compared on the same engine, reference and data share a sentence; the tiles tell them apart."""
    together: dict[tuple[str, str, str], list[Standing]] = {}
    for file in files:
        reports = [item.report for item in file.basis]
        key = (
            runtimes_in_words(sorted(report.candidate for report in reports)),
            join_names(dict.fromkeys(_reference(report.reference) for report in reports)),
            join_names(dict.fromkeys(map(data_in_words, reports))),
        )
        together.setdefault(key, []).append(file)
    return [_held_alike(*key, alike, whole=len(alike) == every) for key, alike in together.items()]


def _reference(told: str) -> str:
    """``torch, resnet18`` in a sentence: ``resnet18 on torch``, as files are on engines."""
    runtime, comma, what = told.partition(", ")
    return f"{what} on {runtime}" if comma and not what.startswith("as ") else told


def _held_alike(engines: str, references: str, data: str, files: Sequence[Standing], *, whole: bool) -> str:
    outputs = {file.file: [output for item in file.basis for output in item.report.outputs] for file in files}
    worst = worst_of([output for found in outputs.values() for output in found])
    whose = ""
    if len(files) > 1:
        whose = next(f" ({name})" for name, found in outputs.items() if worst_of(found).max_abs == worst.max_abs)
    parts = [f"largest difference {worst.max_abs}{whose}"]
    if worst.top1 != fmt.MISSING:
        share = "all" if worst.top1 == fmt.percent(1) else f"{'at least ' if len(files) > 1 else ''}{worst.top1}"
        parts.append(f"the same first class on {share} of them")
    if worst.equal:
        parts = ["every value is equal"]
    compute = "computes" if len(files) == 1 else "compute"
    names = join_names(file.file for file in files)
    if whole and len(files) > 1:
        names = "Both files" if len(files) == 2 else f"All {len(files)} files"
    return f"{names} on {engines} {compute} what {references} computes over {data}: {', '.join(parts)}."


def race_warning(manifest: Manifest, evidence: Evidence, directory: str) -> Verdict | None:
    """What a race in the source means for whoever deploys these files, and what to do; None where there is none.

    Args:
        manifest: Of the artifact.
        evidence: Of the artifact.
        directory: How commands name the artifact.
    """
    races = [hazard for hazard in manifest.hazards if hazard.kind == "race"]
    if not races:
        return _smear_warning(manifest)
    lines = _lines(races)
    deviation = fmt.deviation(next((hazard.eager_deviation for hazard in races if hazard.eager_deviation), None))
    compared = [item.report for item in comparisons(manifest, evidence) if item.counts and item.report.eager]
    sentences = [
        f"{lines}: a tensor is copied onto itself with overlap, and PyTorch does not define the result. These files "
        "compute what the code says when the right-hand side is read first (its functional meaning), and parity is "
        "measured against that."
    ]
    if compared:
        sentences.append(f"On {data_in_words(compared[0])}, {_eager_in_words(compared[0].eager)}.")
    elif deviation:
        sentences.append(f"On the example inputs eager differs from that by {deviation}.")
    labelled = next((r for r in compared if _accuracies(r.eager) is not None), None)
    retrain = "fine-tune with that line written without overlap (torch.cat of slices), then export again"
    if labelled is None:
        sentences.append(
            "What to do: do not take eager's outputs or scores for those of these files. If the weights were trained "
            f"with this code they may fit the race: measure both on labelled images (this command with --data FOLDER, "
            f"one folder per class), and if eager scores better, {retrain}."
        )
        files = comparable(manifest)[:1]
        return Verdict(
            "warn",
            "Eager PyTorch computes something else",
            tuple(sentences),
            (),
            (parity_command(manifest, directory, files),) if files else (),
        )
    functional, eager = _accuracies(labelled.eager) or (0.0, 0.0)
    scores = f"{fmt.percent(functional)} against {fmt.percent(eager)} of eager"
    if functional >= eager:
        advice = f"these files score no worse ({scores}): deploy them, and mend the line before the next training"
    else:
        advice = f"eager scores better, the weights fit the race (the functional meaning has {scores}): {retrain}"
    return Verdict("warn", "Eager PyTorch computes something else", (*sentences, f"What to do: {advice}."))


def _smear_warning(manifest: Manifest) -> Verdict | None:
    """What smears of an ONNX file mean; None where there are none."""
    smears = [hazard for hazard in manifest.hazards if hazard.kind == "smear"]
    if not smears:
        return None
    told = (
        f"{_lines(smears)}: the source holds what an overlapping copy in place left of a shift (one row everywhere, "
        "where each row should move by one)."
    )
    if smears[0].repaired:
        return Verdict(
            "warn",
            "These files compute something else than their source",
            (
                told,
                "The shift that was meant was written in its place (--repair-smear): parity is measured against the "
                "source with its smears repaired. If the weights were trained with the smear they may fit it: compare "
                "the scores of both on labelled images.",
            ),
        )
    return Verdict(
        "warn",
        "The source smears where a shift was meant",
        (
            told,
            "These files compute what the source computes. If the weights were trained with the shift, export again "
            "with --repair-smear, and compare the scores of both on labelled images.",
        ),
    )


def _lines(races: Sequence[Hazard]) -> str:
    """Where they are, each file named once: ``net.py, lines 15, 16 and 18``."""
    by_file: dict[str, dict[str, None]] = {}
    for hazard in races:
        file, colon, line = hazard.where.rpartition(":")
        by_file.setdefault(file if colon else hazard.where or "an unknown line", {})[line if colon else ""] = None
    return join_names(
        (
            file if "" in lines else f"{file}, line{'s' if len(lines) > 1 else ''} {join_names(lines)}"
            for file, lines in by_file.items()
        ),
        separator="; ",
    )


def _eager_in_words(eager: Sequence[OutputParity]) -> str:
    worst = worst_of(eager)
    peaks = [output.metrics.peak for output in eager if output.metrics.peak is not None]
    largest = f", where outputs reach {fmt.figure(max(peaks))}" if peaks else ""
    same = "" if worst.top1 == fmt.MISSING else f", and names the same first class on {worst.top1}"
    return f"eager differs from that by up to {worst.max_abs}{largest}{same}"


def _accuracies(eager: Sequence[OutputParity]) -> tuple[float, float] | None:
    """Of the functional meaning and of eager, where labels are known."""
    for output in eager:
        ranks = output.ranks
        if ranks is not None and ranks.reference_accuracy is not None and ranks.candidate_accuracy is not None:
            return ranks.reference_accuracy, ranks.candidate_accuracy
    return None
