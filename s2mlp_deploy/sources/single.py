"""Modules of other precisions than float32, which every file of an artifact is made from."""

from __future__ import annotations

import copy
import logging
from typing import Any

import torch
from torch import Tensor, nn

from s2mlp_deploy.errors import SourceError
from s2mlp_deploy.text import first_line_of, join_names
from s2mlp_deploy.torch_internals import tree_leaves, tree_map

LOG = logging.getLogger(__name__)

OTHERS = (torch.float64, torch.float16, torch.bfloat16)
"""ONNX Runtime has few kernels of float64 and hardly any of bfloat16; float16 is made from the float32 file."""


def in_single_precision(module: nn.Module, inputs: Any, *, where: str) -> tuple[nn.Module, Any, tuple[str, ...]]:
    """A module in float32 with float32 inputs, as a copy where it was in something else.

    What is not float32 on purpose stays: integers, and float16 beside float32.

    Args:
        module: Left as it is.
        inputs: Example inputs: tensors, or structures of tensors.
        where: What the module is called.

    Returns:
        The module, its inputs, and a note for the manifest where one of them was cast.

    Raises:
        SourceError: An input is complex, or the module cannot be copied.
    """
    tensors = [leaf for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor)]
    if any(tensor.is_complex() for tensor in tensors):
        raise SourceError(
            "an example input is complex, and ONNX Runtime computes with real numbers",
            where=where,
            fix="take real and imaginary part as two inputs, or torch.view_as_real(x) as one",
        )
    weights = _to_cast(module)
    given = {tensor.dtype for tensor in tensors if tensor.dtype in OTHERS}
    if not weights | given:
        return module, inputs, ()
    if weights:
        try:
            module = copy.deepcopy(module)
        except Exception as error:
            raise SourceError(
                f"the module is in {_names(weights)}, and it cannot be copied to float32: {first_line_of(error)}",
                where=where,
                fix="give module.float()",
            ) from error
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.dtype in weights:
                tensor.data = tensor.data.float()
    inputs = tree_map(lambda leaf: leaf.float() if isinstance(leaf, Tensor) and leaf.dtype in OTHERS else leaf, inputs)
    parts = [f"weights of {_names(weights)}"] * bool(weights) + [f"inputs of {_names(given)}"] * bool(given)
    note = f"{' and '.join(parts)} are float32 in the export"
    LOG.warning("%s: %s", where, note)
    return module, inputs, (note,)


def _to_cast(module: nn.Module) -> set[torch.dtype]:
    """The types of weights that are to be float32.

    Where some are float32, the module casts to the smaller types by itself and needs them; float64 was promoted to.
    """
    own = {parameter.dtype for parameter in module.parameters()}
    doubles = {torch.float64} & {tensor.dtype for tensor in (*module.parameters(), *module.buffers())}
    return doubles if torch.float32 in own else doubles | own.intersection(OTHERS)


def _names(dtypes: set[torch.dtype]) -> str:
    return join_names(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes), limit=None, last="and")
