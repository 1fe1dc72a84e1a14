"""A PyTorch module becomes an exported program whose every shift is one ``s2mlp::shift``."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from s2mlp_deploy.errors import CheckpointError, ExportError

DynamicAxes = Mapping[str, Mapping[int, str]]
"""For each input its dynamic axes and their names, for example ``{"input": {0: "batch"}}``."""


@dataclass(frozen=True)
class Captured:
    """A captured program and what its inputs and outputs are called.

    Attributes:
        program: The result of ``torch.export``.
        input_names: One per tensor input, in order.
        output_names: One per tensor output, in order.
        dynamic_axes: The axes whose size is not fixed.
    """

    program: torch.export.ExportedProgram
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    dynamic_axes: DynamicAxes


def capture(
    module: nn.Module,
    example_inputs: Sequence[Tensor],
    *,
    input_names: Sequence[str] = ("input",),
    output_names: Sequence[str] = ("logits",),
    dynamic_axes: DynamicAxes | None = None,
) -> Captured:
    """Captures ``module`` in evaluation mode, without gradients.

    Args:
        module: Any module that ``torch.export`` accepts. Left in the mode it was in.
        example_inputs: Positional inputs. Dynamic axes must have a size of at least 2 here: torch specialises a
            size of 1.
        input_names: Names for the inputs of the graph.
        output_names: Names for its outputs.
        dynamic_axes: Axes whose size may differ from the example's.

    Raises:
        CheckpointError: A weight is NaN or infinite.
        ExportError: The module cannot be captured.
    """
    check_finite_weights(module)
    dynamic_axes = dynamic_axes or {}
    # One Dim object per name: inputs that share a name share the size.
    dims = {name: torch.export.Dim(name, min=1) for axes in dynamic_axes.values() for name in axes.values()}
    dynamic_shapes = tuple(
        {axis: dims[name] for axis, name in dynamic_axes.get(input_name, {}).items()} for input_name in input_names
    )
    training = module.training
    module.eval()
    try:
        # Under gradients, torch.export refuses in-place writes on the pieces of a chunk.
        with torch.no_grad(), quiet_exporter():
            program = torch.export.export(module, tuple(example_inputs), dynamic_shapes=dynamic_shapes)
    except Exception as error:
        raise ExportError(
            f"torch.export cannot capture {type(module).__name__}: {_first_line(error)}",
            where=f"example inputs {[tuple(x.shape) for x in example_inputs]}",
            fix="the module must run on these inputs without control flow that depends on their values",
        ) from error
    finally:
        module.train(training)
    return Captured(program, tuple(input_names), tuple(output_names), dynamic_axes)


def check_finite_weights(module: nn.Module) -> None:
    """Refuses a module that can only answer NaN.

    Raises:
        CheckpointError: Names the weights that hold NaN or infinity.
    """
    bad = [
        f"{name} ({int((~torch.isfinite(tensor)).sum())} of {tensor.numel()} values)"
        for name, tensor in module.state_dict().items()
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())
    ]
    if bad:
        raise CheckpointError(
            f"{len(bad)} weights hold NaN or infinite values",
            where="; ".join(bad[:8]) + (" …" if len(bad) > 8 else ""),
            fix="use a checkpoint from before the training diverged",
        )


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Keeps torch's notes about itself (torchvision is absent, names that will change) from the user's terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
