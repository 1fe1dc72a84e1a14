"""How torch's exporters are run here: without their notes about themselves, and with whole stacks."""

from __future__ import annotations

import logging
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from torch.fx.proxy import TracerBase

from s2mlp_deploy.shift.frames import in_forward


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Keeps torch's notes about itself (torchvision is absent, names that will change) from the user's terminal."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch._export", "torch.export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def whole_stacks() -> Iterator[None]:
    """Has torch note the lines of helper functions too.

    By itself it keeps only frames called ``forward``, so that a shift written in a method or a function would be told
    at the line that calls it. The filter is the place that torch 2.13 names for such changes, though not a public one.
    """
    original = TracerBase._filter_traceback_frames

    def kept(_: TracerBase, frames: traceback.StackSummary) -> traceback.StackSummary:
        return traceback.StackSummary.from_list(in_forward(frames))

    TracerBase._filter_traceback_frames = kept  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        TracerBase._filter_traceback_frames = original  # type: ignore[method-assign]
