"""Where and when something was measured: the machine with the limits of its container, and the runtimes that ran.

Evidence keeps it. ONNX files and manifests do not: the same inputs give the same bytes. No name of a host or a user is
read, for reports are sent to other people.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from s2mlp_deploy import __version__
from s2mlp_deploy.gpu import Gpu, gpus
from s2mlp_deploy.processor import Processor, processor

_RUNTIMES = ("numpy", "torch", "onnx", "onnxruntime", "openvino", "tensorrt", "tensorrt_rtx")
"""Modules whose version changes results or times."""

_UNLIMITED = 1 << 60
"""From here on a limit of bytes means none: version 1 of control groups writes the largest multiple of a page."""


@dataclass(frozen=True)
class Machine:
    """A machine as a process finds it: what does not change while it runs. Equal records are the same kind of machine.

    Attributes:
        processor: Its name and instruction sets.
        physical_cores: Cores; None where the system does not tell.
        logical_cores: Hardware threads.
        allowed_cores: Hardware threads that the process may run on, by its affinity.
        cpu_quota: Threads' worth of time that its control group may use; None without such a limit.
        governor: How the clock frequency is chosen (``performance``, ``powersave``); empty where that cannot be read,
            on virtual machines for example.
        memory: Bytes of main memory; None where the system does not tell.
        memory_limit: Bytes that its control group may use; None without such a limit.
        system: Kernel and distribution: ``Linux 6.1.0, Debian GNU/Linux 12 (bookworm)``.
        python: Version, and the implementation where that is not CPython.
        gpus: NVIDIA's, in the order of their driver.
    """

    processor: Processor
    physical_cores: int | None = None
    logical_cores: int | None = None
    allowed_cores: int | None = None
    cpu_quota: float | None = None
    governor: str = ""
    memory: int | None = None
    memory_limit: int | None = None
    system: str = ""
    python: str = ""
    gpus: tuple[Gpu, ...] = ()

    @property
    def usable_cores(self) -> float | None:
        """Threads' worth of time that a process can get: the smallest of what is there, allowed and granted."""
        known = (self.logical_cores, self.allowed_cores, self.cpu_quota)
        return min((value for value in known if value is not None), default=None)

    @property
    def usable_memory(self) -> int | None:
        """Bytes that a process can get."""
        return min((value for value in (self.memory, self.memory_limit) if value is not None), default=None)


@dataclass(frozen=True)
class Environment:
    """When, where and with what something was measured.

    Attributes:
        time: Of its end, in UTC: ``2026-11-27T21:55:00Z``.
        machine: Where.
        versions: Of this package and of every runtime that the process had loaded, by module name.
        load: Load average over 1, 5 and 15 minutes: how busy the machine was; empty where the system does not tell.
    """

    time: str
    machine: Machine
    versions: dict[str, str] = field(default_factory=dict)
    load: tuple[float, ...] = ()


def environment_here() -> Environment:
    """The environment of this process, now."""
    return Environment(
        time=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        machine=this_machine(),
        versions={"s2mlp_deploy": __version__} | dict(_loaded_versions()),
        load=_load(),
    )


def this_machine(root: Path = Path("/")) -> Machine:
    """Reads this machine.

    Args:
        root: Where ``/proc`` and ``/sys`` lie.
    """
    here = processor()
    implementation = platform.python_implementation()
    return Machine(
        processor=here,
        physical_cores=_physical_cores(root),
        logical_cores=os.cpu_count(),
        allowed_cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        cpu_quota=_cpu_quota(root),
        governor=_text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        memory=_memory(),
        memory_limit=_memory_limit(root),
        system=", ".join(filter(None, (f"{platform.system()} {platform.release()}".strip(), _distribution()))),
        python=platform.python_version() + ("" if implementation == "CPython" else f" ({implementation})"),
        gpus=gpus(),
    )


def _loaded_versions() -> Iterator[tuple[str, str]]:
    # Nothing is imported for that: what is not loaded has computed nothing.
    for name in _RUNTIMES:
        version = getattr(sys.modules.get(name), "__version__", None)
        if isinstance(version, str):
            yield name, str(version)  # torch's is of a type of its own.


def _load() -> tuple[float, ...]:
    try:
        return tuple(round(value, 2) for value in os.getloadavg())
    except (OSError, AttributeError):  # Windows has none.
        return ()


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        return ""


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError, AttributeError):
        return None


def _physical_cores(root: Path) -> int | None:
    """Cores by the lists of hardware threads that share one; each list stands in the folder of each of its threads."""
    folders = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/topology")
    shared = {_text(folder / "core_cpus_list") or _text(folder / "thread_siblings_list") for folder in folders}
    return len(shared - {""}) or None


def _cpu_quota(root: Path) -> float | None:
    """The smallest quota of the process's control group and of those around it, in threads."""
    quotas = []
    for folder in _control_groups(root, "cpu"):
        fields = _text(folder / "cpu.max").split()  # Version 2: "150000 100000", or "max 100000".
        fields = fields or [_text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")]  # -1: none.
        with contextlib.suppress(ValueError, ZeroDivisionError):
            quota, period = (float(value) for value in fields)
            if quota > 0:
                quotas.append(quota / period)
    return min(quotas, default=None)


def _memory_limit(root: Path) -> int | None:
    """The smallest limit of the process's control group and of those around it, in bytes."""
    limits = []
    for folder in _control_groups(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            with contextlib.suppress(ValueError):
                limits.append(int(_text(folder / name)))
    return min((limit for limit in limits if limit < _UNLIMITED), default=None)


def _control_groups(root: Path, controller: str) -> Iterator[Path]:
    """The folders of the process's control group for a controller, the innermost first.

    Inside a container the paths of ``/proc/self/cgroup`` may be those of the host, which are not there: what is read
    then is the mounted root, which is the container's own group.
    """
    for line in _text(root / "proc/self/cgroup").splitlines():
        match = re.fullmatch(r"\d+:([^:]*):/(.*)", line)
        if match is None or not (match[1] == "" or controller in match[1].split(",")):
            continue
        mount = root / "sys/fs/cgroup" / (controller if match[1] else "")
        inner = mount / match[2]
        for folder in (inner, *inner.parents):
            yield folder
            if folder == mount:
                break


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, ValueError):
        return ""
