"""What a verdict is made of: its words, the files that it speaks of, and the commands that it names."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Literal

from s2mlp_deploy.artifact import Manifest, SourceInfo, data_file
from s2mlp_deploy.evidence.parity import ParityReport

Tone = Literal["good", "bad", "warn"]
STATES = {
    "holds": "holds",
    "fails": "FAILS",
    "unclear": "unclear",
    "missing": "not measured",
    "stale": "of an older file",
    "weights": "of other weights",
}
TONES: dict[str, Tone] = {
    "holds": "good",
    "fails": "bad",
    "unclear": "warn",
    "missing": "warn",
    "stale": "warn",
    "weights": "warn",
}


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


def on_images(command: str) -> str:
    """A command for parity that compares on images where noise would do too."""
    return command if " --data " in command else f"{command} --data {_DATA}"


def build_command(directory: str, file: str) -> str:
    """The command that builds an engine from a file of this artifact, for an example of a target."""
    return shlex.join(["s2mlp-deploy", "build", str(Path(directory) / file), "--target", "sm89"])
