"""OpenVINO's package: whether it is here, which devices it has, and what it is told for each run."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Any

from s2mlp_deploy.engines.base import EngineStatus
from s2mlp_deploy.engines.packages import broken, load_openvino, version_of
from s2mlp_deploy.errors import MissingDependencyError, TargetError
from s2mlp_deploy.text import first_line_of, join_names

OPENVINO = "openvino"
CPU = "CPU"
RULES = 2
"""Raised with every change of what is made of a graph before it is compiled: older engines are refused."""
_NO_REASON = re.compile(r"Exception from |Check '.*' failed at |FrontEnd API failed|Model wasn't fully|Summary:")


def status() -> EngineStatus:
    """Which OpenVINO is installed and the devices it can use here."""
    version = version_of(OPENVINO)
    if version is None:
        return EngineStatus(OPENVINO, False, missing=OPENVINO, install_hint="pip install 's2mlp-deploy[openvino]'")
    try:
        core = shared_core()
        devices = [_described(core, name) for name in core.available_devices]
    except (MissingDependencyError, RuntimeError) as error:
        # A package that is there and does not load is no reason for others not to be used.
        return broken(OPENVINO, version, error.__context__ or error)
    return EngineStatus(OPENVINO, True, version=version, detail=", ".join(devices))


def _described(core: Any, device: str) -> str:
    try:
        return f"{device} ({core.get_property(device, 'FULL_DEVICE_NAME')})"
    except RuntimeError:  # Of a device whose driver fails.
        return str(device)


def load() -> Any:
    """OpenVINO.

    Raises:
        MissingDependencyError: It is not installed.
    """
    try:
        return load_openvino()
    except ImportError:
        raise MissingDependencyError(OPENVINO, extra=OPENVINO, purpose="running files with OpenVINO") from None


@functools.cache
def shared_core() -> Any:
    """OpenVINO's core, one for the process and never given up; any thread may use it.

    Its CPU plugin gives the thread that loads it a stack for signal handlers and frees that stack with the last core.
    Of two cores that end in the order in which they were made, the second one puts the stack of the first one back,
    which is freed by then: the next signal, a Ctrl-C that Python would handle, ends the process (measured with
    2026.4.1).

    Raises:
        MissingDependencyError: OpenVINO is not installed.
    """
    return load().Core()


def find_device(name: str, there: Sequence[str], where: str = "--engine", fix: str = "") -> str:
    """The device of that name among those that are there; any case is taken, and the number of the first one may miss.

    Args:
        name: ``CPU``, ``gpu``, ``GPU.1``.
        there: OpenVINO's names of what the machine has.
        where: The option, or the file, that names it.
        fix: What to do where it is not there; default: choose one of those that are.

    Raises:
        TargetError: It is not there; lists those that are.
    """
    wanted = name.upper()
    for device in there:
        if wanted and wanted in (device.upper(), device.upper().removesuffix(".0")):
            return device
    raise TargetError(
        f"OpenVINO has no device {name!r} here", where=where, fix=fix or f"choose {join_names(there, last='or')}"
    )


def check_device(name: str) -> None:
    """Refuses a device that is not here; empty for the CPU.

    Raises:
        MissingDependencyError: OpenVINO is not installed.
        TargetError: See :func:`find_device`.
    """
    find_device(name or CPU, shared_core().available_devices)


def configuration(
    device: str, *, half: bool, threads: int, throughput: bool, flush_denormals: bool, profile: bool
) -> dict[str, Any]:
    """What a graph is compiled with.

    Nothing that changes numbers is left to OpenVINO: by itself it computes in bfloat16 where the processor has it, and
    quantizes activations of compressed layers on the way.

    Args:
        device: OpenVINO's name of it.
        half: Whether the file is in float16. A processor computes it in float32, which loses nothing; GPUs and NPUs
            compute float16 in float16.
        threads: On a CPU; 0 lets OpenVINO choose.
        throughput: Whether many runs at once count, not the time of one.
        flush_denormals: Whether numbers below the smallest normal one count as 0, on a CPU.
        profile: Whether every node is timed.
    """
    chosen: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": "f16" if half and device != CPU else "f32",
        "PERFORMANCE_HINT": "THROUGHPUT" if throughput else "LATENCY",
        "PERF_COUNT": profile,
    }
    if device == CPU:
        chosen |= {
            "EXECUTION_MODE_HINT": "ACCURACY",
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
            # Several services of one machine, or several containers, would all be put on the same first cores.
            "ENABLE_CPU_PINNING": False,
            "CPU_DENORMALS_OPTIMIZATION": flush_denormals,
        }
        if threads:
            chosen["INFERENCE_NUM_THREADS"] = threads
        if not throughput:
            chosen["NUM_STREAMS"] = 1
    return chosen


def version_here() -> str | None:
    """The version of the OpenVINO that is installed, with its build; None where there is none."""
    try:
        return str(load_openvino().get_version())
    except ImportError:
        return None


def reason_of(error: BaseException) -> str:
    """What OpenVINO says, without the lines that name places in its source and the kind of error."""
    lines = [line.strip().removeprefix("-- ") for line in str(error).splitlines()]
    told = [line for line in lines if line and not _NO_REASON.match(line)]
    return told[0] if told else first_line_of(error)
