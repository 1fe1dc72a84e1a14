"""What a user may ask of a build, in the words of trtexec and Polygraphy."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from s2mlp_deploy.choices import ProfilingVerbosity
from s2mlp_deploy.engines.tensorrt.flavours import Flavour
from s2mlp_deploy.errors import InputError, TargetError

_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmg]?)(?:i?b)?", re.IGNORECASE)
_ROUTE = re.compile(r"-?[A-Za-z]\w*=[^\s\[\]|]+")
OPTIMIZATION_LEVELS = range(6)
_NOT_OF_THE_ENGINE = ("timing_cache", "device", "verbose")
"""Options that only tell how to build."""


@dataclass(frozen=True)
class BuildOptions:
    """Options of a build. The defaults are the library's own, but for TF32, which the library turns on.

    Attributes:
        workspace: Bytes of GPU memory that a layer may use (``MemoryPoolType.WORKSPACE``); None for no limit.
        builder_optimization_level: 0 to 5; higher searches longer. None for the library's default.
        tf32: Whether fp32 GEMMs and convolutions may round their inputs to 10 bits of mantissa. Without it, fp32 is
            fp32.
        sparsity: Whether kernels for weights of which two in four are zero are considered.
        max_aux_streams: Streams beside the main one on which layers may run; None for the library's own choice.
        tactic_sources: Sources of kernels, taken away or added: ``-JIT_CONVOLUTIONS``; None for the default.
        build_route: Internal options of the builder: ``-knob=value -other=value``; None for the default.
        profiling_verbosity: How much of each layer stays in the engine for the inspector.
        version_compatible: Whether later versions may load the engine.
        hardware_compatible: A key of the flavour's ``hardware_levels``.
        refit: Whether the weights may be replaced when the engine is loaded.
        strip_plan: Whether the weights are left out; they are put back from the ONNX file when the engine is loaded.
        timing_cache: File with measured kernels; read where it exists, and added to.
        device: CUDA ordinal of the GPU to build on and inspect with.
        verbose: Whether everything the library logs goes to stderr.
    """

    workspace: int | None = None
    builder_optimization_level: int | None = None
    tf32: bool = False
    sparsity: bool = False
    max_aux_streams: int | None = None
    tactic_sources: str | None = None
    build_route: str | None = None
    profiling_verbosity: ProfilingVerbosity = "detailed"
    version_compatible: bool = False
    hardware_compatible: str = "none"
    refit: bool = False
    strip_plan: bool = False
    timing_cache: Path | None = None
    device: int = 0
    verbose: bool = False

    def flags(self) -> dict[str, Any]:
        """What shapes the engine's bytes, for the sidecar and the cache's key."""
        return {name: value for name, value in asdict(self).items() if name not in _NOT_OF_THE_ENGINE}

    def arguments(self) -> list[str]:
        """The command-line arguments that give these options."""
        words = []
        for name, value in self.flags().items():
            if value == getattr(BuildOptions, name):
                continue
            option, text = f"--{name.replace('_', '-')}", str(value)
            if value is True:
                words.append(option)
            else:
                # A value that begins with a dash would be read as an option.
                words += [f"{option}={text}"] if text.startswith("-") else [option, text]
        return words


def parse_size(text: str) -> int:
    """Bytes of ``2G``, ``512MiB`` or ``1073741824``; units are powers of 1024.

    Raises:
        InputError: The text has another form.
    """
    match = _SIZE.fullmatch(text.strip())
    # Before it is a whole number: what is too large for a float has become infinite.
    given = float(match[1]) * _UNITS[match[2].lower()] if match else 0.0
    size = int(given) if given < 2**63 else 0
    if not 0 < size < 2**63:
        raise InputError(f"{text!r} is not a size", fix="write 2G, 512M or a number of bytes")
    return size


def chosen_sources(text: str, flavour: Flavour) -> tuple[str, ...]:
    """The tactic sources that are left after adding to the default, which is all of them, and taking away.

    Args:
        text: ``-JIT_CONVOLUTIONS,+EDGE_MASK_CONVOLUTIONS``.
        flavour: Whose.

    Raises:
        InputError: The text has another form.
        TargetError: The flavour has no such source.
    """
    chosen = list(flavour.tactic_sources)
    for part in text.split(","):
        sign, name = part.strip()[:1], part.strip()[1:].upper()
        if sign not in ("+", "-") or not name:
            raise InputError(f"{part!r} is no tactic source", fix="write +NAME or -NAME, joined by commas")
        if name not in flavour.tactic_sources:
            raise TargetError(
                f"{flavour.title} {flavour.version_text} has no tactic source {name}",
                fix=f"choose from {', '.join(flavour.tactic_sources)}",
            )
        chosen = [source for source in chosen if source != name] + ([name] if sign == "+" else [])
    return tuple(chosen)


def check_options(options: BuildOptions, flavour: Flavour, *, gpu: bool) -> None:
    """Refuses options that the flavour has not, or that need a GPU where there is none.

    Args:
        options: What was asked.
        flavour: Of whom.
        gpu: Whether there is a GPU.

    Raises:
        TargetError: The flavour cannot do it here.
        InputError: A value is out of range.
    """
    _check_values(options)
    for option, reason in flavour.refused.items():
        if getattr(options, option):
            raise TargetError(f"{flavour.title} has no {_spelled(option)}: {reason}", fix="leave the option out")
    _check_level(options, flavour, flavour.title)
    if options.timing_cache is not None and not flavour.timing_cache:
        raise TargetError(
            f"{flavour.title} keeps no timing cache: it chooses kernels on the user's GPU",
            fix="leave --timing-cache out",
        )
    if options.device and flavour.builds_without_gpu and not gpu:
        raise TargetError(
            f"{flavour.title} builds on no GPU, and there is none here to look into the engine on",
            fix="leave --device out; --target names the GPUs that the engine is for",
        )
    for option, need in flavour.needs.items():
        if getattr(options, option) and not gpu:
            raise TargetError(
                f"{_spelled(option)} needs {need}: without it {flavour.title} fails at the end of the build",
                fix="leave the option out, or build where that is",
            )
    if not gpu and not flavour.builds_without_gpu:
        raise TargetError(
            f"{flavour.title} builds on the GPU that will run the engine, and there is none here",
            fix="build there, use --engine tensorrt-rtx, or look at the file with --dry-run",
        )


def check_version(options: BuildOptions, flavour: Flavour) -> None:
    """Refuses options that the installed version has not: later than the others, for a library must be loaded first.

    Args:
        options: What was asked.
        flavour: Of whom, in that version.

    Raises:
        TargetError: The version does not have it.
        InputError: The tactic sources have another form.
    """
    if options.tactic_sources is not None:
        chosen_sources(options.tactic_sources, flavour)
    _check_level(options, flavour, f"{flavour.title} {flavour.version_text}")
    if options.build_route is not None and not flavour.build_routes:
        raise TargetError(
            f"{flavour.title} {flavour.version_text} has no build routes: they came with TensorRT 11.1",
            fix="leave --build-route out, or build with a later version",
        )


def _check_level(options: BuildOptions, flavour: Flavour, title: str) -> None:
    if options.hardware_compatible != "none" and options.hardware_compatible not in flavour.hardware_levels:
        levels = ", ".join(flavour.hardware_levels)
        raise TargetError(
            f"{title} has no hardware compatibility {options.hardware_compatible!r}",
            fix=f"choose one of {levels}" if levels else "name every GPU with --target instead",
        )


def _check_values(options: BuildOptions) -> None:
    level = options.builder_optimization_level
    if level is not None and level not in OPTIMIZATION_LEVELS:
        raise InputError(
            f"there is no optimization level {level}",
            fix=f"choose {OPTIMIZATION_LEVELS[0]} to {OPTIMIZATION_LEVELS[-1]}",
        )
    if options.max_aux_streams is not None and not 0 <= options.max_aux_streams < 2**31:
        raise InputError(f"there cannot be {options.max_aux_streams} streams", fix="give 0 or more")
    if options.device < 0:
        raise InputError(f"there is no GPU {options.device}", fix="CUDA counts GPUs from 0")
    route = options.build_route
    if route is not None and not (words := route.split()):
        raise InputError("the build route is empty", fix="write -knob=value, joined by spaces")
    if route is not None and (wrong := [word for word in words if not _ROUTE.fullmatch(word)]):
        raise InputError(
            f"{wrong[0]!r} is no part of a build route",
            fix="write -knob=value, joined by spaces; `trtexec --helpBuildRoute` lists knobs and values, and its "
            "--tuneBuildRoutes tries several",
        )


def _spelled(option: str) -> str:
    return f"--{option.replace('_', '-')}"
