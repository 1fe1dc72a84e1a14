"""Which NVIDIA GPUs are here, asked of the driver's own tools: nothing is imported and no context is made."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

_QUERY = ("name", "compute_cap", "driver_version", "memory.total", "uuid")
# A driver that nobody has open starts first: seconds for each GPU of the machine.
_TIMEOUT = 30.0
_VISIBLE, _ORDER = "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU.

    Attributes:
        name: As the driver calls it.
        capability: Compute capability as targets are written: ``sm89``.
        driver: Version of the driver.
        memory: MiB; None where the GPU has none of its own and uses the machine's.
        uuid: What names it everywhere: numbers are CUDA's or ``nvidia-smi``'s, which count in different orders.
    """

    name: str
    capability: str
    driver: str
    memory: int | None
    uuid: str = ""


@functools.cache
def gpus() -> tuple[Gpu, ...]:
    """The GPUs that a process of this environment can use, none where there is no driver.

    They come in the order of ``nvidia-smi``, which is not CUDA's: a place in it is no device number. Where there are
    different ones and ``CUDA_VISIBLE_DEVICES`` has numbers, only CUDA knows which are meant, and all are listed.
    """
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
    return visible_gpus(parse_gpus(done.stdout), os.environ)


def parse_gpus(text: str) -> tuple[Gpu, ...]:
    """Reads the comma-separated lines of ``nvidia-smi``; lines of another form are no GPUs."""
    found = []
    for line in text.splitlines():
        fields = [field.strip() for field in line.split(",")]
        with contextlib.suppress(ValueError):
            name, capability, driver, memory, uuid = fields
            major, minor = (int(part) for part in capability.split("."))
            # "[N/A]" on GPUs that share the machine's memory.
            found.append(Gpu(name, f"sm{major}{minor}", driver, int(memory) if memory.isdecimal() else None, uuid))
    return tuple(found)


def visible_gpus(found: tuple[Gpu, ...], environment: Mapping[str, str]) -> tuple[Gpu, ...]:
    """Those that ``CUDA_VISIBLE_DEVICES`` leaves: numbers, or UUIDs by their beginning, up to the first that is none.

    Args:
        found: All of the machine, in the order of ``nvidia-smi``.
        environment: Of the process.
    """
    listed = environment.get(_VISIBLE)
    if listed is None:
        return found
    # Numbers count by speed unless told otherwise; among equal GPUs that is the order of nvidia-smi.
    counted = environment.get(_ORDER) == "PCI_BUS_ID" or len({(gpu.name, gpu.memory) for gpu in found}) <= 1
    kept: list[Gpu] = []
    for part in (part.strip() for part in listed.split(",")):
        if part.isdecimal():
            if int(part) >= len(found):
                break
            if not counted:
                return found
            kept.append(found[int(part)])
            continue
        matching = [gpu for gpu in found if part.startswith("GPU-") and gpu.uuid.startswith(part)]
        if part.startswith("MIG-"):  # A slice of one of them; which, only the driver knows.
            return found
        if len(matching) != 1:
            break
        kept += matching
    return tuple(dict.fromkeys(kept))


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
