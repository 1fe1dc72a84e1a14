"""Machines and moments of measurements in words."""

from __future__ import annotations

from s2mlp_deploy.evidence.machine import Environment, Machine
from s2mlp_deploy.report import format as fmt

_MODULES = {"s2mlp_deploy": "s2mlp-deploy", "tensorrt_rtx": "tensorrt-rtx"}


def time_in_words(environment: Environment) -> str:
    """``2026-11-27 21:55 UTC``; what is no such time is shown as it is."""
    time = environment.time
    return f"{time[:10]} {time[11:16]} UTC" if len(time) == 20 and time[10] == "T" and time[-1] == "Z" else time


def versions_in_words(environment: Environment) -> str:
    """``s2mlp-deploy 0.1.0, torch 2.13.0``."""
    return ", ".join(
        f"{_MODULES.get(name, name)} {release_of(version)}" for name, version in environment.versions.items()
    )


def release_of(version: str) -> str:
    """A version without the number and the hash of OpenVINO's builds.

    >>> release_of("2026.4.1-22982-e213a147257-releases/2026/4"), release_of("2.13.0+cpu")
    ('2026.4.1', '2.13.0+cpu')
    """
    return version.partition("-")[0] if "-releases/" in version else version


def machine_in_words(machine: Machine) -> tuple[tuple[str, str], ...]:
    """A machine as names and values; what is not known is left out."""
    processor = machine.processor
    memory = [fmt.size(machine.memory)] if machine.memory is not None else []
    if machine.memory_limit is not None:
        memory.append(f"limited to {fmt.size(machine.memory_limit)}")
    pairs = [
        ("Processor", ", ".join(filter(None, (processor.name, processor.architecture)))),
        ("Instructions", ", ".join(processor.instructions)),
        ("Cores", _cores(machine)),
        ("Memory", ", ".join(memory)),
        ("Governor", machine.governor),
        ("GPUs", ", ".join(f"{gpu.name} ({gpu.capability}, driver {gpu.driver})" for gpu in machine.gpus)),
        ("System", machine.system),
        ("Python", machine.python),
    ]
    return tuple((name, value) for name, value in pairs if value)


def _cores(machine: Machine) -> str:
    parts = []
    if machine.physical_cores is not None:
        parts.append(fmt.integer(machine.physical_cores))
    if machine.logical_cores is not None:
        parts.append(fmt.count(machine.logical_cores, "hardware thread"))
    usable = machine.usable_cores
    if usable is not None and usable != machine.logical_cores:
        parts.append(f"{usable:g} usable")
    return ", ".join(parts)
