"""What a user may ask of a build, in the words of trtexec and Polygraphy."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from s2mlp_deploy.engines.tensorrt.flavours import Flavour
from s2mlp_deploy.errors import InputError, TargetError

_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmg]?)(?:i?b)?", re.IGNORECASE)
OPTIMIZATION_LEVELS = range(6)


@dataclass(frozen=True)
class BuildOptions:
    """Options of a build. The defaults are the library's own.

    Attributes:
        workspace: Bytes of GPU memory that a layer may use (``MemoryPoolType.WORKSPACE``); None for no limit.
        optimization_level: 0 to 5; higher searches longer. None for the library's default.
        version_compatible: Whether later versions of the same major may load the engine.
        hardware_compatible: A key of the flavour's ``hardware_levels``.
        refit: Whether the weights may be replaced later.
        strip_plan: Whether the weights are left out; they are put back by refitting.
        timing_cache: File with measured kernels; read where it exists, then written.
        device: Number of the GPU to build on and inspect with.
        verbose: Whether everything the library logs goes to stderr.
    """

    workspace: int | None = None
    optimization_level: int | None = None
    version_compatible: bool = False
    hardware_compatible: str = "none"
    refit: bool = False
    strip_plan: bool = False
    timing_cache: Path | None = None
    device: int = 0
    verbose: bool = False

    def flags(self) -> dict[str, Any]:
        """What shapes the engine's bytes, for the sidecar and the cache's key."""
        values = asdict(self)
        for name in ("timing_cache", "device", "verbose"):
            del values[name]
        return values

    def arguments(self) -> list[str]:
        """The command-line arguments that give these options."""
        words = []
        for name, value in self.flags().items():
            if value == getattr(BuildOptions, name):
                continue
            words += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
        return words


def parse_size(text: str) -> int:
    """Bytes of ``2G``, ``512MiB`` or ``1073741824``; units are powers of 1024.

    Raises:
        InputError: The text has another form.
    """
    match = _SIZE.fullmatch(text.strip())
    size = int(float(match[1]) * _UNITS[match[2].lower()]) if match else 0
    if not 0 < size < 2**63:
        raise InputError(f"{text!r} is not a size", fix="write 2G, 512M or a number of bytes")
    return size


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
    if options.optimization_level is not None and options.optimization_level not in OPTIMIZATION_LEVELS:
        raise InputError(
            f"there is no optimization level {options.optimization_level}",
            fix=f"choose {OPTIMIZATION_LEVELS[0]} to {OPTIMIZATION_LEVELS[-1]}",
        )
    if options.hardware_compatible != "none" and options.hardware_compatible not in flavour.hardware_levels:
        levels = ", ".join(flavour.hardware_levels)
        raise TargetError(
            f"{flavour.title} has no hardware compatibility {options.hardware_compatible!r}",
            fix=f"choose one of {levels}" if levels else "name every GPU with --target instead",
        )
    if options.timing_cache is not None and not flavour.timing_cache:
        raise TargetError(
            f"{flavour.title} keeps no timing cache: it chooses kernels on the user's GPU",
            fix="leave --timing-cache out",
        )
    for option, need in flavour.needs.items():
        if getattr(options, option) and not gpu:
            raise TargetError(
                f"--{option.replace('_', '-')} needs {need}: without it {flavour.title} fails at the end of the build",
                fix="leave the option out, or build where that is",
            )
    if not gpu and not flavour.builds_without_gpu:
        raise TargetError(
            f"{flavour.title} builds on the GPU that will run the engine, and there is none here",
            fix="build there, use --engine tensorrt-rtx, or look at the file with --dry-run",
        )
