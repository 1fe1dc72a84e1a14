"""What a build will do, settled before any library is asked: input, targets, shapes, precision, options, key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from s2mlp_deploy.artifact import check_onnx
from s2mlp_deploy.engines import cuda
from s2mlp_deploy.engines.profiles import Shapes
from s2mlp_deploy.engines.record import key_of, profile_arguments, this_platform
from s2mlp_deploy.engines.sidecar import check_replaceable
from s2mlp_deploy.engines.tensorrt import library
from s2mlp_deploy.engines.tensorrt.flavours import Flavour, check_targets, flavour
from s2mlp_deploy.engines.tensorrt.graph import OnnxFile, read_onnx
from s2mlp_deploy.engines.tensorrt.options import BuildOptions, check_options, check_version
from s2mlp_deploy.engines.tensorrt.precision_check import required_precision
from s2mlp_deploy.engines.tensorrt.preflight import find, profiles_of, refuse
from s2mlp_deploy.engines.tensorrt.quantized import examine
from s2mlp_deploy.errors import TargetError
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
        gpu: Name of the GPU that it is built on, where the builder measures on one; None where it does not.
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
    gpu: str | None
    advice: tuple[str, ...]

    @property
    def arguments(self) -> tuple[str, ...]:
        """The command-line arguments that build this again."""
        words = ["--engine", self.flavour.name]
        if self.flavour.targets:
            words += [word for target in self.targets for word in ("--target", target)]
        return (*words, *profile_arguments(self.profiles), *self.options.arguments())

    @property
    def key(self) -> str:
        """Hash of everything that determines the engine.

        Not the timing cache: it only saves measuring again what was measured before.
        """
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
                "gpu": self.gpu,
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
    check_onnx(onnx_file)
    check_options(options, wanted, gpu=bool(gpus()))
    file = read_onnx(onnx_file, extra=wanted.extra)
    required = required_precision(file, precision)
    refuse(file, find(file, wanted, chosen), wanted)
    profiles = profiles_of(file, *shapes)
    known = library.installed(wanted)
    gpu = None
    if not wanted.targets:
        here = _gpu_here(wanted, chosen, options)
        chosen, gpu = (here.capability,), here.name
    # The version that is installed may know less than the newest one, or have kept what that has dropped.
    check_targets(known, chosen)
    check_version(options, known)
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
        gpu=gpu,
        advice=quantization.advice if quantization else (),
    )


def _gpu_here(wanted: Flavour, targets: tuple[str, ...], options: BuildOptions) -> cuda.Device:
    here = cuda.use_device(options.device)
    if targets and targets != (here.capability,):
        raise TargetError(
            f"{wanted.title} builds for the GPU at hand, which is {here.capability}, not {targets[0]}",
            fix="build on such a GPU; or leave --target out, and for other GPUs too pass --hardware-compatible ampere+",
        )
    return here
