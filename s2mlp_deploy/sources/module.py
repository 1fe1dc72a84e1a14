"""A source from an ``nn.Module`` that is there already."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from s2mlp_deploy.artifact import SourceInfo
from s2mlp_deploy.errors import SourceError
from s2mlp_deploy.files import sha256_of
from s2mlp_deploy.preprocess import Sidecar
from s2mlp_deploy.sources.checkpoint import load_weights, read_weights
from s2mlp_deploy.sources.single import in_single_precision
from s2mlp_deploy.sources.source import EXAMPLE_BATCH, Source
from s2mlp_deploy.text import join_names
from s2mlp_deploy.torch_internals import tree_leaves

LOG = logging.getLogger(__name__)


def source_of_module(
    module: nn.Module,
    inputs: Any,
    *,
    reference: str | None = None,
    name: str | None = None,
    checkpoint: Path | None = None,
    config: Mapping[str, Any] | None = None,
    sidecar: Sidecar | None = None,
) -> Source:
    """A source from a module that is already there; one of another precision is copied to float32.

    Args:
        module: With its weights, unless ``checkpoint`` gives them.
        inputs: A tensor, or a tuple of positional arguments; None: two noisy images of the preprocessing's size.
        reference: What to call it in the manifest.
        name: What to serve it as.
        checkpoint: Weights to load.
        config: What it was made with, for the manifest.
        sidecar: Preprocessing and class names.

    Raises:
        SourceError: There are no example inputs.
        CheckpointError: The weights cannot be read or do not fit.
    """
    module = _unwrapped(module)
    reference = reference or type(module).__qualname__
    if devices := accelerators(module, inputs):
        raise SourceError(
            f"the module or its example inputs are on {join_names(devices)}, and a model is captured on the CPU",
            where=reference,
            fix="give module.cpu() and tensor.cpu() of every example input",
        )
    if isinstance(module, torch.jit.ScriptModule):
        raise SourceError(
            "the module is TorchScript, whose source torch.export cannot read",
            where=reference,
            fix="return the Python module that was scripted or traced, and load its weights with --checkpoint",
        )
    # Before weights are loaded, which would lose digits in float16.
    module, inputs, notes = in_single_precision(module, inputs, where=reference)
    info = SourceInfo(reference, dict(config or {}))
    if checkpoint is not None:
        load_weights(module, read_weights(checkpoint), where=str(checkpoint))
        info = SourceInfo(reference, dict(config or {}), checkpoint.name, sha256_of(checkpoint))
    if module.training:
        LOG.warning("%s is in training mode; it is exported in evaluation mode", type(module).__name__)
    preprocessing = sidecar.preprocessing if sidecar is not None else None
    if inputs is None:
        if preprocessing is None:
            raise SourceError(
                "there are no example inputs",
                where=reference,
                fix="return (module, example_inputs) from the factory, or describe an image input with --preprocess",
            )
        shape = (EXAMPLE_BATCH, preprocessing.channels, *preprocessing.size)
        inputs = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return Source(
        name=name or type(module).__name__.lower(),
        module=module,
        example_inputs=_positional(inputs, reference),
        info=info,
        preprocessing=preprocessing,
        classes=sidecar.classes if sidecar is not None else None,
        notes=notes,
    )


def _unwrapped(module: nn.Module) -> nn.Module:
    """What torch.compile and data parallelism wrap: they change how a module runs, not what it computes."""
    while True:
        inner = getattr(module, "_orig_mod", None)
        if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = module.module
        if not isinstance(inner, nn.Module):
            return module
        module = inner


def accelerators(module: nn.Module, inputs: Any) -> list[str]:
    """The devices of parameters, buffers and example inputs that are neither CPU nor meta."""
    tensors = [*module.parameters(), *module.buffers()]
    tensors += [leaf for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor)]
    return sorted({str(tensor.device) for tensor in tensors if tensor.device.type not in ("cpu", "meta")})


def _positional(inputs: Any, reference: str) -> tuple[Any, ...]:
    """Example inputs as positional arguments; one tensor or one dictionary is one argument."""
    arguments = (inputs,) if isinstance(inputs, (Tensor, dict)) else inputs
    fix = "give a tensor, or a tuple of the positional arguments of forward; torch.from_numpy(...) makes a tensor"
    if not isinstance(arguments, (tuple, list)):
        problem = f"example inputs are {kind(inputs)}"
    elif not any(isinstance(leaf, Tensor) for leaf in tree_leaves(tuple(arguments))):
        problem = f"there is no tensor in the example inputs {kind(arguments)}"
    elif any(isinstance(leaf, Tensor) and not leaf.numel() for leaf in tree_leaves(tuple(arguments))):
        problem = "a tensor of the example inputs is empty"
    elif any(isinstance(leaf, Tensor) and leaf.is_meta for leaf in tree_leaves(tuple(arguments))):
        problem, fix = "example inputs on the meta device have no values", "make them on the CPU"
    else:
        return tuple(arguments)
    raise SourceError(problem, where=reference, fix=fix)


def kind(value: Any) -> str:
    """A type for people; of tuples and lists what is in them."""
    name = type(value).__name__
    if isinstance(value, (tuple, list)):
        inside = ", ".join(type(item).__name__ for item in value[:4])
        return f"a {name} of ({inside}{', ...' if len(value) > 4 else ''})"
    return name
