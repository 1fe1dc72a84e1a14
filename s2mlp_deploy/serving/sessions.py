"""What runs a planned file: one open engine, or several, for any number of threads."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from s2mlp_deploy.artifact import Manifest, check_onnx, verify_graph
from s2mlp_deploy.engines.base import Arrays, FileEngine
from s2mlp_deploy.engines.registry import ENGINES, kind_of, open_built_file, open_to_serve
from s2mlp_deploy.errors import InputError, TargetError
from s2mlp_deploy.serving.plan import RunPlan

LOG = logging.getLogger(__name__)


def open_planned(plan: RunPlan, manifest: Manifest, *, optional_flush: bool = False) -> FileEngine:
    """Opens what was planned, after comparing the hashes of its files with the manifest, or with the engine's sidecar.

    Args:
        plan: What to open.
        manifest: Of its artifact.
        optional_flush: Whether taking subnormal numbers for 0, which a process can do for its first file alone, is
            given up where that fails.

    Raises:
        ArtifactError: A file is missing or was changed.
        S2MLPDeployError: The engine is not here, or cannot run the file; says why.
    """
    settings = plan.settings
    if plan.is_built:
        return open_built_file(plan.path, plan.engine, threads=settings.threads)
    path = verify_graph(plan.directory, manifest, plan.file)
    check_onnx(path)
    # What other engines do not have.
    own = kind_of(plan.engine) == "onnxruntime"
    options: dict[str, Any] = {"spin": settings.spin, "optimize": settings.optimize} if own else {}
    try:
        return open_to_serve(
            path, plan.engine, threads=settings.threads, flush_denormals=settings.flush_denormals, **options
        )
    except TargetError as error:
        if not (settings.flush_denormals and optional_flush):
            raise
        LOG.warning("%s: subnormal numbers are computed with, and `tune` measured without them", error.problem)
        plain = replace(plan, settings=replace(settings, flush_denormals=False))
        return open_planned(plain, manifest)


class Sessions:
    """Open engines of one file. Runs go to the one with the fewest; threads may call it as they like.

    An engine that several threads may run at once does so; others run one call at a time.

    Args:
        engines: At least one, all of the same file.
        engine: Their name on the command line.
    """

    def __init__(self, engines: list[FileEngine], engine: str) -> None:
        self._engines = engines
        self._exclusive = ENGINES[kind_of(engine)].one_at_a_time
        self._running = [0] * len(engines)
        self._changed = threading.Condition()
        self._closed = False
        first = engines[0]
        self.name, self.inputs, self.outputs, self.limits = first.name, first.inputs, first.outputs, first.limits

    def __len__(self) -> int:
        return len(self._running)

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        """See :class:`~s2mlp_deploy.engines.base.Engine`.

        Raises:
            InputError: It was closed, or the engine refuses the inputs.
        """
        with self._changed:
            while True:
                if self._closed:
                    raise InputError(
                        "the predictor was closed", fix="open another one, and close it after its last run"
                    )
                index = min(range(len(self._running)), key=self._running.__getitem__)
                if not (self._exclusive and self._running[index]):
                    break
                self._changed.wait()
            self._running[index] += 1
            engine = self._engines[index]
        try:
            return engine.run(feeds)
        finally:
            with self._changed:
                self._running[index] -= 1
                self._changed.notify_all()

    def close(self) -> None:
        """Ends what runs, refuses what comes, and drops the engines; a second time does nothing."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            while any(self._running):
                self._changed.wait()
            self._engines.clear()
