"""From a module to a program with one node per shift: capture, hazards, recognition."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from onnx_ir.tensor_adapters import from_torch_dtype
from torch import nn
from torch.export import ExportedProgram

from s2mlp_deploy.artifact import Hazard, ShiftRecord, SizeLimit
from s2mlp_deploy.capture import hazards
from s2mlp_deploy.capture.checks import user_frame
from s2mlp_deploy.capture.program import Captured, capture
from s2mlp_deploy.errors import ExportError
from s2mlp_deploy.export.forms import choose
from s2mlp_deploy.export.rewrite import MovementRecord, NearMissRecord, rewrite_shifts, shifted_tensors, told
from s2mlp_deploy.graph.axes import DYNAMIC_AXES
from s2mlp_deploy.text import first_line_of, first_of, with_prompts
from s2mlp_deploy.torch_internals import exclusive

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Analysis:
    """A module after recognition.

    Attributes:
        captured: The functional program, with one node per shift, which carries its origin.
        shifts: In the program's order.
        near_misses: What moves data, is no shift and stays as it was.
        hazards: Lines that mean different things to different runtimes.
        movements: What moves data, is no shift, and is written in other operators.
    """

    captured: Captured
    shifts: tuple[ShiftRecord, ...]
    near_misses: tuple[NearMissRecord, ...]
    hazards: tuple[Hazard, ...]
    movements: tuple[MovementRecord, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What was tried and did not work, and what was written in another way, for the manifest."""
        return (*self.captured.notes, *told(self.movements))

    @property
    def limits(self) -> tuple[SizeLimit, ...]:
        """What free sizes may be, where that is not every size."""
        return self.captured.limits

    @property
    def races(self) -> bool:
        """Whether eager PyTorch does not define what the module computes."""
        return any(hazard.kind == "race" for hazard in self.hazards)

    def with_forms(self) -> tuple[ShiftRecord, ...]:
        """The shifts with the form that ``auto`` writes each in."""
        tensors = shifted_tensors(self.captured.program)
        return tuple(
            replace(shift, form=choose(shift.spec, x.sizes, from_torch_dtype(x.dtype), shift.origin.idiom).name)
            for shift, x in zip(self.shifts, tensors, strict=True)
        )

    def functional(self) -> Callable[..., Any]:
        """The module with its functional meaning, to be called like the module.

        torch's own guards are left out: they ask for two clips of a program that was traced with the example twice, and
        what free sizes may be stands in ``captured.limits``.
        """
        functional: Callable[..., Any] = self.captured.program.module(check_guards=False).forward
        return functional


def check_options(dynamic: Sequence[str], on_hazard: str) -> None:
    """Refuses what no module could be captured with, before one is loaded.

    Raises:
        ExportError: An axis has no such name, or ``on_hazard`` is none of its values.
    """
    if unknown := [name for name in dynamic if name not in DYNAMIC_AXES]:
        raise ExportError(
            f"no axis is called {', '.join(map(repr, unknown))}",
            where="--dynamic",
            fix=f"choose from {', '.join(DYNAMIC_AXES)}",
        )
    if on_hazard not in ("warn", "error"):
        raise ExportError(f"--on-hazard cannot be {on_hazard!r}", fix="choose warn or error")


@exclusive()
def analyze(
    module: nn.Module | ExportedProgram,
    example_inputs: Sequence[Any],
    *,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    dynamic: Sequence[str] = ("batch",),
    on_hazard: str = "warn",
) -> Analysis:
    """Captures a module, watches it for hazards and recognises its shifts.

    Args:
        module: See :func:`~s2mlp_deploy.capture.program.capture`.
        example_inputs: Positional arguments.
        input_names: See there.
        output_names: See there.
        dynamic: See there.
        on_hazard: ``warn`` goes on with the functional meaning of a race, ``error`` refuses it.

    Raises:
        ExportError: The module does not run on its example, cannot be captured, or races and ``on_hazard`` is
            ``error``.
        CheckpointError: A weight is NaN, infinite or on the meta device.
    """
    check_options(dynamic, on_hazard)
    captured = capture(module, example_inputs, input_names=input_names, output_names=output_names, dynamic=dynamic)
    found: tuple[Hazard, ...] = ()
    if isinstance(module, nn.Module):
        # Before recognition: the functional program as torch made it, not as this package rewrote it.
        found = _watch(module, Analysis(captured, (), (), ()).functional(), example_inputs)
        _report(found, on_hazard)
    rewritten = rewrite_shifts(captured.program)
    for note in captured.notes:
        LOG.warning("%s", with_prompts(note))
    return Analysis(captured, rewritten.shifts, rewritten.near_misses, found, rewritten.movements)


def _watch(module: nn.Module, functional: Callable[..., Any], inputs: Sequence[Any]) -> tuple[Hazard, ...]:
    try:
        found = hazards.watch(module, inputs)
    except Exception as error:
        raise ExportError(
            f"the module does not run on its example inputs: {first_line_of(error)}",
            where=user_frame(error),
            fix="give example inputs that fit",
        ) from error
    if all(hazard.kind != "race" for hazard in found):
        return found
    counts = sorted({1, max(torch.get_num_threads(), 2)})
    measured = hazards.eager_deviation(module, functional, inputs, threads=counts)
    deviation = {str(threads): value for threads, value in measured.items()}
    return tuple(replace(hazard, eager_deviation=deviation) if hazard.kind == "race" else hazard for hazard in found)


def _report(found: Sequence[Hazard], on_hazard: str) -> None:
    races = [hazard for hazard in found if hazard.kind == "race"]
    if races:
        places = [f"{with_prompts(hazard.where)}: {hazard.code}" for hazard in races]
        measured = races[0].eager_deviation or {}
        deviation = ", ".join(f"{value:.3g} with {n} thread{'s' * (n != '1')}" for n, value in measured.items())
        if on_hazard == "error":
            raise ExportError(
                "the module copies a tensor onto itself with overlap, which eager PyTorch does not define "
                f"(largest difference from the functional meaning: {deviation})",
                where=first_of(places),
                fix="clone the right-hand side, use s2mlp_deploy.shift.op.shift, or export with --on-hazard warn",
            )
        LOG.warning(
            "eager PyTorch does not define %s: %s%s\n"
            "  The functional meaning is exported; on the example eager differs from it by %s.\n"
            "  What it means and what to do: docs/reference/hazards.md; all lines: inspect",
            "this overlapping in-place copy" if len(races) == 1 else f"these {len(races)} overlapping in-place copies",
            places[0],
            f" and {len(races) - 1} more" if len(races) > 1 else "",
            deviation,
        )
    if cloned := [hazard for hazard in found if hazard.kind == "compiler"]:
        LOG.warning(
            "correct here, but torch.compile (Inductor) has dropped the clone of such a copy: %s: %s%s",
            with_prompts(cloned[0].where),
            cloned[0].code,
            f" and {len(cloned) - 1} more" if len(cloned) > 1 else "",
        )
