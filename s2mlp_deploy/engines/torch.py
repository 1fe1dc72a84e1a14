"""PyTorch as an engine: the reference that parity measures against."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from numpy.typing import NDArray

from s2mlp_deploy.artifact import TensorInfo
from s2mlp_deploy.engines.base import Arrays, EngineStatus
from s2mlp_deploy.engines.packages import version_of
from s2mlp_deploy.errors import InputError


def status() -> EngineStatus:
    """Whether torch is installed; does not import it."""
    version = version_of("torch")
    if version is None:
        return EngineStatus("torch", False, missing="torch", install_hint="pip install 's2mlp-deploy[export]'")
    return EngineStatus("torch", True, version=version, detail="eager and compiled")


class TorchEngine:
    """Runs a module without gradients.

    Args:
        module: In evaluation mode; anything that is called with positional arguments.
        example_inputs: Arguments whose structure the inputs are put into.
        inputs: Names, dtypes and shapes of the tensors in it, in order.
        outputs: The same of the tensors that the module returns.
        name: What to call it in reports.
        compiled: Whether the module goes through ``torch.compile`` first. Inductor needs a C++ compiler on the machine.
    """

    def __init__(
        self,
        module: Callable[..., Any],
        example_inputs: tuple[Any, ...],
        inputs: tuple[TensorInfo, ...],
        outputs: tuple[TensorInfo, ...],
        *,
        name: str = "torch",
        compiled: bool = False,
    ) -> None:
        # Here and below: the registry reads this module where torch is not installed.
        from s2mlp_deploy.torch_internals import tree_flatten

        if compiled:
            import torch

            module = torch.compile(module)
            name = f"{name} (compiled)"
        self._module = module
        self._leaves, self._structure = tree_flatten(example_inputs)
        self.inputs = inputs
        self.outputs = outputs
        self.name = name

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        """See :class:`~s2mlp_deploy.engines.base.Engine`."""
        import torch

        from s2mlp_deploy.torch_internals import tree_leaves, tree_unflatten

        # A copy: a module may write into its input, and other engines get the same arrays.
        tensors = (torch.from_numpy(feeds[info.name].copy()) for info in self.inputs)
        # What is no tensor in the example (None, a flag) is part of the call and stays.
        leaves = [next(tensors) if isinstance(leaf, torch.Tensor) else leaf for leaf in self._leaves]
        with torch.no_grad():
            values = self._module(*tree_unflatten(leaves, self._structure))
        results = [value for value in tree_leaves(values) if isinstance(value, torch.Tensor)]
        if len(results) != len(self.outputs):
            names = ", ".join(info.name for info in self.outputs)
            raise InputError(
                f"the model returns {len(results)} tensors, where {len(self.outputs)} are expected ({names})",
                fix="compare with the source, checkpoint and settings that the file was exported from",
            )
        return {info.name: value.numpy() for info, value in zip(self.outputs, results, strict=True)}
