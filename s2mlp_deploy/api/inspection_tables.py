"""What `inspect` prints: the shifts of a source, the contents of an ONNX file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from rich.console import Console

from s2mlp_deploy.artifact import Hazard, ShiftRecord
from s2mlp_deploy.report import format as fmt
from s2mlp_deploy.report.shifts import summarise
from s2mlp_deploy.report.tables import print_pairs, print_table, print_words, visible_text
from s2mlp_deploy.report.terminal import print_manifest
from s2mlp_deploy.text import join_names

if TYPE_CHECKING:
    from s2mlp_deploy.api import ArtifactInspection, FileInspection, SourceInspection

_OPERATORS = 12
_PLACES = 4


def print_artifact(console: Console, found: ArtifactInspection, directory: Path) -> None:
    """Prints what an artifact holds, and whether its evidence shows that parity holds.

    Args:
        console: Where to.
        found: What it holds.
        directory: Where it is, as the user named it.
    """
    print_manifest(console, found.manifest, directory)
    _print_hazards(console, found.manifest.hazards)
    for note in found.manifest.notes:
        print_words(console, visible_text(console, f"Note: {note}"))
    print_words(console, visible_text(console, found.parity.headline, "bold"))
    for line in (*found.parity.sentences, *found.parity.failures):
        print_words(console, visible_text(console, f"  {line}"))
    for command in found.parity.commands:
        console.print(visible_text(console, f"  {command}"), soft_wrap=True)


def print_source_inspection(console: Console, found: SourceInspection) -> None:
    """Prints the shifts, near misses and hazards of a source.

    Args:
        console: Where to.
        found: What it holds.
    """
    print_words(console, visible_text(console, found.source, "bold"))
    inputs = [("input", f"{name}: {fmt.shape(shape)}") for name, shape in found.inputs.items()]
    outputs = [("output", name) for name in found.outputs]
    print_pairs(console, [*inputs, *outputs, ("parameters", fmt.integer(found.parameters))])
    for note in found.notes:
        print_words(console, visible_text(console, f"Note: {note}"))
    _print_hazards(console, found.hazards)
    if not found.shifts:
        console.print("No shift was found.\n")
    together: dict[tuple[object, ...], list[ShiftRecord]] = {}
    for shift in found.shifts:
        together.setdefault((shift.spec, shift.form, shift.origin.idiom, shift.origin.sizes), []).append(shift)
    for index, equal in enumerate(together.values(), start=1):
        _print_shifts(console, index, equal)
    misses = found.near_misses
    if misses:
        equal_misses = Counter(
            (miss.origin.line or miss.origin.module or "?", miss.origin.idiom, miss.reason) for miss in misses
        )
        print_table(
            console,
            f"{fmt.count(len(misses), 'movement')} of data left as written, because no grouped shift",
            ("Where", "Written as", "Reason"),
            [
                (f"{place} ({times} times)" if times > 1 else place, idiom, reason)
                for (place, idiom, reason), times in equal_misses.items()
            ],
        )


def _print_shifts(console: Console, index: int, equal: Sequence[ShiftRecord]) -> None:
    """Prints equal shifts once, with every place that they are at, as far as these fit on some lines."""
    origin, spec, summary = equal[0].origin, equal[0].spec, summarise(equal)[0]
    places = dict.fromkeys(
        f"{shift.origin.module or 'the root module'}{f' ({shift.origin.line})' if shift.origin.line else ''}"
        for shift in equal
    )
    times = f", {len(equal)} times," if len(equal) > 1 else ""
    heading = f"Shift {index}{times} in {join_names(places, limit=_PLACES)}"
    print_words(console, visible_text(console, heading, "bold"))
    codes = list(dict.fromkeys(shift.origin.code for shift in equal if shift.origin.code))
    checked = f", equal at {fmt.count(origin.sizes, 'input size')}" if origin.sizes else ""
    print_pairs(
        console,
        [
            ("moves", summary.direction),
            ("groups", ", ".join(f"{group.channels} by {group.offsets}" for group in spec.groups)),
            ("axes", f"{spec.axes}, channels on axis {spec.channel_axis}"),
            ("border", summary.border_kind),
            ("written as", f"{origin.idiom}{checked}"),
            ("exported as", equal[0].form),
            *([("code", join_names(codes, limit=1))] if codes else []),
        ],
    )


def _print_hazards(console: Console, hazards: Sequence[Hazard]) -> None:
    if not hazards:
        return
    lines = dict.fromkeys((hazard.kind, hazard.where, hazard.code) for hazard in hazards)
    print_table(
        console,
        "Hazards: code that means different things to different runtimes (docs/reference/hazards.md)",
        ("Kind", "Where", "Code"),
        list(lines),
    )
    if any(hazard.kind == "smear" for hazard in hazards):
        console.print(
            "A smear is what an overlapping copy left of a shift: one row everywhere. The file's numbers are kept; "
            "export --repair-smear writes the shift that was meant, and the numbers change.\n"
        )
    deviation = next((hazard.eager_deviation for hazard in hazards if hazard.eager_deviation), None)
    if deviation:
        console.print(
            f"Eager PyTorch differs from the functional meaning by {fmt.deviation(deviation)} on the example inputs.\n"
        )


def print_file_inspection(console: Console, found: FileInspection, path: Path) -> None:
    """Prints what an ONNX file holds.

    Args:
        console: Where to.
        found: What it holds.
        path: The file, as the user named it.
    """
    print_words(console, visible_text(console, str(path), "bold"))
    metadata = found.metadata
    tensors = [
        (kind, f"{info.name}: {info.dtype} {fmt.shape(info.shape)}")
        for kind, infos in (("input", found.inputs), ("output", found.outputs))
        for info in infos
    ]
    weights = ", ".join(f"{fmt.size(count)} {name}" for name, count in found.weights.items())
    own = []
    if metadata:
        source = metadata.get("source", {})
        own = [
            ("source", str(source.get("reference", "?"))),
            ("checkpoint", str(source.get("checkpoint") or "random weights")),
            ("precision", str(metadata.get("precision", "?"))),
        ]
    print_pairs(
        console,
        [
            *own,
            *tensors,
            ("opset", str(found.opset)),
            ("producer", found.producer),
            ("size", fmt.size(found.bytes)),
            ("weights", weights or "none"),
        ],
    )
    if found.problem:
        print_words(console, visible_text(console, f"The graph is not valid ONNX: {found.problem}", "red"))
    operators = list(found.operators.items())
    rest = sum(count for _, count in operators[_OPERATORS:])
    rows = [*operators[:_OPERATORS], *([("others", rest)] if rest else [])]
    print_table(console, fmt.count(found.nodes, "node"), ("Operator", "Nodes"), rows)
    shifts = msgspec.convert(metadata.get("shifts", []), tuple[ShiftRecord, ...])
    if shifts:
        print_table(
            console,
            fmt.count(len(shifts), "shift"),
            ("Times", "Channels", "Moves", "Border", "Form", "Written as"),
            [(len(s.where), s.channels, s.direction, s.border_kind, s.form, s.idiom) for s in summarise(shifts)],
        )
    elif found.not_searched:
        print_words(console, visible_text(console, f"Shifts were not looked for: {found.not_searched}.", "yellow"))
    elif not metadata and found.found is None:
        console.print("Another tool wrote this file: it does not say where its shifts are.")
