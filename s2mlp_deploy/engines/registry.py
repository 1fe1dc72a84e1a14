"""The engines by name. Nothing is imported until it is used; a new engine is one file and one line.

The table holds module names, not modules, so that a service that only runs ONNX Runtime never loads torch.
"""

from __future__ import annotations

import importlib

from s2mlp_deploy.engines.base import EngineStatus
from s2mlp_deploy.errors import TargetError

# Each module has a function ``status() -> EngineStatus`` that imports nothing heavy.
ENGINES = {
    "torch": "s2mlp_deploy.engines.torch",
    "onnxruntime": "s2mlp_deploy.engines.onnxruntime",
    "tensorrt-rtx": "s2mlp_deploy.engines.tensorrt_rtx",
}
BUILDERS = ("tensorrt-rtx",)
"""The engines that ``build`` makes files for."""


def statuses() -> tuple[EngineStatus, ...]:
    """What can be used here, in the registry's order."""
    result = []
    for module in ENGINES.values():
        status: EngineStatus = importlib.import_module(module).status()
        result.append(status)
    return tuple(result)


def check_builder(name: str) -> None:
    """Refuses an engine that builds no files.

    Raises:
        TargetError: Lists those that do.
    """
    if name not in BUILDERS:
        raise TargetError(f"there is no engine builder {name!r}", fix=f"choose one of {', '.join(BUILDERS)}")
