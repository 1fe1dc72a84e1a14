"""What makes a service slow on the machine that it runs on, told before anybody measures it."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from s2mlp_deploy.artifact.onnx_interface import float_weights
from s2mlp_deploy.engines.registry import ENGINES, kind_of
from s2mlp_deploy.evidence.calibration import CalibrationReport
from s2mlp_deploy.evidence.machine import Machine, this_machine
from s2mlp_deploy.evidence.store import read_record
from s2mlp_deploy.serving.plan import RunPlan
from s2mlp_deploy.text import join_names

LOG = logging.getLogger(__name__)

_QUANTIZED = ("int8", "fp8")
_TOLD: set[str] = set()
_LOCK = threading.Lock()


@dataclass(frozen=True)
class Hindrance:
    """Something that makes it slow.

    Attributes:
        kind: ``cpu-limit``: more threads than the process gets cores; ``spinning``: idle threads burn time that is
            counted, or that others need; ``denormals``: numbers below the smallest normal float32, which processors
            compute with many times slower; ``int8``: a quantized file on a processor without VNNI.
        problem: What it is, one sentence.
        fix: What to do, as options of the command line.
    """

    kind: Literal["cpu-limit", "spinning", "denormals", "int8"]
    problem: str
    fix: str


def hindrances(plan: RunPlan, *, sessions: int = 1, machine: Machine | None = None) -> tuple[Hindrance, ...]:
    """What makes a planned run slow here. Reads the file's weights, and runs nothing.

    Args:
        plan: What runs.
        sessions: How many engines are open at once, each with threads of its own.
        machine: Where; default: this one.
    """
    if not _on_processor(plan):
        return ()
    here = machine or this_machine()
    return (*_threads(plan, sessions, here), *_denormals(plan), *_int8(plan, here))


def tell_once(found: Iterable[Hindrance]) -> None:
    """Warns of each, once in the life of a process."""
    for item in found:
        text = f"{item.problem}: {item.fix}"
        with _LOCK:
            if text in _TOLD:
                continue
            _TOLD.add(text)
        LOG.warning("%s", text)


def _on_processor(plan: RunPlan) -> bool:
    kind, _, part = plan.engine.partition(":")
    return bool(ENGINES[kind].opens_graph) and part.lower().removesuffix("executionprovider") in ("", "cpu")


def _threads(plan: RunPlan, sessions: int, here: Machine) -> Iterator[Hindrance]:
    # ONNX Runtime sizes its pool by the cores of the host, whatever the control group grants (its issue 29510).
    pool = plan.settings.threads or here.physical_cores or here.logical_cores or 1
    usable = here.usable_cores or math.inf
    total = pool * sessions
    fewer = max(1, int(min(usable, total) // sessions))
    if total > usable:
        limits = []
        if here.cpu_quota is not None and here.cpu_quota == usable:
            limits.append(f"its control group grants {here.cpu_quota:g}")
        elif here.allowed_cores == usable:
            limits.append(f"it may run on {here.allowed_cores}")
        else:
            limits.append(f"the machine has {usable:g}")
        of = f" ({sessions} sessions of {pool})" if sessions > 1 else ""
        yield Hindrance(
            "cpu-limit",
            f"{total} threads{of} share less than as many cores: {join_names(limits)}",
            f"--threads {fewer}" if fewer < pool else f"fewer sessions than {sessions}",
        )
    shared = total > usable or here.cpu_quota is not None
    if kind_of(plan.engine) == "onnxruntime" and plan.settings.spin and pool > 1 and shared:
        why = "a quota counts" if here.cpu_quota is not None else "other threads need"
        yield Hindrance("spinning", f"idle threads of ONNX Runtime spin, which takes time that {why}", "--no-spin")


def _denormals(plan: RunPlan) -> Iterator[Hindrance]:
    if plan.settings.flush_denormals or plan.is_built:
        return
    found = 0
    for values in float_weights(plan.path):
        bits = values.view(np.uint32) & np.uint32(0x7FFFFFFF)
        found += int(np.count_nonzero((bits > 0) & (bits < 0x00800000)))
    if found:
        yield Hindrance(
            "denormals",
            f"{found:,} weights of {plan.file} are subnormal numbers, with which processors may be many times slower",
            "--flush-denormals, or export --flush-denormals",
        )
    calibration = read_record(plan.directory, CalibrationReport)
    if calibration is not None and calibration.subnormal:
        yield Hindrance(
            "denormals",
            f"{calibration.subnormal:,} values of activations were subnormal numbers on the calibration data, with "
            "which processors may be many times slower",
            "--flush-denormals",
        )


def _int8(plan: RunPlan, here: Machine) -> Iterator[Hindrance]:
    if plan.basis in ("tune", "bench"):
        return  # It was measured, and taken for what that found.
    if plan.precision.startswith(_QUANTIZED) and here.processor.int8_saturates:
        yield Hindrance(
            "int8",
            f"{plan.file} is quantized, and this processor has no VNNI: it may be no faster than float32",
            "measure it (bench DIR), or --precision fp32",
        )
