"""The paragraph on top of a report: what it is, is it equal, how fast, which file to take, what to beware of."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import PurePath

from s2mlp_deploy.artifact import Manifest
from s2mlp_deploy.evidence.accuracy import AccuracyReport
from s2mlp_deploy.evidence.bench import BenchReport, BenchResult
from s2mlp_deploy.evidence.build import BuildRecord
from s2mlp_deploy.evidence.choice import (
    UNMEASURED,
    Choice,
    Timings,
    choose,
    current_score,
    every_timings,
    file_of,
    scored_beside,
    time_of,
    tuned,
)
from s2mlp_deploy.evidence.layers import LayersReport
from s2mlp_deploy.evidence.speed import causes
from s2mlp_deploy.evidence.standing import Standing, comparable, comparisons, hashes_of, standings
from s2mlp_deploy.evidence.store import Evidence
from s2mlp_deploy.evidence.tune import Trial, TuneReport
from s2mlp_deploy.report import format as fmt
from s2mlp_deploy.report.banner import parity_verdict
from s2mlp_deploy.report.figures import data_in_words, drop_of, runtimes_in_words
from s2mlp_deploy.report.verdict import Verdict, parity_command
from s2mlp_deploy.text import command_line, join_names

_USUAL = "onnxruntime"
"""What runs a file where nothing else is named."""
_TOLD = 4
"""Files whose times are told in the paragraph."""


def opening(manifest: Manifest, evidence: Evidence, directory: str) -> Verdict:
    """Everything that a reader must know, in one paragraph.

    Args:
        manifest: Of the artifact.
        evidence: Of the artifact.
        directory: How commands name the artifact.

    Returns:
        The verdict on parity, whose sentences are those of the paragraph, and whose commands measure what is missing.
    """
    verdict = parity_verdict(manifest, evidence, directory)
    files = standings(manifest, comparisons(manifest, evidence))
    every = every_timings(manifest, evidence)
    timings = next(iter(every), None)
    choice = choose(manifest, evidence, files)
    sentences = [_what(manifest), *verdict.sentences]
    commands = verdict.commands
    if not manifest.files:
        return replace(verdict, sentences=tuple(sentences))
    if timings is not None:
        sentences.append(_how_fast(timings))
        sentences += [f"In another benchmark, {_how_fast(other, begun=True)}" for other in every[1:]]
    else:
        sentences.append(_untimed(manifest, evidence))
    if timings is None or _outdated_times(manifest, evidence):
        commands = (*commands, command_line("bench", directory))
    trial = tuned(manifest, evidence, files)
    # It asks for parity alone.
    runs = tuned(manifest, evidence, files, parity_alone=True)
    sentences.append(_which(manifest, evidence, choice, every, trial, files, runs=runs is trial))
    sentences += _tuned(manifest, evidence, trial)
    if choice.unproven:
        first = choice.unproven[0]
        named = join_names(f"{file_of(result)} on {result.candidate.engine}" for result in choice.unproven)
        how = "less time" if choice.timed is not None else "the time above"
        takes = f"takes {how}, and its" if len(choice.unproven) == 1 else f"take {how}, and their"
        sentences.append(f"{named} {takes} parity was not measured there.")
        measure = parity_command(manifest, directory, [file_of(first)])
        commands = (*commands, f"{measure} --engine {shlex.quote(first.candidate.engine)}")
    if dangers := list(_dangers(manifest, evidence, files, every)):
        sentences.append(f"Beware: {'; '.join(dangers)}.")
    return replace(verdict, sentences=tuple(sentences), commands=commands)


def _what(manifest: Manifest) -> str:
    files = [record for record in manifest.files if record.path in comparable(manifest)]
    kinds = join_names(dict.fromkeys(record.precision for record in files))
    source = manifest.source
    weights = f"the weights of {source.checkpoint}"
    if source.checkpoint is None:
        weights = "weights as the source made them" if source.seed is None else "random weights"
    made = f"as {'an ONNX file' if len(files) == 1 else f'{len(files)} ONNX files'} in {kinds}" if files else "no files"
    classes = f", for {fmt.count(len(manifest.classes), 'class', 'classes')}" if manifest.classes else ""
    return f"This is {source.reference} with {weights}, {made}{classes}."


def _how_fast(timings: Timings, *, begun: bool = False) -> str:
    """The times of files side by side, each with its interval."""
    first, *others = timings.results
    alone = all(result.ratio is not None for result in timings.results)  # What it is compared with is not there.
    kinds = {result.candidate.engine for result in timings.results}
    # What ran them all is told once, at the end.
    engine = next(iter(kinds)) if len(kinds) == 1 else _USUAL
    told = [_time(result, engine, alone=alone) for result in (first, *others[: _TOLD - 1])]
    batch, threads = first.candidate.batch, first.candidate.threads
    what = f"{'one' if begun else 'One'} image takes" if batch == 1 else f"{batch} images take"
    engines = runtimes_in_words(result.candidate.runtime or result.candidate.engine for result in timings.results)
    where = timings.report.environment.machine.processor.name
    how = ", ".join(filter(None, (f"on {engines}", fmt.count(threads, "thread") if threads else "", where)))
    more = f" ({len(others) - _TOLD + 1} more below)" if len(others) >= _TOLD else ""
    return f"{what} {join_names(told)} {how}{more}."


def _untimed(manifest: Manifest, evidence: Evidence) -> str:
    """What is known of times without a benchmark: those of tune, or nothing."""
    they = "it is" if len(comparable(manifest)) == 1 else "they are"
    report, present = evidence.one(TuneReport), hashes_of(manifest, evidence)
    won = [trial for trial in (report.winners if report is not None else ()) if trial.ms is not None]
    told = [
        f"{fmt.milliseconds(trial.ms)} ms in {trial.file} on {trial.engine}"
        for trial in won
        if present.get(trial.file) == trial.sha256
    ]
    if not told or report is None:
        return f"How fast {they} was not measured."
    clock = " (processor time)" if report.clock == "cpu" else ""
    return f"How fast {they} was measured by tune alone{clock}: a run of {report.batch} took {join_names(told)}."


def _named(result: BenchResult, engine: str) -> str:
    """The file, and what ran it where that is another engine."""
    return file_of(result) + ("" if result.candidate.engine == engine else f" on {result.candidate.engine}")


def _time(result: BenchResult, engine: str, *, alone: bool) -> str:
    time = time_of(result)
    if (ratio := result.ratio) is None:
        rounds = [value for launch in result.launches for value in launch.wall_ms]
        spread = (
            f" ({fmt.milliseconds(min(rounds))} to {fmt.milliseconds(max(rounds))} over its rounds)" if rounds else ""
        )
        return f"{fmt.milliseconds(time)} ms in {_named(result, engine)}{spread}"
    if not ratio.differs:
        return f"{fmt.milliseconds(time)} ms in {_named(result, engine)} (no difference measured)"
    fast = ratio.value < 1
    low, high = (1 / ratio.high, 1 / max(ratio.low, 1e-9)) if fast else (ratio.low, ratio.high)
    over = f" as {ratio.over}, which is not there any more" if alone else ""
    return f"{fmt.milliseconds(time)} ms in {_named(result, engine)} ({ratio.verdict}{over}, {low:.2f} to {high:.2f})"


def _which(
    manifest: Manifest,
    evidence: Evidence,
    choice: Choice,
    every: Sequence[Timings],
    trial: Trial | None,
    files: Sequence[Standing],
    *,
    runs: bool,
) -> str:
    """The file to take, and why not another."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in choice.objections.items():
        by_reason.setdefault(reason, []).append(name)
    if not choice.file:
        reasons = [f"{reason} ({join_names(names)})" for reason, names in by_reason.items()]
        return f"Take none of them yet: {'; '.join(by_reason if len(reasons) == 1 else reasons)}."
    by_reason.pop(UNMEASURED, None)  # The sentences on parity have told.
    refused = [f"{join_names(names, last='or')} ({reason})" for reason, names in by_reason.items()]
    beside = f" Not {'; not '.join(refused)}." if refused else ""
    file = trial.file if trial is not None else choice.file
    loses = _loss(manifest, evidence, file, files)
    if trial is not None:
        how = f"{trial.engine} ({trial.settings.words})"
        why = "what tune found fastest of those whose parity and accuracy hold" + ", and what predict runs" * runs
        return f"Take {file} on {how}: {why}{loses}.{beside}{_faster_since(choice, every, trial)}"
    if choice.timed is None:
        sound = len(comparable(manifest)) - len(choice.objections)
        untimed = "until that is measured, it is the one that was changed least"
        known = "its parity holds" if sound == 1 or every else untimed
        return f"Take {choice.file}: {known}{loses}.{beside}"
    engine = f" on {choice.timed.candidate.engine}"
    if choice.tied:
        tied = join_names(_named(result, choice.timed.candidate.engine) for result in choice.tied)
        return f"Take {choice.file}{engine}: {tied} was not measured to be faster{loses}.{beside}"
    timed = {file_of(result) for timings in every for result in timings.results}
    alone = len(timed - set(choice.objections)) == 1
    why = "the only one timed whose parity holds" if alone else "the fastest whose parity and accuracy hold"
    return f"Take {choice.file}{engine}: {why}{loses}.{beside}"


def _loss(manifest: Manifest, evidence: Evidence, file: str, files: Sequence[Standing]) -> str:
    """What a file scores beside float32, what parity found, or what the one scores that it was compared with."""
    scores, row = current_score(manifest, evidence, file)
    standing = next((item for item in files if item.file == file), None)
    if row is None and standing is not None:
        if (drop := drop_of(standing)) is not None:
            if not round(drop, 2):
                return ""
            data = join_names(dict.fromkeys(data_in_words(item.report) for item in standing.basis))
            return f", {_points_below(drop, 'its source')} on {data}"
        beside = scored_beside(manifest, standing)
        scores, row = current_score(manifest, evidence, beside)
        drop = scores.drop(row) if scores is not None and row is not None else None
        if scores is None or drop is None:
            return ""
        told = f"{_points_below(drop, 'fp32')} on {fmt.count(scores.images, 'image')}"
        return f"; it was not scored itself: {beside}, which it was compared with, is {told}"
    drop = scores.drop(row) if scores is not None and row is not None else None
    if scores is None or drop is None:
        return ""
    return f", {_points_below(drop, 'fp32')} on {fmt.count(scores.images, 'image')}"


def _points_below(drop: float, reference: str) -> str:
    return f"{fmt.points(abs(drop))} points {'below' if drop >= 0 else 'above'} {reference}"


def _faster_since(choice: Choice, every: Sequence[Timings], trial: Trial) -> str:
    """What a benchmark measured faster than what tune chose; empty where there is nothing."""
    best = choice.timed
    if best is None or (file_of(best), best.candidate.engine) == (trial.file, trial.engine):
        return ""
    known = (result for timings in every for result in timings.results)
    same = next((r for r in known if (file_of(r), r.candidate.engine) == (trial.file, trial.engine)), None)
    before, time = time_of(same) if same is not None else None, time_of(best)
    if before is None or time is None or time >= before:
        return ""
    faster = f"{fmt.milliseconds(time)} ms of {fmt.milliseconds(before)} ms"
    return f" {file_of(best)} on {best.candidate.engine} took less time in a benchmark ({faster}): tune again."


def _tuned(manifest: Manifest, evidence: Evidence, taken: Trial | None) -> Iterator[str]:
    """What tune chose, where those files are there; of the one that is to be taken the settings have been told."""
    report, present = evidence.one(TuneReport), hashes_of(manifest, evidence)
    told = [
        f"{trial.file} on {trial.engine}"
        + ("" if trial is taken else f" ({trial.settings.words})")
        + (f", {trial.ratio.verdict} as before" if trial.ratio is not None and trial.ratio.differs else "")
        for trial in (report.winners if report is not None else ())
        if present.get(trial.file) == trial.sha256
    ]
    if told and report is not None:
        where = report.environment.machine.processor.name or "its machine"
        yield f"tune tried {fmt.count(report.tried, 'way')} on {where} and chose {'; and '.join(told)}."


def _dangers(
    manifest: Manifest, evidence: Evidence, files: Sequence[Standing], every: Sequence[Timings]
) -> Iterator[str]:
    """What a reader would regret not to have known, in short: the page has the rest below."""
    kinds = {hazard.kind: hazard.where for hazard in manifest.hazards}
    if "race" in kinds:
        yield "eager PyTorch computes something else, because its code races"
    smears = [hazard for hazard in manifest.hazards if hazard.kind == "smear"]
    if any(hazard.repaired for hazard in smears):
        yield "it computes something else than its source, whose smears were repaired"
    elif smears:
        yield "its source holds what an overlapping copy left of shifts, and so do these files"
    if "compiler" in kinds:
        yield f"torch.compile may get {kinds['compiler'] or 'a line of the source'} wrong"
    if manifest.source.checkpoint is None and manifest.source.seed is not None:
        yield f"the weights are random (seed {manifest.source.seed}), so the predictions mean nothing"
    if noise := [item.file for item in files if item.on_noise]:
        yield f"{join_names(noise)} {'was' if len(noise) == 1 else 'were'} compared on noise alone, not on images"
    if manifest.preprocessing is None and manifest.classes:
        yield "how its images were prepared is not stated"
    for item in evidence.of(LayersReport):
        report = item.record
        if report.file_sha256 in hashes_of(manifest, evidence).values() and report.first is not None:
            yield f"{report.first.path} departs first in {PurePath(report.file).name}{_elsewhere(report.candidate)}"
    for timings in every:
        slow = [
            r for r in timings.results if r.ratio is not None and r.ratio.low > 1 and r.candidate.precision != "fp32"
        ]
        if slow:
            processor, base = timings.report.environment.machine.processor, timings.results[0]
            engine = base.candidate.engine
            names = join_names(f"{_named(r, engine)} is {r.ratio.verdict}" for r in slow if r.ratio is not None)
            why = dict.fromkeys(cause.words for r in slow for cause in causes(r, base, processor))
            told = f" ({'; '.join(why)})" if why else ""
            yield f"{names} as {file_of(base)}{_elsewhere(engine)} on this machine{told}"
    if doubts := [text for timings in every for text in timings.doubtful]:
        yield f"the times are doubtful ({doubts[0].partition(':')[0]})"
    if old := _outdated(manifest, evidence):
        yield f"evidence of older files is marked and counts no more: {join_names(old, separator='; ', last='and')}"


def _elsewhere(runtime: str) -> str:
    """What ran it where that is not the engine of every artifact."""
    engine = next(iter(runtime.split()), _USUAL)
    return "" if engine == _USUAL else f" on {engine}"


def _outdated(manifest: Manifest, evidence: Evidence) -> list[str]:
    """What was measured of other bytes than those that are there, but for parity, of which its own sentences tell."""
    graphs = {record.sha256 for record in manifest.files}
    built = [item.record for item in evidence.of(BuildRecord)]
    found = {
        "scores of": [f for scores in evidence.newest(AccuracyReport)[:1] for f in sorted(scores.outdated(manifest))],
        "times of": _outdated_times(manifest, evidence),
        "engine": [record.engine for record in built if record.onnx_sha256 not in graphs],
    }
    return [f"{what} {join_names(dict.fromkeys(names))}" for what, names in found.items() if names]


def _outdated_times(manifest: Manifest, evidence: Evidence) -> list[str]:
    present = hashes_of(manifest, evidence)
    return [
        file_of(result)
        for report in evidence.newest(BenchReport)
        for result in report.results
        if result.candidate.sha256 != present.get(file_of(result))
    ]
