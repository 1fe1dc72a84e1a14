"""The one question of a report, answered from saved comparisons: does parity hold?"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any, Literal

from s2mlp_deploy.artifact import Manifest
from s2mlp_deploy.report import format as fmt
from s2mlp_deploy.report.evidence import Evidence, failures_of, outputs_of, state_of, text, worst_of

Tone = Literal["good", "bad", "warn"]
STATES = {
    "holds": "holds",
    "fails": "FAILS",
    "unclear": "unclear",
    "missing": "not measured",
    "stale": "of an older file",
}
TONES: dict[str, Tone] = {"holds": "good", "fails": "bad", "unclear": "warn", "missing": "warn", "stale": "warn"}


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


def file_of(report: Mapping[str, Any]) -> str:
    """The name of the file that was compared. Saved paths may be of another machine."""
    return PurePath(text(report.get("file")).replace("\\", "/")).name


def is_stale(report: Mapping[str, Any], manifest: Manifest) -> bool:
    """Whether a comparison was made with an older file of the same name, and so says nothing of the one there is."""
    digest = report.get("file_sha256")
    present = {PurePath(record.path).name: record.sha256 for record in manifest.files}.get(file_of(report))
    return isinstance(digest, str) and digest != "" and present is not None and digest != present


def state_in(report: Mapping[str, Any], manifest: Manifest) -> str:
    """What a saved comparison says of the artifact's file: a key of ``STATES``."""
    return "stale" if is_stale(report, manifest) else state_of(report)


def current(evidence: Evidence, manifest: Manifest) -> Evidence:
    """The evidence without comparisons of older files."""
    return replace(evidence, parity=tuple(saved for saved in evidence.parity if not is_stale(saved.data, manifest)))


def unmeasured(manifest: Manifest, evidence: Evidence) -> tuple[str, ...]:
    """The artifact's files that no comparison of the current evidence speaks of."""
    measured = {file_of(saved.data) for saved in evidence.parity}
    return tuple(record.path for record in manifest.files if PurePath(record.path).name not in measured)


def parity_command(manifest: Manifest, directory: str, files: Sequence[str], *, checkpoint: str | None = None) -> str:
    """The command that measures parity of files of this artifact.

    Args:
        manifest: Of the artifact.
        directory: How commands name the artifact.
        files: What to compare.
        checkpoint: Path of the weights, where it is known; the manifest holds their name alone.
    """
    words = ["s2mlp-deploy", "parity", manifest.source.reference, *(str(Path(directory) / name) for name in files)]
    if manifest.source.checkpoint:
        words += ["--checkpoint", checkpoint or manifest.source.checkpoint]
    return shlex.join(words)


def build_command(directory: str, file: str) -> str:
    """The command that builds an engine from a file of this artifact, for an example of a target."""
    return shlex.join(["s2mlp-deploy", "build", str(Path(directory) / file), "--target", "sm89"])


def judge(manifest: Manifest, evidence: Evidence, directory: str) -> Verdict:
    """The verdict on an artifact.

    Args:
        manifest: Of the artifact.
        evidence: Of the artifact.
        directory: How commands name the artifact.
    """
    stale = sorted({file_of(saved.data) for saved in evidence.parity if is_stale(saved.data, manifest)})
    evidence = current(evidence, manifest)
    missing = unmeasured(manifest, evidence)
    command = (parity_command(manifest, directory, missing),) if missing else ()
    states = {saved.name: state_of(saved.data) for saved in evidence.parity}
    failing = [saved for saved in evidence.parity if states[saved.name] == "fails"]
    unclear = [saved.name for saved in evidence.parity if states[saved.name] == "unclear"]
    older = (f"Measured before the file changed, which counts no more: {fmt.words(stale)}.",) if stale else ()
    gap = (*older, f"Not measured: {fmt.words(missing)}.") if missing else older
    if failing:
        names = sorted({file_of(saved.data) for saved in failing})
        return Verdict(
            "bad",
            "Parity FAILS",
            (f"Do not deploy {fmt.words(names)}: the outputs differ from the reference by more than allowed.", *gap),
            tuple(f"{file_of(saved.data)}: {failure}" for saved in failing for failure in failures_of(saved.data)),
            command,
        )
    if unclear or evidence.damaged_parity:
        lines = [f"evidence/{name} lacks figures or its verdict." for name in unclear]
        if evidence.damaged_parity:
            lines.append(f"{fmt.count(evidence.damaged_parity, 'saved comparison')} cannot be read.")
        lines.append("This command measures again:")
        names = [record.path for record in manifest.files]
        return Verdict("warn", "Parity is unclear", (*gap, *lines), (), (parity_command(manifest, directory, names),))
    if not evidence.parity:
        what = "this file computes" if len(manifest.files) == 1 else "these files compute"
        sentence = f"Nothing here shows that {what} what the source computes. This command measures it:"
        return Verdict("warn", "Parity was not measured yet", (*older, sentence), (), command)
    sentences = tuple(_held(saved.data) for saved in evidence.parity)
    if missing:
        return Verdict("warn", "Parity holds where it was measured", (*sentences, *gap), (), command)
    return Verdict("good", "Parity holds", sentences)


def _held(report: Mapping[str, Any]) -> str:
    worst = worst_of(outputs_of(report))
    parts = [f"largest difference {fmt.figure(worst.max_abs)}"]
    if worst.top1 is not None:
        parts.append(f"the same first class on {fmt.percent(worst.top1)} of the images")
    if worst.psnr is not None and math.isinf(worst.psnr):
        parts = ["every value is equal"]
    images = fmt.number(report.get("images"))
    over = "" if images is None else f" over {fmt.integer(images)} image{'' if images == 1 else 's'}"
    return (
        f"{file_of(report)} on {text(report.get('candidate'), 'an engine')} computes what "
        f"{text(report.get('reference'), 'the reference')} computes{over}: {', '.join(parts)}."
    )
