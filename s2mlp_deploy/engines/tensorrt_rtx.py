"""TensorRT-RTX: builds engine files from ONNX, without a GPU.

The package ``tensorrt_rtx`` is NVIDIA's own parser and builder. Its engines hold graph and weights; kernels are
compiled on the user's GPU when the engine is first run there, so building is quick and says nothing about speed.
Networks are strongly typed: the precision is the one the ONNX graph states.
"""

from __future__ import annotations

import functools
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from s2mlp_deploy.artifact import TensorInfo
from s2mlp_deploy.engines.base import EngineStatus
from s2mlp_deploy.engines.packages import version_of
from s2mlp_deploy.engines.profiles import InputProfile, Shape, make_profiles
from s2mlp_deploy.errors import ArtifactError, BuildError, MissingDependencyError, OutputError, TargetError
from s2mlp_deploy.files import replacing, sha256_of

NAME = "tensorrt-rtx"
# From tensorrt_rtx.ComputeCapability; doctor and --help list them without loading the library.
TARGETS = ("sm75", "sm80", "sm86", "sm89", "sm120", "sm121")


@dataclass(frozen=True)
class BuildRecord:
    """What a build made, saved as evidence.

    Attributes:
        onnx: The file that was built.
        onnx_sha256: Its hash.
        engine: The file that was written.
        engine_sha256: Its hash.
        bytes: Its size.
        flavour: ``tensorrt-rtx``.
        version: Of the builder.
        targets: Compute capabilities it runs on.
        profiles: Shapes it accepts, for each dynamic input.
        layers: Layers of the parsed network.
        layer_dtypes: How many of their outputs have each element type.
        seconds: Wall time of parsing and building.
        platform: Operating system and processor the engine is for.
    """

    onnx: str
    onnx_sha256: str
    engine: str
    engine_sha256: str
    bytes: int
    flavour: str
    version: str
    targets: tuple[str, ...]
    profiles: dict[str, InputProfile]
    layers: int
    layer_dtypes: dict[str, int]
    seconds: float
    platform: str = field(default_factory=lambda: f"{platform.system().lower()}-{platform.machine()}")


def status() -> EngineStatus:
    """Whether the builder is installed; does not import it."""
    version = version_of("tensorrt-rtx")
    if version is None:
        return EngineStatus(NAME, False, missing="tensorrt-rtx", install_hint="pip install 's2mlp-deploy[rtx]'")
    return EngineStatus(NAME, True, version=version, detail=f"builds for {', '.join(TARGETS)}")


def engine_path(onnx_file: Path, targets: Sequence[str]) -> Path:
    """``<onnx stem>.tensorrt-rtx.<targets>.engine`` beside the ONNX file."""
    return onnx_file.with_name(f"{onnx_file.stem}.{NAME}.{'-'.join(targets)}.engine")


def check_targets(targets: Sequence[str]) -> None:
    """Refuses targets that TensorRT-RTX does not know.

    Raises:
        TargetError: Lists the known ones.
    """
    unknown = [target for target in targets if target not in TARGETS]
    if unknown or not targets:
        raise TargetError(
            f"TensorRT-RTX has no target {', '.join(map(repr, unknown)) or '(none given)'}",
            fix=f"choose from {', '.join(TARGETS)}",
        )


def build(
    onnx_file: Path,
    *,
    targets: Sequence[str],
    output: Path | None = None,
    min_shapes: Mapping[str, Shape] | None = None,
    opt_shapes: Mapping[str, Shape] | None = None,
    max_shapes: Mapping[str, Shape] | None = None,
) -> BuildRecord:
    """Builds an engine file.

    Args:
        onnx_file: The graph.
        targets: Compute capabilities, for example ``["sm86", "sm89"]``.
        output: Where to write; default :func:`engine_path`.
        min_shapes: Smallest shape by input.
        opt_shapes: Shape to tune for by input.
        max_shapes: Largest shape by input.

    Raises:
        TargetError: A target does not exist.
        MissingDependencyError: The package is not installed.
        ArtifactError: The file is not ONNX.
        InputError: Shapes are missing or do not fit.
        BuildError: The parser or the builder refuses the graph.
        OutputError: The engine cannot be written.
    """
    targets = tuple(dict.fromkeys(targets))
    check_targets(targets)
    if not onnx_file.is_file():
        raise ArtifactError("no such ONNX file", where=str(onnx_file), fix="export one with `s2mlp-deploy export`")
    trt = _library()
    output = output or engine_path(onnx_file, targets)
    if output.exists() and (output.is_dir() or output.samefile(onnx_file)):
        raise OutputError(
            "the engine would replace " + ("a directory" if output.is_dir() else "the graph it is built from"),
            where=str(output),
            fix=f"name another file, for example {engine_path(onnx_file, targets).name}",
        )
    start = time.monotonic()
    logger = _logger()
    logger.begin()
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    # parse_from_file also finds external data beside the model.
    if not parser.parse_from_file(str(onnx_file)):
        raise _parse_error(parser, onnx_file)
    # The parser takes bytes that are no ONNX at all, and the empty file, for a network without anything in it.
    if network.num_outputs == 0:
        raise ArtifactError("there is no ONNX graph in the file", where=str(onnx_file), fix="name an ONNX file")
    config = builder.create_builder_config()
    config.num_compute_capabilities = len(targets)
    for index, target in enumerate(targets):
        config.set_compute_capability(getattr(trt.ComputeCapability, target.upper()), index)
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    profiles = make_profiles([_info(tensor) for tensor in inputs], min_shapes or {}, opt_shapes or {}, max_shapes or {})
    if profiles:
        profile = builder.create_optimization_profile()
        for name, shapes in profiles.items():
            profile.set_shape(name, shapes.minimum, shapes.optimum, shapes.maximum)
        config.add_optimization_profile(profile)
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise BuildError(
            "TensorRT-RTX built no engine: " + ("; ".join(logger.errors) or "it gave no reason"),
            where=str(onnx_file),
        )
    with replacing(output) as temporary:
        temporary.write_bytes(memoryview(serialized))
    return BuildRecord(
        onnx=onnx_file.name,
        onnx_sha256=sha256_of(onnx_file),
        engine=output.name,
        engine_sha256=sha256_of(output),
        bytes=output.stat().st_size,
        flavour=NAME,
        version=trt.__version__,
        targets=tuple(targets),
        profiles=profiles,
        layers=network.num_layers,
        layer_dtypes=_layer_dtypes(network),
        seconds=round(time.monotonic() - start, 3),
    )


def _library() -> Any:
    try:
        import tensorrt_rtx
    except ImportError:
        raise MissingDependencyError("tensorrt-rtx", extra="rtx", purpose="building TensorRT-RTX engines") from None
    return tensorrt_rtx


@functools.cache
def _logger() -> Any:
    """The one logger of this process: TensorRT ignores every later one."""
    trt = _library()
    base: Any = trt.ILogger

    class Logger(base):  # type: ignore[misc]
        """Keeps errors for the message that the user will see."""

        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []

        def begin(self) -> None:
            self.errors.clear()

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.Severity.ERROR:
                self.errors.append(message)

    return Logger()


def _parse_error(parser: Any, onnx_file: Path) -> BuildError | ArtifactError:
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    texts = [f"{error.node_name() or error.node_operator() or 'model'}: {error.desc()}" for error in errors]
    if any("ModelImporter" in str(error.file()) and not error.node_name() for error in errors) or not errors:
        return ArtifactError(
            f"not a model that TensorRT-RTX can read: {'; '.join(texts) or 'it cannot be parsed'}",
            where=str(onnx_file),
            fix="name an ONNX file",
        )
    return BuildError(
        f"TensorRT-RTX cannot parse {len(errors)} node(s): {'; '.join(texts[:5])}",
        where=str(onnx_file),
        fix="export again with another --shift-form or --opset",
    )


def _info(tensor: Any) -> TensorInfo:
    shape = tuple(
        int(size) if size >= 0 else (tensor.get_dimension_name(axis) or f"axis{axis}")
        for axis, size in enumerate(tensor.shape)
    )
    return TensorInfo(tensor.name, str(tensor.dtype).removeprefix("DataType.").lower(), shape)


def _layer_dtypes(network: Any) -> dict[str, int]:
    counts: dict[str, int] = {}
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        for position in range(layer.num_outputs):
            name = str(layer.get_output(position).dtype).removeprefix("DataType.").lower()
            counts[name] = counts.get(name, 0) + 1
    return dict(sorted(counts.items()))
