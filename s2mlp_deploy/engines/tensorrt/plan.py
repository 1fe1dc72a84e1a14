"""What a build will do, settled before any library is asked: input, targets, shapes, precision, options, key."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from s2mlp_deploy.engines import cuda
from s2mlp_deploy.engines.profiles import Shapes
from s2mlp_deploy.engines.record import key_of, profile_arguments, this_platform
from s2mlp_deploy.engines.sidecar import check_replaceable
from s2mlp_deploy.engines.tensorrt import library
from s2mlp_deploy.engines.tensorrt.flavours import Flavour, check_targets, flavour
from s2mlp_deploy.engines.tensorrt.graph import OnnxFile, read_onnx
from s2mlp_deploy.engines.tensorrt.options import BuildOptions, check_options
from s2mlp_deploy.engines.tensorrt.precision_check import required_precision
from s2mlp_deploy.engines.tensorrt.preflight import find, profiles_of, refuse
from s2mlp_deploy.engines.tensorrt.quantized import examine
from s2mlp_deploy.errors import ArtifactError, TargetError
from s2mlp_deploy.evidence.build import Profile
from s2mlp_deploy.gpu import gpus


@dataclass(frozen=True)
class Plan:
    """Everything that is settled before a library is asked to build.

    Attributes:
        file: The graph.
        flavour: Of the builder, in the installed version.
        version: Of the library, in full.
        targets: Compute capabilities.
        profiles: Shapes.
        precision: The required one; None where nothing is required.
        options: Of the build.
        output: Where the engine goes.
        timing_cache: The cache's bytes; None where there is none to read.
        advice: Why int8 is likely slower than fp16.
    """

    file: OnnxFile
    flavour: Flavour
    version: str
    targets: tuple[str, ...]
    profiles: tuple[Profile, ...]
    precision: str | None
    options: BuildOptions
    output: Path
    timing_cache: bytes | None
    advice: tuple[str, ...]

    @property
    def timing_cache_sha256(self) -> str | None:
        """Hash of the timing cache that is read."""
        return None if self.timing_cache is None else hashlib.sha256(self.timing_cache).hexdigest()

    @property
    def arguments(self) -> tuple[str, ...]:
        """The command-line arguments that build this again."""
        words = ["--engine", self.flavour.name]
        if self.flavour.targets:
            words += [word for target in self.targets for word in ("--target", target)]
        return (*words, *profile_arguments(self.profiles), *self.options.arguments())

    @property
    def key(self) -> str:
        """Hash of everything that determines the engine."""
        return key_of(
            {
                "onnx": self.file.digest,
                "flavour": self.flavour.name,
                "version": self.version,
                "targets": self.targets,
                "platform": this_platform(),
                "profiles": self.profiles,
                "precision": self.precision,
                "flags": self.options.flags(),
                "timing_cache": self.timing_cache_sha256,
            }
        )


def engine_path(onnx_file: Path, engine: str, targets: Sequence[str]) -> Path:
    """``<onnx stem>.<flavour>.<targets>.engine`` beside the ONNX file."""
    return onnx_file.with_name(f"{onnx_file.stem}.{engine}.{'-'.join(targets)}.engine")


def make_plan(
    onnx_file: Path,
    engine: str,
    targets: Sequence[str],
    output: Path | None,
    shapes: tuple[Sequence[Shapes], Sequence[Shapes], Sequence[Shapes]],
    precision: str | None,
    options: BuildOptions,
) -> Plan:
    """Settles everything, cheap refusals first: nothing is loaded before the input is known to be good.

    Raises:
        S2MLPDeployError: As :func:`~s2mlp_deploy.engines.tensorrt.builder.build`.
    """
    wanted, chosen = flavour(engine), tuple(dict.fromkeys(targets))
    if chosen or wanted.targets:
        check_targets(wanted, chosen)
    check_options(options, wanted, gpu=bool(gpus()))
    file = read_onnx(onnx_file, extra=wanted.extra)
    required = required_precision(file, precision)
    refuse(file, find(file, wanted, chosen), wanted)
    profiles = profiles_of(file, *shapes)
    known = library.installed(wanted)
    if not wanted.targets:
        chosen = (_capability_here(wanted, chosen, options),)
    # The version that is installed may know less than the newest one.
    refuse(file, find(file, known, chosen), known)
    path = output or engine_path(onnx_file, engine, chosen)
    check_replaceable(path, engine_path(onnx_file, engine, chosen))
    quantization = examine(file)
    return Plan(
        file=file,
        flavour=known,
        version=str(library.load(wanted).__version__),
        targets=chosen,
        profiles=profiles,
        precision=required,
        options=options,
        output=path,
        timing_cache=_read_timing_cache(options.timing_cache),
        advice=quantization.advice if quantization else (),
    )


def _capability_here(wanted: Flavour, targets: tuple[str, ...], options: BuildOptions) -> str:
    capability = cuda.use_device(options.device)
    if targets and targets != (capability,):
        raise TargetError(
            f"{wanted.title} builds for the GPU at hand, which is {capability}, not {targets[0]}",
            fix="build on such a GPU, or pass --hardware-compatible ampere+",
        )
    return capability


def _read_timing_cache(path: Path | None) -> bytes | None:
    if path is None or not path.exists():
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise ArtifactError(
            f"the timing cache cannot be read: {error.strerror or error}", where=str(path), fix="name another file"
        ) from error
