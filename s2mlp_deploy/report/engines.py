"""What `build`, `inspect FILE.engine` and `doctor` print."""

from __future__ import annotations

import collections
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from s2mlp_deploy.report import format as fmt
from s2mlp_deploy.report.evidence import mapping, sequence, text
from s2mlp_deploy.report.terminal import print_pairs, print_table, visible_text

_KINDS = 10
_NODES = 4


def print_build(console: Console, record: Mapping[str, Any]) -> None:
    """Prints what a build made.

    Args:
        console: Where to.
        record: A ``BuildRecord`` as JSON holds it.
    """
    done = "Found" if record.get("cached") is True else "Built"
    console.print(visible_text(console, f"{done} {text(record.get('engine'))}", "bold"))
    if done == "Found":
        console.print("An equal build made it before; --force builds again.")
    _print_record(console, record)


def print_engine_inspection(console: Console, found: Mapping[str, Any], path: Path) -> None:
    """Prints what an engine file holds and whether it can run here.

    Args:
        console: Where to.
        found: An ``EngineInspection`` as plain values.
        path: The file, as the user named it.
    """
    console.print(visible_text(console, str(path), "bold"))
    record = mapping(found.get("record"))
    _print_record(console, record)
    for name in ("contents", "engine_contents"):
        _print_contents(console, mapping(record.get(name)))
    for item in sequence(found.get("mismatches")):
        line = (
            f"DIFFERS  {text(item.get('field'))}: built for {text(item.get('built'))}, here is {text(item.get('here'))}"
        )
        console.print(visible_text(console, line, "red"))


def _print_record(console: Console, record: Mapping[str, Any]) -> None:
    dtypes = ", ".join(f"{fmt.integer(times)} {name}" for name, times in mapping(record.get("layer_dtypes")).items())
    flags = ", ".join(
        name.replace("_", "-") if value is True else f"{name.replace('_', '-')} {value}"
        for name, value in mapping(record.get("flags")).items()
        if value not in (None, False, "none")
    )
    print_pairs(
        console,
        [
            ("from", f"{text(record.get('onnx'))} (sha256 {fmt.short_hash(record.get('onnx_sha256'))})"),
            ("builder", f"{text(record.get('flavour'))} {text(record.get('version'), '')}".strip()),
            ("GPU targets", ", ".join(map(str, sequence(record.get("targets")))) or fmt.MISSING),
            ("platform", text(record.get("platform"))),
            ("precision", _precision(record)),
            *([("options", flags)] if flags else []),
            ("size", fmt.size(record.get("bytes"))),
            ("layers", fmt.integer(record.get("layers")) + (f" (outputs: {dtypes})" if dtypes else "")),
            ("build time", fmt.seconds(record.get("seconds"))),
            ("sha256", fmt.short_hash(record.get("engine_sha256"))),
        ],
    )
    _print_profiles(console, record)
    for line in sequence(record.get("advice")):
        console.print(visible_text(console, f"SLOW?  {line}", "bold yellow"))


def _print_profiles(console: Console, record: Mapping[str, Any]) -> None:
    profiles = sequence(record.get("profiles"))
    rows = [
        (
            *([index] if len(profiles) > 1 else []),
            name,
            *(fmt.shape(mapping(sizes).get(key)) for key in ("min", "opt", "max")),
        )
        for index, profile in enumerate(profiles)
        for name, sizes in mapping(profile).items()
    ]
    if rows:
        numbered = ("Profile",) if len(profiles) > 1 else ()
        print_table(console, "Shapes it accepts", (*numbered, "Input", "Minimum", "Optimum", "Maximum"), rows)


def _precision(record: Mapping[str, Any]) -> str:
    gemms = sequence(mapping(record.get("contents")).get("matrix_ops"))
    counts = collections.Counter(str(mapping(gemm).get("precision")) for gemm in gemms)
    inside = ", ".join(f"{count} in {name}" for name, count in counts.most_common())
    required = record.get("precision")
    kept = f"{required}, as required" if required else "none was required"
    return f"{kept} ({fmt.count(len(gemms), 'GEMM')}: {inside})" if gemms else kept


def _print_contents(console: Console, contents: Mapping[str, Any]) -> None:
    types = list(mapping(contents.get("types")).items())
    if not types:
        return
    rest = sum(count for _, count in types[_KINDS:])
    source = "the parsed network" if contents.get("source") == "network" else "the built engine"
    rows = [*types[:_KINDS], *([("others", rest)] if rest else [])]
    print_table(console, f"{fmt.integer(contents.get('layers'))} layers in {source}", ("Layer", "Times"), rows)
    formats = list(mapping(contents.get("formats")).items())
    if formats:
        title = f"Formats, {fmt.count(int(contents.get('reformats') or 0), 'reformatting layer')}"
        print_table(console, title, ("Format", "Times"), formats)


def print_preflight(console: Console, report: Mapping[str, Any]) -> None:
    """Prints a dry run.

    Args:
        console: Where to.
        report: A ``Preflight`` as plain values.
    """
    findings = sequence(report.get("findings"))
    verdict = "would not build" if findings else "would build"
    line = visible_text(console, f"{text(report.get('onnx'))} ", "bold")
    line.append(verdict, "bold red" if findings else "bold green")
    console.print(line)
    print_pairs(
        console,
        [
            ("builder", f"{text(report.get('flavour'))} {text(report.get('version'))}"),
            ("GPU targets", ", ".join(map(str, sequence(report.get("targets")))) or "the GPU at hand"),
            ("precision", text(report.get("precision"), "the file says nothing")),
            ("graph", f"{fmt.integer(report.get('nodes'))} nodes of opset {report.get('opset')}"),
        ],
    )
    _print_profiles(console, report)
    for finding in findings:
        nodes = sequence(finding.get("nodes"))
        more = f" and {len(nodes) - _NODES} more" if len(nodes) > _NODES else ""
        console.print(visible_text(console, f"FAILS  {text(finding.get('problem'))}", "red"))
        print_pairs(
            console,
            [
                *([("nodes", ", ".join(map(str, nodes[:_NODES])) + more)] if nodes else []),
                *([("written in", ", ".join(map(str, lines)))] if (lines := sequence(finding.get("lines"))) else []),
                ("fix", text(finding.get("fix"))),
            ],
        )
    quantization = mapping(report.get("quantization"))
    if quantization:
        print_pairs(
            console,
            [
                ("quantized", ", ".join(map(str, sequence(quantization.get("types"))))),
                (
                    "GEMMs and convolutions",
                    f"{quantization.get('quantized')} of {quantization.get('matrix_ops')} read quantized values",
                ),
                ("around", ", ".join(map(str, sequence(quantization.get("around"))))),
            ],
        )
        for line_ in sequence(quantization.get("advice")):
            console.print(visible_text(console, f"SLOW?  {line_}", "bold yellow"))


def print_optimized(console: Console, record: Mapping[str, Any]) -> None:
    """Prints what optimizing for a processor made.

    Args:
        console: Where to.
        record: An ``OptimizedRecord`` as plain values.
    """
    traits = mapping(record.get("traits"))
    console.print(visible_text(console, f"Optimized {text(record.get('optimized'))}", "bold"))
    print_pairs(
        console,
        [
            ("from", f"{text(record.get('onnx'))} (sha256 {fmt.short_hash(record.get('onnx_sha256'))})"),
            ("for", f"{text(traits.get('architecture'))}, ONNX Runtime {text(traits.get('onnxruntime'))}"),
            ("instructions", ", ".join(map(str, sequence(traits.get("instructions")))) or "unknown"),
            ("size", fmt.size(record.get("bytes"))),
            ("time", fmt.seconds(record.get("seconds"))),
        ],
    )
    console.print("It runs only on machines with these traits; keep the original file.")


def print_health(console: Console, document: Mapping[str, Any]) -> None:
    """Prints engines and GPUs of this machine.

    Args:
        console: Where to.
        document: What ``doctor --json`` prints.
    """
    console.print(f"s2mlp-deploy {document['s2mlp_deploy']} on {document['machine']}", highlight=False)
    gpus = sequence(document.get("gpus"))
    if gpus:
        driver, cuda = text(mapping(gpus[0]).get("driver")), text(document.get("cuda"), "unknown")
        console.print(f"NVIDIA driver {driver}, CUDA {cuda}", highlight=False)
        rows = [(i, gpu["name"], gpu["capability"], f"{fmt.integer(gpu['memory'])} MiB") for i, gpu in enumerate(gpus)]
        print_table(console, "GPUs", ("number", "GPU", "compute capability", "memory"), rows)
    else:
        console.print("no NVIDIA GPU")
    rows = [
        (
            status["name"],
            "yes" if status["available"] else "no",
            status["version"] or "",
            "; ".join(part for part in (status["detail"], status["missing"], status["install_hint"]) if part),
        )
        for status in document["engines"]
    ]
    print_table(console, "Engines", ("engine", "usable", "version", "detail"), rows)
