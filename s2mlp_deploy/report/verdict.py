"""What a verdict is made of: its words, the files that it speaks of, and the commands that it names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from s2mlp_deploy.artifact import Manifest, SourceInfo
from s2mlp_deploy.evidence.standing import comparable
from s2mlp_deploy.text import command_line

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


def parity_command(
    manifest: Manifest,
    directory: str,
    files: Sequence[str],
    *,
    source: SourceInfo | None = None,
    data: str | None = None,
    samples: int | None = None,
) -> str:
    """The command that measures parity of files of this artifact.

    What the manifest knows is not repeated: ``parity`` takes settings, seed, preprocessing and the checkpoint from it.

    Args:
        manifest: Of the artifact.
        directory: How commands name the artifact.
        files: What to compare.
        source: How the user names the source and its checkpoint, where that is known.
        data: Images or arrays, as the user named them.
        samples: How many of them; None for all.
    """
    every = set(files) == set(comparable(manifest))
    places = [directory] if every else [str(Path(directory) / name) for name in files]
    words = ["parity", (source or manifest.source).reference, *places]
    # A program has its weights inside: the manifest names its file twice.
    if source is not None and source.checkpoint and not source.reference.endswith((".pt2", ".onnx")):
        words += ["--checkpoint", source.checkpoint]
    if data is not None:
        words += ["--data", data, *(["--samples", str(samples)] if samples is not None else [])]
    return command_line(*words)


def tune_command(directory: str) -> str:
    """The command that finds the file of this artifact that is the fastest on a processor."""
    return command_line("tune", directory)


def build_command(directory: str, *, dry_run: bool = False) -> str:
    """The command that builds an engine from this artifact, for an example of a target.

    Args:
        directory: How commands name the artifact.
        dry_run: Whether no builder is installed, so that only what would fail can be said.
    """
    return command_line("build", directory, "--target", "sm89", *(["--dry-run"] if dry_run else []))


def shown_directory(directory: Path) -> str:
    """How commands on a page name an artifact: as the run did, from its folder.

    A page that is sent around says nothing of the machine it was made on: of an absolute path only the name stays.
    """
    return str(directory) if not directory.is_absolute() and directory.name else directory.resolve().name
