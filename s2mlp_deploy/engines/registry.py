"""The engines by name. Nothing is imported until it is used; a new engine is one file and one line.

The table holds names of functions, not modules, so that a service that only runs ONNX Runtime never loads torch.
"""

from __future__ import annotations

import importlib

from s2mlp_deploy.engines.base import EngineStatus

# Each entry is ``module:function``; the function returns an EngineStatus and imports nothing heavy.
ENGINES = {
    "torch": "s2mlp_deploy.engines.torch:status",
    "onnxruntime": "s2mlp_deploy.engines.onnxruntime:status",
    "tensorrt": "s2mlp_deploy.engines.tensorrt.library:tensorrt_status",
    "tensorrt-rtx": "s2mlp_deploy.engines.tensorrt.library:rtx_status",
}


def statuses() -> tuple[EngineStatus, ...]:
    """What can be used here, in the registry's order."""
    result = []
    for entry in ENGINES.values():
        module, _, function = entry.partition(":")
        status: EngineStatus = getattr(importlib.import_module(module), function)()
        result.append(status)
    return tuple(result)
