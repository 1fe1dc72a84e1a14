"""Saved results as tables on a terminal or in a pipe.

Our own words are ASCII and everything else is shown in whatever the console can encode. Nothing is coloured that is
not also said. Text from files is never read as markup: a class may be called ``[bold]``.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from rich.console import Console

from s2mlp_deploy.artifact import Manifest, SourceInfo
from s2mlp_deploy.evidence.parity import OutputParity, ParityReport
from s2mlp_deploy.evidence.standing import comparable, file_of, state_of
from s2mlp_deploy.report import format as fmt
from s2mlp_deploy.report.figures import (
    data_in_words,
    measured,
    not_finite,
    proven_in_words,
    psnr,
    sqnr_of,
    weights_in_words,
)
from s2mlp_deploy.report.shifts import summarise
from s2mlp_deploy.report.tables import print_pairs, print_table, print_words, visible_text
from s2mlp_deploy.report.verdict import STATES, TONES, build_command, parity_command, tune_command

_STYLES = {"good": "bold green", "bad": "bold red", "warn": "bold yellow"}


def print_parity(console: Console, report: ParityReport) -> None:
    """Prints a comparison: verdict, what was compared, the figures with their limits, the failures.

    Args:
        console: Where to.
        report: What was measured.
    """
    state = state_of(report)
    line = visible_text(console, f"Parity of {file_of(report)}: ", "bold")
    line.append(STATES[state], _STYLES[TONES[state]])
    print_words(console, line)
    print_pairs(
        console,
        [
            ("reference", report.reference),
            *([("weights", weights_in_words(report.weights))] if report.weights else []),
            ("candidate", report.candidate),
            ("precision", report.precision),
            ("data", data_in_words(report)),
            *([("read off the file", proven)] if (proven := proven_in_words(report)) else []),
            *([("tried besides", ", ".join(report.tried))] if report.tried else []),
            *([("limits", fmt.data(report.limits))] if report.limits else []),
            *(("note", note) for note in report.notes),
        ],
    )
    for output in report.outputs:
        print_table(console, f"Output {output.name}", ("Figure", "Value", "Limit"), _figure_rows(output))
    if report.eager:
        print_table(
            console,
            "Eager PyTorch, whose result this code does not define, against the functional meaning",
            ("Output", "Max abs", "Same top-1", "Accuracy functional", "Accuracy eager"),
            [_eager_row(output) for output in report.eager],
        )
    if state == "unclear":
        print_words(
            console, visible_text(console, "No failure is named, and figures are missing: measure again.", "yellow")
        )
    for failure in report.failures:
        print_words(console, visible_text(console, f"FAILS  {failure}", "red"))
    if report.failures:
        console.print()


def _eager_row(output: OutputParity) -> tuple[str, ...]:
    ranks = output.ranks
    shares = (ranks.top1_agreement, ranks.reference_accuracy, ranks.candidate_accuracy) if ranks else (None,) * 3
    return (output.name, measured(output.metrics.max_abs), *map(fmt.percent, shares))


def _figure_rows(output: OutputParity) -> list[tuple[str, str, str]]:
    metrics, ranks, limits = output.metrics, output.ranks, output.tolerances
    allowed = "" if output.allowed is None else f"<= {fmt.figure(output.allowed)}"
    rows = [
        ("max abs difference", measured(metrics.max_abs), allowed),
        ("max relative difference", measured(metrics.max_rel), ""),
        ("cosine", measured(metrics.cosine, fmt.cosine), f">= {limits.min_cosine:.15g}" if limits else ""),
        ("PSNR", psnr(metrics), ""),
    ]
    if limits is not None and limits.min_sqnr is not None:
        rows.append(("SQNR", fmt.decibels(sqnr_of(metrics)), f">= {fmt.decibels(limits.min_sqnr)}"))
    if ranks is not None:
        by_drop = limits is not None and limits.max_drop is not None and ranks.drop is not None
        least = f">= {fmt.percent(limits.min_top1_agreement)}" if limits and not by_drop else ""
        rows += [
            ("top-1 agreement", fmt.percent(ranks.top1_agreement), least),
            ("top-5 agreement", fmt.percent(ranks.top5_agreement), ""),
        ]
        if ranks.reference_accuracy is not None:
            rows += [
                ("accuracy of reference", fmt.percent(ranks.reference_accuracy), ""),
                (
                    "accuracy of candidate",
                    fmt.percent(ranks.candidate_accuracy),
                    f"<= {limits.max_drop:.2f} points lower" if limits and limits.max_drop is not None else "",
                ),
            ]
    if count := not_finite(output):
        rows.append(("NaN or infinite values", fmt.integer(count), "0"))
    return rows


def print_manifest(console: Console, manifest: Manifest, directory: Path) -> None:
    """Prints what an export made.

    Args:
        console: Where to.
        manifest: Of the artifact.
        directory: Where it is, as the user named it.
    """
    print_words(console, visible_text(console, f"{manifest.name} in {directory}", "bold"))
    weights = manifest.source.checkpoint
    if weights is None:
        seed = manifest.source.seed
        weights = "as the source made them" if seed is None else f"RANDOM (seed {seed}): no checkpoint was given"
    tensors = [
        (kind, f"{info.name}: {info.dtype} {fmt.shape(info.shape)}")
        for kind, infos in (("input", manifest.inputs), ("output", manifest.outputs))
        for info in infos
    ]
    print_pairs(
        console,
        [("source", manifest.source.reference), ("weights", weights), *tensors, ("opset", str(manifest.opset))],
    )
    print_table(
        console,
        None,
        ("File", "Precision", "Size", "Nodes"),
        [(file.path, file.precision, fmt.size(file.bytes), fmt.integer(file.nodes)) for file in manifest.files],
    )
    shifts = summarise(manifest.shifts)
    if shifts:
        print_table(
            console,
            fmt.count(len(manifest.shifts), "shift"),
            ("Times", "Channels", "Moves", "Border", "Form", "Nodes"),
            [
                (len(shift.where), shift.channels, shift.direction, shift.border_kind, shift.form, shift.nodes)
                for shift in shifts
            ],
        )
    else:
        console.print("No shift was found.\n")


def can_build() -> bool:
    """Whether the builder of engines is installed here."""
    return importlib.util.find_spec("tensorrt_rtx") is not None


def print_next(
    console: Console,
    manifest: Manifest,
    directory: Path,
    source: SourceInfo | None = None,
    data: str | None = None,
    *,
    samples: int | None = None,
    can_build: bool = True,
) -> None:
    """Prints what to do with an artifact next; nothing where it has no files.

    Args:
        console: Where to.
        manifest: Of the artifact.
        directory: Where it is, as the user named it: the commands repeat that.
        source: The manifest's, with the paths that the user named; None where the user named none.
        data: Images or arrays, as the user named them.
        samples: How many of them the files were scored on: of all, parity may take an hour.
        can_build: Whether the builder of engines is installed here. Where it is not, a processor is to run the files.
    """
    if manifest.files:
        print_words(console, visible_text(console, "Next", "bold"))
        # Not wrapped: a command that is broken into lines cannot be copied.
        for command in (
            parity_command(manifest, str(directory), comparable(manifest), source=source, data=data, samples=samples),
            *(() if can_build else (tune_command(str(directory)),)),
            build_command(str(directory), dry_run=not can_build),
        ):
            console.print(visible_text(console, f"  {command}"), soft_wrap=True)
