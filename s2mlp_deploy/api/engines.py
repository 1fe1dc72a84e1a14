"""Engines: what there is, building files for them, keeping the evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from s2mlp_deploy.artifact import EVIDENCE, MANIFEST
from s2mlp_deploy.files import to_json, write_file

if TYPE_CHECKING:
    from s2mlp_deploy.engines.base import EngineStatus
    from s2mlp_deploy.engines.profiles import Shape
    from s2mlp_deploy.engines.tensorrt_rtx import BuildRecord


def doctor() -> tuple[EngineStatus, ...]:
    """Which engines can be used on this machine, and what the others lack."""
    from s2mlp_deploy.engines.registry import statuses

    return statuses()


def build(
    onnx_file: str | Path,
    *,
    engine: str = "tensorrt-rtx",
    targets: Sequence[str],
    output: str | Path | None = None,
    min_shapes: Mapping[str, Shape] | None = None,
    opt_shapes: Mapping[str, Shape] | None = None,
    max_shapes: Mapping[str, Shape] | None = None,
) -> BuildRecord:
    """Builds an engine file from an ONNX file; no GPU is needed.

    The engine is written beside the ONNX file as ``<stem>.<engine>.<targets>.engine`` unless ``output`` says
    otherwise. In an artifact, the record of the build is saved under ``evidence/``.

    Args:
        onnx_file: The graph.
        engine: ``tensorrt-rtx``.
        targets: Compute capabilities, for example ``["sm89"]``.
        output: Where to write.
        min_shapes: Smallest shape by input; default batch 1.
        opt_shapes: Shape to tune for by input; default batch 8.
        max_shapes: Largest shape by input; default batch 32.

    Raises:
        TargetError: Unknown engine or target.
        MissingDependencyError: The builder is not installed.
        ArtifactError: The file is not ONNX.
        InputError: Shapes are missing or do not fit.
        BuildError: The parser or the builder refuses the graph.
        OutputError: The engine cannot be written.
    """
    from s2mlp_deploy.engines import tensorrt_rtx
    from s2mlp_deploy.engines.registry import check_builder

    check_builder(engine)
    path = Path(onnx_file)
    record = tensorrt_rtx.build(
        path,
        targets=targets,
        output=Path(output) if output is not None else None,
        min_shapes=min_shapes,
        opt_shapes=opt_shapes,
        max_shapes=max_shapes,
    )
    save_evidence(path, f"build-{Path(record.engine).name.removesuffix('.engine')}", record)
    return record


def save_evidence(file: Path, name: str, value: object) -> Path | None:
    """Saves a result under ``evidence/`` of the artifact that ``file`` belongs to and renews its report.

    Returns:
        Where it was saved; None where the file is no part of an artifact.
    """
    directory = file.parent
    if not (directory / MANIFEST).is_file():
        return None
    from s2mlp_deploy.report.html import write_report

    path = directory / EVIDENCE / f"{name}.json"
    write_file(path, to_json(value))
    write_report(directory)
    return path
