"""How torch's exporters are run here: without their notes about themselves, and with whole stacks."""

from __future__ import annotations

import logging
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from torch.export import _trace
from torch.fx.proxy import TracerBase

from s2mlp_deploy.capture.frames import in_forward

_LOGGERS = ("torch.onnx", "torch._export", "torch.export", "torch.fx.experimental.symbolic_shapes")


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Keeps torch's notes about itself (torchvision is absent, names that will change) from the user's terminal.

    So does it with the graphs that torch prints when a trace fails: the error that is raised names the user's line.
    """
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    names = vars(_trace)
    before = names.get("print", print)
    names["print"] = lambda *_, **__: None  # In that module only, in place of the builtin.
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        names["print"] = before
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
