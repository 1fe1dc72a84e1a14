"""Tensors in rows: all axes but the last as one, as Gemm wants them."""

from __future__ import annotations

import math
import re

import onnx_ir as ir

_ROWS = re.compile(r"(\d+)\*")


def rows_of(shape: ir.Shape) -> int | ir.SymbolicDim:
    """How many rows a tensor of more axes has, one for each position of each sample: ``196*batch``."""
    outer = list(shape)[:-1]
    count = math.prod(size for size in outer if isinstance(size, int))
    free = [size.value for size in outer if isinstance(size, ir.SymbolicDim)]
    if not free:
        return count
    names = [name for name in free if name is not None]
    return ir.SymbolicDim("*".join([str(count), *names]) if len(names) == len(free) else None)


def least_size(size: int | ir.SymbolicDim | None) -> int:
    """What a size is where its free factors are 1."""
    if isinstance(size, int):
        return size
    factor = _ROWS.match(str(size.value)) if size is not None and size.value is not None else None
    return int(factor[1]) if factor else 1
