"""An engine that takes subnormal numbers for 0, in a thread of its own.

A processor flushes by a flag of the thread, and runtimes leave it set in whoever calls them: measured with ONNX Runtime
1.32 and OpenVINO 2026.4, NumPy of the calling thread computed 1e-39 / 2 as 0 from then on. ONNX Runtime sets it when a
process opens its first file, and never again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s2mlp_deploy.engines.base import Arrays, FileEngine
from s2mlp_deploy.errors import TargetError

_SUBNORMAL = np.full(16, 1e-39, np.float32)


class InOwnThread:
    """Runs an engine in one thread that nothing else runs in; calls of several threads wait for each other.

    Args:
        open_engine: Opens it, in that thread too.

    Raises:
        TargetError: The thread does not flush after that.
        S2MLPDeployError: What opening it raises.
    """

    def __init__(self, open_engine: Callable[[], FileEngine]) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="flushing")
        self._engine = self._pool.submit(open_engine).result()
        self.name, self.inputs, self.outputs = self._engine.name, self._engine.inputs, self._engine.outputs
        self.limits, self.metadata = self._engine.limits, self._engine.metadata
        self._pool.submit(check_flushing, self.name).result()

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        """See :class:`~s2mlp_deploy.engines.base.Engine`."""
        return self._pool.submit(self._engine.run, feeds).result()


def check_flushing(name: str) -> None:
    """Refuses an engine that was opened in this thread and left it as it was.

    Args:
        name: Of the engine.

    Raises:
        TargetError: This thread does not take subnormal numbers for 0.
    """
    if not flushes_here():
        raise TargetError(
            f"{name} does not take subnormal numbers for 0: ONNX Runtime decides that once for a process, "
            "with the first file that it opens, and some processors cannot",
            fix="open this file before any other, or make the weights 0: export --flush-denormals",
        )


def flushes_here() -> bool:
    """Whether this thread takes subnormal numbers for 0."""
    # Read by their bits: what flushes takes them for 0 in comparisons too.
    return not (_SUBNORMAL * np.float32(0.5)).view(np.uint32).any()
