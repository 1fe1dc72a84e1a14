"""What else the machine did while something was measured: other programs, a hypervisor, limits that slowed it down."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

OTHER_LOAD = 0.1
"""Processors that other programs keep busy, on average, from which on a measurement is not to be trusted."""

_STEAL = 0.02
"""The same of a hypervisor that gives the processors to others."""

_BUSY_FIELDS = (0, 1, 2, 5, 6)
"""Of the first line of /proc/stat: user, nice, system, irq, softirq. Idle and waiting for disks is not busy."""

_STEAL_FIELD = 7

# Of nvidia-smi: software power cap, hardware slowdown, thermal slowdowns, power brake. Idle clocks are none of them.
_GPU_THROTTLED = 0x4 | 0x8 | 0x20 | 0x40 | 0x80
_TIMEOUT = 5.0


@dataclass(frozen=True)
class Activity:
    """Counters of the machine at a moment; None where the system does not tell.

    Attributes:
        time: Seconds of a clock.
        busy: Seconds that all processors worked.
        steal: Seconds that a hypervisor took.
        throttled: How often the control group was stopped for its quota.
        thermal: How often a processor was slowed down for its heat.
    """

    time: float
    busy: float | None
    steal: float | None
    throttled: int | None
    thermal: int | None


def activity(root: Path = Path("/")) -> Activity:
    """Reads the counters.

    Args:
        root: Where ``/proc`` and ``/sys`` lie.
    """
    busy = steal = None
    with contextlib.suppress(OSError, ValueError, IndexError, AttributeError):
        ticks = [int(field) for field in (root / "proc/stat").read_text().splitlines()[0].split()[1:]]
        second = os.sysconf("SC_CLK_TCK")
        busy, steal = sum(ticks[field] for field in _BUSY_FIELDS) / second, ticks[_STEAL_FIELD] / second
    throttled = None
    with contextlib.suppress(OSError, ValueError):
        for line in (root / "sys/fs/cgroup/cpu.stat").read_text().splitlines():
            if line.startswith("nr_throttled "):
                throttled = int(line.split()[1])
    counts = []
    for path in (root / "sys/devices/system/cpu").glob("cpu[0-9]*/thermal_throttle/*_throttle_count"):
        with contextlib.suppress(OSError, ValueError):
            counts.append(int(path.read_text()))
    return Activity(time.monotonic(), busy, steal, throttled, sum(counts) if counts else None)


def disturbances(before: Activity, after: Activity, own_seconds: float) -> tuple[str, ...]:
    """What speaks against figures that were measured between two moments, in words.

    Args:
        before: The first moment.
        after: The second.
        own_seconds: Processor time that the measurement itself took.
    """
    found = []
    elapsed = max(after.time - before.time, 1e-9)
    if before.busy is not None and after.busy is not None:
        others = (after.busy - before.busy - own_seconds) / elapsed
        if others > OTHER_LOAD:
            found.append(f"other programs kept {others:.1f} processors busy: close them, or measure when it is quiet")
    if before.steal is not None and after.steal is not None and (after.steal - before.steal) / elapsed > _STEAL:
        share = (after.steal - before.steal) / elapsed
        found.append(f"the hypervisor took {share:.2f} processors for other machines: measure on one of your own")
    if (after.throttled or 0) > (before.throttled or 0):
        times = (after.throttled or 0) - (before.throttled or 0)
        found.append(
            f"the container was stopped {times} times for its processor quota: raise it or use fewer --threads"
        )
    if (after.thermal or 0) > (before.thermal or 0):
        found.append("the processor was slowed down for its heat: cool it, or fix a lower clock")
    return tuple(found)


def gpu_throttling() -> tuple[str, ...]:
    """What slows a GPU down at this moment, in words, as ``nvidia-smi`` says it; nothing where there is none."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    query = [tool, "--query-gpu=clocks_throttle_reasons.active", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=_TIMEOUT, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    return throttled_gpus(done.stdout)


def throttled_gpus(text: str) -> tuple[str, ...]:
    """Reads the reasons of each GPU, one a line, as hexadecimal bits."""
    found = []
    for number, line in enumerate(text.split()):
        with contextlib.suppress(ValueError):
            if int(line, 16) & _GPU_THROTTLED:
                found.append(f"the clock of GPU {number} was held down by power or heat: lock a lower one")
    return tuple(found)
