"""What `inspect` prints: the shifts of a source, the contents of an ONNX file."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from s2mlp_deploy.artifact import ShiftRecord
from s2mlp_deploy.report import format as fmt
from s2mlp_deploy.report.shifts import summarise
from s2mlp_deploy.report.terminal import print_pairs, print_table, visible_text

_OPERATORS = 12


def print_source_inspection(console: Console, found: Mapping[str, Any]) -> None:
    """Prints the shifts, near misses and hazards of a source.

    Args:
        console: Where to.
        found: A ``SourceInspection`` as plain values.
    """
    console.print(visible_text(console, str(found["source"]), "bold"))
    inputs = [("input", f"{name}: {fmt.shape(shape)}") for name, shape in found["inputs"].items()]
    outputs = [("output", name) for name in found["outputs"]]
    print_pairs(console, [*inputs, *outputs, ("parameters", fmt.integer(found["parameters"]))])
    for note in found["notes"]:
        console.print(visible_text(console, f"Note: {note}"))
    _print_hazards(console, found["hazards"])
    sites = found["shifts"]
    if not sites:
        console.print("No shift was found.\n")
    for index, site in enumerate(sites, start=1):
        record = ShiftRecord(site["module"], site["line"], site["spec"], site["idiom"], site["form"], 0)
        summary = summarise([record])[0]
        line = f" ({site['line']})" if site["line"] else ""
        console.print(visible_text(console, f"Shift {index} in {site['module'] or 'the root module'}{line}", "bold"))
        groups = ", ".join(f"{group['channels']} by {tuple(group['offsets'])}" for group in site["spec"]["groups"])
        checked = f", equal at {fmt.count(site['sizes'], 'input size')}" if site["sizes"] else ""
        print_pairs(
            console,
            [
                ("moves", summary.direction),
                ("groups", groups),
                ("axes", f"{tuple(site['spec']['axes'])}, channels on axis {site['spec']['channel_axis']}"),
                ("border", summary.border_kind),
                ("written as", f"{site['idiom']}{checked}"),
                ("exported as", site["form"]),
                *([("code", site["code"])] if site["code"] else []),
            ],
        )
    misses = found["near_misses"]
    if misses:
        print_table(
            console,
            f"{fmt.count(len(misses), 'movement')} of cells left as written, because no grouped shift",
            ("Where", "Written as", "Reason"),
            [(miss["line"] or miss["module"] or "?", miss["idiom"], miss["reason"]) for miss in misses],
        )


def _print_hazards(console: Console, hazards: list[Mapping[str, Any]]) -> None:
    if not hazards:
        return
    print_table(
        console,
        "Hazards: code that means different things to different runtimes",
        ("Kind", "Where", "Code"),
        [(hazard["kind"], hazard["where"], hazard["code"]) for hazard in hazards],
    )
    effects = next((hazard["effect"] for hazard in hazards if hazard["effect"]), None)
    if effects:
        console.print(
            f"Eager PyTorch differs from the functional meaning by {fmt.effect(effects)} on the example inputs.\n"
        )


def print_file_inspection(console: Console, found: Mapping[str, Any], path: Path) -> None:
    """Prints what an ONNX file holds.

    Args:
        console: Where to.
        found: A ``FileInspection`` as plain values.
        path: The file, as the user named it.
    """
    console.print(visible_text(console, str(path), "bold"))
    metadata = found["metadata"]
    tensors = [
        (kind, f"{info['name']}: {info['dtype']} {fmt.shape(info['shape'])}")
        for kind, infos in (("input", found["inputs"]), ("output", found["outputs"]))
        for info in infos
    ]
    weights = ", ".join(f"{fmt.size(count)} {name}" for name, count in found["weights"].items())
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
            ("opset", str(found["opset"])),
            ("producer", found["producer"]),
            ("size", fmt.size(found["bytes"])),
            ("weights", weights or "none"),
        ],
    )
    operators = list(found["operators"].items())
    rest = sum(count for _, count in operators[_OPERATORS:])
    rows = [*operators[:_OPERATORS], *([("others", rest)] if rest else [])]
    print_table(console, f"{fmt.integer(found['nodes'])} nodes", ("Operator", "Nodes"), rows)
    shifts = [ShiftRecord(**{key: shift.get(key, "") for key in _FIELDS}) for shift in metadata.get("shifts", [])]
    if shifts:
        print_table(
            console,
            fmt.count(len(shifts), "shift"),
            ("Times", "Channels", "Moves", "Border", "Form", "Written as"),
            [
                (len(s.where), s.channels, s.direction, s.border_kind, s.form, _spellings(shifts, s.where))
                for s in summarise(shifts)
            ],
        )
    elif not metadata:
        console.print("Another tool wrote this file: it does not say where its shifts are.")


def _spellings(shifts: Sequence[ShiftRecord], where: Collection[str]) -> str:
    return "; ".join(dict.fromkeys(shift.idiom for shift in shifts if shift.where in where))


_FIELDS = ("where", "line", "spec", "idiom", "form", "nodes")
