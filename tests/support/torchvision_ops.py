"""``torchvision.ops.deform_conv2d`` for a machine without torchvision, or with one that does not fit its torch."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import torch
from gallery_deform import register_deform_conv2d
from torch import Tensor

_PATHS = ("torchvision", "torchvision.ops", "torchvision.ops.deform_conv")


def deform_conv2d(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    mask: Tensor | None = None,
) -> Tensor:
    """As torchvision calls its operator."""
    bias = x.new_zeros(weight.shape[0]) if bias is None else bias
    given = mask is not None
    mask = x.new_zeros(x.shape[0], 1) if mask is None else mask
    groups, taps = x.shape[1] // weight.shape[1], weight.shape[2] * weight.shape[3]
    numbers: Any = (*stride, *padding, *dilation, groups, offset.shape[1] // (2 * taps), given)
    return torch.ops.torchvision.deform_conv2d(x, weight, offset, mask, bias, *numbers)


@contextlib.contextmanager
def torchvision_ops() -> Iterator[None]:
    """torchvision where it can be imported; else its one function for as long as this holds."""
    try:
        importlib.import_module(_PATHS[-1])
    except (ImportError, RuntimeError):
        pass
    else:
        yield
        return
    register_deform_conv2d()
    before = {path: sys.modules.get(path) for path in _PATHS}
    for path in _PATHS:
        sys.modules[path] = ModuleType(path)
        sys.modules[path].__spec__ = ModuleSpec(path, None)  # torch's exporter asks for it.
    sys.modules[_PATHS[-1]].deform_conv2d = deform_conv2d  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for path, module in before.items():
            if module is None:
                del sys.modules[path]
            else:
                sys.modules[path] = module
