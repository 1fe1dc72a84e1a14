"""A case of the gallery on its way through the package, and in ONNX Runtime."""

from __future__ import annotations

import collections
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import gallery_deform
import gallery_in_place
import gallery_names
import gallery_near_misses
import gallery_networks
import gallery_relatives
import gallery_slices
import gallery_tables
import onnx_ir as ir
import onnxruntime as ort
import torch
from gallery_case import Array, Case, flat
from torch import nn

from s2mlp_deploy.artifact import ShiftRecord
from s2mlp_deploy.capture.program import Captured, capture
from s2mlp_deploy.export.canonical import to_canonical
from s2mlp_deploy.export.forms import AUTO, find_form
from s2mlp_deploy.export.lower import lower_shifts
from s2mlp_deploy.export.rewrite import NearMissRecord, rewrite_shifts
from s2mlp_deploy.shift.spec import ShiftSpec

SHIFTS: tuple[Case, ...] = tuple(
    case
    for gallery in (
        gallery_in_place.gallery,
        gallery_slices.gallery,
        gallery_tables.gallery,
        gallery_names.gallery,
        gallery_deform.gallery,
        gallery_networks.gallery,
        gallery_relatives.gallery,
    )
    for case in gallery.cases
)
NEAR_MISSES: tuple[Case, ...] = (*gallery_near_misses.gallery.cases, *gallery_deform.near_misses.cases)
CASES = {case.name: case for case in (*SHIFTS, *NEAR_MISSES)}

OWN = "shift"
"""The package's operator, as :func:`operators` names it."""


@dataclass(frozen=True)
class Flow:
    """A case after recognition.

    Attributes:
        module: As its author made it.
        inputs: Its example.
        captured: Its program, with one node per shift.
        functional: The outputs of the program as torch captured it.
        shifts: What was found.
        near_misses: What was left, and why.
    """

    module: nn.Module
    inputs: tuple[Array, ...]
    captured: Captured
    functional: Sequence[Array]
    shifts: Sequence[ShiftRecord]
    near_misses: Sequence[NearMissRecord]

    @property
    def specs(self) -> list[ShiftSpec]:
        return [shift.spec for shift in self.shifts]

    @property
    def operators(self) -> collections.Counter[str]:
        """How often each operator is in the program, by its name without namespace and overload."""
        return collections.Counter(
            node.target._schema.name.split("::")[1]
            for node in self.captured.program.graph.nodes
            if isinstance(node.target, torch._ops.OpOverload)
        )


@functools.cache
def flow(name: str, dynamic: tuple[str, ...] = ("batch",)) -> Flow:
    """Captures a case and has its shifts recognised, once per session. Not to be changed."""
    case = CASES[name]
    module, inputs = case.module(), case.inputs()
    captured = capture(module, inputs, dynamic=dynamic)
    functional = run_program(captured, inputs)
    rewritten = rewrite_shifts(captured.program)
    return Flow(
        module,
        tuple(x.numpy() for x in inputs),
        captured,
        functional,
        rewritten.shifts,
        rewritten.near_misses,
    )


def run_program(captured: Captured, inputs: Sequence[torch.Tensor]) -> list[Array]:
    """What the program computes; its inputs stay as they are."""
    with torch.no_grad():
        return flat(captured.program.module()(*(x.clone() for x in inputs)))


def rewritten(name: str) -> Sequence[Array]:
    """The outputs of a case's program with its shifts replaced."""
    result = flow(name)
    return run_program(result.captured, [torch.from_numpy(x) for x in result.inputs])


@functools.cache
def canonical(name: str, dynamic: tuple[str, ...] = ("batch",)) -> ir.Model:
    """A case's canonical graph. Not to be changed."""
    return to_canonical(flow(name, dynamic).captured)


def lowered(
    name: str, form: str = AUTO, dynamic: tuple[str, ...] = ("batch",)
) -> tuple[ir.Model, Sequence[ShiftRecord]]:
    return lower_shifts(canonical(name, dynamic), find_form(form))


def node_counts(model: ir.Model) -> collections.Counter[str]:
    return collections.Counter(node.op_type for node in model.graph)


def session(model: ir.Model | Path) -> ort.InferenceSession:
    """ONNX Runtime on one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    content = str(model) if isinstance(model, Path) else ir.to_proto(model).SerializeToString(deterministic=True)
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def run_onnx(model: ir.Model, inputs: Sequence[Array]) -> list[Array]:
    runner = session(model)
    names = [value.name for value in runner.get_inputs()]
    return list(runner.run(None, dict(zip(names, inputs, strict=True))))
