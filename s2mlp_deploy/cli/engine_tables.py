"""What `inspect FILE.engine`, `build --dry-run`, `build --optimize-for` and `doctor` print."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from s2mlp_deploy import __version__
from s2mlp_deploy.report import format as fmt
from s2mlp_deploy.report.engine_layers import print_layers
from s2mlp_deploy.report.engines import print_contents, print_profiles, print_record
from s2mlp_deploy.report.tables import print_pairs, print_table, print_words, visible_text

if TYPE_CHECKING:
    from s2mlp_deploy.api import Diagnosis, EngineInspection, Health
    from s2mlp_deploy.engines.optimized import OptimizedRecord
    from s2mlp_deploy.engines.tensorrt.preflight import Finding, Preflight

_NODES = 4


def print_engine_inspection(console: Console, found: EngineInspection, path: Path) -> None:
    """Prints what an engine file holds and whether it can run here.

    Args:
        console: Where to.
        found: What it holds.
        path: The file, as the user named it.
    """
    print_words(console, visible_text(console, str(path), "bold"))
    print_record(console, found.record)
    for contents in (found.record.contents, found.record.engine_contents):
        if contents is not None:
            print_contents(console, contents)
    if found.layers is not None:
        print_layers(console, found.layers)
    for item in found.mismatches:
        line = f"DIFFERS  {item.field}: built for {item.built}, here is {item.here}"
        print_words(console, visible_text(console, line, "red"))
    for warning in found.warnings:
        print_words(console, visible_text(console, f"SLOW?  {warning}", "bold yellow"))


def print_preflight(console: Console, report: Preflight) -> None:
    """Prints a dry run.

    Args:
        console: Where to.
        report: What it found.
    """
    line = visible_text(console, f"{report.onnx} ", "bold")
    line.append(*(("would not build", "bold red") if report.findings else ("would build", "bold green")))
    print_words(console, line)
    print_pairs(
        console,
        [
            ("builder", f"{report.flavour} {report.version}"),
            ("GPU targets", ", ".join(report.targets) or "the GPU at hand"),
            ("precision", report.precision or "the file says nothing"),
            ("graph", f"{fmt.count(report.nodes, 'node')} of opset {report.opset}"),
        ],
    )
    print_profiles(console, report.profiles)
    for finding in report.findings:
        _print_finding(console, finding)
    quantization = report.quantization
    if quantization is not None:
        spared = len(quantization.exceptions)
        exempt = f", {fmt.count(spared, 'precision exception')}" if spared else ""
        print_pairs(
            console,
            [
                ("quantized", ", ".join(quantization.types)),
                (
                    "GEMMs and convolutions",
                    f"{quantization.quantized} of {quantization.matrix_ops} read quantized values{exempt}",
                ),
                ("around", ", ".join(quantization.around)),
            ],
        )
        for advice in quantization.advice:
            print_words(console, visible_text(console, f"SLOW?  {advice}", "bold yellow"))


def _print_finding(console: Console, finding: Finding) -> None:
    more = f" and {len(finding.nodes) - _NODES} more" if len(finding.nodes) > _NODES else ""
    print_words(console, visible_text(console, f"FAILS  {finding.problem}", "red"))
    print_pairs(
        console,
        [
            *([("nodes", ", ".join(finding.nodes[:_NODES]) + more)] if finding.nodes else []),
            *([("written in", ", ".join(finding.lines))] if finding.lines else []),
            ("fix", finding.fix),
        ],
    )


def print_optimized(console: Console, record: OptimizedRecord) -> None:
    """Prints what optimizing for a processor made.

    Args:
        console: Where to.
        record: What was made.
    """
    traits = record.traits
    print_words(console, visible_text(console, f"Optimized {record.optimized}", "bold"))
    print_pairs(
        console,
        [
            ("from", f"{record.onnx} (sha256 {fmt.short_hash(record.onnx_sha256)})"),
            ("for", f"{traits.architecture}, ONNX Runtime {traits.onnxruntime}"),
            ("instructions", ", ".join(traits.instructions) or "unknown"),
            ("size", fmt.size(record.bytes)),
            ("time", fmt.seconds(record.seconds)),
        ],
    )
    console.print("It runs only on machines with these traits; keep the original file.")


def print_health(console: Console, health: Health, machine: str) -> None:
    """Prints engines and GPUs of this machine.

    Args:
        console: Where to.
        health: What there is.
        machine: Operating system, processor and Python, in words.
    """
    console.print(f"s2mlp-deploy {__version__} on {machine}", highlight=False)
    if health.gpus:
        console.print(f"NVIDIA driver {health.gpus[0].driver}, CUDA {health.cuda or 'unknown'}", highlight=False)
        gpus = [
            (
                gpu.name,
                gpu.capability,
                "shared with the machine" if gpu.memory is None else f"{fmt.integer(gpu.memory)} MiB",
                gpu.uuid,
            )
            for gpu in health.gpus
        ]
        print_table(console, "GPUs", ("GPU", "compute capability", "memory", "UUID"), gpus)
    else:
        console.print("no NVIDIA GPU")
    engines = [
        (
            status.name,
            "yes" if status.available else "no",
            status.version or "",
            "; ".join(part for part in (status.detail, status.missing, status.install_hint) if part),
        )
        for status in health.engines
    ]
    print_table(console, "Engines", ("engine", "usable", "version", "detail"), engines)


def print_diagnosis(console: Console, found: Diagnosis, directory: str) -> None:
    """Prints what would run of an artifact, why, and what would make it slow.

    Args:
        console: Where to.
        found: What is known.
        directory: The artifact, as the user named it.
    """
    console.print()
    line = visible_text(console, f"{found.name} in {directory} ", "bold")
    line.append(*(("would run", "bold green") if found.plan is not None else ("would not run", "bold red")))
    print_words(console, line)
    plan = found.plan
    if plan is not None:
        print_pairs(
            console,
            [
                ("file", plan.file),
                ("engine", f"{plan.engine}, {plan.settings.words}"),
                ("because", plan.why),
                ("parity", plan.parity),
            ],
        )
        for name, reason in plan.objections.items():
            print_words(console, visible_text(console, f"not {name}: {reason}", "dim"))
        for note in plan.notes:
            print_words(console, visible_text(console, f"note: {note}", "yellow"))
    for item in found.hindrances:
        print_words(console, visible_text(console, f"slow: {item.problem}: {item.fix}", "yellow"))
