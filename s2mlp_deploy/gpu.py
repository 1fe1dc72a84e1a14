"""Which NVIDIA GPUs are here, asked of the driver's own tools: nothing is imported and no context is made."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import shutil
import subprocess
from dataclasses import dataclass

_QUERY = ("name", "compute_cap", "driver_version", "memory.total")
_TIMEOUT = 5.0


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU.

    Attributes:
        name: As the driver calls it.
        capability: Compute capability as targets are written: ``sm89``.
        driver: Version of the driver.
        memory: MiB.
    """

    name: str
    capability: str
    driver: str
    memory: int


@functools.cache
def gpus() -> tuple[Gpu, ...]:
    """The GPUs in the order of ``nvidia-smi``; none where there is no driver."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    try:
        done = subprocess.run(
            [tool, f"--query-gpu={','.join(_QUERY)}", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    return parse_gpus(done.stdout)


def parse_gpus(text: str) -> tuple[Gpu, ...]:
    """Reads the comma-separated lines of ``nvidia-smi``; lines of another form are no GPUs."""
    found = []
    for line in text.splitlines():
        fields = [field.strip() for field in line.split(",")]
        with contextlib.suppress(ValueError):
            name, capability, driver, memory = fields
            major, minor = (int(part) for part in capability.split("."))
            found.append(Gpu(name, f"sm{major}{minor}", driver, int(memory)))
    return tuple(found)


def cuda_version() -> str | None:
    """The newest CUDA version that the driver supports, as ``13.0``; None without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    number = ctypes.c_int()
    # cuDriverGetVersion: 1000 times the major version plus 10 times the minor. It needs no cuInit.
    if driver.cuDriverGetVersion(ctypes.byref(number)) != 0 or number.value == 0:
        return None
    return f"{number.value // 1000}.{number.value % 1000 // 10}"
