"""The one question of a report, answered from saved comparisons: does parity hold?"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Literal

from s2mlp_deploy.artifact import EVIDENCE, Manifest, SourceInfo, data_file
from s2mlp_deploy.evidence.parity import ParityReport
from s2mlp_deploy.evidence.store import Evidence
from s2mlp_deploy.report import format as fmt
from s2mlp_deploy.report.figures import state_of, worst_of
from s2mlp_deploy.text import join_names

Tone = Literal["good", "bad", "warn"]
STATES = {
    "holds": "holds",
    "fails": "FAILS",
    "unclear": "unclear",
    "missing": "not measured",
    "stale": "of an older file",
}
TONES: dict[str, Tone] = {"holds": "good", "fails": "bad", "unclear": "warn", "missing": "warn", "stale": "warn"}


_DATA = "IMAGES"
"""Stands for a path that only the user knows."""


@dataclass(frozen=True)
class Verdict:
    """An answer, in words.

    Attributes:
        tone: ``good`` only where every file was compared and every comparison holds.
        headline: A few words.
        sentences: What that rests on.
        failures: Every limit that does not hold, with the file it was measured on.
        commands: What to run next.
    """

    tone: Tone
    headline: str
    sentences: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()


def file_of(report: ParityReport) -> str:
    """The name of the file that was compared. Saved paths may be of another machine."""
    return PurePath(report.file.replace("\\", "/")).name


def is_stale(report: ParityReport, manifest: Manifest) -> bool:
    """Whether a comparison may be of an older file of the same name: its hash is another, or it keeps none."""
    present = {PurePath(record.path).name: record.sha256 for record in manifest.files}.get(file_of(report))
    return not report.file_sha256 or (present is not None and report.file_sha256 != present)


def state_in(report: ParityReport, manifest: Manifest) -> str:
    """What a saved comparison says of the artifact's file: a key of ``STATES``."""
    return "stale" if is_stale(report, manifest) else state_of(report)


def current_reports(evidence: Evidence, manifest: Manifest) -> tuple[ParityReport, ...]:
    """The comparisons of files that are still the artifact's."""
    return tuple(saved.record for saved in evidence.of(ParityReport) if not is_stale(saved.record, manifest))


def unmeasured(manifest: Manifest, reports: Iterable[ParityReport]) -> tuple[str, ...]:
    """The artifact's files that can be compared and that none of these comparisons speaks of."""
    measured = {file_of(report) for report in reports}
    return tuple(path for path in comparable(manifest) if PurePath(path).name not in measured)


def comparable(manifest: Manifest) -> tuple[str, ...]:
    """The artifact's files without the weights that lie beside a graph."""
    beside = {data_file(record.path) for record in manifest.files}
    return tuple(record.path for record in manifest.files if record.path not in beside)


def parity_command(
    manifest: Manifest, directory: str, files: Sequence[str], *, source: SourceInfo | None = None, data: str = _DATA
) -> str:
    """The command that measures parity of files of this artifact: everything that the source was loaded with.

    Args:
        manifest: Of the artifact.
        directory: How commands name the artifact.
        files: What to compare.
        source: The manifest's, with paths in place of the names that a manifest holds, where they are known.
        data: Images for a graph that does the preprocessing itself, which noise cannot be given to.
    """
    source = source or manifest.source
    words = ["s2mlp-deploy", "parity", source.reference, *(str(Path(directory) / name) for name in files)]
    # A program has its weights inside: the manifest names its file twice.
    if source.checkpoint and not source.reference.endswith(".pt2"):
        words += ["--checkpoint", source.checkpoint]
    for name, value in source.overrides.items():
        words += ["--set", f"{name}={value if isinstance(value, str) else json.dumps(value)}"]
    if source.preprocess:
        words += ["--preprocess", source.preprocess]
    if source.seed:
        words += ["--seed", str(source.seed)]
    if manifest.preprocessing_in_graph:
        words += ["--data", data]
    return shlex.join(words)


def build_command(directory: str, file: str) -> str:
    """The command that builds an engine from a file of this artifact, for an example of a target."""
    return shlex.join(["s2mlp-deploy", "build", str(Path(directory) / file), "--target", "sm89"])


def parity_verdict(manifest: Manifest, evidence: Evidence, directory: str) -> Verdict:
    """Whether parity holds for an artifact.

    Args:
        manifest: Of the artifact.
        evidence: Of the artifact.
        directory: How commands name the artifact.
    """
    saved = evidence.of(ParityReport)
    stale = sorted({file_of(item.record) for item in saved if is_stale(item.record, manifest)})
    reports = current_reports(evidence, manifest)
    missing = unmeasured(manifest, reports)
    command = (parity_command(manifest, directory, missing),) if missing else ()
    failing = [report for report in reports if report.failures]
    unclear = [item.name for item in saved if state_in(item.record, manifest) == "unclear"]
    unreadable = sum(item.record is ParityReport for item in evidence.unreadable)
    older = (f"Measured before the file changed, which counts no more: {join_names(stale)}.",) if stale else ()
    gap = (*older, f"Not measured: {join_names(missing)}.") if missing else older
    if failing:
        names = sorted({file_of(report) for report in failing})
        return Verdict(
            "bad",
            "Parity FAILS",
            (
                f"Do not deploy {join_names(names)}: the outputs differ from the reference by more than allowed.",
                *gap,
            ),
            tuple(f"{file_of(report)}: {failure}" for report in failing for failure in report.failures),
            command,
        )
    if unclear or unreadable:
        lines = [f"{EVIDENCE}/{name} names no failure, and its figures are not all within limits." for name in unclear]
        if unreadable:
            lines.append(f"{fmt.count(unreadable, 'saved comparison')} cannot be read.")
        lines.append("This command measures again:")
        again = parity_command(manifest, directory, comparable(manifest))
        return Verdict("warn", "Parity is unclear", (*gap, *lines), (), (again,))
    if not reports:
        what = "this file computes" if len(manifest.files) == 1 else "these files compute"
        sentence = f"Nothing here shows that {what} what the source computes. This command measures it:"
        return Verdict("warn", "Parity was not measured yet", (*older, sentence), (), command)
    sentences = tuple(_held(report) for report in reports)
    if missing:
        return Verdict("warn", "Parity holds where it was measured", (*sentences, *gap), (), command)
    return Verdict("good", "Parity holds", sentences)


def _held(report: ParityReport) -> str:
    worst = worst_of(report.outputs)
    parts = [f"largest difference {worst.max_abs}"]
    if worst.top1 != fmt.MISSING:
        parts.append(f"the same first class on {worst.top1} of the images")
    if worst.equal:
        parts = ["every value is equal"]
    return (
        f"{file_of(report)} on {report.candidate} computes what {report.reference} computes over "
        f"{fmt.count(report.images, 'image')}: {', '.join(parts)}."
    )
