"""Engines: what there is, what would fail, building files, looking into them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from s2mlp_deploy.api.evidence import save_evidence
from s2mlp_deploy.api.inspecting_layers import layers_beside
from s2mlp_deploy.artifact import file_for_engine, read_manifest, verify_precision
from s2mlp_deploy.engines import optimized
from s2mlp_deploy.engines.base import EngineStatus
from s2mlp_deploy.engines.openvino import builder as openvino_builder
from s2mlp_deploy.engines.openvino import library as openvino
from s2mlp_deploy.engines.optimized import OptimizedRecord
from s2mlp_deploy.engines.record import Mismatch, gpu_warning, mismatches, read_engine
from s2mlp_deploy.engines.registry import OF_GRAPHS, statuses
from s2mlp_deploy.engines.tensorrt import builder
from s2mlp_deploy.engines.tensorrt import preflight as checks
from s2mlp_deploy.engines.tensorrt.flavours import flavour
from s2mlp_deploy.engines.tensorrt.graph import read_onnx
from s2mlp_deploy.engines.tensorrt.library import version_here
from s2mlp_deploy.engines.tensorrt.options import BuildOptions, check_options, check_version
from s2mlp_deploy.engines.tensorrt.precision_check import required_precision
from s2mlp_deploy.engines.tensorrt.preflight import Preflight
from s2mlp_deploy.errors import ArtifactError, InputError, OutputError
from s2mlp_deploy.evidence.build import BuildRecord, Shape
from s2mlp_deploy.evidence.engine_layers import EngineLayers
from s2mlp_deploy.files import sha256_of
from s2mlp_deploy.gpu import Gpu, cuda_version, gpus
from s2mlp_deploy.progress import ProgressCallback, no_progress

LOG = logging.getLogger(__name__)

ShapesOption = Mapping[str, "Shape"] | Sequence[Mapping[str, "Shape"]] | None
"""Shapes by input: one mapping for one profile, or a sequence of them."""


@dataclass(frozen=True)
class Health:
    """What runs here.

    Attributes:
        engines: Every engine of the registry.
        gpus: The NVIDIA GPUs.
        cuda: The newest CUDA version the driver supports; None without a driver.
    """

    engines: tuple[EngineStatus, ...]
    gpus: tuple[Gpu, ...]
    cuda: str | None


@dataclass(frozen=True)
class EngineInspection:
    """What an engine file holds.

    Attributes:
        file: Its name.
        record: Its sidecar.
        mismatches: What keeps it from running on this machine, as far as that is known here.
        warnings: What makes it run worse than it could here.
        layers: What its build wrote of its layers, or of the parsed network's where it did not inspect the engine; None
            where nothing of ours lies beside it.
    """

    file: str
    record: BuildRecord
    mismatches: tuple[Mismatch, ...]
    warnings: tuple[str, ...] = ()
    layers: EngineLayers | None = None


def doctor() -> Health:
    """Which engines can be used on this machine, what the others lack, and which GPUs there are."""
    return Health(statuses(), gpus(), cuda_version())


def build(
    onnx_file: str | Path,
    *,
    engine: str = "tensorrt-rtx",
    targets: Sequence[str] = (),
    output: str | Path | None = None,
    min_shapes: ShapesOption = None,
    opt_shapes: ShapesOption = None,
    max_shapes: ShapesOption = None,
    precision: str | None = None,
    options: BuildOptions | None = None,
    force: bool = False,
    progress: ProgressCallback = no_progress,
) -> BuildRecord:
    """Builds an engine file from an ONNX file. ``tensorrt-rtx`` needs no GPU for that, ``openvino`` none at all.

    The engine is written beside the ONNX file as ``<stem>.<engine>.<targets>.engine`` unless ``output`` says
    otherwise, with a sidecar ``<engine>.json``. Where an engine of the same key is there already, nothing is built and
    the record says ``cached``. In an artifact, the record is saved under ``evidence/`` too.

    Args:
        onnx_file: The graph; of an artifact's directory the file that is meant for the engine.
        engine: ``tensorrt-rtx``, ``tensorrt`` (10.x and 11.x), or ``openvino``, which compiles for a device of this
            machine and takes no shapes or options.
        targets: Compute capabilities, for example ``["sm89"]``; ``tensorrt`` builds for the GPU at hand. Of
            ``openvino`` one device; default: the CPU.
        output: Where to write.
        min_shapes: Smallest shape by input, for each profile; artifacts default to batch 1.
        opt_shapes: Shape to tune for by input, for each profile; artifacts default to batch 8.
        max_shapes: Largest shape by input, for each profile; artifacts default to batch 32.
        precision: What every GEMM and convolution must compute in; default: what the file's metadata says.
        options: Workspace, optimization level, compatibility and so on.
        force: Build even where an equal engine is there.
        progress: Called with what is being done.

    Raises:
        TargetError: Unknown engine, target or option.
        MissingDependencyError: The builder is not installed.
        ArtifactError: The file is not ONNX.
        InputError: Shapes are missing or do not fit, or the file cannot have the precision.
        BuildError: The parser or the builder refuses the graph.
        CheckFailedError: A GEMM or convolution computes in another precision than the required one.
        OutputError: The engine cannot be written.
    """
    path = graph_of(onnx_file, engine, precision)
    if engine == openvino.OPENVINO:
        if any((min_shapes, opt_shapes, max_shapes, options)) or len(targets) > 1:
            raise InputError(
                "OpenVINO compiles for one device, any shapes, and without options", fix="leave the others out"
            )
        record = openvino_builder.build(
            path,
            target=targets[0] if targets else openvino.CPU,
            output=Path(output) if output is not None else None,
            precision=precision,
            force=force,
            report=progress,
        )
        _keep(path, record, output)
        return record
    record = builder.build(
        path,
        engine=engine,
        targets=targets,
        output=Path(output) if output is not None else None,
        min_shapes=profiles_given(min_shapes),
        opt_shapes=profiles_given(opt_shapes),
        max_shapes=profiles_given(max_shapes),
        precision=precision,
        options=options,
        force=force,
        report=progress,
    )
    _keep(path, record, output)
    return record


def _layers_of(engine: Path, record: BuildRecord) -> tuple[EngineLayers, ...]:
    """The layers that were written beside an engine, as evidence of it; none where they cannot be read.

    Args:
        engine: Where the build wrote. Another engine of that name may lie there by now.
        record: Of the build.
    """
    try:
        if sha256_of(engine) != record.engine_sha256:
            return ()
        found = layers_beside(engine)
    except OSError as error:
        LOG.warning("the layers beside the engine were not kept: %s (%s)", error.strerror or error, engine)
        return ()
    except ArtifactError as error:
        LOG.warning("the layers beside the engine were not kept: %s (%s)", error.problem, error.where)
        return ()
    return (replace(found, engine=record.engine, engine_sha256=record.engine_sha256),) if found is not None else ()


def _keep(path: Path, record: BuildRecord, output: str | Path | None) -> None:
    """Saves a build in the artifact of its graph.

    Args:
        path: The graph.
        record: What was built.
        output: Where the build was told to write; None for beside the graph.
    """
    engine = path.parent / record.engine if output is None else Path(output)
    try:
        label = Path(record.engine).name.removesuffix(".engine")
        save_evidence(path.parent, record, *_layers_of(engine, record), label=label)
    except OutputError as error:
        # The engine is whole, and may lie elsewhere: an artifact that only others write to is no reason to lose it.
        LOG.warning("the record of the build was not saved in the artifact: %s (%s)", error.problem, error.where)


def preflight(
    onnx_file: str | Path,
    *,
    engine: str = "tensorrt-rtx",
    version: str | None = None,
    targets: Sequence[str] = (),
    min_shapes: ShapesOption = None,
    opt_shapes: ShapesOption = None,
    max_shapes: ShapesOption = None,
    precision: str | None = None,
    options: BuildOptions | None = None,
) -> Preflight:
    """Says what would fail in a build, from the file alone; the builder need not be installed.

    Args:
        onnx_file: The graph, or an artifact, as for :func:`build`.
        engine: ``tensorrt-rtx`` or ``tensorrt``.
        version: Of the builder, such as ``10.16``; default: the newest known one.
        targets: Compute capabilities.
        min_shapes: As for :func:`build`.
        opt_shapes: As for :func:`build`.
        max_shapes: As for :func:`build`.
        precision: As for :func:`build`.
        options: As for :func:`build`; what needs a GPU is taken, for the builder may have one.

    Raises:
        TargetError: Unknown engine, version or target, or an option that the builder has not.
        ArtifactError: The file is not ONNX.
        InputError: Given shapes do not fit, or the file cannot have the precision.
    """
    wanted = flavour(engine, version)
    if options is not None:
        check_options(options, wanted, gpu=True)
        check_version(options, wanted)
    file = read_onnx(graph_of(onnx_file, engine, precision))
    required_precision(file, precision)
    shapes = map(profiles_given, (min_shapes, opt_shapes, max_shapes))
    return checks.preflight(file, wanted, tuple(dict.fromkeys(targets)), *shapes)


def inspect_engine(path: str | Path) -> EngineInspection:
    """What an engine file holds, from its sidecar; the engine must be the one that the sidecar describes.

    Raises:
        ArtifactError: Engine or sidecar are missing or damaged, or do not belong together.
    """
    file = Path(path)
    record = read_engine(file)
    if record.flavour == openvino.OPENVINO:
        return EngineInspection(file.name, record, mismatches(record, version=openvino.version_here(), capability=None))
    version = version_here(flavour(record.flavour))
    layers = None
    try:
        layers = layers_beside(file)
    except ArtifactError as error:
        # What an engine says of itself is no reason to hide what its sidecar says.
        LOG.warning("the layers beside the engine cannot be read: %s (%s)", error.problem, error.where)
    here = gpus()
    # One that fits is enough: which one runs it, whoever runs it says.
    found = [mismatches(record, version=version, capability=gpu.capability) for gpu in here]
    fitting = [gpu for gpu, problems in zip(here, found, strict=True) if not problems]
    if fitting:
        told = [gpu_warning(record, gpu.name) for gpu in fitting]
        return EngineInspection(file.name, record, (), () if "" in told else tuple(dict.fromkeys(told)), layers)
    nothing = mismatches(record, version=version, capability=None)
    return EngineInspection(file.name, record, found[0] if found else nothing, layers=layers)


def optimize(onnx_file: str | Path, *, output: str | Path | None = None) -> OptimizedRecord:
    """Writes the graph as ONNX Runtime optimizes it for this machine's processor.

    The file starts faster and runs only on a machine with the same traits, which its sidecar ``<file>.json`` names.

    Args:
        onnx_file: The graph, or an artifact, as for :func:`build`.
        output: Where to write, a name that ends with ``.onnxruntime.cpu.onnx``; default ``<stem>`` with that suffix,
            beside it.

    Raises:
        MissingDependencyError: ONNX Runtime is not installed.
        ArtifactError: There is no such file, or it was optimized already.
        BuildError: ONNX Runtime cannot load it.
        OutputError: The file cannot be written, or its name has another suffix.
    """
    return optimized.optimize(graph_of(onnx_file, "onnxruntime", None), Path(output) if output is not None else None)


def graph_of(place: str | Path, engine: str, precision: str | None) -> Path:
    """The graph to build: the file that was named, or the artifact's that is meant for the engine, which is said.

    Raises:
        TargetError: There is no such engine.
        ArtifactError: The directory is no artifact, has no such file, or that was changed.
    """
    path = Path(place)
    if not path.is_dir():
        return path
    if engine not in OF_GRAPHS:
        flavour(engine)
    manifest = read_manifest(path)
    chosen = verify_precision(path, manifest, file_for_engine(manifest, engine, precision).precision)
    LOG.info("%s is the file for %s", chosen, engine)
    return chosen


def profiles_given(shapes: ShapesOption) -> Sequence[Mapping[str, Shape]]:
    """Shapes by profile, however they were given."""
    if shapes is None:
        return ()
    return (shapes,) if isinstance(shapes, Mapping) else shapes
