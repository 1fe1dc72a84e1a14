"""PyTorch as an engine: the reference that parity measures against."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from s2mlp_deploy.artifact import TensorInfo
from s2mlp_deploy.engines.base import Arrays, EngineStatus
from s2mlp_deploy.engines.packages import version_of

if TYPE_CHECKING:
    from torch import nn


def status() -> EngineStatus:
    """Whether torch is installed; does not import it."""
    version = version_of("torch")
    if version is None:
        return EngineStatus("torch", False, missing="torch", install_hint="pip install 's2mlp-deploy[export]'")
    return EngineStatus("torch", True, version=version, detail="eager")


class TorchEngine:
    """Runs a module eagerly, in evaluation mode, without gradients.

    Args:
        module: Left in the mode it was in after every run.
        inputs: Names, dtypes and shapes of its positional inputs.
        outputs: The same of its outputs.
    """

    name = "torch"

    def __init__(self, module: nn.Module, inputs: tuple[TensorInfo, ...], outputs: tuple[TensorInfo, ...]) -> None:
        self._module = module
        self.inputs = inputs
        self.outputs = outputs

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        """See :class:`~s2mlp_deploy.engines.base.Engine`."""
        import torch

        training = self._module.training
        self._module.eval()
        try:
            with torch.no_grad():
                values = self._module(*(torch.from_numpy(feeds[info.name]) for info in self.inputs))
        finally:
            self._module.train(training)
        if isinstance(values, torch.Tensor):
            values = (values,)
        return {info.name: value.numpy() for info, value in zip(self.outputs, values, strict=True)}
