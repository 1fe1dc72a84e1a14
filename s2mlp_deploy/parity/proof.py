"""What can be proven of a file without running it on data: its shifts and its constants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from s2mlp_deploy.artifact import OF_SHIFTS, ShiftRecord
from s2mlp_deploy.evidence.calibration import CalibrationReport
from s2mlp_deploy.evidence.parity import GraphProof
from s2mlp_deploy.graph.loading import load_graph
from s2mlp_deploy.parity.constants import compare_constants, constants_of, state_of
from s2mlp_deploy.parity.shift_maps import prove_shifts
from s2mlp_deploy.shift.spec import ShiftSpec
from s2mlp_deploy.torch_internals import TorchDispatchMode


def prove(
    graph: ir.Graph,
    shifts: Sequence[ShiftRecord],
    source: Sequence[ShiftSpec] | None,
    *,
    module: Any = None,
    float32: Path | None = None,
    rewritten: bool = False,
    calibration: CalibrationReport | None = None,
) -> GraphProof:
    """Compares what is data in a file with what it was made of: exactly, or but for the rounding of its types.

    Args:
        graph: Of the file.
        shifts: What the file says of its shifts.
        source: The shifts of the module that it is compared with; None where they are not known.
        module: That module, where the file's constants are its own.
        float32: The float32 file that a file of another precision was made of, where it is there.
        rewritten: Whether the graph is written otherwise than that file, as ``tune`` does: in another form, layout or
            with other passes. What names sizes, axes and places there names others here.
        calibration: The ranges that it was quantized by, where they are known.
    """
    proof = prove_shifts(graph, shifts, source)
    if float32 is not None:
        originals = constants_of(load_graph(float32, valid=False).model.graph)
        if rewritten:
            originals = {
                name: array
                for name, array in originals.items()
                if np.issubdtype(array.dtype, np.floating) and not name.startswith(OF_SHIFTS)
            }
    elif module is not None:
        originals = state_of(module)
    else:
        return proof
    count, failures = compare_constants(graph, originals, calibration)
    return replace(proof, constants=count, failures=(*proof.failures, *failures))


class _Watching(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[ShiftSpec] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.s2mlp.shift.default:
            self.found.append(ShiftSpec.from_op_args(*args[1:6]))
        return func(*args, **(kwargs or {}))


def shifts_of(module: nn.Module, inputs: tuple[Any, ...]) -> list[ShiftSpec]:
    """The shifts of a module that calls ``s2mlp::shift``, in the order of its calls; runs it once."""
    with torch.no_grad(), _Watching() as watching:
        module(*inputs)
    found: list[ShiftSpec] = watching.found
    return found
